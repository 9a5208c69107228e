"""What is shown while both cameras are lost: a dark image that says so, and for how long."""

import cv2
import numpy as np

from cled_edge.frame import FramePair, FusedFrame
from cled_edge.image import ColorOrder
from cled_edge.size import Size

_DARK, _LIGHT = 24, 200
_WIDE = 30  # characters, which fill the image


def dead_tile(pair: FramePair, size: Size, lost_s: float, color_order: ColorOrder) -> FusedFrame:
    """Return a frame of words, (height, width): that there is no camera, for how long, and both sources' states."""
    height, width = size
    picture = np.full((height, width, 3), _DARK, np.uint8)
    states = pair.states or ("lost", "lost")
    lines = ("NO CAMERA", f"for {lost_s:.0f} s", f"infrared: {states[0]}", f"visible: {states[1]}")
    scale = min(width / (_WIDE * 18), height / (len(lines) * 60))
    for row, line in enumerate(lines):
        place = round(20 * scale), round((row + 1) * height / (len(lines) + 1))
        cv2.putText(picture, line, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (_LIGHT,) * 3, max(1, round(2 * scale)))
    grey = np.ascontiguousarray(picture[:, :, 0])
    return FusedFrame(picture, grey, picture.copy(), color_order=color_order)
