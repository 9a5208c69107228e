"""Automatic gain: which counts of a stream become which grey, steady from frame to frame."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Grey levels: below the scene, of its body, and above it for what is hot. A hot thing that enters then compresses
# what is hot, and leaves the body as it is.
_DARK, _BRIGHT, _MOST = 8.0, 160.0, 255.0
_LOW, _HIGH, _PEAK = 0.5, 97.0, 99.95  # percentiles of the scene
# The body ends no farther above its upper end than that lies above the middle, times this: more than a bell has. So
# hot things on up to a tenth of the image are not taken for it.
_UPPER, _TAIL = 90.0, 0.6
# Both ends of the body rest while they lie between these percentiles: most scenes then move nothing at all.
# Nor does a hot thing that stays: drawn to its place within minutes, the background was 6 grey levels off.
_LOW_RESTS, _HIGH_RESTS = (0.05, 3.0), (_UPPER, 99.7)
# Of the body, in noises, and in counts at least: a bare wall is not stretched until its noise looks like a scene.
_NARROWEST, _NARROWEST_COUNTS = 20.0, 30.0
_BODY_S, _PEAK_S = 1.5, 0.5  # time constants: of the body where it does not rest, and of what is hot


@dataclass(frozen=True)
class Tone:
    """A curve from counts to grey: 8 at `low`, straight to 160 at `high`, then ever flatter to 255 at `top`."""

    low: float
    high: float
    top: float

    def grey(self, counts: NDArray[Any]) -> NDArray[np.uint8]:
        """Return uint8 of uint8 or uint16 counts, the same shape, by one table."""
        first, last = counts.min(), counts.max()
        table = np.rint(self.levels(np.arange(int(first), int(last) + 1, dtype=np.float32))).astype(np.uint8)
        return table.take(counts - first, mode="clip")  # with bounds checked it takes twice as long

    def levels(self, counts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return grey levels, 0 to 255, not rounded."""
        body = np.maximum((counts - np.float32(self.low)) * np.float32(self.slope) + np.float32(_DARK), 0)
        beyond, width = np.maximum(counts - np.float32(self.high), 0), self.top - self.high
        bend = _bend(self.slope, width)
        share = np.log1p(beyond * np.float32(bend)) / math.log1p(bend * width) if bend else beyond / np.float32(width)
        hot = np.minimum(share, 1) * np.float32(_MOST - _BRIGHT)
        return np.asarray(np.minimum(body, np.float32(_BRIGHT)) + hot, np.float32)

    @property
    def slope(self) -> float:
        """Grey levels a count, in the body."""
        return (_BRIGHT - _DARK) / (self.high - self.low)

    def moved(self, counts: float) -> "Tone":
        """Return the curve for counts that are so much higher."""
        return Tone(self.low + counts, self.high + counts, self.top + counts)


class Agc:
    """The tone of a stream, over time: at once that of its first frame, then as slowly as the scene allows.

    is_locked: it holds what it has. tone: of the newest frame; None before the first.
    """

    def __init__(self) -> None:
        self.is_locked = False
        self.tone: Tone | None = None

    def restart(self) -> None:
        """Take the next frame for the first."""
        self.tone = None

    def see(self, scene: NDArray[Any], noise: float, passed_s: float) -> Tone:
        """Return the tone for a frame.

        scene: counts of the pixels that show it, (N,), at least one. noise: of a pixel, in counts. passed_s: since the
        frame before.
        """
        if self.is_locked and self.tone:
            return self.tone
        shares = np.cumsum(np.bincount(scene)) / scene.size * 100

        def at(share: float) -> float:
            return float(np.searchsorted(shares, min(share, 100 - 1e-9), side="right"))

        middle, upper = at(50), at(_UPPER)
        high = min(at(_HIGH), upper + _TAIL * (upper - middle))
        wanted = _gentle(Tone(*_apart_enough(at(_LOW), high, noise), at(_PEAK)))
        if self.tone is None:
            self.tone = wanted
            return self.tone
        width = wanted.high - wanted.low
        low_rests, high_rests = ([at(share) for share in rests] for rests in (_LOW_RESTS, _HIGH_RESTS))
        # A scene without tails has its percentiles close together.
        low = _between(self.tone.low, min(low_rests[0], wanted.low - 0.05 * width), max(low_rests[1], wanted.low))
        high = _between(self.tone.high, min(high_rests[0], wanted.high), max(high_rests[1], wanted.high + 0.05 * width))
        low, high = _apart_enough(low, high, noise)
        body, peak = (1 - math.exp(-passed_s / constant) for constant in (_BODY_S, _PEAK_S))
        now = self.tone
        moved = Tone(
            now.low + body * (low - now.low),
            now.high + body * (high - now.high),
            now.top + peak * (wanted.top - now.top),
        )
        self.tone = _gentle(moved)
        return self.tone

    def bridge(self, scene: NDArray[Any], jump: float, before: float) -> None:
        """Move the tone by a jump of the level, so that the mean of a frame stays what it was.

        scene: counts after it. jump: in counts, about. before: mean grey level of the frame before it.
        """
        if self.tone is None or self.is_locked:
            return
        tone = self.tone.moved(jump)
        for _ in range(3):
            apart = float(tone.levels(scene.astype(np.float32)).mean()) - before
            tone = tone.moved(apart / tone.slope)
        self.tone = tone

    def drift(self, counts: float) -> None:
        """Move the tone by a drift of the level."""
        if self.tone and not self.is_locked:
            self.tone = self.tone.moved(counts)


def _apart_enough(low: float, high: float, noise: float) -> tuple[float, float]:
    """Return both ends of a body that is wide enough for the noise."""
    lacking = max(0.0, max(_NARROWEST * noise, _NARROWEST_COUNTS) - (high - low))
    return low - lacking / 2, high + lacking / 2


def _gentle(tone: Tone) -> Tone:
    """Return a tone whose hot part is no steeper than its body."""
    return replace(tone, top=max(tone.top, tone.high + (_MOST - _BRIGHT) / tone.slope))


def _bend(slope: float, width: float) -> float:
    """Return b > 0 so that log(1 + b x) / log(1 + b width) times the hot levels begins with `slope`; 0 for a line."""
    levels = _MOST - _BRIGHT
    if slope * width <= levels * 1.001:
        return 0.0
    few, many = 0.0, 1.0
    while levels * many < slope * math.log1p(many * width):
        many *= 2
    for _ in range(40):
        middle = (few + many) / 2
        few, many = (middle, many) if levels * middle < slope * math.log1p(middle * width) else (few, middle)
    return many


def _between(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
