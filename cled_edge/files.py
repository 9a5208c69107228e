"""Files: read without waiting or following links that strangers made, written whole or not at all.

Every file that outlives a command goes through `draft` or `write_whole`, but for recordings, which grow for hours, see
`cled_edge.output.growing_file`. The new content is made under a name of its own in the target's folder, created
exclusively. It reaches the disk before it takes the target's name. So a crash or a power cut leaves the old file or the
new one. A symbolic link at the target is replaced, never followed.
"""

import errno
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cled_edge.errors import CledEdgeError, OutputError, ResultError
from cled_edge.json_text import json_from_bytes, shown
from cled_edge.ownership import foreign_link

MAX_RESULT_BYTES = 256 * 2**20  # of bench: an hour of raw samples is some 10 MB
_CHOOSE_FOLDER = "choose another folder"
_MAX_STEM = 100  # characters of a target's name that its draft repeats: names end at 255 bytes

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}[A-Za-z0-9]|[A-Za-z0-9]")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # files of Windows that are none
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


_RESULTS = Reader(ResultError, ResultError, "give a file that cled-edge bench wrote", follow_links=True)


def is_plain_name(name: str) -> bool:
    """Say whether `name` is 1 to 128 of A-Z, a-z, 0-9, '.', '_', '-', starts and ends with a letter or digit.

    So it holds no folder, no parent and no drive, and it is the same file on every system; Windows' devices are none.
    """
    return _PLAIN_NAME.fullmatch(name) is not None and _DEVICES.fullmatch(name) is None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a benchmark or a run; ResultError if the file is none."""
    try:
        values = json_from_bytes(_RESULTS.read(path, MAX_RESULT_BYTES))
    except ValueError as error:
        raise ResultError(f"{path} is not JSON ({error}); give a file that cled-edge bench wrote") from error
    if not isinstance(values, dict):
        raise ResultError(f"{path} is not a JSON object; give a file that cled-edge bench wrote")
    return values


@contextmanager
def draft(path: Path, *, todo: str = _CHOOSE_FOLDER, private: bool = False) -> Iterator[Path]:
    """Yield the name of an empty new file beside `path`, with its suffix, that takes its name when the block ends.

    Whoever writes the draft may open it by its name again. If the block raises, the draft is deleted and `path` stays
    as it was. private: only the owner may read the file.

    OSError becomes an OutputError that names `path`, the reason and `todo`, what the user should do.
    """
    made: Path | None = None
    try:
        made = _new_draft(path, private)
        yield made
        publish(made, path)
    except OSError as error:
        _forget(made)
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; {todo}") from error
    except BaseException:
        _forget(made)
        raise


def write_whole(path: Path, content: bytes | str, *, todo: str = _CHOOSE_FOLDER, private: bool = False) -> None:
    """Write a file whole or not at all, see `draft`; text as UTF-8. OutputError if it cannot be written."""
    with draft(path, todo=todo, private=private) as made, _reopened(made) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def open_to_append(path: Path) -> BinaryIO:
    """Return a regular file opened at its end, made if absent; OSError for a pipe, a device or a link of a stranger."""
    refuse_foreign_link(path)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    file = os.fdopen(os.open(path, flags, 0o666), "ab")
    kind = stat.S_IFMT(os.fstat(file.fileno()).st_mode)
    if kind != stat.S_IFREG:
        file.close()
        raise OSError(errno.EINVAL, f"it is a {_KINDS.get(kind, 'special file')}")
    return file


def make_folder(folder: Path, *, todo: str = _CHOOSE_FOLDER, private: bool = False) -> None:
    """Create a folder and its parents, and check that files can be made in it; OutputError if not.

    private: a new folder is for its owner alone; one that is there keeps its permissions.
    """
    try:
        refuse_foreign_link(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
        with tempfile.TemporaryFile(dir=folder):  # of a name of its own: other processes may be at the same
            pass
    except FileExistsError as error:
        kind = _KINDS.get(stat.S_IFMT(os.stat(folder).st_mode), "file") if folder.exists() else "link to nothing"
        raise OutputError(f"{folder} cannot be written: it is a {kind}, needed a folder; {todo}") from error
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}; {todo}") from error


def check_writable(path: Path) -> None:
    """Raise OutputError unless a file can be made at `path`: better before a measurement than after it."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    try:
        _forget(_new_draft(path, private=True))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; {_CHOOSE_FOLDER}") from error


def _new_draft(path: Path, private: bool) -> Path:
    """Create an empty file beside `path` that no other process can have opened, and return its name."""
    refuse_foreign_link(path.parent)
    mode = mode_at(path)
    made = path.with_name(f".{path.stem[:_MAX_STEM]}.{secrets.token_hex(6)}.partial{path.suffix}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(made, flags, 0o600 if private else 0o666)
    try:
        if mode is not None and not private:
            # By the descriptor: in a stranger's folder the name may be a link by now.
            (os.fchmod(descriptor, mode) if hasattr(os, "fchmod") else made.chmod(mode))
    finally:
        os.close(descriptor)
    return made


def _reopened(made: Path) -> BinaryIO:
    """Open a draft to write it; OSError if a stranger has put something else in its place."""
    file = os.fdopen(os.open(made, _OPEN_FLAGS & ~os.O_RDONLY | os.O_RDWR | _NO_LINK), "r+b")
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_size:
        file.close()
        raise OSError(errno.EINVAL, "another user changed it while it was written")
    return file


def refuse_foreign_link(path: Path) -> None:
    """Raise OSError if a link of another user lies on the way to a folder that others may write."""
    foreign = foreign_link(path)
    if foreign is not None:
        raise OSError(errno.EPERM, f"{foreign} is a symbolic link of another user, which could lead anywhere")


def mode_at(path: Path) -> int | None:
    """Return the permissions of the file that is to be replaced, None if there is none; OSError for what is no file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"it is a {_KINDS.get(stat.S_IFMT(status.st_mode), 'special file')}")
    return stat.S_IMODE(status.st_mode)


def publish(made: Path, path: Path) -> None:
    """Bring a draft to the disk, give it the target's name, and bring that to the disk too."""
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(path)
    if os.name == "posix":
        with suppress(OSError):  # some network drives refuse to synchronise a folder
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _forget(made: Path | None) -> None:
    if made is not None:
        with suppress(OSError):
            made.unlink(missing_ok=True)
