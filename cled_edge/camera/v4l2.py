"""A V4L2 device as a camera: its frames have the driver's time stamp, or the time at which they arrived."""

import math
import os
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.address import Address
from cled_edge.camera.source import Camera
from cled_edge.errors import OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import ARRIVAL, MONOTONIC, Frame

FALLBACK_RATE_HZ = 30.0  # what an output video is stamped with if a camera does not tell its rate
RAW_GREY = ("Y10 ", "Y12 ", "Y14 ", "Y16 ")  # counts in 16 bit: OpenCV would cut them down to 8
MAX_AGE_NS = 5_000_000_000  # a stamp that is older than this on arrival is of another clock


class V4l2Camera(Camera):
    """A camera that Linux shows as /dev/videoN; the place is N or a device, links by id included.

    `?format=Y16` behind the place asks for that pixel format, as a thermal camera has it that also gives pictures.
    Formats of 10 to 16 bit grey give their counts: uint16 (H, W). All others give BGR, or grey of 8 bit.

    timestamp_ns: the driver's, where it lies in the last five seconds of this computer's monotonic clock, which is then
    the frame's clock. Some drivers stamp by another clock or not at all: then it is the time of arrival, and the
    clock's name says so.
    """

    is_live = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        place, _, wanted = address.place.partition("?format=")
        device = f"/dev/video{place}" if place.isdecimal() else place
        if not os.path.exists(device):
            raise SourceMissingError(f"{device} does not exist; list cameras with: ls /dev/video*")
        # The device itself: OpenCV takes a link's name for what it looks like.
        self._capture = cv2.VideoCapture(os.path.realpath(device), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceUnreadableError(f"{device} is no camera that OpenCV can open; check its cable and permissions")
        if wanted:
            self._ask_for(wanted.ljust(4))
        if self._format() in RAW_GREY:
            self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = rate_hz if rate_hz > 0 else FALLBACK_RATE_HZ

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while self._capture.grab():
            stamp_ns, clock = stamped(self._capture.get(cv2.CAP_PROP_POS_MSEC), time.monotonic_ns())
            image = self._retrieved(index)
            yield Frame(image, stamp_ns, clock, index, self.address.text, "BGR")
            index += 1
        name = self.address.text
        raise SourceUnreadableError(f"camera {name} gives no more frames, after {index}; check its cable and power")

    def _ask_for(self, wanted: str) -> None:
        code = cv2.VideoWriter.fourcc(*wanted) if len(wanted) == 4 else -1
        self._capture.set(cv2.CAP_PROP_FOURCC, code)
        if self._format() != wanted:
            raise OptionError(
                f"{self.address.text}: the camera gives {self._format().strip() or 'another format'}, not "
                f"{wanted.strip()}; choose one that v4l2-ctl lists"
            )

    def _format(self) -> str:
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        return "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24)) if code > 0 else ""

    def _retrieved(self, index: int) -> NDArray[Any]:
        """Decode the grabbed frame: (H, W) uint8 or uint16, or BGR (H, W, 3); or SourceUnreadableError."""
        is_whole, image = self._capture.retrieve()
        if not is_whole or image is None:
            raise SourceUnreadableError(f"{self.address.text}: frame {index} cannot be decoded; the link is damaged")
        if self._format() not in RAW_GREY:
            return image
        height, width = (int(self._capture.get(side)) for side in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        values = np.ascontiguousarray(image).view(np.uint16)  # some drivers give it as one row of bytes, opencv#27166
        if values.size != height * width:
            raise SourceUnreadableError(
                f"{self.address.text}: frame {index} has {values.size} counts, needed {height}x{width}; check the link"
            )
        return values.reshape(height, width)

    def close(self) -> None:
        """Close the device."""
        self._capture.release()


def stamped(driver_ms: float, now_ns: int) -> tuple[int, str]:
    """Return a frame's time and its clock: the driver's if it is plausible, else that of arrival, `now_ns`."""
    if not math.isfinite(driver_ms):
        return now_ns, ARRIVAL
    stamp_ns = round(driver_ms * 1e6)
    return (stamp_ns, MONOTONIC) if 0 <= now_ns - stamp_ns <= MAX_AGE_NS else (now_ns, ARRIVAL)
