"""How late a camera's frames come, and how far times by their arrival may so be wrong."""

from collections import deque
from statistics import median

_SETTLE_NS = 250_000_000  # the first frames of a stream waited for its key frame, its server, its network
_WINDOW_NS, _LEAST = 500_000_000, 5  # so long, and so many frames, one that came late makes all uncertain
UNKNOWN_NS = 10**15  # longer than any slop
_SETTLE_FRAMES = 4  # of a server that lags fewer come in that time
_TIMES = 2  # the lateness that was seen: of frames that come unsteadily, the quickest was late as well
_CREEP = 0.002  # by which the sender's clock may run otherwise than ours
_RATE_CREEP = 0.2  # by which its frames may: one that was left out passes for late, but not for long
_INTERVALS = 30


class ArrivalLine:
    """Compares when frames arrive with the times in their stream, or with their number where it has none.

    A frame is late by what it took longer than the quickest. Nobody knows how long that one took: not long, if all come
    as steadily, but if some come late, on a busy computer or network, it may have been late as well. Of recorded RTSP
    streams whose servers were restarted every 6 to 10 s, on 2 cores with up to 14 busy programs, the spread of 9 frames
    let 22 of 837 pairs be wrong by over 0.15 s, and twice the largest lateness of 0.5 s let 1 of 490.

    doubt_ns: the newest frame may have been taken so much earlier than its arrival less its lateness says; UNKNOWN_NS
    for the first 0.25 s and three frames.
    """

    def __init__(self) -> None:
        self.doubt_ns = self._frames = 0
        self._begin_ns: int | None = None
        self._quickest_ns = self._last_ns = self._counted_ns = 0
        self._window: deque[tuple[int, int]] = deque()
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)

    def late_ns(self, stream_ns: int, arrival_ns: int) -> int:
        """Take a frame's time in its stream, and return by how much it is late."""
        return self._late_ns(arrival_ns - stream_ns, arrival_ns, _CREEP)

    def count(self, frames: int, arrival_ns: int) -> None:
        """Take a frame of a stream without times: so many came since the last one, it included."""
        if self._begin_ns is not None:
            self._intervals.append((arrival_ns - self._last_ns) / frames)
            self._counted_ns += round(median(self._intervals) * frames)
        self._late_ns(arrival_ns - self._counted_ns, arrival_ns, _RATE_CREEP)

    def _late_ns(self, behind_ns: int, arrival_ns: int, creep: float) -> int:
        if self._begin_ns is None:
            self._begin_ns, self._quickest_ns, self._last_ns = arrival_ns, behind_ns, arrival_ns
        self._quickest_ns = min(behind_ns, self._quickest_ns + round(creep * (arrival_ns - self._last_ns)))
        self._last_ns = arrival_ns
        self._window.append((arrival_ns, behind_ns))
        while len(self._window) > _LEAST and arrival_ns - self._window[0][0] > _WINDOW_NS:
            self._window.popleft()
        self._frames, self.doubt_ns = self._frames + 1, UNKNOWN_NS
        if arrival_ns - self._begin_ns >= _SETTLE_NS and self._frames >= _SETTLE_FRAMES:
            self.doubt_ns = _TIMES * max(0, max(behind for _, behind in self._window) - self._quickest_ns)
        return behind_ns - self._quickest_ns
