"""A V4L2 device as a camera: its frames have the driver's time stamp, or the time at which they arrived."""

import math
import os
import time
from collections.abc import Iterator

import cv2

from cled_edge.address import Address
from cled_edge.camera.source import Camera
from cled_edge.camera.video_file import opened, retrieved
from cled_edge.errors import SourceMissingError, SourceUnreadableError
from cled_edge.frame import ARRIVAL, MONOTONIC, Frame

FALLBACK_RATE_HZ = 30.0  # what an output video is stamped with if a camera does not tell its rate
MAX_AGE_NS = 5_000_000_000  # a stamp that is older than this on arrival is of another clock


class V4l2Camera(Camera):
    """A camera that Linux shows as /dev/videoN; the place is N or a device, links by id included.

    timestamp_ns: the driver's, where it lies in the last five seconds of this computer's monotonic clock, which is then
    the frame's clock. Some drivers stamp by another clock or not at all: then it is the time of arrival, and the
    clock's name says so.
    """

    is_live = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        device = f"/dev/video{address.place}" if address.place.isdecimal() else address.place
        if not os.path.exists(device):
            raise SourceMissingError(f"{device} does not exist; list cameras with: ls /dev/video*")
        self._capture = opened(device, cv2.CAP_V4L2)
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = rate_hz if rate_hz > 0 else FALLBACK_RATE_HZ

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while self._capture.grab():
            stamp_ns, clock = stamped(self._capture.get(cv2.CAP_PROP_POS_MSEC), time.monotonic_ns())
            image = retrieved(self._capture, self.address, index)
            yield Frame(image, stamp_ns, clock, index, self.address.text, "BGR")
            index += 1
        name = self.address.text
        raise SourceUnreadableError(f"camera {name} gives no more frames, after {index}; check its cable and power")

    def close(self) -> None:
        """Close the device."""
        self._capture.release()


def stamped(driver_ms: float, now_ns: int) -> tuple[int, str]:
    """Return a frame's time and its clock: the driver's if it is plausible, else that of arrival, `now_ns`."""
    if not math.isfinite(driver_ms):
        return now_ns, ARRIVAL
    stamp_ns = round(driver_ms * 1e6)
    return (stamp_ns, MONOTONIC) if 0 <= now_ns - stamp_ns <= MAX_AGE_NS else (now_ns, ARRIVAL)
