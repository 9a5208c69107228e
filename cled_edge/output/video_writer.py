"""A video file as an output."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import cv2

from cled_edge.address import Address
from cled_edge.errors import OptionError, OutputError
from cled_edge.files import draft, make_folder
from cled_edge.frame import FusedFrame
from cled_edge.image import ColorOrder, Uint8, swapped
from cled_edge.output.sink import VIDEO_SUFFIXES, Output, Shown

FALLBACK_RATE_HZ = 25.0  # pictures have no rate of their own


class VideoWriter(Output):
    """A video of the first frame's size, written as a draft that takes its name when it is closed properly.

    Ctrl-C closes properly: what was fused until then is kept. An error leaves no file.
    """

    def __init__(self, address: Address, shows: Shown = "picture", rate_hz: float | None = None) -> None:
        super().__init__(address, shows, rate_hz)
        self.path = self.target = Path(address.place)
        if self.path.suffix.lower() not in VIDEO_SUFFIXES:
            raise OptionError(f"{address.text} names no video; give a name that ends in {', '.join(VIDEO_SUFFIXES)}")
        self._draft = ExitStack()
        self._partial = self.path
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0

    def __enter__(self) -> "VideoWriter":
        make_folder(self.path.parent)
        if self.path.is_dir():
            raise OutputError(f"{self.path} is a folder; give the name of a video file")
        return self

    def write(self, frame: FusedFrame) -> bool:
        """Append a frame; all must have one size, of even sides."""
        self.append(self.image(frame), frame.name, frame.color_order)
        return True

    def append(self, image: Uint8, name: str, color_order: ColorOrder) -> None:
        """Append an image, (H, W, 3) or (H, W); `name` is for messages."""
        height, width = image.shape[:2]
        writer = self._writer or self._started(height, width, name)
        if (height, width) != self._size:
            raise OutputError(
                f"{name} is {height}x{width}, the video {self._size[0]}x{self._size[1]}; write to a folder instead"
            )
        writer.write(_bgr(image, color_order))
        self._written += 1

    def _started(self, height: int, width: int, name: str) -> cv2.VideoWriter:
        if height % 2 or width % 2:
            raise OutputError(f"{name} is {height}x{width}; a video needs even sides, write to a folder instead")
        self._partial = self._draft.enter_context(draft(self.path))
        codec = cv2.VideoWriter.fourcc(*("MJPG" if self.path.suffix.lower() == ".avi" else "mp4v"))
        rate_hz = self.rate_hz or FALLBACK_RATE_HZ
        self._writer = cv2.VideoWriter(str(self._partial), cv2.CAP_FFMPEG, codec, rate_hz, (width, height))
        self._size = height, width
        if not self._writer.isOpened():
            raise OutputError(f"{self.path} cannot be written as {width}x{height} video; check the folder and the disk")
        return self._writer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Publish the draft, or delete it if there was an error."""
        if self._writer is not None:
            self._writer.release()
        if kind is None or issubclass(kind, KeyboardInterrupt):
            with self._draft:
                self._check_whole()
        else:
            self._draft.__exit__(kind, error, traceback)

    def _check_whole(self) -> None:
        """Raise OutputError unless the draft holds every frame: OpenCV does not tell of a full disk."""
        if self._writer is None:
            return
        capture = cv2.VideoCapture(str(self._partial), cv2.CAP_FFMPEG)
        held = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if held != self._written:
            raise OutputError(f"{self.path} holds {held} of {self._written} frames; the disk is probably full")


def _bgr(image: Uint8, color_order: ColorOrder) -> Uint8:
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)  # type: ignore[return-value]
    return image if color_order == "BGR" else swapped(image)
