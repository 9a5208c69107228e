"""What a file or bundle says of itself, found out without executing it, importing torch or loading an engine."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cled_edge.bundle.checkpoint_header import inspect_safetensors
from cled_edge.bundle.manifest import MANIFEST_NAME, Manifest
from cled_edge.bundle.onnx_header import inspect_onnx
from cled_edge.bundle.plan_header import inspect_plan
from cled_edge.bundle.reader import check_graph, manifest_from_bytes, read_manifest_bytes, read_verified
from cled_edge.bundle.signature import SIGNATURE_NAME, check_signature, is_signed, read_signature
from cled_edge.errors import CledEdgeError, OptionError, SignatureError, SourceMissingError
from cled_edge.files import Reader
from cled_edge.json_text import shown

_KNOWN = "a bundle's folder, .onnx, .engine, .plan or .safetensors"
_BY_SUFFIX: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".onnx": inspect_onnx,
    ".engine": inspect_plan,
    ".plan": inspect_plan,
    ".safetensors": inspect_safetensors,
}
_MOST_UNNAMED = 20


@dataclass(frozen=True)
class Finding:
    """values: what was found, as JSON has it; `kind` says of what. failure: why a bundle would not open, if so."""

    values: dict[str, Any]
    failure: CledEdgeError | None = None


def inspect_path(path: Path, public_key: Path | None = None) -> Finding:
    """Say what `path` is; the finding of a bundle holds a verdict for each file, and the first error among them.

    public_key: a PEM file; raises SignatureError, before anything is parsed, unless its owner signed the bundle.
    Raises SourceMissingError or OptionError for what is none of the known kinds, and CheckpointError,
    BundleCorruptError, BundleMissingError or BundleVersionError for one that cannot be read.
    """
    if path.is_dir():
        return _inspect_bundle(path, public_key)
    inspect = _BY_SUFFIX.get(path.suffix.lower())
    if inspect is None:
        raise OptionError(f"{path} is {_seen(path)}, needed {_KNOWN}; give one of these")
    if public_key is not None:
        raise OptionError(f"{path} is a file, and only bundles are signed; give its bundle's folder")
    return Finding(inspect(path))


def _seen(path: Path) -> str:
    reader = Reader(SourceMissingError, OptionError, f"give {_KNOWN}", follow_links=True)
    with reader.opened(path) as (file, size):
        head = file.read(8)
    return f"a file of {size} bytes that begins with {head.hex(' ')}" if head else "an empty file"


def _inspect_bundle(folder: Path, public_key: Path | None) -> Finding:
    content = read_manifest_bytes(folder)
    if public_key is not None:
        check_signature(folder, content, public_key)
    manifest = manifest_from_bytes(content, folder)
    signature, failure = _signature(folder, content, trusted=public_key is not None)
    files = {}
    graphs = {graph.file for graph in manifest.graphs.values()}
    for name, spec in manifest.files.items():
        verdict = "ok"
        try:
            content = read_verified(folder, name, manifest)
            if name in graphs:
                check_graph(folder / name, content)
        except CledEdgeError as error:
            verdict, failure = str(error), failure or error
        files[name] = {"bytes": spec.bytes, "sha256": spec.sha256, "verdict": verdict}
    whole = manifest.model_dump(mode="json")
    values = {
        "kind": "bundle",
        "path": str(folder),
        "name": manifest.name,
        "created_by": manifest.created_by,
        "schema_version": manifest.schema_version,
        "signature": signature,
        "size_multiple": manifest.size_multiple,
        "schedule": {key: value for key, value in whole["schedule"].items() if key != "tables"},
        "kinds": whole["kinds"],
        "graphs": _graphs(whole["graphs"]),
        "files": files,
        "unnamed": _unnamed(folder, manifest),
        "verification": whole["verification"],
        "training": whole["training"],
    }
    return Finding(values, failure)


def _signature(folder: Path, content: bytes, *, trusted: bool) -> tuple[dict[str, Any], CledEdgeError | None]:
    """Return the state of a signature (unsigned, valid, invalid, unchecked), and the error of an invalid one."""
    values: dict[str, Any] = {"state": "unsigned", "fingerprint": None, "trusted": trusted, "reason": None}
    if not is_signed(folder):
        return values, None
    try:
        signature = read_signature(folder)
    except SignatureError as error:
        return values | {"state": "invalid", "reason": str(error)}, error
    values["fingerprint"] = signature.fingerprint
    try:
        matches = signature.matches(content, signature.key)
    except SignatureError as error:  # the package that verifies is not installed
        return values | {"state": "unchecked", "reason": str(error)}, None
    if matches:
        return values | {"state": "valid"}, None
    wrong = SignatureError(f"{folder / SIGNATURE_NAME} does not sign this manifest; get the bundle again")
    return values | {"state": "invalid", "reason": str(wrong)}, wrong


def _graphs(graphs: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the graphs of a manifest as a list, with their names."""
    return [{"name": name, **graph} for name, graph in graphs.items()]


def _unnamed(folder: Path, manifest: Manifest) -> list[str]:
    """Return names in the folder that the manifest does not name, and that are therefore never opened."""
    named = {*manifest.files, MANIFEST_NAME, SIGNATURE_NAME}
    try:
        return [shown(name) for name in sorted(os.listdir(folder)) if name not in named][:_MOST_UNNAMED]
    except OSError:  # a folder that may be entered but not listed
        return []
