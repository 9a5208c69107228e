"""Views of a fused frame: what an output or the page may show of it, by name."""

from collections.abc import Callable

import cv2
import numpy as np

from cled_edge.errors import OutputError
from cled_edge.frame import Frame, FusedFrame
from cled_edge.image import Uint8, grey_from_any, swapped

_HOT_SHARE = 0.85  # of the palette's colour at the hottest pixel of an overlay
_EDGE_LEVELS = 60, 150  # of Canny: slopes at which an edge of the visible ends and begins


def shown_image(frame: FusedFrame, name: str) -> Uint8:
    """Return a view: (H, W, 3) uint8 in the frame's colour order, or (H, W) grey; OutputError if it has no inputs.

    Views: see `VIEWS`. `side-by-side` is (H, 3 W, 3).
    """
    return VIEWS[name](frame)


def _infrared_input(frame: FusedFrame) -> Uint8:
    """Grey, as the camera gave it; 16 bit is stretched image by image."""
    infrared = _pair(frame)[0]
    return grey_from_any(infrared.image, infrared.color_order)


def _visible_input(frame: FusedFrame) -> Uint8:
    visible = _pair(frame)[1]
    image = visible.image
    if image.ndim == 2 or image.shape[2] == 1:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    return image if visible.color_order == frame.color_order else swapped(image)


def _inferno(frame: FusedFrame) -> Uint8:
    """Return the restored infrared in OpenCV's palette inferno: dark violet is cold, yellow hot."""
    return _palette(frame.infrared, frame)


def _side_by_side(frame: FusedFrame) -> Uint8:
    """Infrared and visible as they came, and fused."""
    grey, visible = _infrared_input(frame), _visible_input(frame)
    return np.concatenate([cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), visible, frame.picture], axis=1)


def _overlay(frame: FusedFrame) -> Uint8:
    """Return the restored infrared in inferno over the restored visible, the hotter the less transparent."""
    share = frame.infrared * np.float32(_HOT_SHARE / 255)
    return np.asarray(cv2.blendLinear(_inferno(frame), frame.visible, share, 1 - share), np.uint8)


def _registration(frame: FusedFrame) -> Uint8:
    """Return the infrared input in inferno with the edges of the visible in white; both fit where these meet."""
    to_grey = cv2.COLOR_BGR2GRAY if frame.color_order == "BGR" else cv2.COLOR_RGB2GRAY
    grey = np.asarray(cv2.cvtColor(_visible_input(frame), to_grey), np.uint8)
    level = np.asarray(cv2.createCLAHE(2.0, (8, 8)).apply(cv2.GaussianBlur(grey, (0, 0), 1.8)), np.uint8)
    image = _palette(_infrared_input(frame), frame)
    image[cv2.Canny(level, *_EDGE_LEVELS) > 0] = 255
    return image


VIEWS: dict[str, Callable[[FusedFrame], Uint8]] = {
    "picture": lambda frame: frame.picture,
    "infrared": lambda frame: frame.infrared,
    "visible": lambda frame: frame.visible,
    "infrared-input": _infrared_input,
    "visible-input": _visible_input,
    "infrared-inferno": _inferno,
    "side-by-side": _side_by_side,
    "overlay": _overlay,
    "registration": _registration,
}


def _palette(grey: Uint8, frame: FusedFrame) -> Uint8:
    bgr = np.asarray(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), np.uint8)
    return bgr if frame.color_order == "BGR" else swapped(bgr)


def _pair(frame: FusedFrame) -> tuple[Frame, Frame]:
    if frame.pair is None:
        raise OutputError(
            "a frame has no inputs to show, as it was fused from arrays; needed frames; fuse frames, or show the "
            "fused or a restored image"
        )
    return frame.pair.infrared, frame.pair.visible
