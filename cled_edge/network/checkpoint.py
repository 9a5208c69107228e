"""A trained model on disk: one safetensors file that holds the weights, the configuration and how it was trained."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cled_edge.bundle.checkpoint_header import inspect_safetensors
from cled_edge.errors import CheckpointError, OutputError
from cled_edge.files import draft
from cled_edge.json_text import shown
from cled_edge.network.presets import ModelConfig
from cled_edge.network.sampler import CledFusion

_WEIGHT_TYPES = {"F16", "BF16", "F32", "F64"}
_LARGEST = 8192  # of a width or count: the largest preset has 512
_MOST_VALUES, _MOST_BLOCKS = 64, 1000
_FORMAT = "cled-edge-checkpoint-1"
CALIBRATION = "kinds_calibration"  # in a record: by modality and kind, the scale and offset of `KindSpec`
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
    """Return the model in evaluation mode and its training record; CheckpointError says what is wrong.

    The header is judged before any weight is read, and no memory is taken for a network that the weights do not fit.
    """
    header = inspect_safetensors(path)
    if header["format"] != _FORMAT:
        raise CheckpointError(
            f"{path} says format {shown(repr(header['format']))}; needed {_FORMAT!r}; train or convert it again"
        )
    config, training = _config(path, header["config"]), header["training"]
    if not isinstance(training, dict):
        raise CheckpointError(f"{path} has no record of its training; train or convert it again")
    odd_types = sorted(set(header["tensors"]) - _WEIGHT_TYPES)
    if odd_types:
        raise CheckpointError(f"{path} has weights of {shown(odd_types)}, needed floating point; convert it again")
    with torch.device("meta"):  # a configuration of a few bytes may describe a network of terabytes
        needed = {name: tuple(tensor.shape) for name, tensor in _network(path, config).state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            odd = next((n for n in sorted(needed.keys() | shapes.keys()) if needed.get(n) != shapes.get(n)), None)
            if odd is not None:
                raise CheckpointError(
                    f"{path} does not fit its own configuration, first at {shown(repr(odd))}; it was written by "
                    "another release"
                )
            weights = {name: file.get_tensor(name) for name in shapes}
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a safetensors file ({shown(error, 200)}); pickled checkpoints are not read"
        ) from error
    wrong = next((name for name, tensor in weights.items() if not tensor.isfinite().all()), None)
    if wrong is not None:
        raise CheckpointError(f"{path} has weights that are not finite, first in {shown(wrong)}; train it again")
    model = _network(path, config)
    model.load_state_dict(weights)
    return model.eval(), training


def _config(path: Path, values: object) -> ModelConfig:
    """Return the configuration that a checkpoint states; CheckpointError if it is none, or beyond any network."""
    try:
        if not isinstance(values, dict):
            raise TypeError("it states no configuration")
        _check_numbers(values)
        return ModelConfig.from_dict(values)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise CheckpointError(
            f"{path} describes a model that this release does not know ({shown(error, 200)}); use the release that "
            "wrote it"
        ) from error


def _check_numbers(values: object) -> None:
    """Raise ValueError for a number or a list in a configuration that no network has: building it takes hours."""
    if isinstance(values, dict | list):
        if len(values) > _MOST_VALUES:
            raise ValueError(f"{len(values)} values in a row, needed {_MOST_VALUES} at most")
        for value in values.values() if isinstance(values, dict) else values:
            _check_numbers(value)
    elif isinstance(values, int | float) and not 0 <= values <= _LARGEST:
        raise ValueError(f"{values} is no width or count, needed 0 to {_LARGEST}")


def _network(path: Path, config: ModelConfig) -> CledFusion:
    """Return the network of a configuration; CheckpointError if there is none such."""
    unet, fusion = config.unet, config.fusion
    blocks = (unet.encoder_blocks, unet.decoder_blocks, fusion.blocks, fusion.decoder_blocks)
    try:
        if sum(map(sum, blocks)) + fusion.refinement_blocks > _MOST_BLOCKS:
            raise ValueError(f"over {_MOST_BLOCKS} blocks")
        return CledFusion(config)
    except Exception as error:  # whatever torch's modules raise for numbers that do not go together
        raise CheckpointError(
            f"{path} describes a network that cannot be built ({shown(error, 200)}); use the release that wrote it"
        ) from error
