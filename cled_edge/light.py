"""Light at night: a dark visible image brightened before the network sees it, as far as a control says.

A night street is dark, and the network leaves it so: it removes what a camera added. How much light to add is a wish,
so it is a control, and a formula that anyone can check: each pixel is divided by a power of the light that falls on it,
as LIME does (Guo, Li and Ling 2017, eq. 3 and its gamma). The network then removes the noise that the formula lifted;
training shows it such images. The light is the largest channel (LIME, eq. 2), smoothed within edges by the fast guided
filter (He and Sun 2015), so that lamps keep their level and the dark around them does not.

How strong the power is follows from the image: its light, as a geometric mean, comes to `_LEVEL`, that of photographs
of low light that were taken again with a long exposure. So a day image stays as it is. No power is above `_STRONGEST`.
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.image import Float32, Uint8

# Both fitted to the 15 real pairs of LOL at hand: 16.7 dB to the long exposure, 7.8 without, 16.9 at .5, the best.
_LEVEL, _STRONGEST = 0.45, 0.75
_LEAST = 0.01  # light, in shares of full scale: what is darker is black, and its noise is not worth more
LIT = "the visible image is dark, and light is {light:g}: the network is shown it brightened"
_COARSER = 4  # the filter works on an image so many times smaller
_REACH, _EDGE = 0.06, 0.01  # radius, in shares of the shorter side; variance of an edge, of full scale squared


def brightened(visible: Uint8, light: float) -> Uint8:
    """Return an 8-bit image, (H, W) or (H, W, 1 or 3), with so much of the light that it lacks, 0 to 1.

    With 0, and where nothing is lacking, it is the image itself.
    """
    gain = gains(visible, light)
    if gain is None:
        return visible
    channels = visible.shape[2] if visible.ndim == 3 else 1
    wide = gain if channels == 1 else cv2.merge([gain] * channels)
    return np.asarray(cv2.multiply(visible, wide, dtype=cv2.CV_8U), np.uint8).reshape(visible.shape)


def gains(visible: Uint8, light: float) -> Float32 | None:
    """Return what each pixel of an image, shaped as in `brightened`, is multiplied by, (H, W); None where it is 1."""
    if light <= 0 or not visible.size:
        return None
    largest = _largest_channel(visible)
    shining = _illumination(largest)
    power = light * _lacking(shining, largest)
    if power <= 0:
        return None
    return np.asarray(cv2.pow(shining, -power), np.float32)


def _lacking(shining: Float32, largest: Uint8) -> float:
    """Return the power, 0 to `_STRONGEST`, that brings the light to the level, as a geometric mean.

    Where all channels are 0, as beside a warped image, nothing is counted.
    """
    mean_log = float(cv2.mean(cv2.log(shining), largest)[0])
    return min(max(1 - math.log(_LEVEL) / min(mean_log, -1e-6), 0.0), _STRONGEST)


def _illumination(largest: Uint8) -> Float32:
    """Return the light at each pixel, (H, W), in [`_LEAST`, 1], by the largest channel, (H, W)."""
    whole = largest.astype(np.float32) / 255
    height, width = whole.shape
    size = max(1, width // _COARSER), max(1, height // _COARSER)
    small = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
    reach = 2 * max(1, round(_REACH * min(size))) + 1
    mean = cv2.blur(small, (reach, reach))
    variance = cv2.blur(small * small, (reach, reach)) - mean * mean
    steep = variance / (variance + _EDGE)
    lines = (cv2.blur(part, (reach, reach)) for part in (steep, mean - steep * mean))
    slope, offset = (cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR) for part in lines)
    return np.clip(slope * whole + offset, _LEAST, 1).astype(np.float32, copy=False)


def _largest_channel(visible: NDArray[Any]) -> Uint8:
    if visible.ndim == 2:
        return np.asarray(visible, np.uint8)
    first, *others = cv2.split(visible)
    for other in others:
        first = cv2.max(first, other)
    return np.asarray(first, np.uint8)
