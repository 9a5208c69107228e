"""A bundle on disk: a folder with `manifest.json` and the graphs it names, verified before any of it is parsed."""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from cled_edge.bundle.graph_limits import why_refused
from cled_edge.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest
from cled_edge.bundle.signature import SIGNATURE_NAME, check_signature
from cled_edge.errors import BundleCorruptError, BundleMissingError, BundleVersionError
from cled_edge.files import Reader, is_plain_name
from cled_edge.json_text import MAX_JSON_BYTES, first_problem, json_from_bytes, shown

SHIPPED = "nano"
MAX_BUNDLE_BYTES = 900 * 10**6  # of all files: they are held in memory
_AGAIN = "get the bundle again from its source"
_MANIFESTS = Reader(BundleMissingError, BundleCorruptError, f"give the folder of a bundle, with its {MANIFEST_NAME}")
_FILES = Reader(BundleMissingError, BundleCorruptError, f"its manifest names it; {_AGAIN}")


@dataclass(frozen=True)
class Bundle:
    """A folder whose every file has the size and SHA-256 that its manifest states.

    manifest_bytes: `manifest.json` as it was read, which is what a signature signs. is_trusted: it has the signature
    that was required, or who opened it vouches for it; the graphs of others are tried before they are loaded.
    """

    path: Path
    manifest: Manifest
    manifest_bytes: bytes
    _contents: dict[str, bytes]
    is_trusted: bool = False
    _plain: set[str] = field(default_factory=set)  # graphs that were found to hold nothing that is refused

    @classmethod
    def open(
        cls, path: Path | str | None = None, *, public_key: Path | str | None = None, trusted: bool = False
    ) -> "Bundle":
        """Read and verify the bundle in `path`, or the one inside this package if None.

        public_key: a PEM file; the bundle must be signed by its owner, which is verified before anything is parsed.
        trusted: you made it yourself, or know who did: a graph that takes long or much to load is then no reason to
        refuse it.
        Every file is read once, into memory: at most 900 MB in all. Raises SignatureError, BundleMissingError,
        BundleCorruptError or BundleVersionError, each naming the file.
        """
        folder = shipped_bundle() if path is None else Path(path)
        content = read_manifest_bytes(folder)
        if public_key is not None:
            check_signature(folder, content, public_key)
        manifest = manifest_from_bytes(content, folder)
        contents = {name: read_verified(folder, name, manifest) for name in manifest.files}
        return cls(folder, manifest, content, contents, trusted or public_key is not None)

    def graph(self, name: str) -> bytes:
        """Return the verified bytes of a graph, by its name in the manifest.

        BundleCorruptError for what no graph of export holds, such as data in other files or loops: see `graph_limits`.
        """
        file = self.manifest.graphs[name].file
        if file not in self._plain:
            check_graph(self.path / file, self._contents[file])
            self._plain.add(file)
        return self._contents[file]

    def content(self, file: str) -> bytes | None:
        """Return the verified bytes of a file, or None if the bundle has none of that name."""
        return self._contents.get(file)


def shipped_bundle() -> Path:
    """Return the folder of the bundle inside this package."""
    return Path(str(files("cled_edge") / "bundles" / SHIPPED))


def read_manifest_bytes(folder: Path) -> bytes:
    """Return `manifest.json` of a bundle, 4 MiB at most, not parsed."""
    return _MANIFESTS.read(folder / MANIFEST_NAME, MAX_JSON_BYTES)


def manifest_from_bytes(content: bytes, folder: Path) -> Manifest:
    """Parse `manifest.json` of a bundle; the names in it are safe to open, and every graph has a hash.

    BundleCorruptError if it is not JSON or names what no bundle may hold, BundleVersionError if it is not understood.
    """
    path = folder / MANIFEST_NAME
    try:
        values = json_from_bytes(content)
    except ValueError as error:
        raise BundleCorruptError(f"{path} is not JSON ({error}); {_AGAIN}") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleVersionError(
            f"{path} has schema version {shown(repr(version))}, needed {SCHEMA_VERSION}; "
            "upgrade cled-edge, or get a bundle of that version"
        )
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        raise BundleVersionError(f"{path}: {first_problem(error)}; {_AGAIN}") from error
    _check_files(path, manifest)
    return manifest


def check_graph(path: Path, content: bytes) -> None:
    """Raise BundleCorruptError for what no graph of export holds, see `graph_limits`; `path` is for the message."""
    refused = why_refused(content)
    if refused:
        raise BundleCorruptError(
            f"{path} is refused: {refused}; needed a plain graph, as export writes it; get another bundle"
        )


def read_verified(folder: Path, name: str, manifest: Manifest) -> bytes:
    """Return a file that the manifest names; another size is refused before it is read, another SHA-256 after it."""
    expected = manifest.files[name]
    return _FILES.verified(folder / name, expected.bytes, expected.sha256, "its manifest says", _AGAIN)


def _check_files(path: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        if not is_plain_name(name) or name.lower() in (MANIFEST_NAME, SIGNATURE_NAME):
            raise BundleCorruptError(
                f"{path} names '{shown(name)}'; files must lie in the bundle's own folder, with plain names "
                f"(letters, digits, '.', '_', '-'); {_AGAIN}"
            )
    for name in manifest.graphs:
        if not is_plain_name(name):
            raise BundleCorruptError(
                f"{path} has a graph '{shown(name)}'; engines are files of that name, so it must be a plain one "
                f"(letters, digits, '.', '_', '-'); {_AGAIN}"
            )
    total = sum(spec.bytes for spec in manifest.files.values())
    if total > MAX_BUNDLE_BYTES:
        raise BundleCorruptError(f"{path} states {total} bytes in all, needed {MAX_BUNDLE_BYTES} at most; {_AGAIN}")
    for graph in manifest.graphs.values():
        if graph.file not in manifest.files:
            raise BundleCorruptError(f"{path}: graph file '{shown(graph.file)}' has no hash; {_AGAIN}")
