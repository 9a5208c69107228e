"""Light at night: a dark visible image brightened before the network sees it, as far as a control says.

A night street is dark, and the network leaves it so: it removes what a camera added. How much light to add is a wish,
so it is a control, and a formula that anyone can check: each pixel is divided by a power of the light that falls on it,
as LIME does (Guo, Li and Ling 2017, eq. 3 and its gamma). The network then removes the noise that the formula lifted.
The light is the largest channel (LIME, eq. 2), smoothed within edges by the fast guided filter (He and Sun 2015), so
that lamps keep their level and the dark around them does not.

What tells the colours apart is lifted by less, the gain to the power `COLOUR`: in the dark it is mostly noise.

How strong the power is follows from the image: its light, as a geometric mean, comes to `_LEVEL`, that of photographs
of low light that were taken again with a long exposure. An image that is as light as one by day is left alone, and one
at dusk is brightened in part. No power is above `_STRONGEST`.
"""

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.frame import ORDER
from cled_edge.image import Float32, Uint8

# By the 15 real pairs of LOL at hand: 15.5 dB to the long exposure, 7.8 without. The best, 16.7, has a power of .75 and
# lifts the colours alike. Real streets are a field of green and blue specks then.
_LEVEL, _STRONGEST, COLOUR = 0.45, 0.65, 0.7
_NIGHT, _DAY = 0.12, 0.25  # of the light's geometric mean: all of the power up to one, none from the other
_LEAST = 0.01  # light, in shares of full scale: what is darker is black, and its noise is not worth more
_BLACK = 6.0  # grey levels: rows and columns at the edges that are nowhere lighter are no part of the image
_COARSER = 4  # the filter works on an image so many times smaller
_REACH, _EDGE = 0.06, 0.01  # radius, in shares of the shorter side; variance of an edge, of full scale squared
_MEAN = np.full((1, 3), 1 / 3, np.float32)
_SETTLES_S, _LONGEST_GAP_S = 1.0, 2.0
LIT = "the visible image is dark, and light is {light:g}: the network is shown it brightened"
Moment = tuple[int, str]  # nanoseconds, and by which clock: `FramePair.time`
Steady = Callable[[float], float]


class SteadyLight:
    """The power of one stream: it follows the scene within seconds, so that no lamp that enters darkens the rest.

    A frame has a power of its own if the last one was of another clock, younger or over 2 s older, and in recordings
    without times, whose images may have nothing in common.
    """

    def __init__(self) -> None:
        self._last: tuple[Moment, float] | None = None

    def at(self, moment: Moment) -> Steady:
        """Return what makes of the power that a frame asks for the one that it gets."""

        def steady(power: float) -> float:
            if self._last is not None and moment[1] == self._last[0][1] != ORDER:
                gap_s = (moment[0] - self._last[0][0]) / 1e9
                if 0 <= gap_s <= _LONGEST_GAP_S:
                    power += math.exp(-gap_s / _SETTLES_S) * (self._last[1] - power)
            self._last = moment, power
            return power

        return steady


def brightened(visible: Uint8, light: float, steady: Steady | None = None) -> Uint8:
    """Return an 8-bit image, (H, W) or (H, W, 1 or 3), with so much of the light that it lacks, 0 to 1.

    With 0, and where nothing is lacking, it is the image itself. steady: see `SteadyLight`.
    """
    gain = gains(visible, light, steady)
    return visible if gain is None else lifted(visible, gain)


def lifted(visible: Uint8, gain: Float32) -> Uint8:
    """Return an image with the gains of `gains`: g^c x + (g - g^c) of the mean of a pixel's channels, c = `COLOUR`."""
    if visible.ndim == 2 or visible.shape[2] == 1:
        return np.asarray(cv2.multiply(visible, gain, dtype=cv2.CV_8U), np.uint8).reshape(visible.shape)
    own = cv2.pow(gain, COLOUR)
    grey = cv2.multiply(cv2.transform(visible, _MEAN), cv2.subtract(gain, own), dtype=cv2.CV_8U)
    channels = cv2.multiply(visible, cv2.merge([own] * 3), dtype=cv2.CV_8U)
    return np.asarray(cv2.add(channels, cv2.merge([grey] * 3)), np.uint8)


def gains(visible: Uint8, light: float, steady: Steady | None = None) -> Float32 | None:
    """Return by how much each pixel of an image, shaped as in `brightened`, is lifted, (H, W); None where all are 1."""
    if light <= 0 or not visible.size:
        return None
    largest = _largest_channel(visible)
    shining, small = _illumination(largest)
    power = _lacking(shining, largest, small)
    power = light * (power if steady is None else steady(power))
    if power <= 0:
        return None
    return np.asarray(cv2.pow(shining, -power), np.float32)


def _lacking(shining: Float32, largest: Uint8, small: Float32) -> float:
    """Return the power, 0 to `_STRONGEST`, that the image asks for.

    Pixels of 0 in all channels, as beside a warped image, do not count, and neither does a black frame around it.
    """
    left, top, width, height = (_COARSER * side for side in cv2.boundingRect((small > _BLACK / 255).astype(np.uint8)))
    inner = (slice(top, top + height), slice(left, left + width)) if width and height else (slice(None), slice(None))
    mean_log = float(cv2.mean(cv2.log(shining[inner]), largest[inner])[0])
    share = (math.log(_DAY) - mean_log) / math.log(_DAY / _NIGHT)
    power = 1 - math.log(_LEVEL) / min(mean_log, -1e-6)
    return min(max(power, 0.0), _STRONGEST) * min(max(share, 0.0), 1.0)


def _illumination(largest: Uint8) -> tuple[Float32, Float32]:
    """Return the light at each pixel, (H, W), in [`_LEAST`, 1], and the reduced image, by the largest channel."""
    whole = largest.astype(np.float32) / 255
    height, width = whole.shape
    size = max(1, width // _COARSER), max(1, height // _COARSER)
    small = np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.float32)
    reach = 2 * max(1, round(_REACH * min(size))) + 1
    mean = cv2.blur(small, (reach, reach))
    variance = cv2.blur(small * small, (reach, reach)) - mean * mean
    steep = variance / (variance + _EDGE)
    lines = (cv2.blur(part, (reach, reach)) for part in (steep, mean - steep * mean))
    slope, offset = (cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR) for part in lines)
    return np.clip(slope * whole + offset, _LEAST, 1).astype(np.float32, copy=False), small


def _largest_channel(visible: NDArray[Any]) -> Uint8:
    if visible.ndim == 2:
        return np.asarray(visible, np.uint8)
    first, *others = cv2.split(visible)
    for other in others:
        first = cv2.max(first, other)
    return np.asarray(first, np.uint8)
