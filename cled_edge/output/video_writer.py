"""A video file as an output: it plays at the speed at which its frames were taken."""

import math
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from cled_edge.address import Address, split_options
from cled_edge.errors import OptionError, OutputError
from cled_edge.frame import ORDER, FusedFrame
from cled_edge.image import ColorOrder, Uint8, swapped
from cled_edge.output.encoder import H264, Encoder
from cled_edge.output.growing_file import GrowingFile, lost
from cled_edge.output.sink import VIDEO_SUFFIXES, Output, Shown
from cled_edge.size import Size, size_text

FALLBACK_RATE_HZ = 25.0  # pictures have no rate of their own


class VideoWriter(Output):
    """A video of the first frame's size, its sides padded to even ones. What was written when it ends is kept.

    It grows as NAME.partial.SUFFIX, which plays at any time, see `GrowingFile`, and takes its name when it is closed.
    A live camera may change its size: frames of another size are fitted into the first one's, and a note says so.
    If the disk is full it stays under that name, and the error says how many frames it holds.
    `NAME.mp4?segment_s=60` begins a new file each minute of the frames' time, called NAME-20261128-084500.mp4 by UTC;
    with `&keep=48` the oldest is deleted when this run has written more. A frame of another size begins a new file too.
    now_utc: the time that names them.
    """

    def __init__(self, address: Address, shows: Shown = "fused", rate_hz: float | None = None) -> None:
        super().__init__(address, shows, rate_hz)
        place, options = split_options(address.place, ("segment_s", "keep"))
        self._segment_ns = round(_number(options, "segment_s") * 1e9) if "segment_s" in options else None
        self._keep = round(_number(options, "keep")) if "keep" in options else None
        if self._keep is not None and self._segment_ns is None:
            raise OptionError(f"{address.text} keeps some segments and has none; needed segment_s; give it too")
        self.now_utc: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
        self.path = self.target = Path(place)
        self._name = self.path
        self._segments: list[Path] = []
        self._begin_ns = 0
        if self.path.suffix.lower() not in VIDEO_SUFFIXES:
            raise OptionError(f"{address.text} names no video; give a name that ends in {', '.join(VIDEO_SUFFIXES)}")
        known_rate = self.rate_hz is not None and math.isfinite(self.rate_hz) and 0 < self.rate_hz <= 1000
        self._rate_hz = self.rate_hz if known_rate and self.rate_hz else FALLBACK_RATE_HZ
        self._times = Timeline(round(1e9 / self._rate_hz))
        self._file: GrowingFile | None = None
        self._encoder: Encoder | None = None
        self._size = (0, 0)
        self._written = 0

    def __enter__(self) -> "VideoWriter":
        self._open()
        return self

    def _open(self) -> None:
        if self._segment_ns is not None:
            self.path = self._segment_path()
        self._file = GrowingFile(self.path)
        if self._file.left:
            names = ", ".join(str(each) for each in self._file.left)
            self.notes.append(f"an earlier run that did not end left {names}; keep it, or remove it")

    def _segment_path(self) -> Path:
        stem = f"{self._name.stem}-{self.now_utc():%Y%m%d-%H%M%S}"
        free = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]  # of segments under a second
        names = (self._name.with_name(f"{each}{self._name.suffix}") for each in free)
        return next(path for path in names if path not in self._segments)

    def _next_segment(self, time_ns: int) -> None:
        """Publish the file at work, begin another, and delete the oldest if there are more than to keep."""
        self._segments.append(self.path)
        self._publish()
        self._open()
        self._begin_ns = time_ns
        if self._keep is not None and len(self._segments) > self._keep - 1:  # the one at work is one of them
            self._segments.pop(0).unlink(missing_ok=True)

    def write(self, frame: FusedFrame) -> bool:
        """Append a frame at its time; OutputError if a recording's has another size than the first."""
        image, time_ns = self.image(frame), self._times.of(frame.timestamp_ns, frame.clock)
        if self._encoder and frame.states and image.shape[:2] != self._size:
            if self._segment_ns is None:
                self._note(f"{self._name}: a camera changed its size; all is fitted into {size_text(self._size)}")
                image = fitted(image, self._size)
            else:
                self._next_segment(time_ns)
        self._append(image, frame.name, frame.color_order, time_ns)
        return True

    def append(self, image: Uint8, name: str, color_order: ColorOrder) -> None:
        """Append an image, (H, W, 3) or (H, W), a period after the last; `name` is for messages."""
        self._append(image, name, color_order, self._times.of(None, ORDER))

    def _append(self, image: Uint8, name: str, color_order: ColorOrder, time_ns: int) -> None:
        height, width = image.shape[:2]
        if self._encoder and (height, width) != self._size:
            raise OutputError(
                f"{name} is {height}x{width}, the video {self._size[0]}x{self._size[1]}; write to a folder instead"
            )
        if self._segment_ns is not None and self._encoder and time_ns - self._begin_ns >= self._segment_ns:
            self._next_segment(time_ns)
        try:
            encoder = self._encoder or self._started(height, width)
            encoder.add(even_bgr(image, color_order), time_ns - self._begin_ns)
        except OSError as error:
            raise self._failed(error) from error
        self._written += 1

    def _started(self, height: int, width: int) -> Encoder:
        if self._file is None:
            raise OutputError(f"{self.path} is not open; needed its context; write inside `with`")
        self._size = height, width
        even = height + height % 2, width + width % 2
        self._encoder = Encoder(self._file, even, self._rate_hz)
        if even != self._size:
            self._note(f"{self._name}: {height}x{width} is padded to {even[0]}x{even[1]}, as video needs even sides")
        if self._encoder.codec != H264 and self.path.suffix.lower() != ".avi":
            self._note(
                f"{self._name} is {self._encoder.codec}, which browsers do not play: PyAV has no encoder of H.264 here"
            )
        return self._encoder

    def _note(self, text: str) -> None:
        """Note something once, and not for each segment."""
        if text not in self.notes:
            self.notes.append(text)

    def _failed(self, error: OSError) -> OutputError:
        """Return the error of a file that takes no more, and close it; what it holds stays if that is a frame."""
        file, encoder, self._file, self._encoder = self._file, self._encoder, None, None
        if encoder:
            encoder.abandon()
        return lost(file, self.path, error, self._written)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Publish what was written, whatever ended it; without a frame nothing is left. OutputError if it cannot."""
        self._publish()

    def _publish(self) -> None:
        file, encoder = self._file, self._encoder
        if file is None:
            return
        if encoder is None:
            file.give_up(is_kept=False)
        else:
            try:
                encoder.close()
            except OSError as failure:
                raise self._failed(failure) from failure
            file.publish()
        self._file = self._encoder = None


def _number(options: dict[str, str], name: str) -> float:
    try:
        value = float(options[name])
    except ValueError:
        value = math.nan
    if not 1 <= value <= 1e6:
        raise OptionError(f"{name} is {options[name]!r}; needed a number from 1 to 1000000; correct it")
    return value


class Timeline:
    """Turns the stamps of frames into times from the first one's, in nanoseconds, which always grow.

    A stamp that does not tell a later time, and the first of another clock, comes a period after the last.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._clock = ""
        self._begin_ns = 0
        self._last_ns = -period_ns

    def of(self, timestamp_ns: int | None, clock: str) -> int:
        """Return the time of the next frame; a stamp of clock ORDER, or None, tells none."""
        next_ns = self._last_ns + self._period_ns
        if timestamp_ns is not None and clock != ORDER:
            if clock != self._clock or timestamp_ns - self._begin_ns <= self._last_ns:
                self._clock, self._begin_ns = clock, timestamp_ns - next_ns
            next_ns = timestamp_ns - self._begin_ns
        self._last_ns = next_ns
        return next_ns


def fitted(image: Uint8, size: Size) -> Uint8:
    """Return an image scaled into (height, width) with its shape kept, in the middle of black."""
    scale = min(whole / side for whole, side in zip(size, image.shape[:2], strict=True))
    height, width = (min(whole, max(1, round(side * scale))) for whole, side in zip(size, image.shape[:2], strict=True))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas = np.zeros((*size, *image.shape[2:]), np.uint8)
    canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return canvas


def even_bgr(image: Uint8, color_order: ColorOrder) -> Uint8:
    """Return an image as encoders take it: BGR, its last row or column repeated where a side is odd."""
    return _even(_bgr(image, color_order))


def _bgr(image: Uint8, color_order: ColorOrder) -> Uint8:
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    return image if color_order == "BGR" else swapped(image)


def _even(image: Uint8) -> Uint8:
    """Return the image with its last row or column repeated where its sides are odd."""
    height, width = image.shape[:2]
    if height % 2 == width % 2 == 0:
        return image
    return np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
