"""The benchmark of evidence: what it counts as there, as absent, and as neither."""

import numpy as np
import pytest

from benchmarks.evidence import (
    MIXTURES,
    SIMULATORS,
    RealSet,
    Sample,
    confusion_rows,
    intervention_rows,
    kind_row,
    mean_row,
    real_row,
    simulated,
)
from benchmarks.held_out import Scene
from cled_edge.evidence.likelihood import KINDS


@pytest.fixture
def scene() -> Scene:
    from cled_edge.scene.night_street import night_street

    frame = next(iter(night_street(1, (96, 128))))
    return Scene("street", "0", frame.infrared, np.clip(frame.visible_clean * 2.0 + 20, 0, 255).astype(np.uint8))


def sample(there: set[str], told: dict[str, float], left_open: frozenset[str] = frozenset()) -> Sample:
    return Sample(frozenset(there), left_open, told)


def test_every_kind_of_the_evidence_is_simulated() -> None:
    aliases = {"strong_stripes": "stripes"}
    for modality, kinds in KINDS.items():
        assert {aliases.get(name, name) for name in SIMULATORS[modality]} == set(kinds)
        assert all(name in SIMULATORS[modality] for case in MIXTURES[modality] for name in case)


@pytest.mark.parametrize("modality", ["infrared", "visible"])
def test_simulated_images_keep_their_shape_and_repeat(scene: Scene, modality) -> None:
    image = scene.infrared if modality == "infrared" else scene.visible
    for simulate in SIMULATORS[modality].values():
        made, again = (simulate(image, np.random.default_rng(1)) for _ in range(2))
        assert made.shape == image.shape
        assert made.dtype == np.uint8
        assert np.array_equal(made, again)
        assert not np.array_equal(made, image)


def test_noise_under_stripes_is_neither_there_nor_absent(scene: Scene) -> None:
    found = list(simulated([scene], "infrared"))
    assert len(found) == 1 + len(SIMULATORS["infrared"]) + len(MIXTURES["infrared"])
    striped = [each for each in found if "stripes" in each.there]
    assert len(striped) == 4
    assert [("noise" in each.there) != ("noise" in each.left_open) for each in striped] == [True] * 4
    told = kind_row(found, "infrared", "noise")
    assert told["positives"] + told["negatives"] == len(found) - 4  # rows have noise too


def test_rows_count_what_is_known_and_confusion_what_is_alone() -> None:
    samples = [
        sample({"noise"}, {"noise": 0.9, "blur": 0.1}),
        sample({"blur"}, {"noise": 0.6, "blur": 0.3}),
        sample(set(), {"noise": 0.2, "blur": 0.1}),
        sample({"blur", "rain"}, {"noise": 0.1, "blur": 0.8}),
        sample({"stripes"}, {"noise": 1.0, "blur": 0.0}, frozenset({"noise"})),
    ]
    row = kind_row(samples, "infrared", "noise")
    assert (row["positives"], row["negatives"], row["auc"]) == (1, 3, 1.0)
    confusion = {row["kind"]: row for row in confusion_rows(samples, "infrared")}
    assert confusion["noise"]["noise"] == 1
    assert confusion["blur"]["noise"] == 1
    assert confusion["none"]["none"] == 1
    assert confusion["stripes"]["none"] == 1  # its noise is left open
    assert mean_row("simulated", [row, {**row, "auc": 0.5, "calibration_error": 0.1}])["auc"] == 0.75


def test_an_intervention_says_whether_its_own_evidence_moves_most(scene: Scene) -> None:
    found = {row["put_in"]: row for row in intervention_rows([scene], "infrared")}
    assert set(found) == set(SIMULATORS["infrared"])
    assert found["noise"]["own_evidence_moves"] <= 1
    assert found["rows"]["own_moves_most"] in (0, 1)


def test_a_real_set_is_judged_by_its_own_kind(scene: Scene) -> None:
    rng = np.random.default_rng(0)
    noisy = [np.clip(scene.infrared + rng.normal(0, 25, scene.infrared.shape), 0, 255).astype(np.uint8)] * 2
    row = real_row(RealSet("set", "infrared", "noise", noisy, [scene.infrared]))
    assert (row["positives"], row["negatives"], row["auc"]) == (2, 1, 1.0)
