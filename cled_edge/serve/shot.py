"""A fused frame as the page takes it: its facts as JSON, its views as JPEG, each made once for all who look."""

import asyncio
import threading
import time
from concurrent.futures import Executor, Future
from typing import Any

import cv2
import numpy as np

from cled_edge.errors import OptionError
from cled_edge.frame import FusedFrame
from cled_edge.image import Uint8, swapped
from cled_edge.output.frame_facts import facts_of
from cled_edge.output.view import VIEWS, shown_image

WIDTHS_PX = (160, 320, 480, 640, 960, 1280)
JPEG_QUALITY = 85


class Shot:
    """One fused frame. number: of the frame in this run, from 1. shown_ns: when it was fused, by time.monotonic_ns."""

    def __init__(self, number: int, frame: FusedFrame) -> None:
        self.number, self.frame, self.shown_ns = number, frame, time.monotonic_ns()
        self._jpegs: dict[tuple[str, int], Future[bytes]] = {}
        self._lock = threading.Lock()

    def facts(self) -> dict[str, Any]:
        """Return what the page says of it, in plain JSON types; times in milliseconds, None where one is unknown."""
        return {"number": self.number, **facts_of(self.frame)}

    async def jpeg(self, view: str, width_px: int, pool: Executor) -> bytes:
        """Return a view as JPEG, made on a thread of `pool` unless somebody has asked for it before."""
        with self._lock:
            made = self._jpegs.get((view, width_px))
            if made is None:
                made = self._jpegs[view, width_px] = pool.submit(jpeg_of, self.frame, view, width_px)
        return await asyncio.wrap_future(made)


def jpeg_of(frame: FusedFrame, view: str, width_px: int = 0) -> bytes:
    """Return a view as JPEG, at most so many pixels wide, 0 for its own width. OutputError if it cannot be shown."""
    image = bgr_of(frame, view)
    height, width = image.shape[:2]
    if width_px and width > width_px:
        size = width_px, max(1, round(height * width_px / width))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def png_of(frame: FusedFrame, view: str) -> bytes:
    """Return a view as PNG."""
    return bytes(cv2.imencode(".png", bgr_of(frame, view))[1])


def bgr_of(frame: FusedFrame, view: str) -> Uint8:
    """Return a view as OpenCV takes it: BGR, or grey."""
    image = shown_image(frame, view)
    return swapped(image) if image.ndim == 3 and frame.color_order == "RGB" else np.ascontiguousarray(image)


def view_and_width(text: str) -> tuple[str, int]:
    """Return the view and its greatest width in pixels, 0 for its own, of `VIEW` or `VIEW@WIDTH`.

    OptionError for an unknown view, and for a width that is not one of `WIDTHS_PX`.
    """
    name, at, width = text.partition("@")
    if name not in VIEWS:
        raise OptionError(f"there is no view {name[:40]!r}; known: {', '.join(VIEWS)}; take one of them")
    if at and width not in map(str, WIDTHS_PX):
        raise OptionError(f"a view is to be {width[:10]!r} pixels wide; known: {', '.join(map(str, WIDTHS_PX))}")
    return name, int(width) if at else 0
