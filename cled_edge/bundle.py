"""A bundle on disk: a folder with `manifest.json` and the graphs it names, verified before any of it is parsed."""

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from cled_edge.errors import BundleCorruptError, BundleMissingError, BundleVersionError
from cled_edge.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest

SHIPPED = "nano"


@dataclass(frozen=True)
class Bundle:
    """A folder whose every file has the size and SHA-256 that its manifest states."""

    path: Path
    manifest: Manifest
    _contents: dict[str, bytes]

    @classmethod
    def open(cls, path: Path | str | None = None) -> "Bundle":
        """Read and verify the bundle in `path`, or the one inside this package if None.

        Raises BundleMissingError, BundleCorruptError or BundleVersionError, each naming the file.
        """
        folder = shipped_bundle() if path is None else Path(path)
        manifest = _read_manifest(folder)
        contents = {name: _read_verified(folder, name, manifest) for name in manifest.files}
        for graph in manifest.graphs.values():
            if graph.file not in contents:
                raise BundleCorruptError(
                    f"{folder / MANIFEST_NAME}: graph file {graph.file!r} has no hash; export it again"
                )
        return cls(folder, manifest, contents)

    def graph(self, name: str) -> bytes:
        """Return the verified bytes of a graph, by its name in the manifest."""
        return self._contents[self.manifest.graphs[name].file]

    def content(self, file: str) -> bytes | None:
        """Return the verified bytes of a file, or None if the bundle has none of that name."""
        return self._contents.get(file)


def shipped_bundle() -> Path:
    """Return the folder of the bundle inside this package."""
    return Path(str(files("cled_edge") / "bundles" / SHIPPED))


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise BundleMissingError(f"{path} does not exist; give the folder that python -m export.to_onnx wrote")
    try:
        values = json.loads(_read_bytes(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleCorruptError(f"{path} is not JSON ({error}); copy or export the bundle again") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleVersionError(
            f"{path} has schema version {version!r}, needed {SCHEMA_VERSION}; upgrade cled-edge or export again"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleVersionError(f"{path}: {where}: {first['msg']}; export the bundle again") from error


def _read_verified(folder: Path, name: str, manifest: Manifest) -> bytes:
    path = folder / name
    expected = manifest.files[name]
    if Path(name).name != name:
        raise BundleCorruptError(f"{folder / MANIFEST_NAME} names {name!r}; files must lie in the bundle's own folder")
    if not path.is_file():
        raise BundleMissingError(
            f"{path} does not exist, though the manifest names it; copy or export the bundle again"
        )
    content = _read_bytes(path)
    if len(content) != expected.bytes:
        raise BundleCorruptError(
            f"{path} has {len(content)} bytes, its manifest says {expected.bytes}; copy or export the bundle again"
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected.sha256:
        raise BundleCorruptError(
            f"{path} has SHA-256 {digest[:12]}..., its manifest says {expected.sha256[:12]}...; copy or export it again"
        )
    return content


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleMissingError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
