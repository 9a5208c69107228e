"""Shares of two checkpoints."""

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from cled_edge.errors import CheckpointError  # noqa: E402
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from cled_edge.network.presets import PRESETS, DoubtConfig  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from training import mix  # noqa: E402


def test_a_mixture_has_its_share_of_each_network_and_both_records(tmp_path: Path) -> None:
    models = []
    for name, earlier in (("first", [{"run": 1}]), ("second", [])):
        torch.manual_seed(len(models))
        models.append(CledFusion(PRESETS["one-pass"]))
        save_checkpoint(models[-1], {"run": len(earlier) + 1, "earlier": earlier}, tmp_path / name)
    out = tmp_path / "new/mixed"
    mix.main(tmp_path / "first", tmp_path / "second", out, unet=0.75, fusion=0.0)
    mixed, record = load_checkpoint(out)
    first, second = (model.unet.state_dict() for model in models)
    for name, weights in mixed.unet.state_dict().items():
        torch.testing.assert_close(weights, 0.75 * first[name] + 0.25 * second[name])
    for name, weights in mixed.fusion.state_dict().items():
        assert torch.equal(weights, models[1].fusion.state_dict()[name])
    shares = {"unet": 0.75, "fusion": 0.0}
    assert record == {"run": 2, "mixed": [shares], "earlier": [{"run": 1}]}
    mix.main(out, tmp_path / "second", tmp_path / "again", unet=0.75, fusion=0.0)
    assert load_checkpoint(tmp_path / "again")[1] == {**record, "mixed": [shares, shares]}
    save_checkpoint(CledFusion(PRESETS["edge"]), {}, tmp_path / "edge")
    with pytest.raises(CheckpointError, match=r"first is a 'one-pass' and .*edge a 'edge'.*; mix two of the same"):
        mix.main(tmp_path / "first", tmp_path / "edge", tmp_path / "out")


def test_the_doubt_of_the_second_stays_where_a_run_has_none(tmp_path: Path) -> None:
    run = CledFusion(PRESETS["nano"])
    begun = CledFusion(replace(PRESETS["nano"], doubt=DoubtConfig()))
    save_checkpoint(run, {"run": 2}, tmp_path / "run")
    save_checkpoint(begun, {"run": 1}, tmp_path / "begun")
    mix.main(tmp_path / "run", tmp_path / "begun", tmp_path / "out", unet=1.0, fusion=0.0)
    mixed, _ = load_checkpoint(tmp_path / "out")
    for name, weights in mixed.doubt.state_dict().items():
        assert torch.equal(weights, begun.doubt.state_dict()[name])
    for name, weights in mixed.unet.state_dict().items():
        assert torch.equal(weights, run.unet.state_dict()[name])
