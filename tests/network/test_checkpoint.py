"""Checkpoints: what cannot be written, and what is refused."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from cled_edge.errors import CheckpointError, OutputError  # noqa: E402
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from cled_edge.network.presets import PRESETS  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402


def test_a_checkpoint_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    model, path = CledFusion(PRESETS["nano"]), tmp_path / "none" / "model.safetensors"
    with pytest.raises(OutputError, match=r"none/model\.safetensors cannot be written: .*; make room, then run"):
        save_checkpoint(model, {}, path)


def test_checkpoints_that_cannot_be_trusted_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "none.safetensors")
    pickled = tmp_path / "pickled.safetensors"
    torch.save({"weights": torch.ones(2)}, pickled)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(pickled)
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="says format None"):
        load_checkpoint(tmp_path / "foreign.safetensors")
    model = CledFusion(PRESETS["nano"])
    weights = {**model.state_dict(), "sampler.step.unet.offset.weight": torch.ones(1)}
    metadata = {"format": "cled-edge-checkpoint-1", "config": json.dumps(model.config.as_dict()), "training": "{}"}
    save_file(weights, tmp_path / "older.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"does not fit its own configuration, first at '.*offset\.weight'"):
        load_checkpoint(tmp_path / "older.safetensors")
    save_checkpoint(model, {"commit": "abc"}, tmp_path / "own.safetensors")
    loaded, training = load_checkpoint(tmp_path / "own.safetensors")
    assert training == {"commit": "abc"}
    assert loaded.config == model.config


def test_a_configuration_of_another_release_is_refused_in_one_line(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model, path = CledFusion(PRESETS["nano"]), tmp_path / "newer.safetensors"
    for changed, words in (({"depth": 3}, "depth"), ({"kinds": ["rain", "rain"]}, "kinds has 'rain' twice")):
        config = json.dumps({**model.config.as_dict(), **changed})
        save_file(model.state_dict(), path, {"format": "cled-edge-checkpoint-1", "config": config, "training": "{}"})
        with pytest.raises(CheckpointError, match=rf"a model that this release does not know .*{words}.*; use the rel"):
            load_checkpoint(path)
