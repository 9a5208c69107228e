"""The shutter of a thermal camera, as a stream shows it: frozen and covered frames, and the jump of level after it."""

from collections import deque
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.thermal.grey import sampled

SHUTTER = "shutter"
_REMEMBERED = 24  # frames
_KNOWN = 5  # differences from which what is usual is known
_FROZEN_SHARE = 0.1  # of the smaller usual differences: noise alone makes more
_GAP_PERIODS, _GAP_S = 3.0, 0.3  # a pause longer than both is one that a shutter makes
_SETTLES_S = 3.0  # the level goes on to drift after a shutter
_COVERED_S = 1.0  # a flat image that lasts longer is what the camera sees
_COVERED_SHARE = 0.2  # of the spread before
# Of a drift: pixels of a block; share of the spread within which half of them changes where the scene holds still;
# median distances from the drift up to which a block counts.
_BLOCK, _STILL_SHARE, _USUAL = 4, 0.05, 6.0


@dataclass(frozen=True)
class Sight:
    """What a frame tells.

    is_fresh: it shows the scene anew. jump: of the whole level after a shutter, in counts, or 0. passed_s: since the
    last fresh frame. drift: of the level since then, in counts, where most of the image holds still; else 0.
    settles: it is soon after a shutter.
    """

    is_fresh: bool
    jump: float = 0.0
    passed_s: float = 0.0
    drift: float = 0.0
    settles: bool = False

    @property
    def event(self) -> str:
        """`SHUTTER` for a frame that is frozen or covered, and for the first one after a closed shutter; else ""."""
        return SHUTTER if self.jump or not self.is_fresh else ""


class ShutterWatch:
    """Finds shutter events in frames of one size, given in order, from how much frames of this stream differ."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._last_s = self._spread = 0.0  # of the last fresh frame
        self._fresh: deque[float] = deque(maxlen=_REMEMBERED)  # differences of fresh frames
        self._periods: deque[float] = deque(maxlen=_REMEMBERED)
        self._covered_s: float | None = None
        self._shut_s: float | None = None

    def see(self, values: NDArray[Any], time_s: float, *, has_level: bool = True) -> Sight:
        """Return what a frame tells.

        values: (H, W) uint8 or uint16. time_s: when it was taken. has_level: its values are counts, and not what a
        camera's own gain has made of them: only then a jump or a flat image means a shutter.
        """
        inner = slice(4, -4) if len(values) >= 32 else slice(None)  # telemetry counts on while the image is frozen
        image = sampled(values[inner]).astype(np.float32)
        last = self._last
        spread = _spread(image) if has_level else 0.0
        if last is None or last.shape != image.shape:
            return self._take(image, spread, time_s)
        passed_s = time_s - self._last_s
        change = image - last
        differs = float(cv2.norm(change, cv2.NORM_L1)) / change.size
        usual = sorted(self._fresh)[len(self._fresh) // 5] if len(self._fresh) >= _KNOWN else 0.0
        if usual > 0 and differs < _FROZEN_SHARE * usual:
            return Sight(False, passed_s=passed_s)
        if has_level and self._is_covered(spread, time_s):
            return Sight(False, passed_s=passed_s)
        is_gap = bool(self._periods) and passed_s > max(_GAP_PERIODS * median(self._periods), _GAP_S)
        before = self._spread
        jump = _jump(change, before, is_gap) if has_level and len(self._fresh) >= _KNOWN else 0.0
        sight = self._take(image, spread, time_s, jump)
        if jump:
            self._shut_s = time_s
        settles = self._shut_s is not None and 0 <= time_s - self._shut_s < _SETTLES_S
        sight = replace(sight, settles=settles, drift=0.0 if jump or not has_level else _drift(change, before))
        if not jump and not is_gap:
            self._fresh.append(differs)
            if passed_s > 0:
                self._periods.append(passed_s)
        return sight

    def _take(self, image: NDArray[np.float32], spread: float, time_s: float, jump: float = 0.0) -> Sight:
        passed_s = time_s - self._last_s if self._last is not None else 0.0
        self._last, self._spread, self._last_s, self._covered_s = image, spread, time_s, None
        return Sight(True, jump, passed_s)

    def _is_covered(self, spread: float, time_s: float) -> bool:
        """Say whether the image went flat from one frame to the next, and not for longer than a shutter closes."""
        if spread > _COVERED_SHARE * self._spread or self._spread < 10:
            return False
        if self._covered_s is None:
            self._covered_s = time_s
        return time_s - self._covered_s < _COVERED_S


def _jump(change: NDArray[np.float32], spread: float, is_gap: bool) -> float:
    """Return by how much the whole level jumped, in counts; 0 if only a part of the image changed, or it is noise.

    A pause makes a smaller one, that fewer pixels share, one of a shutter.
    """
    level = _middle(change[::2, ::2])
    least, shared = (0.05, 0.7) if is_gap else (0.15, 0.85)
    if abs(level) < max(least * spread, 2):
        return 0.0
    follows = float(np.mean((change * np.sign(level)) > abs(level) / 2))
    return level if follows >= shared else 0.0


def _drift(change: NDArray[np.float32], spread: float) -> float:
    """Return by how much the level has drifted, in counts; 0 where the scene moves: then it cannot be told.

    It is the mean over blocks, of which none counts for more than is usual (Huber's). Between two frames some columns
    drift, and the others do between the next two: the middle of all loses a third of it, which adds up.
    """
    size = tuple(max(1, side // _BLOCK) for side in change.shape[::-1])
    blocks = cv2.resize(change, size, interpolation=cv2.INTER_AREA)
    drift = _middle(blocks)
    unlike = _middle(np.abs(blocks - drift))
    if unlike > max(_STILL_SHARE * spread, 1):
        return 0.0
    for _ in range(3):
        drift += float(np.clip(blocks - drift, -_USUAL * unlike, _USUAL * unlike).mean())
    return drift


def _spread(image: NDArray[np.float32]) -> float:
    """Return what an image spans from its 1st to its 99th percentile; by a sort it takes an eighth of the time."""
    values = np.sort(image[::4, ::4], axis=None)
    return float(values[-1 - len(values) // 100] - values[len(values) // 100])


def _middle(values: NDArray[Any]) -> float:
    """Return the median, without the checks of NumPy's, which take most of its time."""
    half = values.size // 2
    return float(np.partition(values, half, axis=None)[half])
