"""Baselines: fusions that anybody can write in a few lines. A network must beat them before it is worth anything.

Each takes the infrared and the visible luma, (H, W) uint8, and returns the fused luma. The colours are the visible
image's throughout: `with_color` puts them back.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.image import Uint8

LumaFusion = Callable[[Uint8, Uint8], Uint8]
LEVELS = 5  # of the pyramid; fewer in small images
MAXIMUM = "max"


def average(infrared: Uint8, visible: Uint8) -> Uint8:
    """Return the mean of both."""
    return np.asarray(cv2.addWeighted(infrared, 0.5, visible, 0.5, 0), np.uint8)


def maximum(infrared: Uint8, visible: Uint8) -> Uint8:
    """Return the larger of both in each pixel."""
    return np.maximum(infrared, visible)


def copy_of_visible(infrared: Uint8, visible: Uint8) -> Uint8:  # noqa: ARG001  a fusion takes both
    """Return the visible: no fusion at all."""
    return visible.copy()


def laplacian_maximum(infrared: Uint8, visible: Uint8) -> Uint8:
    """Return the image whose Laplacian pyramid has the stronger detail of both, over the mean of both bases."""
    levels = max(1, min(LEVELS, int(np.log2(min(infrared.shape))) - 2))
    bases: list[NDArray[Any]] = [image.astype(np.float32) for image in (infrared, visible)]
    details: list[NDArray[Any]] = []
    for _ in range(levels):
        smaller: list[NDArray[Any]] = [cv2.pyrDown(base) for base in bases]
        # OpenCV's sizes are (width, height).
        bands = [b - cv2.pyrUp(s, dstsize=b.shape[::-1]) for b, s in zip(bases, smaller, strict=True)]
        details.append(np.where(np.abs(bands[0]) > np.abs(bands[1]), *bands))
        bases = smaller
    fused: NDArray[Any] = (bases[0] + bases[1]) / 2
    for band in reversed(details):
        fused = cv2.pyrUp(fused, dstsize=band.shape[::-1]) + band
    return np.rint(np.clip(fused, 0, 255)).astype(np.uint8)


def enhanced_maximum(infrared: Uint8, visible: Uint8) -> Uint8:
    """Return the larger of both after non-local means and CLAHE: restoration without learning."""
    return np.maximum(enhanced(infrared), enhanced(visible))


def enhanced(luma: Uint8) -> Uint8:
    """Return (H, W) uint8 without noise and with its local contrast equalised; CLAHE last, else it lifts the noise."""
    calm = cv2.fastNlMeansDenoising(luma, None, 8, 5, 15)
    return np.asarray(cv2.createCLAHE(2.0, (8, 8)).apply(calm), np.uint8)


BASELINES: dict[str, LumaFusion] = {
    "average": average,
    MAXIMUM: maximum,
    "copy of visible": copy_of_visible,
    "Laplacian max": laplacian_maximum,
    "max after CLAHE + NLM": enhanced_maximum,
}


def luma_of(image: Uint8) -> Uint8:
    """Return the luma, (H, W) uint8, of RGB (H, W, 3) or of a grey image."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) if image.ndim == 3 else image


def with_color(luma: Uint8, visible: Uint8) -> Uint8:
    """Return RGB (H, W, 3) of a fused luma and the colours of a visible RGB image."""
    planes = cv2.cvtColor(visible, cv2.COLOR_RGB2YCrCb)
    planes[:, :, 0] = luma
    return np.asarray(cv2.cvtColor(planes, cv2.COLOR_YCrCb2RGB), np.uint8)
