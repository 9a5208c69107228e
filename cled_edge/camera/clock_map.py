"""When a camera's frames were taken by this computer's clock, though the camera stamps them by a clock of its own."""

from collections import deque
from collections.abc import Sequence

_BUCKET_NS, _BUCKETS = 500_000_000, 60  # the quickest frame of each half second, over 30 s
_SPAN_NS = 2_000_000_000  # below it, jitter would pass for drift
_MOST_DRIFT = 0.05  # of a clock of which nothing is known
_JUMP_NS, _JUMPED_NS = 250_000_000, 2_000_000_000  # so far beside the line, for so long if above

_Point = tuple[int, int]  # stamp, delay: when it arrived less when it was stamped


class ClockMap:
    """Maps stamps of one clock to `time.monotonic_ns`, by when the frames arrived; it estimates offset and drift.

    A frame's delay, its arrival less its stamp, is the offset between both clocks and its way, which jitters. No way is
    shorter than the shortest. So the line under all delays that comes closest to them is the offset with the shortest
    way, and its slope is the drift: Moon, Skelly and Towsley, "Estimation and removal of clock skew from network delay
    measurements", INFOCOM 1999. The shortest way itself cannot be known: mapped times are late by it.

    most_drift: what it takes for possible. On a busy computer frames seem to come ever later for seconds, which is no
    drift; for 10 s without frames it would put them 0.5 s off.

    A clock that jumps starts the estimate anew: forward at once, backward when 2 s of frames say so.
    restarts: how often it did.
    """

    def __init__(self, most_drift: float = _MOST_DRIFT) -> None:
        self.restarts = 0
        self._most_drift = most_drift
        self._clear()

    def _clear(self) -> None:
        self._points: deque[_Point] = deque(maxlen=_BUCKETS)
        self._bucket = self._origin_ns = self._offset_ns = 0
        self._slope = 0.0
        self._above_since_ns: int | None = None

    @property
    def drift(self) -> float:
        """By how much the camera's clock is too fast: 0.02 is 2 %."""
        return -self._slope

    @property
    def offset_ns(self) -> int:
        """This computer's clock less the camera's, at the last frame."""
        return self._line(self._points[-1][0]) if self._points else 0

    def restart(self) -> None:
        """Forget the clock: it was set, or counts from a new beginning."""
        if self._points:
            self.restarts += 1
        self._clear()

    def taken_ns(self, stamp_ns: int, arrival_ns: int) -> int:
        """Learn from a frame, and return when it was taken, by `time.monotonic_ns`; never after it arrived."""
        point = stamp_ns, arrival_ns - stamp_ns
        if self._points and self._has_jumped(point, arrival_ns):
            self.restart()
        bucket = arrival_ns // _BUCKET_NS
        if not self._points:
            self._points.append(point)
            self._bucket, self._origin_ns, self._offset_ns = bucket, *point
        elif bucket != self._bucket:
            self._fit()
            self._bucket = bucket
            self._points.append(point)
        elif self._above(point) < self._above(self._points[-1]):
            self._points[-1] = point
        self._offset_ns += min(0, self._above(point))
        return self.at_ns(stamp_ns)

    def at_ns(self, stamp_ns: int) -> int:
        """Return when it was by `time.monotonic_ns`, when the camera's clock told that."""
        return stamp_ns + self._line(stamp_ns)

    def _line(self, stamp_ns: int) -> int:
        return self._offset_ns + round(self._slope * (stamp_ns - self._origin_ns))

    def _above(self, point: _Point) -> int:
        return point[1] - self._line(point[0])

    def _has_jumped(self, point: _Point, arrival_ns: int) -> bool:
        above_ns = self._above(point)
        if above_ns <= _JUMP_NS:
            self._above_since_ns = None
            return above_ns < -_JUMP_NS
        # Frames that a stall held up come late too, but all at once.
        if self._above_since_ns is None:
            self._above_since_ns = arrival_ns
        return arrival_ns - self._above_since_ns > _JUMPED_NS

    def _fit(self) -> None:
        points = self._points
        if points[-1][0] - points[0][0] >= _SPAN_NS:
            self._slope = max(-self._most_drift, min(self._most_drift, _slope_below(points)))
        self._origin_ns = points[-1][0]
        self._offset_ns = 0
        self._offset_ns = min(self._above(point) for point in points)


def _slope_below(points: Sequence[_Point]) -> float:
    """Return the slope of the line below all points that is closest to them: the hull's edge below their mean stamp."""
    middle = sum(point[0] for point in points) / len(points)
    hull: list[_Point] = []
    for point in points:
        while len(hull) > 1 and _is_left_turn(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    right = next(index for index, point in enumerate(hull) if point[0] >= middle)
    (x0, y0), (x1, y1) = hull[max(0, right - 1)], hull[max(1, right)]
    return (y1 - y0) / (x1 - x0)


def _is_left_turn(first: _Point, second: _Point, third: _Point) -> bool:
    """Say whether the second point is not below the line from the first to the third."""
    return (second[1] - first[1]) * (third[0] - first[0]) >= (third[1] - first[1]) * (second[0] - first[0])
