"""Checkpoints: what cannot be written, and what is refused."""

import json
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from cled_edge.errors import CheckpointError, OutputError  # noqa: E402
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from cled_edge.network.presets import PRESETS  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402


def test_a_checkpoint_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    model, path = CledFusion(PRESETS["one-pass"]), tmp_path / "none" / "model.safetensors"
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
    model = CledFusion(PRESETS["one-pass"])
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

    model, path = CledFusion(PRESETS["one-pass"]), tmp_path / "newer.safetensors"
    for changed, words in (({"depth": 3}, "depth"), ({"kinds": ["rain", "rain"]}, "kinds has 'rain' twice")):
        config = json.dumps({**model.config.as_dict(), **changed})
        save_file(model.state_dict(), path, {"format": "cled-edge-checkpoint-1", "config": config, "training": "{}"})
        with pytest.raises(CheckpointError, match=rf"a model that this release does not know .*{words}.*; use the rel"):
            load_checkpoint(path)


def spoiled(path: Path, config: object, **weights: torch.Tensor) -> Path:
    """Write a checkpoint of nano with another configuration and some other weights."""
    from safetensors.torch import save_file

    model = CledFusion(PRESETS["one-pass"])
    metadata = {"format": "cled-edge-checkpoint-1", "config": json.dumps(config), "training": "{}"}
    save_file({**model.state_dict(), **weights}, path, metadata)
    return path


def test_a_configuration_that_no_network_has_is_refused_without_building_it(tmp_path: Path) -> None:
    config = PRESETS["one-pass"].as_dict()
    unet, fusion = config["unet"], config["fusion"]
    for changed, words in (
        ({}, "does not know"),
        ([], "no configuration"),
        (config | {"unet": unet | {"widths": [10**9] * 4}}, "no width or count"),
        (config | {"unet": unet | {"widths": [48] * 100}}, "100 values in a row"),
        (config | {"unet": unet | {"encoder_blocks": [8000] * 4}}, "over 1000 blocks"),
        (config | {"unet": unet | {"widths": [8192] * 4}}, "does not fit its own configuration"),
        (config | {"unet": unet | {"widths": []}}, "cannot be built|does not know"),
        (config | {"unet": unet | {"widths": "48"}}, "cannot be built|does not know"),
        (config | {"fusion": fusion | {"heads": [0, 0, 0, 0]}}, "cannot be built|does not know"),
    ):
        with pytest.raises(CheckpointError, match=words) as caught:
            load_checkpoint(spoiled(tmp_path / "x.safetensors", changed))
        assert "\n" not in str(caught.value)


def test_weights_that_no_training_leaves_are_refused(tmp_path: Path) -> None:
    config, own = PRESETS["one-pass"].as_dict(), CledFusion(PRESETS["one-pass"]).state_dict()
    name = next(name for name, tensor in own.items() if tensor.is_floating_point())
    for tensor, words in (
        (torch.full_like(own[name], torch.nan), "not finite"),
        (torch.zeros(own[name].shape, dtype=torch.int32), "needed floating point"),
    ):
        with pytest.raises(CheckpointError, match=words):
            load_checkpoint(spoiled(tmp_path / "x.safetensors", config, **{name: tensor}))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes of POSIX")
def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="is a pipe"):
        load_checkpoint(tmp_path / "x.safetensors")
