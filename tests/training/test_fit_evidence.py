"""Fitting the evidence: what counts as there, what is left open, and coefficients that the robot reads back."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator

from cled_edge.evidence.judging import area_under_curve
from cled_edge.evidence.likelihood import KINDS, MODEL_SIGNS, Model, write_models
from cled_edge.image import write_png
from training import fit_evidence
from training.fit_evidence import Samples, enlargement, fitted, labels_of, loss_of, samples_of, tempered


def told(drawn: tuple[str, ...], modality: str, **more: bool) -> dict[str, float]:
    kinds = KINDS[modality]
    return dict(zip(kinds, labels_of(drawn, kinds, **{"is_dark": False, **more}), strict=True))


def test_three_simulated_kinds_are_one_of_evidence() -> None:
    for drawn in ("low_contrast", "another_agc", "hot_target"):
        assert told((drawn,), "infrared")["low_contrast"] == 1
    assert sum(told((), "infrared").values()) == 0


def test_what_a_simulator_adds_by_the_way_is_left_open() -> None:
    assert math.isnan(told(("stripes",), "infrared")["noise"])
    assert told(("stripes", "noise"), "infrared")["noise"] == 1
    assert math.isnan(told((), "visible", is_dark=True)["low_light"])
    assert told(("low_light",), "visible", is_dark=True)["low_light"] == 1
    enlarged = told(("dead_pixels", "stripes"), "infrared", is_enlarged=True)
    assert math.isnan(enlarged["dead_pixels"])
    assert math.isnan(enlarged["blur"])
    assert enlarged["stripes"] == 1


def test_a_quarter_is_enlarged() -> None:
    factors = [enlargement(Generator().manual_seed(seed)) for seed in range(400)]
    assert 0.15 < sum(factor > 1 for factor in factors) / 400 < 0.35
    assert max(factors) <= 2.5


@pytest.fixture
def toy(rng) -> Samples:
    """Two kinds: one that the first number tells, one that the square of the second tells; a tenth is left open."""
    numbers = rng.normal(0, 1, (600, len(MODEL_SIGNS)))
    noise = rng.normal(0, 0.4, (600, 2))
    labels = np.stack([numbers[:, 0] + noise[:, 0] > 0.8, numbers[:, 1] ** 2 + noise[:, 1] > 1.5], axis=1).astype(float)
    labels[::10, 0] = np.nan
    return Samples(numbers, labels)


def test_a_fit_finds_what_tells_a_kind_and_a_temperature_does_not_harm(toy: Samples) -> None:
    model = fitted(toy, ("first", "second"), 1e-3)
    for index in range(2):
        known = ~np.isnan(toy.labels[:, index])
        scores = model.probabilities(toy.numbers)[known, index]
        assert area_under_curve(scores, toy.labels[known, index] > 0) > 0.95
    assert loss_of(tempered(model, toy), toy) <= loss_of(model, toy) + 1e-9


def test_what_is_written_is_what_the_robot_reads(toy: Samples, tmp_path: Path, monkeypatch) -> None:
    models = {
        m: fitted(Samples(toy.numbers, np.tile(toy.labels[:, 1:], (1, len(k)))), k, 1e-3) for m, k in KINDS.items()
    }
    write_models(tmp_path / "likelihood.json", models)
    kept = json.loads((tmp_path / "likelihood.json").read_text())
    for modality, model in models.items():
        entry = kept[modality]["kinds"]
        again = Model(
            tuple(entry),
            np.array(kept[modality]["mean"]),
            np.array(kept[modality]["scale"]),
            np.array([entry[kind]["weights"] for kind in entry]),
            np.array([entry[kind]["bias"] for kind in entry]),
        )
        assert np.allclose(again.log_odds(toy.numbers), model.log_odds(toy.numbers), atol=0.05)


def test_samples_are_of_one_part_and_repeat(tmp_path: Path, rng, monkeypatch) -> None:
    monkeypatch.setattr(fit_evidence, "SETS", ("pairs/small",))
    for name, channels in (("infrared", ()), ("visible", (3,))):
        (tmp_path / "pairs/small" / name).mkdir(parents=True)
        for index in range(12):
            image = rng.integers(0, 256, (64, 72, *channels), np.uint8)
            write_png(tmp_path / "pairs/small" / name / f"{index:05d}.png", image)
    torch.set_num_threads(1)
    samples = samples_of(tmp_path, "infrared", "train", 2)
    assert 0 < len(samples.numbers) < 24
    assert samples.numbers.shape[1] == len(MODEL_SIGNS)
    assert np.isfinite(samples.numbers).all()
    again = samples_of(tmp_path, "infrared", "train", 2)
    assert np.array_equal(samples.labels, again.labels, equal_nan=True)
    assert np.array_equal(samples.numbers, again.numbers)
