"""Whether two registered cameras have moved since: the shift between both images, looked at now and then."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.image import Float32, Uint8
from cled_edge.registration.structure import structure

_EVERY = 30  # pairs from one look to the next
_WIDTH_PX = 160  # at which it looks
_REACH = 0.06  # widths: a larger shift is none that it could tell
_KEPT = 0.8  # share of what earlier looks said, at each new one
_CLEAR = 4.0  # standard deviations by which the best shift must stand out


class DriftWatch:
    """Watches registered pairs, one look in 30: it takes 4 ms.

    validity: of the warped image, (H, W) uint8; where it is not 255 nothing is compared.

    A look correlates the structures of both images over shifts of up to 6 percent of the width; looks are averaged.
    Only a shift is told. Things that are nearer or farther than the calibration's distance count as one too.
    """

    def __init__(self, validity: Uint8, every: int = _EVERY) -> None:
        self._every, self._count = every, 0
        height, width = validity.shape
        self._factor = min(1.0, _WIDTH_PX / width)
        self._size = max(8, round(width * self._factor)), max(8, round(height * self._factor))
        valid = cv2.resize((validity == 255).astype(np.uint8), self._size, interpolation=cv2.INTER_AREA)
        # A structure reaches as far as it is blurred.
        self._mask = cv2.erode(valid, np.ones((9, 9), np.uint8), borderType=cv2.BORDER_REPLICATE).astype(np.float32)
        self._reach = max(2, round(_REACH * self._size[0]))
        self._mean: NDArray[np.float64] | None = None

    def look(self, infrared: NDArray[Any], visible: NDArray[Any]) -> None:
        """Count a registered pair, (H, W) or (H, W, 3) uint8; each 30th is looked at."""
        self._count += 1
        if (self._count - 1) % self._every == 0:
            surface = self._correlation(self._structure(infrared), self._structure(visible))
            self._mean = surface if self._mean is None else _KEPT * self._mean + (1 - _KEPT) * surface

    @property
    def drift_px(self) -> float | None:
        """How far the images are apart, in their pixels; None before the first look, and if no shift is clear."""
        if self._mean is None:
            return None
        row, column = (int(at) for at in np.unravel_index(int(self._mean.argmax()), self._mean.shape))
        beside = np.ones(self._mean.shape, bool)
        beside[max(0, row - 3) : row + 4, max(0, column - 3) : column + 4] = False
        others = self._mean[beside]
        if self._mean[row, column] < others.mean() + _CLEAR * others.std():
            return None
        down, right = (
            _peak(line, at) - self._reach for line, at in ((self._mean[:, column], row), (self._mean[row], column))
        )
        return round(float(np.hypot(down, right) / self._factor), 2)

    def _structure(self, image: NDArray[Any]) -> Float32:
        small = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        grey = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        found: Float32 = structure(grey) * self._mask[:, :, None]
        return found

    def _correlation(self, infrared: Float32, visible: Float32) -> NDArray[np.float64]:
        """Return (2r+1, 2r+1): how alike both are if the visible lies y, x pixels further down and right."""
        framed = cv2.copyMakeBorder(visible, *(self._reach,) * 4, cv2.BORDER_CONSTANT)
        surface = cv2.matchTemplate(framed, infrared, cv2.TM_CCORR)
        return np.asarray(surface / max(float(self._mask.sum()), 1.0), np.float64)


def _peak(line: NDArray[np.float64], at: int) -> float:
    """Return where the parabola through a peak and its neighbours is highest."""
    if not 0 < at < len(line) - 1:
        return float(at)
    before, top, after = line[at - 1 : at + 2]
    return float(at + 0.5 * (before - after) / min(before - 2 * top + after, -1e-12))
