"""A file that grows while it is watched by a power cut: on the disk every second, published at its end."""

import os
import time
from pathlib import Path

from cled_edge.errors import OutputError
from cled_edge.files import make_folder, mode_at, publish, refuse_foreign_link
from cled_edge.output.claim import claimed, is_claimed

SYNC_PERIOD_S = 1.0
sync = getattr(os, "fdatasync", os.fsync)
_MAX_STEM = 100  # characters of the name that the partial file repeats: names end at 255 bytes
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class GrowingFile:
    """A binary file beside `path`, as NAME.partial.SUFFIX, that takes its name when it is published.

    What was written stays under the partial name after kill -9 and, but for the last second, after a power cut. An
    older partial file is such a recording, so it is left as it is, and this one is called NAME.partial-2.SUFFIX.
    Only one run writes for a name: OutputError if another is at it, if `path` is no regular file, and if the folder
    cannot be written. After a failed write `failure` says why, and all later writes fail in the same way.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure: OSError | None = None
        make_folder(path.parent)
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give the name of a file")
        try:
            refuse_foreign_link(path.parent)
            mode = mode_at(path)
            self.partial, self.left = self._opened()
            if mode is not None:
                os.chmod(self._descriptor if os.chmod in os.supports_fd else self.partial, mode)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}; choose another folder") from error
        self._size = self._place = 0
        self._synced_s = time.monotonic()

    def _opened(self) -> tuple[Path, list[Path]]:
        """Open the first free partial name; return it, and those that earlier runs left."""
        left: list[Path] = []
        while True:
            number = f"-{len(left) + 1}" if left else ""
            partial = self.path.with_name(f"{self.path.stem[:_MAX_STEM]}.partial{number}{self.path.suffix}")
            if partial.is_symlink() or partial.exists():
                if is_claimed(partial):
                    raise OutputError(
                        f"{self.path} is being written by another run, as {partial.name}; "
                        "wait for its end, or choose another name"
                    )
                left.append(partial)
                continue
            descriptor = claimed(partial, _FLAGS)
            if descriptor is not None:  # else another run was faster: look again
                self._descriptor = descriptor
                return partial, left

    def write(self, content: bytes) -> int:
        """Write all of it at the present place; the disk has it a second later at most."""
        if self.failure:
            raise self.failure
        try:
            if self._place < self._size:
                sync(self._descriptor)  # what a header is changed to point to is there first
            left = memoryview(content)
            while left:
                left = left[os.write(self._descriptor, left) :]
            self._place += len(content)
            self._size = max(self._size, self._place)
            if time.monotonic() - self._synced_s >= SYNC_PERIOD_S:
                sync(self._descriptor)
                self._synced_s = time.monotonic()
        except OSError as error:
            self.failure = error
            raise
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the place as `io.IOBase.seek` does."""
        self._place = os.lseek(self._descriptor, offset, whence)
        return self._place

    def tell(self) -> int:
        """Return the present place."""
        return self._place

    def seekable(self) -> bool:
        """Say that it can be sought."""
        return True

    def publish(self) -> None:
        """Bring it to the disk and give it its name; OutputError if that fails."""
        try:
            publish(self.partial, self.path)
        except OSError as error:
            self.failure = error
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}; it is kept as {self.partial}"
            ) from error
        finally:
            os.close(self._descriptor)

    def give_up(self, is_kept: bool) -> None:
        """Close it, and delete it unless it is kept under its partial name."""
        os.close(self._descriptor)
        if not is_kept:
            self.partial.unlink(missing_ok=True)


def lost(file: GrowingFile | None, path: Path, error: OSError, frames: int) -> OutputError:
    """Close a file that takes no more, which stays if it holds a frame; return what to raise. path: what is said."""
    kept = ""
    if file:
        file.give_up(is_kept=frames > 0)
        kept = f"; the first {frames} frames are kept in {file.partial}" if frames else ""
    reason = error.strerror or str(error)
    return OutputError(f"{path} cannot be written: {reason}{kept}; free room, or choose another folder")
