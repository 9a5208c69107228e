"""A V4L2 device as a camera: its frames have the driver's time stamp, or the time at which they arrived."""

import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.address import Address, split_options
from cled_edge.camera.source import Camera
from cled_edge.errors import OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import ARRIVAL, MONOTONIC, Frame
from cled_edge.size import parse_number, parse_size, size_text

FALLBACK_RATE_HZ = 30.0  # what an output video is stamped with if a camera does not tell its rate
RAW_GREY = ("Y10 ", "Y12 ", "Y14 ", "Y16 ")  # counts in 16 bit: OpenCV would cut them down to 8
# A read that waits longer fails, and the device is given back: OpenCV's own 10 s would keep it from being opened again.
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "3")  # seconds; read at the first wait of the process
MAX_AGE_NS = 5_000_000_000  # a stamp that is older than this on arrival is of another clock


class V4l2Camera(Camera):
    """A camera that Linux shows as /dev/videoN; the place is N or a device, links by id included.

    `?format=Y16&size=512x640&rate_hz=60` behind the place asks for a pixel format, height and width, and rate;
    OptionError if the camera then says that it gives others. A name by id, /dev/v4l/by-id/NAME, is the same camera's
    after it was unplugged; a number may be another's.
    Formats of 10 to 16 bit grey give their counts: uint16 (H, W). All others give BGR, or grey of 8 bit.

    timestamp_ns: the driver's, where it lies in the last five seconds of this computer's monotonic clock, which is then
    the frame's clock. Some drivers stamp by another clock or not at all: then it is the time of arrival, and the
    clock's name says so.
    """

    is_live = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        place, wanted = split_options(address.place, ("format", "size", "rate_hz"))
        device = f"/dev/video{place}" if place.isdecimal() else place
        if not os.path.exists(device):
            raise SourceMissingError(f"{device} does not exist; list cameras with: ls /dev/video*")
        # The device itself: OpenCV takes a link's name for what it looks like.
        self._capture = cv2.VideoCapture(os.path.realpath(device), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceUnreadableError(f"{device} is no camera that OpenCV can open; check its cable and permissions")
        try:
            self._ask_for(wanted)
        except OptionError:
            self._capture.release()
            raise
        if self._format() in RAW_GREY:
            self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = rate_hz if rate_hz > 0 else FALLBACK_RATE_HZ

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while self._capture.grab():
            now_ns = time.monotonic_ns()
            stamp_ns, clock = stamped(self._capture.get(cv2.CAP_PROP_POS_MSEC), now_ns)
            image = self._retrieved(index)
            yield Frame(image, stamp_ns, clock, index, self.address.text, "BGR", arrival_ns=now_ns)
            index += 1
        name = self.address.text
        raise SourceUnreadableError(f"camera {name} gives no more frames, after {index}; check its cable and power")

    def _ask_for(self, wanted: Mapping[str, str]) -> None:
        """Set the format, then the size, then the rate, as each depends on the one before; and read back all."""
        asked: dict[str, tuple[str, str]] = {}  # what was asked for, and what the camera says it gives
        if "format" in wanted:
            code = wanted["format"].ljust(4)
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*code) if len(code) == 4 else -1)
        if "size" in wanted:
            height, width = parse_size(wanted["size"])
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
            asked["size"] = size_text((height, width)), size_text(self._size())
        if "rate_hz" in wanted:
            rate_hz = parse_number(wanted["rate_hz"], "rate_hz")
            self._capture.set(cv2.CAP_PROP_FPS, rate_hz)
            given_hz = self._capture.get(cv2.CAP_PROP_FPS)
            asked["rate_hz"] = f"{rate_hz:g} Hz", f"{rate_hz if abs(given_hz - rate_hz) < 0.5 else given_hz:g} Hz"
        if "format" in wanted:
            asked["format"] = wanted["format"].strip(), self._format().strip() or "another format"
        for given in asked.values():
            if given[0] != given[1]:
                raise OptionError(
                    f"{self.address.text}: the camera gives {given[1]}, not {given[0]}; choose one that v4l2-ctl lists"
                )

    def _size(self) -> tuple[int, int]:
        height, width = (self._capture.get(side) for side in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        return int(height), int(width)

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
        height, width = self._size()
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
