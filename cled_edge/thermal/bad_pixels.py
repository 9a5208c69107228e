"""Bad pixels: those of one image that stand alone, and those of a stream that stay while the scene moves."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_AROUND = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x)
_CLUSTER = 3  # pixels that may be bad beside each other; four in a square are taken for a target
_LEAST_SHARE = 1 / 12  # of the spread of the image by which a bad pixel stands out at least
_NOISES = 11.0  # mean distances of a pixel from the median around it, in the whole image and in its block
_BLOCK = 8  # pixels
_LOOK_FRAMES, _LOOKS, _LARGEST = 5, 10, 6  # from look to look; looks until it is stuck; pixels of a cluster
_MOVING_SHARE = 0.1  # of the pixels that move in a scene that moves
_MOST = 0.05  # of all pixels: where more stand out, the image is noise, and noise is left to the network


def repaired(values: NDArray[Any]) -> NDArray[Any]:
    """Return (H, W) uint8 or uint16 without its bad pixels; the same array if it has none.

    A pixel is bad if it stands out of all its neighbours but two: beyond noise, and by more than they span, as nothing
    does that a lens has blurred. So one goes, and clusters of two and three; a target of 2x2 pixels stays. It becomes
    the mean of the two middle neighbours. A conditional rank filter; differs from a median in that all else is kept.
    """
    height, width = values.shape
    if min(height, width) < _BLOCK:
        return values
    apart = cv2.absdiff(values, cv2.medianBlur(values, 3))
    sampled = np.sort(values[:: 2 * _BLOCK, :: 2 * _BLOCK], axis=None)
    spread = int(sampled[-1 - len(sampled) // 100]) - int(sampled[len(sampled) // 100])
    sample = apart[::_BLOCK, ::_BLOCK].astype(np.float32)
    noise = float(np.minimum(sample, 4 * sample.mean() + 1).mean())
    least = int(max(_LEAST_SHARE * spread, _NOISES * noise, 2))
    places = np.flatnonzero(apart > least)
    if not 0 < len(places) <= _MOST * values.size:
        return values
    rows, columns = np.divmod(places, width)
    steps = np.array(_AROUND)
    near = _reflected(rows[:, None] + steps[:, 0], height), _reflected(columns[:, None] + steps[:, 1], width)
    around = np.sort(values[near].astype(np.int32), axis=1)  # of 8 bit it takes twice as long
    low, high = around[:, _CLUSTER - 1], around[:, -_CLUSTER]
    own = values.ravel()[places].astype(np.int32)
    beyond = np.maximum(own - high, low - own)
    bad = np.flatnonzero(beyond > np.maximum(least, high - low))
    unrest = _unrest(apart, rows[bad], columns[bad], 2 * least)  # last: few pixels are left, and their blocks
    bad = bad[beyond[bad] > _NOISES * unrest]
    if not len(bad):
        return values
    mended = values.copy()
    mended.ravel()[places[bad]] = (around[bad, 3] + around[bad, 4]) // 2
    return mended


def _reflected(at: NDArray[np.intp], side: int) -> NDArray[np.intp]:
    """Return places of which one beyond the border is the one before it."""
    return (side - 1) - np.abs((side - 1) - np.abs(at))


def _unrest(apart: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp], most: int) -> NDArray[np.float64]:
    """Return the mean distance in the whole block of each pixel, where none counts for more than `most`."""
    height, width = (side // _BLOCK for side in apart.shape)
    blocks = apart[: height * _BLOCK, : width * _BLOCK].reshape(height, _BLOCK, width, _BLOCK)
    own = blocks[np.minimum(rows // _BLOCK, height - 1), :, np.minimum(columns // _BLOCK, width - 1)]
    return np.asarray(np.minimum(own.astype(np.int32), most).mean(axis=(1, 2)), np.float64)


class StuckPixels:
    """The map of the pixels of a stream that stay while the scene around them moves.

    count: how many it holds. A pixel enters it after ten looks at a moving scene, and leaves it when it moves again. It
    holds clusters of six pixels at most, and rows and columns: what is larger may be a part of the robot, or drawn.
    """

    def __init__(self) -> None:
        self._before: NDArray[Any] | None = None
        self._frames = 0
        self._rests: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)  # looks since a pixel moved
        self._stays: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)  # of them those in which all around it moved
        self._map: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)
        self.count = 0

    def see(self, values: NDArray[Any]) -> None:
        """Look at the next frame, (H, W) uint8 or uint16, which is fresh and as large as those before."""
        self._frames += 1
        if self._before is None:
            self._before = values.copy()
            self._rests, self._stays, self._map = (np.zeros(values.shape, np.uint8) for _ in range(3))
        elif self._frames % _LOOK_FRAMES == 0:
            self._look(values, self._before)
            self._before = values.copy()

    def _look(self, values: NDArray[Any], before: NDArray[Any]) -> None:
        change = cv2.absdiff(values, before)
        around = cv2.medianBlur(change, 5)
        noise = 1.4826 * float(np.median(cv2.absdiff(values, cv2.medianBlur(values, 3))[::4, ::4]))
        low, high = np.percentile(values[::4, ::4], [1, 99])
        moves = around > max(8 * noise, 0.05 * (high - low), 3)
        if moves.mean() < _MOVING_SHARE:
            return
        stays = change <= max(noise, 1)
        for looks, more in ((self._rests, stays), (self._stays, stays & moves)):
            looks[more] = np.minimum(looks[more], 254) + 1
            looks[~stays] = 0
        self._map = _of_a_sensor(self._stays >= _LOOKS, self._rests >= _LOOKS)
        self.count = int(self._map.sum())

    def filled(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a frame whose pixels of the map are the mean of the good ones beside them, up to two pixels away."""
        if not self.count:
            return values
        rows, columns = np.nonzero(self._map)
        framed = cv2.copyMakeBorder(values, 2, 2, 2, 2, cv2.BORDER_REFLECT_101)
        good = cv2.copyMakeBorder(self._map, 2, 2, 2, 2, cv2.BORDER_REFLECT_101) == 0
        mended = values.copy()
        for reach in (2, 1):  # the nearest win
            steps = np.arange(-reach, reach + 1) + 2
            around = rows[:, None, None] + steps[:, None], columns[:, None, None] + steps
            weights = good[around]
            number = weights.sum(axis=(1, 2))
            mean = (framed[around] * weights).sum(axis=(1, 2)) / np.maximum(number, 1)
            has = number > 0
            mended[rows[has], columns[has]] = np.rint(mean[has])
        return mended


def _of_a_sensor(stuck: NDArray[np.bool_], rests: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the map, 0 or 1, of those stuck pixels that are in small clusters of what rests, or in a row or column."""
    if not stuck.any():
        return np.zeros(stuck.shape, np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(rests.astype(np.uint8))
    is_small = stats[:, cv2.CC_STAT_AREA] <= _LARGEST
    is_small[0] = False
    rows, columns = stuck.mean(axis=1) >= 0.5, stuck.mean(axis=0) >= 0.5
    return (stuck & is_small[labels] | rows[:, None] | columns[None]).astype(np.uint8)
