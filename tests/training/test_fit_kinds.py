"""Fitting the head of kinds: it tells them better, is calibrated, and changes nothing that is restored."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from cled_edge.errors import CheckpointError
from cled_edge.image import write_png
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint
from cled_edge.network.presets import PRESETS
from cled_edge.network.sampler import CledFusion
from export.to_onnx import told_kinds
from tests.fakes.networks import TINY, pictures, randomised
from training import fit_evidence, fit_kinds
from training.fit_kinds import Seen, calibrated, fitted, loss_of, unet_of


@pytest.fixture
def toy() -> Seen:
    """Two kinds that two embeddings tell, of which the scales differ; every tenth label is left open."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=generator) * torch.tensor([1, 50, 1, 1, 0.1, 1.0])
    noise = torch.randn(500, 2, generator=generator)
    labels = torch.stack([x[:, 0] + 0.5 * noise[:, 0] > 0.7, x[:, 1] + 20 * noise[:, 1] > 30], 1).float()
    labels[::10, 0] = math.nan
    return Seen(x, labels)


def test_a_head_is_fitted_whatever_the_scale_of_an_embedding(toy: Seen) -> None:
    head = fitted(toy, 1e-4)
    odds = toy.embeddings @ head[0].T + head[1]
    for place in range(2):
        known = ~torch.isnan(toy.labels[:, place])
        right = (odds[known, place] > 0) == (toy.labels[known, place] > 0)
        assert right.float().mean() > 0.88
    assert loss_of(head, toy) < 0.3
    assert loss_of((torch.zeros_like(head[0]), torch.zeros_like(head[1])), toy) == pytest.approx(math.log(2), abs=1e-4)


def test_calibration_undoes_a_scale_and_an_offset_and_leaves_alone_what_is_too_rare(rng) -> None:
    true = rng.normal(0, 2, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-true))).astype(float)
    scale, offset = calibrated(3 * true + 1, labels)
    assert scale == pytest.approx(1 / 3, abs=0.03)
    assert offset == pytest.approx(-1 / 3, abs=0.1)
    assert calibrated(true[:50], np.r_[np.ones(3), np.zeros(47)]) == (1.0, 0.0)


def test_the_command_changes_the_head_alone_and_keeps_the_calibration(tmp_path: Path, rng, monkeypatch) -> None:
    monkeypatch.setattr(fit_evidence, "SETS", ("pairs/small",))
    for name, channels in (("infrared", ()), ("visible", (3,))):
        (tmp_path / "pairs/small" / name).mkdir(parents=True)
        for index in range(24):
            image = rng.integers(0, 256, (48, 64, *channels), np.uint8)
            write_png(tmp_path / f"pairs/small/{name}/{index:05d}.png", image)
    model = randomised(CledFusion(TINY))
    save_checkpoint(model, {"commit": "abc"}, tmp_path / "model.safetensors")
    words = [str(tmp_path / "model.safetensors"), "--data", str(tmp_path), "--out", str(tmp_path / "new.safetensors")]
    app = typer.Typer()
    app.command()(fit_kinds.main)
    done = CliRunner().invoke(app, [*words, "--draws", "2"])
    assert done.exit_code == 0, done.output
    assert "infrared stripes: AUC " in done.output
    made, record = load_checkpoint(tmp_path / "new.safetensors")
    old, new = model.state_dict(), made.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert {name.rpartition("unet.")[2] for name in changed} == {"kinds.weight", "kinds.bias"}
    assert record["commit"] == "abc"
    told = {kind.name: kind for kind in told_kinds(made.config, record)}
    assert told["haze"].infrared is None
    assert told["haze"].visible is not None
    assert told["stripes"].infrared is not None


def test_the_lineage_is_refused() -> None:
    with torch.device("meta"):
        model = CledFusion(PRESETS["T"])
    with pytest.raises(CheckpointError, match="T is of the lineage, which tells no kinds"):
        unet_of(model)


def test_what_a_context_tells_is_what_a_step_tells() -> None:
    model = randomised(CledFusion(TINY))
    (x_in,) = pictures(1, (32, 32))
    with torch.no_grad():
        seen = model.sampler.kinds(x_in, 1)
        wanted = model.unet.judge(model.sampler.schedule.step_table(1).start_input * x_in, x_in, torch.tensor([1000.0]))
    torch.testing.assert_close(seen, wanted[1])
