"""Files in the user's cache folder that spare a restart work: optimised graphs, compiled models, what `auto` measured.

A compiled graph is a program: a folder or file that another user could write is left unread and unwritten.

Every file may be deleted at any time. CLED_EDGE_CACHE names another folder.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import platformdirs

from cled_edge.errors import BackendError, OutputError
from cled_edge.files import Reader, make_folder, write_whole
from cled_edge.ownership import why_not_ours

FOLDER_VARIABLE = "CLED_EDGE_CACHE"
ENGINES_VARIABLE = "CLED_EDGE_ENGINES"
KEPT_FILES = 64  # of some 5 MB: two graphs at a handful of sizes and precisions, of the last few bundles
_DIGEST_BYTES = 32
_MAX_BYTES = 4 * 2**30
_NAME = re.compile(r"[0-9a-f]{32}\.(onnx|openvino|json)")  # as `cache_name` makes them
_FILES = Reader(BackendError, BackendError, "delete it")


def cache_folder() -> Path:
    """Return the folder; it may not exist yet."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("cled-edge", appauthor=False)


def cache_name(kind: str, parts: Iterable[object]) -> str:
    """Return the file name for all that the content depends on; `parts` must have stable texts."""
    key = hashlib.sha256("\0".join(map(repr, parts)).encode()).hexdigest()
    return f"{key[:32]}.{kind}"


def read_cached(name: str) -> bytes | None:
    """Return what was written under a name, or None if there is nothing whole."""
    path = cache_folder() / name
    if why_not_ours(path.parent) or why_not_ours(path):  # a compiled graph is a program, and its digest no signature
        return None
    try:
        content = _FILES.read(path, _MAX_BYTES)
        path.touch()  # files go in the order of their last use
    except (BackendError, OSError):
        return None
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    # SDKs crash on a damaged model rather than complain, and a power cut can damage any file.
    return body if hashlib.sha256(body).digest() == digest else None


def write_cached(name: str, body: bytes) -> str:
    """Write atomically and drop the files used longest ago; return "written", or why it could not be.

    A robot with a read-only disk still runs, so this is no error, only a slower start.
    """
    folder = cache_folder()
    try:
        make_folder(folder, private=True)
        others = why_not_ours(folder)
        if others:
            return f"not written: {others}, needed a folder that its user alone may write; chmod go-w it"
        write_whole(folder / name, hashlib.sha256(body).digest() + body, private=True)
        _prune(folder)
    except OutputError as error:
        return f"not written: {error}"
    except OSError as error:
        return f"not written: {folder}: {error.strerror}"
    return "written"


def _prune(folder: Path) -> None:
    ours = (path for path in folder.iterdir() if _NAME.fullmatch(path.name))  # the folder may hold others' files
    used = {path: path.lstat().st_mtime_ns for path in ours}
    for path in sorted(used, key=lambda p: used[p])[:-KEPT_FILES]:
        with suppress(OSError):  # another process was first
            path.unlink()
