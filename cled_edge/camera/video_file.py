"""A video file as a camera: every frame in the depth and with the presentation time that the file gives it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2  # noqa: F401 (before av: once PyAV has loaded its libxcb, windows of OpenCV hang for ever, opencv#29195)

# isort: split
import av
import numpy as np
from numpy.typing import NDArray

from cled_edge.address import Address
from cled_edge.camera.source import Camera
from cled_edge.errors import SourceMissingError, SourceUnreadableError
from cled_edge.frame import MEDIA, ORDER, Frame

_NS = 10**9
_TOLERANCE_S = 0.1  # by which a file that tells only its duration may end early, beside the longest pause in it
# A playlist that calls itself a video must not make FFmpeg open other files or the network.
_OPTIONS = {"protocol_whitelist": "none"}


class VideoFile(Camera):
    """A video that FFmpeg can decode: grey (H, W), 8 or 16 bit with the file's own counts, or BGR (H, W, 3) uint8.

    timestamp_ns: presentation time, from `origin_ns` by the file's clock, which is its first frame unless somebody sets
    another. A stream without times, such as raw H.264, has the frames' places in the order instead.
    announced: frames by the file's index, None if it has none.

    Frames that cannot be decoded are left out, and the next one's notes and sequence number say so. A file that ends
    before its index or its duration says is a SourceUnreadableError, after the last frame.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        path = Path(address.place)
        if not path.exists():
            raise SourceMissingError(f"{address.place} does not exist; give the path of a video")
        if not path.is_file():  # a pipe would be waited for, for ever
            raise SourceUnreadableError(f"{address.place} is no regular file; give the path of a video")
        self.files = (path,)
        try:
            self._file = path.open("rb")  # and not FFmpeg: any name is good, with colons or in another encoding
        except OSError as error:
            raise SourceUnreadableError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
        try:
            self._container: Any = av.open(self._file, options=_OPTIONS)
            self._stream: Any = self._container.streams.video[0]
        except (av.error.FFmpegError, IndexError, OSError, ValueError) as error:
            self._file.close()
            raise SourceUnreadableError(f"{path} is not a video that FFmpeg can open; check or convert it") from error
        self._stream.thread_type = "AUTO"
        self.announced = self._stream.frames or None
        rate = self._stream.average_rate
        self.rate_hz = float(rate) if rate else None
        start = self._stream.start_time
        self._packets, self._end_s, self._pause_s = 0, 0.0, 0.0
        self.start_ns = None if start is None else _ns(start, self._stream.time_base)
        self.origin_ns = self.start_ns or 0

    def __iter__(self) -> Iterator[Frame]:
        name, index, lost, last_ns = self.address.text, 0, 0, -1
        clock, unsaid = MEDIA, 0
        for frame in self._decoded():
            if frame is None:
                lost += 1
                continue
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is None and index == 0:
                clock = ORDER
            number = index + lost
            if clock == ORDER:
                time_ns = number
            else:
                time_ns = last_ns + 1 if stamp is None else _ns(stamp, frame.time_base) - self.origin_ns
                if time_ns < last_ns:
                    raise SourceUnreadableError(
                        f"{name}: the time of frame {number} goes back by {(last_ns - time_ns) / _NS:.3f} s; needed "
                        "times that grow; write the file anew, or cut it there"
                    )
                time_ns = max(time_ns, last_ns + 1) if index else time_ns
            if clock == MEDIA and index:
                self._pause_s = max(self._pause_s, (time_ns - last_ns) / _NS)
            last_ns = time_ns
            notes = (f"frames of {name} cannot be decoded and are left out, {lost} in all",) if lost else ()
            yield Frame(image_of(frame, name), time_ns, clock, number, name, "BGR", notes=notes)
            index, unsaid = index + 1, lost
        if index == 0:
            raise SourceUnreadableError(f"{name} was opened, but holds no frame that can be decoded")
        self._check_end(index)
        if lost > unsaid:
            raise SourceUnreadableError(f"{name}: {lost - unsaid} frames at its end cannot be decoded; it is damaged")

    def _decoded(self) -> Iterator[Any]:
        """Yield every frame, None for one that is damaged; keeps count of what was read."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.dts is not None or packet.size:
                    self._packets += 1
                if packet.pts is not None:
                    ends = packet.pts + (packet.duration or 0)
                    self._end_s = max(self._end_s, float(ends * packet.time_base))
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    yield None
                    continue
                for frame in frames:
                    yield None if frame.is_corrupt else frame
        except av.error.FFmpegError:  # of the container: what follows cannot be read
            yield None
        except OSError as error:
            raise SourceUnreadableError(
                f"{self.address.text} cannot be read on: {error.strerror}; check the disk"
            ) from error

    def _check_end(self, count: int) -> None:
        """Tell an end from a loss, by what was read: an index says how many frames come, a duration until when."""
        name = self.address.text
        if self.announced and self._container.format.name == "avi":
            is_cut = self._packets < self.announced - max(1, self.announced // 100)  # some writers count one more
        elif self.announced:
            # A trimmed file holds fewer than it lists, and yet lasts until its end.
            is_cut = self._packets < self.announced and self._lacks_s() > 0.5 / (self.rate_hz or 1.0)
        else:
            is_cut = self._lacks_s() > self._pause_s + max(_TOLERANCE_S, 0.005 * self._end_s)
        if is_cut:
            of = f"of {self.announced} frames" if self.announced else f"frames, {self._lacks_s():.1f} s early"
            raise SourceUnreadableError(f"{name} ended after {count} {of}; the file is damaged")

    def _lacks_s(self) -> float:
        """Return how much earlier the stream ended than the file says; 0 if it does not say."""
        stream = self._stream
        if stream.duration is not None:
            promised = float((stream.start_time or 0) + stream.duration) * float(stream.time_base)
        elif "DURATION" in stream.metadata:  # a Matroska track's own
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            promised = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        elif self._container.duration is not None and len(self._container.streams) == 1:
            promised = self._container.duration / 1e6
        else:
            return 0.0
        return max(0.0, promised - self._end_s)

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._file.close()


def _ns(stamp: int, base: Any) -> int:
    return round(stamp * base * _NS)


def image_of(frame: Any, name: str) -> NDArray[Any]:
    """Return a decoded frame: grey as it is stored, uint8 or uint16 (H, W); all else BGR (H, W, 3) uint8, upright."""
    pixels = frame.format
    if pixels.name.startswith("gray") and len(pixels.components) == 1:
        bits = pixels.components[0].bits
        if bits > 16:
            raise SourceUnreadableError(f"{name} has pixels of {bits} bit; needed 8 or 16; convert it")
        kind = np.dtype(np.uint8 if bits <= 8 else ">u2" if pixels.is_big_endian else "<u2")
        plane = frame.planes[0]
        stored = np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // kind.itemsize)
        image = stored[:, : frame.width].astype(kind.newbyteorder("="))
    else:
        # Each frame has a scaler of its own, which starts a thread for each core by default: 5 ms for 0.6 of work.
        image = frame.to_ndarray(format="bgr24", threads=1)
    turns = round(getattr(frame, "rotation", 0) / 90)
    return np.ascontiguousarray(np.rot90(image, turns)) if turns % 4 else image
