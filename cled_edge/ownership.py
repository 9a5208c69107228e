"""Who else could change a file or follow us through a link: what is run as a program must be ours alone.

A compiled graph and an engine are programs. A link of a stranger can lead a writer to a file that the stranger may not
write. Root counts as ourselves: it could change everything anyway. On Windows, which has other rights, nothing is said.
"""

import os
import stat
from pathlib import Path

_MOST_LINKS = 40  # as Linux
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def why_not_ours(path: Path) -> str | None:
    """Return why a user other than this one could change what is at `path`, in a few words; None if nobody could.

    What is looked at: links on the way, and the file or folder itself. One that is absent is nobody's.
    """
    foreign = foreign_link(path)
    if foreign is not None:
        return f"{foreign} is a symbolic link of another user"
    try:
        status = path.stat()
    except OSError:
        return None
    if os.name == "posix" and not _is_trusted(status.st_uid):
        return f"{path.resolve()} belongs to user {status.st_uid}"
    if os.name == "posix" and stat.S_IMODE(status.st_mode) & _OTHERS_MAY_WRITE:
        return f"{path.resolve()} may be written by others ({stat.S_IMODE(status.st_mode):03o})"
    return None


def foreign_link(path: Path) -> Path | None:
    """Return the first symbolic link on the way to `path`, itself included, that is neither ours nor root's."""
    if os.name != "posix":
        return None
    waiting, place, links = list(reversed(path.absolute().parts[1:])), Path(path.absolute().anchor), 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            place = place.parent
            continue
        step = place / part
        try:
            status = step.lstat()
        except OSError:  # absent, or not to be seen: whoever opens it is told
            return None
        if not stat.S_ISLNK(status.st_mode):
            place = step
            continue
        links += 1
        if not _is_trusted(status.st_uid) or links > _MOST_LINKS:
            return step
        try:
            target = Path(os.readlink(step))
        except OSError:
            return None
        place = Path(target.anchor) if target.is_absolute() else place
        waiting += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return None


def _is_trusted(user: int) -> bool:
    return user in (0, os.geteuid())
