"""One live camera's newest frames with their times, and the ledger of what became of all."""

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from cled_edge.frame import ARRIVAL, MONOTONIC, Frame
from cled_edge.size import Size

# The first frames of a stream waited for its key frame, its server, its network: at 30 Hz three came 70 to 120 ms late.
_SETTLE_NS, _DOUBT_NS, _GAP_PERIODS = 250_000_000, 100_000_000, 3
_INTERVALS = 9


@dataclass
class Ledger:
    """What became of one camera's frames; `holds` is the law that none is lost without a cause.

    received: all that came. fused: those that were fused at least once, alone if the other camera was lost. held: how
    often one was fused again, with a newer one of the other camera; not part of the law. dropped: by cause, such as
    "overtaken" or "shutter". unpaired: had no partner within the slop. pending: may still be fused.
    """

    received: int = 0
    fused: int = 0
    held: int = 0
    unpaired: int = 0
    pending: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def holds(self) -> bool:
        """Whether received = fused + dropped + unpaired + pending."""
        return self.received == self.fused + self.dropped.total() + self.unpaired + self.pending

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**vars(self), "dropped": dict(self.dropped), "holds": self.holds}


@dataclass(eq=False)
class Entry:
    """A frame, and when it was taken, arrived, and was put here. doubt_ns: it may have been taken so much earlier.

    set: how often its camera's clock had been set by then.
    """

    frame: Frame
    taken_ns: int
    arrival_ns: int
    came_ns: int
    doubt_ns: int = 0
    is_fused: bool = False
    set: int = 0


class FrameBuffer:
    """One camera's newest frames, oldest first; the first of them may be one that was fused, and is held.

    keep: how many. last: the newest that ever came. size: of its image, (height, width), None once that is forgotten.
    period_ns, way_ns: medians of the last nine, from frame to frame, and from when one was taken until it arrived.
    has_ended: no more will come. unsure: the newest frame, and the cause, if it was left out as nobody knows when it
    was taken; shown_ns: when the last such frame came that was shown all the same.
    """

    def __init__(self, keep: int) -> None:
        self.entries: deque[Entry] = deque()
        self.ledger = Ledger()
        self.last: Entry | None = None
        self.size: Size | None = None
        self.first_came_ns: int | None = None
        self.period_ns: float | None = None
        self.has_ended = False
        self.unsure: tuple[Entry, str] | None = None
        self.shown_ns: int | None = None
        self._seen: tuple[str, int] | None = None  # clock and arrival of the frame before, used or not
        self._known_ns = self._settled_ns = 0
        self._keep = keep
        self.way_ns = 0.0
        self._taken: deque[int] = deque(maxlen=_INTERVALS)
        self._ways: deque[int] = deque(maxlen=_INTERVALS)

    @property
    def is_full(self) -> bool:
        """Whether one is to leave."""
        return len(self.entries) > self._keep

    def append(self, entry: Entry) -> None:
        """Take the next frame."""
        self.entries.append(entry)
        self.last, self.unsure = entry, None
        self.size = entry.frame.image.shape[0], entry.frame.image.shape[1]
        if self.first_came_ns is None:
            self.first_came_ns = entry.came_ns
        self._taken.append(entry.taken_ns)
        self._ways.append(entry.arrival_ns - entry.taken_ns)
        self.way_ns = median(self._ways)
        if len(self._taken) > 2:
            self.period_ns = median(later - earlier for earlier, later in pairwise(self._taken))

    def hold_unsure(self, entry: Entry, cause: str) -> None:
        """Take a frame of which nobody knows when it was taken, and the cause."""
        self.unsure = entry, cause
        if self.first_came_ns is None:
            self.first_came_ns = entry.came_ns

    @property
    def newest(self) -> Entry | None:
        """Return the newest frame whose time is known, else one of which it is not."""
        return self.last or (self.unsure[0] if self.unsure else None)

    def reaches(self, taken_ns: int) -> bool:
        """Whether a frame came that was not taken earlier, or none will: the nearest to that time is known then."""
        return self.has_ended or (self.last is not None and self.last.taken_ns >= taken_ns)

    def before(self, entry: Entry | None) -> list[Entry]:
        """Return the frames before one."""
        entries = list(self.entries)
        return entries[: entries.index(entry)] if entry else []

    def fresh(self) -> list[Entry]:
        """Return the frames that were not fused."""
        return [entry for entry in self.entries if not entry.is_fused]

    def nearest(self, to: Entry, within_ns: int) -> Entry | None:
        """Return the frame that is nearest in time to another camera's, None if none is within."""
        found = min(self.entries, key=lambda entry: abs(entry.taken_ns - to.taken_ns), default=None)
        if found is None or abs(found.taken_ns - to.taken_ns) + max(found.doubt_ns, to.doubt_ns) > within_ns:
            return None
        return found

    def doubt_ns(self, clock: str, arrival_ns: int, lost_ns: int) -> int | None:
        """Return by how much a frame that comes now may be older than its arrivals say; None where nobody knows.

        Nobody knows of the first frames, of a camera, after its return from so long as `lost_ns`, and by a clock of its
        own: they were held up. Later it is by how much the ways of its last nine frames differ, as on a busy computer.
        """
        before, self._seen = self._seen, (clock, arrival_ns)
        gap_ns = arrival_ns - before[1] if before else None
        is_other = before is None or before[0] != clock
        if gap_ns is None or gap_ns > lost_ns or (is_other and clock not in (MONOTONIC, ARRIVAL)):
            self._known_ns = arrival_ns + _SETTLE_NS
        if is_other or (self.period_ns and (gap_ns or 0) > _GAP_PERIODS * self.period_ns):
            self._settled_ns = arrival_ns + _SETTLE_NS
        if clock == MONOTONIC:
            return 0
        if arrival_ns < self._known_ns:
            return None
        spread_ns = max(self._ways) - min(self._ways) if self._ways else 0
        return max(spread_ns, _DOUBT_NS if arrival_ns < self._settled_ns else 0)
