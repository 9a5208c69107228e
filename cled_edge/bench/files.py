"""Results on disk: read as JSON objects, written whole or not at all."""

import json
from pathlib import Path
from typing import Any

from cled_edge.errors import OutputError, ResultError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; ResultError if the file is none."""
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}; check its name and permissions") from error
    except ValueError as error:
        raise ResultError(f"{path} is not JSON ({error}); give a file that cled-edge bench --out wrote") from error
    if not isinstance(values, dict):
        raise ResultError(f"{path} is not a JSON object; give a file that cled-edge bench --out wrote")
    return values


def check_writable(path: Path) -> None:
    """Raise OutputError unless a file can be made at `path`: better before a measurement than after it."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    probe = path.with_name(f".{path.name}.probe")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; choose another folder") from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; choose another folder") from error
