"""A video file as a camera: its frames have their presentation time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
from numpy.typing import NDArray

from cled_edge.address import Address
from cled_edge.camera.source import Camera
from cled_edge.errors import SourceMissingError, SourceUnreadableError
from cled_edge.frame import MEDIA, ORDER, Frame


class VideoFile(Camera):
    """A video that FFmpeg can decode, grey or BGR.

    timestamp_ns: presentation time, from the first frame of the file. A frame of a stream without times, such as raw
    H.264, has its place in the order instead.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if not Path(address.place).exists():
            raise SourceMissingError(f"{address.place} does not exist; give the path of a video")
        if not Path(address.place).is_file():  # OpenCV would wait for a pipe for ever
            raise SourceUnreadableError(f"{address.place} is no regular file; give the path of a video")
        self.files = (Path(address.place),)
        self._capture = opened(address.place, cv2.CAP_FFMPEG)
        self.announced = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))) or None
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = rate_hz if rate_hz > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        index, last_ns = 0, -1
        while self._capture.grab():
            # Equal to the container's times for constant and variable rates, with and without B frames, less the
            # time of the first frame (seen with OpenCV 4.9 and 5.0). It stays 0 where the stream has none.
            stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
            time, clock = (stamp_ns, MEDIA) if stamp_ns > last_ns else (index, ORDER)
            last_ns = max(last_ns, stamp_ns)
            yield Frame(retrieved(self._capture, self.address, index), time, clock, index, self.address.text, "BGR")
            index += 1
        self._check_end(index)

    def _check_end(self, count: int) -> None:
        """Tell an end from a loss. What a file announces is an estimate, so the last 1 % may be missing."""
        name, announced = self.address.text, self.announced or count
        if count == 0:
            raise SourceUnreadableError(f"{name} was opened, but holds no frame that can be decoded")
        if count < announced - max(2, announced // 100):
            raise SourceUnreadableError(f"{name} ended after {count} of {announced} frames; the file is damaged")

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


def opened(place: str, library: int) -> cv2.VideoCapture:
    """Open a stream by one of OpenCV's libraries; SourceUnreadableError if it cannot."""
    capture = cv2.VideoCapture(place, library)
    if not capture.isOpened():
        raise SourceUnreadableError(f"{place} is not a video or camera that OpenCV can open; check it, or convert it")
    return capture


def retrieved(capture: cv2.VideoCapture, address: Address, index: int) -> NDArray[Any]:
    """Decode the grabbed frame, grey (H, W) or BGR (H, W, 3); SourceUnreadableError if it cannot be decoded."""
    is_whole, image = capture.retrieve()
    if not is_whole or image is None:
        raise SourceUnreadableError(f"{address.text}: frame {index} cannot be decoded; the file or the link is damaged")
    return image
