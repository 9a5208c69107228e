"""A trained model on disk: one safetensors file that holds the weights, the configuration and how it was trained."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cled_edge.errors import CheckpointError, OutputError
from cled_edge.files import draft
from cled_edge.network.presets import ModelConfig
from cled_edge.network.sampler import CledFusion

_FORMAT = "cled-edge-checkpoint-1"
_MAKE_ROOM = "make room, then run the same again"


def save_checkpoint(model: CledFusion, training: dict[str, Any], path: Path) -> None:
    """Write the model and a JSON-able record of its training; the file appears whole or not at all.

    OutputError if the disk takes no more.
    """
    metadata = {
        "format": _FORMAT,
        "config": json.dumps(model.config.as_dict()),
        "training": json.dumps(training),
    }
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    try:
        with draft(path, todo=_MAKE_ROOM) as made:
            save_file(weights, made, metadata)
    except SafetensorError as error:
        raise OutputError(f"{path} cannot be written: {error}; {_MAKE_ROOM}") from error


def load_checkpoint(path: Path) -> tuple[CledFusion, dict[str, Any]]:
    """Return the model in evaluation mode and its training record; CheckpointError says what is wrong."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give the file of a checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a safetensors file ({error}); pickled checkpoints are not read"
        ) from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} says format {metadata.get('format')!r}; needed {_FORMAT!r}; train or convert it again"
        )
    try:
        config = ModelConfig.from_dict(json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} describes a model that this release does not know ({error}); use the release that wrote it"
        ) from error
    model = CledFusion(config)
    own = model.state_dict()
    odd = next((n for n in sorted(own.keys() | weights.keys()) if _shape(own, n) != _shape(weights, n)), None)
    if odd is not None:
        raise CheckpointError(
            f"{path} does not fit its own configuration, first at {odd!r}; it was written by another release"
        )
    model.load_state_dict(weights)
    return model.eval(), json.loads(metadata["training"])


def _shape(weights: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None
