"""Timing caches on disk: what a builder measured, for the next build of the same release on the same kind of device."""

import hashlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cled_edge.backend.tensorrt.build_options import RECIPE, BuildOptions, canonical_json
from cled_edge.backend.tensorrt.device import DeviceFacts
from cled_edge.backend.tensorrt.store import OTHER_FOLDER
from cled_edge.errors import OutputError
from cled_edge.files import Reader, make_folder, open_to_append, write_whole

_MAX_BYTES = 256 * 2**20
_TIMINGS = Reader(OutputError, OutputError, "give another file for the timing cache", follow_links=True)
_LOG = logging.getLogger(__name__)


def timings_path(options: BuildOptions, facts: DeviceFacts, folder: Path) -> Path:
    """Return the file that the options name, or one in the engine folder for this device, release and recipe."""
    if options.timing_cache is not None:
        return options.timing_cache
    values = {"recipe": RECIPE, "facts": facts.model_dump(mode="json")}
    digest = hashlib.sha256(canonical_json(values).encode()).hexdigest()
    return folder / f"timing-{facts.tensorrt}-sm{facts.sm}-{digest[:8]}.cache"


def read_timings(path: Path) -> bytes:
    """Return a timing cache, or nothing if there is none that can be read."""
    try:
        return _TIMINGS.read(path, _MAX_BYTES)
    except OutputError:
        return b""


def write_timings(path: Path, content: bytes) -> None:
    """Write a timing cache whole or not at all; where it cannot be, only the next build is slower."""
    try:
        write_whole(path, content, private=True)
    except OutputError as error:
        _LOG.warning("timing cache not written: %s", error)


@contextmanager
def one_builder(path: Path) -> Iterator[None]:
    """Let one process at a time build with a timing cache: two would spoil what each measures.

    The lock is the kernel's: it goes with the process that holds it, however that ends.
    """
    make_folder(path.parent, todo=OTHER_FOLDER, private=True)
    with open_to_append(path.with_name(f".{path.name}.lock")) as file:
        _lock(file, path)
        yield


def _lock(file: IO[bytes], path: Path) -> None:
    if sys.platform == "win32":  # no Jetson runs it; a desktop builds unlocked
        return
    import fcntl  # noqa: PLC0415

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _LOG.warning("another process builds with %s; waiting until it ends", path)
        fcntl.flock(file, fcntl.LOCK_EX)
