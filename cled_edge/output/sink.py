"""Where fused pictures go: a video file, a folder of PNGs, or a window."""

from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2

from cled_edge.errors import OptionError, OutputError
from cled_edge.files import make_folder
from cled_edge.image import Uint8, swapped, write_png

VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4")
WINDOW = "window"
_NO_FOLDERS = (
    ".bmp",
    ".gif",
    ".jpeg",
    ".jpg",
    ".m4v",
    ".mpeg",
    ".mpg",
    ".png",
    ".tif",
    ".tiff",
    ".webm",
    ".webp",
    ".wmv",
)
_FALLBACK_RATE_HZ = 25.0  # pictures have no rate of their own


class Sink(Protocol):
    """Takes fused pictures. As a context it keeps what was written, unless nothing was."""

    def write(self, picture: Uint8, stem: str) -> bool:
        """Take an RGB picture (H, W, 3); return False if the user asked to stop."""
        ...

    def __enter__(self) -> "Sink": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class FolderSink:
    """One PNG per stem: RGB (H, W, 3) or grey (H, W)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folder(folder)

    def write(self, picture: Uint8, stem: str) -> bool:
        """Write STEM.png, whole or not at all."""
        write_png(self.folder / f"{stem}.png", picture)
        return True

    def __enter__(self) -> "FolderSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class VideoSink:
    """A video of the first picture's size, written beside its name and renamed when it is closed properly.

    Ctrl-C closes properly: what was fused until then is kept. An error leaves no file.
    """

    def __init__(self, path: Path, rate_hz: float | None) -> None:
        self.path = path
        self.rate_hz = rate_hz or _FALLBACK_RATE_HZ
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._size: tuple[int, int] = (0, 0)
        self._written = 0
        make_folder(path.parent)
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give the name of a video file")

    def write(self, picture: Uint8, stem: str) -> bool:
        """Append a picture; all must have one size."""
        height, width = picture.shape[:2]
        if self._writer is None:
            self._open(height, width, stem)
        if (height, width) != self._size:
            raise OutputError(
                f"{stem} is {height}x{width}, the video {self._size[0]}x{self._size[1]}; write to a folder instead"
            )
        assert self._writer is not None  # noqa: S101 (for the type checker)
        self._writer.write(swapped(picture))
        self._written += 1
        return True

    def _open(self, height: int, width: int, stem: str) -> None:
        if height % 2 or width % 2:
            raise OutputError(f"{stem} is {height}x{width}; a video needs even sides, write to a folder instead")
        codec = cv2.VideoWriter.fourcc(*("MJPG" if self.path.suffix.lower() == ".avi" else "mp4v"))
        self._writer = cv2.VideoWriter(str(self._partial), cv2.CAP_FFMPEG, codec, self.rate_hz, (width, height))
        self._size = height, width
        if not self._writer.isOpened():
            raise OutputError(f"{self.path} cannot be written as {width}x{height} video; check the folder and the disk")

    def __enter__(self) -> "VideoSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self._publish()
        else:
            self._partial.unlink(missing_ok=True)

    def _publish(self) -> None:
        """Rename the video into place if it holds every frame: OpenCV does not tell of a full disk."""
        capture = cv2.VideoCapture(str(self._partial), cv2.CAP_FFMPEG)
        held = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        try:
            if held != self._written:
                self._partial.unlink(missing_ok=True)
                raise OutputError(f"{self.path} holds {held} of {self._written} frames; the disk is probably full")
            self._partial.replace(self.path)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}; choose another folder") from error


class WindowSink:
    """A window on this machine's screen; q or Escape stops."""

    def __init__(self) -> None:
        try:
            cv2.namedWindow("cled-edge", cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise OutputError(
                "this OpenCV has no window support (it is the headless build); write to a file, or: "
                "pip uninstall opencv-python-headless && pip install opencv-python"
            ) from error

    def write(self, picture: Uint8, stem: str) -> bool:  # noqa: ARG002 (a window has no names)
        """Show an RGB picture; return False on q or Escape."""
        cv2.imshow("cled-edge", swapped(picture))
        return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)

    def __enter__(self) -> "WindowSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cv2.destroyAllWindows()


def open_sink(out: str, rate_hz: float | None) -> Sink:
    """Return the sink that `--out` names: `window`, a file with a video suffix, or else a folder."""
    if out == WINDOW:
        return WindowSink()
    path = Path(out)
    if path.suffix.lower() in _NO_FOLDERS and not path.is_dir():
        raise OptionError(f"{out} names a file; give a folder, or a video: {', '.join(VIDEO_SUFFIXES)}")
    return VideoSink(path, rate_hz) if path.suffix.lower() in VIDEO_SUFFIXES else FolderSink(path)
