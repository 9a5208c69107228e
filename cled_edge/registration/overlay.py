"""How well a calibration fits, to look at: the infrared in red over the visible in cyan, before and after."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.image import Uint8
from cled_edge.registration.lens import PixelMap

_WIDTH_PX, _TITLE_PX = 800, 26  # of each of the two images


def overlay(infrared: NDArray[Any], visible: NDArray[Any], found: PixelMap, says: str) -> Uint8:
    """Return (H, 2 W, 3) RGB: on the left the infrared stretched over the visible, on the right as the map has it.

    Where both fit, edges are grey; where not, they are red beside cyan. infrared, visible: grey, of any depth. says:
    what is written over the right one, such as the error in pixels.
    """
    width = min(_WIDTH_PX, visible.shape[1])
    height = max(1, round(visible.shape[0] * width / visible.shape[1]))
    base = levelled(cv2.resize(visible.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA))
    y, x = np.mgrid[:height, :width].astype(np.float64)
    factor = visible.shape[1] / width
    places = found.infrared_points((np.stack([x.ravel(), y.ravel()], -1) + 0.5) * factor - 0.5)
    column, row = (np.clip(axis, -1e4, 3e4).astype(np.float32).reshape(height, width) for axis in places.T)
    level = levelled(infrared.astype(np.float32))
    after = cv2.remap(level, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    before = cv2.resize(level, (width, height), interpolation=cv2.INTER_LINEAR)
    sides = [np.dstack([red, base, base]) for red in (before, after)]
    for image, text in zip(sides, ("before", f"after: {says}"), strict=True):
        image[:_TITLE_PX] = 0
        cv2.putText(image, text, (8, _TITLE_PX - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.ascontiguousarray(np.concatenate(sides, axis=1))


def levelled(grey: NDArray[Any]) -> Uint8:
    """Return 8 bit of even contrast: thermal images are flat, nights are dark."""
    low, high = np.percentile(grey, (1, 99))
    image = np.clip((grey - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.createCLAHE(3.0, (8, 8)).apply(image), np.uint8)
