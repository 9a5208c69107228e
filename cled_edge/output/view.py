"""Views of a fused frame: what an output or the page may show of it, by name."""

from collections.abc import Callable

import cv2
import numpy as np

from cled_edge.errors import OutputError
from cled_edge.frame import Frame, FusedFrame
from cled_edge.image import Uint8, grey_from_any, swapped

_HOT_SHARE = 0.85  # of the palette's colour at the hottest pixel of an overlay
MOST_LEVELS = 32  # of an uncertainty: from there on it is white
_SCALE_PX = 10, 96  # of the palette's own picture, height and width
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


def _uncertainty(frame: FusedFrame, place: int) -> Uint8:
    """Return how far off a restored image may be, black 0 to white 32 grey levels and more, with that scale on it."""
    if frame.uncertainty is None:
        raise OutputError(
            "a frame has no uncertainty to show, as it was not asked for; name an output that shows it when the run "
            "begins, or load the fuser with uncertainty=True"
        )
    share = np.clip(frame.uncertainty[place] * np.float32(255 / MOST_LEVELS), 0, 255)
    image = np.asarray(cv2.applyColorMap(np.rint(share).astype(np.uint8), cv2.COLORMAP_INFERNO), np.uint8)
    _draw_scale(image)
    return image if frame.color_order == "BGR" else swapped(image)


def _draw_scale(bgr: Uint8) -> None:
    """Draw the palette from 0 to MOST_LEVELS into the lower left corner, where there is room for it."""
    height, width = bgr.shape[:2]
    if height < _SCALE_PX[0] + 20 or width < _SCALE_PX[1] + 80:
        return
    top, left = height - _SCALE_PX[0] - 6, 18
    bgr[top - 4 :, : _SCALE_PX[1] + 80] //= 3
    ramp = np.linspace(0, 255, _SCALE_PX[1]).astype(np.uint8)[None].repeat(_SCALE_PX[0], axis=0)
    bgr[top : top + _SCALE_PX[0], left : left + _SCALE_PX[1]] = cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)
    for text, x in (("0", 6), (f"{MOST_LEVELS} levels", left + _SCALE_PX[1] + 4)):
        cv2.putText(bgr, text, (x, height - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA)


VIEWS: dict[str, Callable[[FusedFrame], Uint8]] = {
    "fused": lambda frame: frame.picture,
    "infrared": lambda frame: frame.infrared,
    "visible": lambda frame: frame.visible,
    "infrared-input": _infrared_input,
    "visible-input": _visible_input,
    "infrared-inferno": _inferno,
    "side-by-side": _side_by_side,
    "overlay": _overlay,
    "registration": _registration,
    "infrared-uncertainty": lambda frame: _uncertainty(frame, 0),
    "visible-uncertainty": lambda frame: _uncertainty(frame, 1),
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
