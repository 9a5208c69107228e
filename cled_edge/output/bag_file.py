"""An MCAP file as an output: inputs, fused image, states and controls of a run, as ROS 2 and Foxglove read them."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from cled_edge.address import Address
from cled_edge.errors import OptionError, OutputError
from cled_edge.frame import ARRIVAL, MEDIA, MONOTONIC, ORDER, Frame, FusedFrame
from cled_edge.image import swapped
from cled_edge.output.frame_facts import facts_of
from cled_edge.output.growing_file import GrowingFile, lost
from cled_edge.output.ros_message import SCHEMAS, compressed_message, image_message, text_message
from cled_edge.output.sink import Output, Shown
from cled_edge.output.video_writer import FALLBACK_RATE_HZ

INSTALL = "pip install 'cled-edge[bags]'"
JPEG_QUALITY = 92
_CHUNK_BYTES = 256 * 1024  # a message or two: what a power cut takes away
_IMAGE, _COMPRESSED, _STRING = SCHEMAS


class BagFile(Output):
    """A bag in rosbag2's MCAP profile: `ros2 bag play`, Foxglove and this project's own cameras read it.

    /infrared/image: the infrared as it came, mono8 or mono16, lossless. /visible/image/compressed: the visible as it
    came, JPEG. /fused/image/compressed: the view that the output shows, JPEG. /cled_edge/status: JSON, see `facts_of`.
    Stamps are nanoseconds since 1970 where the cameras are live; a recording keeps its own times.
    OutputError if the package mcap is missing, or the file cannot be written: what it holds is then kept.
    """

    def __init__(self, address: Address, shows: Shown = "fused", rate_hz: float | None = None) -> None:
        super().__init__(address, shows, rate_hz)
        if not address.place:
            raise OptionError(f"{address.text} names no file; give one, such as mcap:run.mcap")
        self.path = self.target = Path(address.place)
        self._period_ns = round(1e9 / (rate_hz or FALLBACK_RATE_HZ))
        self._file: GrowingFile | None = None
        self._writer: Any = None
        self._channels: dict[str, int] = {}
        self._sequence = 0

    def __enter__(self) -> "BagFile":
        try:
            from mcap.writer import CompressionType, Writer  # noqa: PLC0415
        except ImportError as error:
            raise OutputError(
                f"{self.path} is to be an MCAP file, which needs the package mcap; it is not installed; {INSTALL}"
            ) from error
        self._file = GrowingFile(self.path)
        # JPEGs do not get smaller, and the camera's noise hardly.
        self._writer = Writer(_Flushed(self._file), _CHUNK_BYTES, CompressionType.NONE)  # type: ignore[arg-type]
        self._begin_ns = time.time_ns() - time.monotonic_ns()
        with self._kept():
            self._writer.start(profile="ros2", library="cled-edge")
            schemas = {
                name: self._writer.register_schema(name, "ros2msg", text.encode()) for name, text in SCHEMAS.items()
            }
            for topic, kind in (
                ("/infrared/image", _IMAGE),
                ("/visible/image/compressed", _COMPRESSED),
                (self.topic, _COMPRESSED),
                ("/cled_edge/status", _STRING),
            ):
                self._channels[topic] = self._writer.register_channel(topic, "cdr", schemas[kind])
        return self

    @property
    def topic(self) -> str:
        """Where the shown view goes."""
        return f"/{self.shows.replace('-', '_')}/image/compressed"

    def write(self, frame: FusedFrame) -> bool:
        """Append a frame's messages."""
        fused_ns = time.time_ns()
        with self._kept():
            if frame.pair is not None:
                infrared, visible = frame.pair.infrared, frame.pair.visible
                stamp_ns, fused_ns = self._stamp_ns(infrared), self._stamp_ns(visible)
                image = infrared.image if infrared.image.ndim == 2 else cv2.cvtColor(_bgr(infrared), cv2.COLOR_BGR2GRAY)
                kind = "mono16" if image.dtype.itemsize == 2 else "mono8"
                self._add("/infrared/image", stamp_ns, image_message(image, kind, stamp_ns, "infrared"))
                jpeg = compressed_message(_jpeg(_bgr(visible)), fused_ns, "visible")
                self._add("/visible/image/compressed", fused_ns, jpeg)
            shown = self.image(frame)
            bgr = swapped(shown) if shown.ndim == 3 and frame.color_order == "RGB" else shown
            self._add(self.topic, fused_ns, compressed_message(_jpeg(bgr), fused_ns, "fused"))
            self._add("/cled_edge/status", fused_ns, text_message(json.dumps(facts_of(frame))))
        self._sequence += 1
        return True

    def _add(self, topic: str, stamp_ns: int, message: bytes) -> None:
        self._writer.add_message(self._channels[topic], stamp_ns, message, stamp_ns, self._sequence)

    def _stamp_ns(self, frame: Frame) -> int:
        """Return when a frame was taken: since 1970, or in its recording."""
        if frame.clock in (MONOTONIC, ARRIVAL):
            return frame.timestamp_ns + self._begin_ns
        if frame.clock == ORDER:
            return self._sequence * self._period_ns
        return frame.timestamp_ns if frame.clock == MEDIA or frame.timestamp_ns > 10**18 else time.time_ns()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Turn an OSError of the file into an OutputError, and keep what was written."""
        try:
            yield
        except OSError as error:
            file, self._file, self._writer = self._file, None, None
            raise lost(file, self.path, error, self._sequence) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write its index and give it its name; without a frame nothing is left."""
        file = self._file
        if file is None:
            return
        if not self._sequence:
            self._file = None
            file.give_up(is_kept=False)
            return
        with self._kept():
            self._writer.finish()
        self._file = None
        file.publish()


class _Flushed:
    """A `GrowingFile` as the writer takes it: what is written is at once in the file."""

    def __init__(self, file: GrowingFile) -> None:
        self.write, self.tell = file.write, file.tell

    def flush(self) -> None:
        """Do nothing: nothing is held back."""


def _bgr(frame: Frame) -> Any:
    image = frame.image
    if image.ndim == 2 or image.shape[2] == 1:
        return image.reshape(image.shape[:2])
    return swapped(image) if frame.color_order == "RGB" else image


def _jpeg(image: Any) -> bytes:
    return bytes(cv2.imencode(".jpg", np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])
