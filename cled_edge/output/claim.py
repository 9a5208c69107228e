"""One run at a time for one output: locks that end with their process, however it ends."""

import os
import secrets
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def claimed(path: Path, flags: int) -> int | None:
    """Create a file that is locked before it has its name; return its descriptor, None if the name is taken.

    flags: of `os.open`. OSError if it cannot be created.
    """
    made = path.with_name(f".{secrets.token_hex(6)}.claim")
    descriptor = os.open(made, flags, 0o666)
    try:
        lock(descriptor)
        try:
            os.link(made, path)
        except FileExistsError:
            os.close(descriptor)
            return None
        except OSError:  # the file system has no links, as that of a USB stick
            made.replace(path)
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        made.unlink(missing_ok=True)
    return descriptor


def is_claimed(path: Path) -> bool:
    """Say whether a run that lives has locked the file."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return False
    try:
        return not lock(descriptor)
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Lock an open file or folder without waiting; False if another holds it. A file system without locks has none."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
