"""Files from strangers: regular ones of a known size, plain names, and JSON with limits."""

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cled_edge.errors import CledEdgeError

if TYPE_CHECKING:
    from pydantic import ValidationError

MAX_JSON_BYTES = 4 * 2**20
MAX_JSON_DEPTH = 64
_MAX_DIGITS = 18  # what fits a 64-bit integer whatever the digits are

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}[A-Za-z0-9]|[A-Za-z0-9]")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # files of Windows that are none
# Control characters but tab and newline, halves of surrogate pairs, and what turns the writing direction:
# they would let a text rewrite the terminal that prints it.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


@dataclass(frozen=True)
class Reader:
    """Opens regular files without ever waiting for one.

    missing: raised for what is absent or cannot be read. refused: for what is no regular file or has another size.
    todo: what both tell the user to do. follow_links: for paths that the user typed, not for names out of a file.
    """

    missing: type[CledEdgeError]
    refused: type[CledEdgeError]
    todo: str
    follow_links: bool = False

    @contextmanager
    def opened(self, path: Path) -> Iterator[tuple[BinaryIO, int]]:
        """Yield the file and its size in bytes."""
        try:
            # Asked before it is opened: opening a device may already do something, and a pipe waits for its other end.
            self._check_kind(path, path.stat() if self.follow_links else path.lstat())
            descriptor = os.open(path, _OPEN_FLAGS | (0 if self.follow_links else _NO_LINK))
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(file.fileno())  # of what was opened, whatever the name has become since
                self._check_kind(path, status)
                yield file, status.st_size
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.missing(f"{path} does not exist; {self.todo}") from error
        except OSError as error:
            raise self.missing(f"{path} cannot be read: {error.strerror}; check its permissions") from error

    def read(self, path: Path, max_bytes: int) -> bytes:
        """Return a file of at most `max_bytes`; a larger one is not read."""
        with self.opened(path) as (file, size):
            if size > max_bytes:
                raise self.refused(f"{path} has {size} bytes, needed {max_bytes} at most; {self.todo}")
            return self.exactly(path, file, size)

    def exactly(self, path: Path, file: BinaryIO, size: int) -> bytes:
        """Return the `size` bytes of an opened file; refused if it has become shorter or longer meanwhile."""
        content = file.read(size + 1)
        if len(content) != size:
            raise self.refused(f"{path} changed while it was read; let its writer finish, then try again")
        return content

    def verified(self, path: Path, size: int, sha256: str, says: str, todo: str) -> bytes:
        """Return a file of a stated size and SHA-256: another size is refused before it is read, another hash after it.

        says: who states them, as in "its manifest says"; todo: what these two refusals tell the user to do.
        """
        with self.opened(path) as (file, found):
            if found != size:
                raise self.refused(f"{path} has {found} bytes, {says} {size}; {todo}")
            content = self.exactly(path, file, found)
        digest = hashlib.sha256(content).hexdigest()
        if digest != sha256:
            raise self.refused(f"{path} has SHA-256 {digest[:12]}..., {says} {shown(sha256[:12])}...: altered; {todo}")
        return content

    def _check_kind(self, path: Path, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "special file")
            raise self.refused(f"{path} is a {kind}, needed a regular file; {self.todo}")


def is_plain_name(name: str) -> bool:
    """Say whether `name` is 1 to 128 of A-Z, a-z, 0-9, '.', '_', '-', starts and ends with a letter or digit.

    So it holds no folder, no parent and no drive, and it is the same file on every system; Windows' devices are none.
    """
    return _PLAIN_NAME.fullmatch(name) is not None and _DEVICES.fullmatch(name) is None


def json_from_bytes(content: bytes) -> Any:
    """Return what UTF-8 JSON holds; ValueError says in a few words why it is none, or none that is read here.

    Refused besides broken JSON: a key given twice, NaN and infinity, numbers of over 18 digits or beyond float64,
    nesting over 64 levels, control characters other than tab and newline.
    """
    try:
        values = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except RecursionError:
        raise ValueError(f"nested over {MAX_JSON_DEPTH} levels") from None
    _check_tree(values)
    return values


def first_problem(error: "ValidationError") -> str:
    """Return "where: what" of the first of the problems that pydantic found, as one line."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{shown('.'.join(str(part) for part in first['loc']))}: {shown(first['msg'], 200)}"


def shown(text: object, limit: int = 80) -> str:
    """Return `text` as one line of at most `limit` printable characters, to print what a stranger wrote."""
    whole = str(text)
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole[:limit])
    return line if len(whole) <= limit and len(line) <= limit else line[: limit - 3] + "..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key '{shown(twice)}' is given twice")
    return values


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits, over {_MAX_DIGITS}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text, 20)} is not a finite number")
    return value


def _check_tree(values: Any) -> None:
    waiting = [(values, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"nested over {MAX_JSON_DEPTH} levels")
        if isinstance(value, str) and _UNPRINTABLE.search(value):
            raise ValueError(f"text with control characters: '{shown(value)}'")
        if isinstance(value, dict):
            waiting += [(key, depth) for key in value]
            waiting += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            waiting += [(item, depth + 1) for item in value]
