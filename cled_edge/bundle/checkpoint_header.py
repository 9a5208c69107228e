"""Checkpoints from outside: the JSON header of a safetensors file, read without its weights and without torch."""

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from cled_edge.errors import CheckpointError
from cled_edge.files import Reader
from cled_edge.json_text import MAX_JSON_BYTES, json_from_bytes

_LENGTH_BYTES = 8
_JSON_ENTRIES = ("config", "training")  # of cled_edge.network.checkpoint
_TODO = "give a .safetensors file that the training wrote"
_CHECKPOINTS = Reader(CheckpointError, CheckpointError, _TODO, follow_links=True)


def inspect_safetensors(path: Path) -> dict[str, Any]:
    """Return the format, configuration and training record of a checkpoint, and counts of its tensors by dtype.

    Only the header is read, 4 MiB at most. CheckpointError if it is missing or malformed.
    """
    with _CHECKPOINTS.opened(path) as (file, size):
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        room = size - _LENGTH_BYTES
        if not 0 < length <= min(room, MAX_JSON_BYTES):
            raise CheckpointError(
                f"{path} is not a safetensors file: its header states {length} bytes, "
                f"needed 1 to {max(0, min(room, MAX_JSON_BYTES))}; {_TODO}"
            )
        content = file.read(length)
    try:
        return _described(path, size, json_from_bytes(content), room - length)
    except ValueError as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error}); {_TODO}") from error


def _described(path: Path, size: int, header: Any, data_bytes: int) -> dict[str, Any]:
    """Return what the header says; ValueError if it is not as the format has it."""
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text by name")
    tensors: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for tensor in header.values():
        dtype, count = _tensor(tensor, data_bytes)
        tensors[dtype] += 1
        parameters[dtype] += count
    return {
        "kind": "safetensors checkpoint",
        "path": str(path),
        "bytes": size,
        "format": metadata.get("format"),
        "tensors": {dtype: {"tensors": tensors[dtype], "parameters": parameters[dtype]} for dtype in sorted(tensors)},
        **{name: json_from_bytes(metadata[name].encode()) if name in metadata else None for name in _JSON_ENTRIES},
        "metadata": {key: value for key, value in metadata.items() if key not in ("format", *_JSON_ENTRIES)},
    }


def _tensor(tensor: Any, data_bytes: int) -> tuple[str, int]:
    """Return the dtype and number of elements of a tensor's entry."""
    if not isinstance(tensor, dict) or tensor.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("a tensor has not dtype, shape and data_offsets")
    dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    if not isinstance(dtype, str) or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError("a tensor's dtype, shape or data_offsets is malformed")
    if not offsets[0] <= offsets[1] <= data_bytes:
        raise ValueError(f"a tensor ends at byte {offsets[1]} of {data_bytes}: the file is truncated")
    return dtype, prod(shape)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
