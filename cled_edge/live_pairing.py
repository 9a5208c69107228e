"""Which frames of two live cameras belong together: nearest in time within a slop, with what became of every frame."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from cled_edge.camera.clock_map import ClockMap
from cled_edge.camera.frame_buffer import Entry, FrameBuffer, Ledger
from cled_edge.errors import OptionError
from cled_edge.frame import ARRIVAL, BOTH_LOST, INFRARED_LOST, MONOTONIC, ORDER, SENDER, VISIBLE_LOST, Frame, FramePair
from cled_edge.image import Uint8

Modality = Literal["infrared", "visible"]
PairingPolicy = Literal["latest", "every", "deadline"]
MODALITIES: tuple[Modality, Modality] = ("infrared", "visible")
SLOP_NS, HOLD_NS = 150_000_000, 500_000_000  # a 9 Hz camera's period and its jitter; when a source is stale
START_NS = 3_000_000_000  # how long a camera may take to its first frame, once the other one has given its own
DEAD_PERIOD_NS = 500_000_000
SETTLING = "settling"  # why the first frames of a stream that is known by its arrivals are left out
UNCERTAIN = "uncertain"  # why a frame is left out that may have been taken earlier by more than the slop
_FUTURE_NS = 10_000_000
_WALL_DRIFT = 0.001  # by which a camera's wall clock runs faster than ours at most: time services steer by half of it
_AGREE_NS = 200_000_000  # by which wall clocks may seem apart, as one camera's way is the longer
_PART_NS = 1_000_000_000  # by which those that agreed may seem apart later: a busy computer, no other clock
_FASTER = 0.8  # of the other's period


def _due_nearer(entry: Entry, partner: Entry, fast: FrameBuffer, slow: FrameBuffer) -> int:
    """Return until when to wait for a nearer partner, half a period of the faster camera; 0 if none is due by then."""
    last = slow.last
    if last is None or slow.reaches(entry.taken_ns) or not slow.period_ns or not fast.period_ns:
        return 0
    until_ns = entry.arrival_ns + round(fast.period_ns / 2)
    is_nearer = abs(last.taken_ns + slow.period_ns - entry.taken_ns) < abs(partner.taken_ns - entry.taken_ns)
    return until_ns if is_nearer and last.arrival_ns + slow.period_ns <= until_ns else 0


def _longer_way(fast: FrameBuffer, slow: FrameBuffer, most_ns: int) -> int:
    """Return by how much longer the slower camera's frames are on their way, 0 below half a period of the faster."""
    longer_ns = round(slow.way_ns - fast.way_ns)
    return min(longer_ns, most_ns) if fast.period_ns and longer_ns > fast.period_ns / 2 else 0


def whole_ns(value_ms: float, name: str) -> int:
    """Return milliseconds as nanoseconds; OptionError for NaN and for infinity, which says `name`."""
    if not math.isfinite(value_ms):
        raise OptionError(f"{name} is {value_ms}; needed a finite number of milliseconds above 0; correct it")
    return round(value_ms * 1e6)


class TimePairer:
    """Pairs the frames of two cameras by when they were taken. It has no thread, and no clock but the one it is told.

    slop_ns: the most by which the times of a pair may differ. Of several within it the nearest is taken.
    hold_ns: how long a frame is held after it came. When a camera gives no newer one, the other is then fused alone,
        and its pair says `degraded`. When neither does, a blank pair comes at 2 Hz.
    policy: every pair has a new frame of the faster camera; the slower one's is held until a newer one is nearer.
        "latest": the newest frame, with the nearest that is there; it waits while a nearer one is due within half a
        period of the faster camera, and as long as the slower one's way is known to be longer.
        "deadline": each when its nearest is known, or when it waited for it as long as the slop; of those that waited
        longer only the newest. "every": all, each when its nearest is known, or when it waited for it as long as the
        hold; only what `keep` cannot hold is dropped.
    keep: frames of a camera that are held at most; None is 8, and 32 for "every".
    has_one_clock: the stamps of both cameras are of one clock, whatever its name, as of two recordings.

    Times are by `time.monotonic_ns`. Stamps of MONOTONIC and ARRIVAL are so already, all others go through a `ClockMap`
    by their arrival. The wall clocks of two SENDERs that seem to be less than 0.2 s apart are taken for one, until
    they seem over 1 s apart: both are set by a time service, and one camera's way is longer.
    A frame that may have been taken earlier than it says by more than the slop, see `Frame.doubt_ns`, is left out as
    "uncertain"; its camera counts as lost until times are known. If both are, each is shown alone.
    The first 0.25 s of a camera that is known by arrivals are left out as "settling": nobody knows for how long they
    waited. So are those of a clock of its own, unless it is one with the other's. After a gap times may be 0.1 s off
    for 0.25 s, and always by as much as the ways of its frames differ: these pair within so much less than the slop.
    A frame with an event, a repeated stamp, one of the future or one that goes back is dropped.
    OptionError for an unknown policy, and for times that are not positive.
    """

    def __init__(
        self,
        *,
        slop_ns: int = SLOP_NS,
        hold_ns: int = HOLD_NS,
        policy: PairingPolicy = "latest",
        keep: int | None = None,
        has_one_clock: bool = False,
    ) -> None:
        if policy not in get_args(PairingPolicy):
            raise OptionError(f"pairing is {policy!r}; needed one of {', '.join(get_args(PairingPolicy))}; choose one")
        if slop_ns <= 0 or hold_ns <= 0:
            raise OptionError(
                f"the slop is {slop_ns / 1e6:g} ms, the hold {hold_ns / 1e6:g} ms; both must be above 0; correct them"
            )
        self.slop_ns, self.hold_ns, self.policy = slop_ns, hold_ns, policy
        self.due_ns: int | None = None
        self.pairs = 0
        self._has_one_clock, self._is_one_clock = has_one_clock, False
        self._streams = tuple(FrameBuffer(keep or (32 if policy == "every" else 8)) for _ in MODALITIES)
        self._maps: dict[tuple[str, int], ClockMap] = {}
        self._faster = MODALITIES.index("visible")
        self._dead_ns: int | None = None
        self._validity: dict[tuple[int, int, int], Uint8] = {}

    @property
    def ledgers(self) -> dict[str, Ledger]:
        """Return what became of each camera's frames so far."""
        for stream in self._streams:
            stream.ledger.pending = len(stream.fresh())
        return {name: stream.ledger for name, stream in zip(MODALITIES, self._streams, strict=True)}

    @property
    def clocks(self) -> dict[str, dict[str, Any]]:
        """Return for each camera its clock, and for one of its own the offset in s, the drift and the restarts."""
        told: dict[str, dict[str, Any]] = {}
        for index, name in enumerate(MODALITIES):
            last = self._streams[index].last
            if last is None:
                continue
            told[name] = {"clock": last.frame.clock}
            clock_map = self._maps.get(self._map_key(index, last.frame.clock))
            if clock_map:
                told[name] |= {
                    "offset_s": round(clock_map.offset_ns / 1e9, 4),
                    "drift": round(clock_map.drift, 6),
                    "restarts": clock_map.restarts,
                }
        return told

    def put(self, modality: Modality, frame: Frame, now_ns: int | None = None) -> None:
        """Take a camera's next frame. now_ns: when it is taken; None is when it arrived."""
        index = MODALITIES.index(modality)
        stream = self._streams[index]
        stream.ledger.received += 1
        arrival_ns = frame.timestamp_ns if frame.arrival_ns is None else frame.arrival_ns
        cause = frame.event or self._refused(stream.last, frame, arrival_ns)
        if cause:
            stream.ledger.dropped[cause] += 1
            return
        taken_ns = self._taken_ns(index, frame, arrival_ns)
        doubt_ns, told_ns = stream.doubt_ns(frame.clock, arrival_ns, self.hold_ns), frame.doubt_ns
        if self._has_one_clock or self._shares_a_clock(index, frame.clock):
            doubt_ns = told_ns = 0
        if doubt_ns is None or told_ns > self.slop_ns:
            cause = SETTLING if doubt_ns is None else UNCERTAIN
            stream.ledger.dropped[cause] += 1
            stream.hold_unsure(Entry(frame, arrival_ns, arrival_ns, arrival_ns if now_ns is None else now_ns), cause)
            return
        doubt_ns = max(doubt_ns, told_ns)
        shown_ns = (stream.last.taken_ns if stream.last else None), stream.shown_ns
        # Estimates move, the order does not.
        taken_ns = max([taken_ns, *(each + 1 for each in shown_ns if each is not None)])
        entry = Entry(frame, taken_ns, arrival_ns, arrival_ns if now_ns is None else now_ns, doubt_ns)
        entry.set = self._restarts(index, frame.clock)
        stream.append(entry)
        if frame.clock == SENDER:
            self._tell_times_anew()
        if stream.is_full:
            self._retire(index)

    def end(self) -> None:
        """Take it that no more frames come: nothing waits for a nearer partner, and nothing counts as lost."""
        for stream in self._streams:
            stream.has_ended = True

    def forget(self, cause: str) -> None:
        """Let go of all frames, and of their sizes: those that come do not fit them."""
        for stream in self._streams:
            stream.ledger.dropped[cause] += len(stream.fresh())
            stream.entries.clear()
            stream.size = None

    def count_refused(self, indexes: Sequence[int], cause: str) -> None:
        """Count the frames of the last pair, 0 infrared and 1 visible, as dropped: they could not be fused."""
        for index in indexes:
            ledger = self._streams[index].ledger
            ledger.fused -= 1
            ledger.dropped[cause] += 1

    def next_pair(self, now_ns: int) -> FramePair | None:
        """Return the pair that is to be fused now, None if there is none; `due_ns` is then when to ask again at last.

        One whose camera is lost has a blank frame in its place, of the size that it had, or of the other's.
        """
        self.due_ns = None
        self._expire(now_ns)
        chosen = self._chosen(now_ns)
        if chosen:
            fast, slow = chosen
            infrared, visible = (fast, slow) if self._faster == 0 else (slow, fast)
            self._use([infrared, visible])
            self.pairs += 1
            taken = infrared.taken_ns, visible.taken_ns
            return FramePair(infrared.frame, visible.frame, taken_ns=taken, number=self.pairs - 1)
        return self._without_a_camera(now_ns)

    def _refused(self, last: Entry | None, frame: Frame, arrival_ns: int) -> str:
        """Return why a stamp cannot be right, "" if it can."""
        of_here = frame.clock in (MONOTONIC, ARRIVAL)
        if of_here and frame.timestamp_ns > arrival_ns + _FUTURE_NS:
            return "from the future"
        if last is None or last.frame.clock != frame.clock:
            return ""
        if frame.timestamp_ns == last.frame.timestamp_ns:
            return "repeated"
        return "out of order" if of_here and frame.timestamp_ns < last.frame.timestamp_ns else ""

    def _map_key(self, index: int, clock: str) -> tuple[str, int]:
        return clock, -1 if self._has_one_clock else index

    def _taken_ns(self, index: int, frame: Frame, arrival_ns: int) -> int:
        if frame.clock in (MONOTONIC, ARRIVAL):
            return frame.timestamp_ns
        if frame.clock == ORDER:
            return arrival_ns
        key = self._map_key(index, frame.clock)
        if key not in self._maps:
            self._maps[key] = ClockMap(_WALL_DRIFT) if frame.clock == SENDER else ClockMap()
        clock_map = self._maps[key]
        last = self._streams[index].last
        if last and last.frame.clock == frame.clock and frame.timestamp_ns < last.frame.timestamp_ns:
            clock_map.restart()  # it was opened again, and counts from a new beginning
        clock_map.taken_ns(frame.timestamp_ns, arrival_ns)
        return min(arrival_ns, self._at_ns(index, frame))

    def _at_ns(self, index: int, frame: Frame) -> int:
        """Return when a frame was taken, by what is known of its clock now."""
        own = self._maps[self._map_key(index, frame.clock)].at_ns(frame.timestamp_ns)
        if not self._shares_a_clock(index, frame.clock):
            return own
        return min(own, self._maps[self._map_key(1 - index, frame.clock)].at_ns(frame.timestamp_ns))

    def _shares_a_clock(self, index: int, clock: str) -> bool:
        """Say whether both cameras stamp by wall clocks that seem to be one."""
        if clock != SENDER:
            return False
        own, other = (self._maps.get(self._map_key(k, clock)) for k in (index, 1 - index))
        if not own or not other:
            return False
        apart_ns = abs(own.offset_ns - other.offset_ns)
        self._is_one_clock = apart_ns < (_PART_NS if self._is_one_clock else _AGREE_NS)
        return self._is_one_clock

    def _restarts(self, index: int, clock: str) -> int:
        clock_map = self._maps.get(self._map_key(index, clock))
        return clock_map.restarts if clock_map else 0

    def _tell_times_anew(self) -> None:
        """Let all held frames have the times that are known now: one estimate for both frames of a pair."""
        for index, stream in enumerate(self._streams):
            for entry in stream.entries:
                if entry.frame.clock == SENDER and entry.set == self._restarts(index, SENDER):
                    entry.taken_ns = min(entry.arrival_ns, self._at_ns(index, entry.frame))

    def _chosen(self, now_ns: int) -> tuple[Entry, Entry] | None:
        """Return the pair to fuse now, the faster camera's frame first."""
        fast, slow = self._by_speed()
        return {"latest": self._newest, "deadline": self._in_time, "every": self._oldest}[self.policy](
            fast, slow, now_ns
        )

    def _newest(self, fast: FrameBuffer, slow: FrameBuffer, now_ns: int) -> tuple[Entry, Entry] | None:
        longer_ns = _longer_way(fast, slow, self.slop_ns)
        for entry in reversed(fast.fresh()):
            ripe_ns = entry.arrival_ns + longer_ns
            if now_ns < ripe_ns and not slow.reaches(entry.taken_ns):
                self._ask_by(ripe_ns)
                continue
            partner = slow.nearest(entry, self.slop_ns)
            if partner is None:
                continue
            until_ns = _due_nearer(entry, partner, fast, slow)
            if now_ns < until_ns:
                self._ask_by(until_ns)
                return None
            return entry, partner
        return None

    def _in_time(self, fast: FrameBuffer, slow: FrameBuffer, now_ns: int) -> tuple[Entry, Entry] | None:
        found = None
        for entry in fast.fresh():
            until_ns = entry.arrival_ns + self.slop_ns
            if not slow.reaches(entry.taken_ns) and now_ns < until_ns:
                self._ask_by(until_ns)
                break
            partner = slow.nearest(entry, self.slop_ns)
            if partner:
                found = entry, partner
                if now_ns <= until_ns:
                    break
        return found

    def _oldest(self, fast: FrameBuffer, slow: FrameBuffer, now_ns: int) -> tuple[Entry, Entry] | None:
        for entry in fast.fresh():
            if not slow.reaches(entry.taken_ns) and now_ns < entry.arrival_ns + self.hold_ns:
                self._ask_by(entry.arrival_ns + self.hold_ns)
                return None
            partner = slow.nearest(entry, self.slop_ns)
            if partner:
                return entry, partner
            if self._is_lost(slow, fast, now_ns):
                return None
            index = self._streams.index(fast)
            while fast.entries[0] is not entry:
                self._retire(index)
            self._retire(index)
        return None

    def _by_speed(self) -> tuple[FrameBuffer, FrameBuffer]:
        """Return the faster camera and the slower one; of two alike, the one that it was before."""
        fast, slow = self._streams[self._faster], self._streams[1 - self._faster]
        if slow.period_ns and fast.period_ns and slow.period_ns < _FASTER * fast.period_ns:
            self._faster = 1 - self._faster
            return slow, fast
        return fast, slow

    def _without_a_camera(self, now_ns: int) -> FramePair | None:
        """Return the living camera's frame with a blank one, or two blank ones; None while both live."""
        if all(stream.has_ended for stream in self._streams):
            return None
        lost = [self._is_lost(self._streams[k], self._streams[1 - k], now_ns) for k in (0, 1)]
        if all(lost):
            if unsure := self._unsure(now_ns):
                return unsure
            if self._dead_ns is not None and now_ns < self._dead_ns + DEAD_PERIOD_NS:
                self._ask_by(self._dead_ns + DEAD_PERIOD_NS)
                return None
            self._dead_ns = now_ns
            return self._degraded([None, None], BOTH_LOST)
        if not any(lost):
            return None
        living = lost.index(False)
        fresh = self._streams[living].fresh()
        if not fresh:
            return None
        entry = fresh[0 if self.policy == "every" else -1]
        entries = [entry if index == living else None for index in (0, 1)]
        self._use(entries)
        return self._degraded(entries, INFRARED_LOST if living else VISIBLE_LOST)

    def _unsure(self, now_ns: int) -> FramePair | None:
        """Return a frame of which nobody knows when it was taken, alone: no pair is wrong by that."""
        for index in (1, 0):
            stream = self._streams[index]
            entry, cause = stream.unsure or (None, "")
            if entry and not entry.is_fused and now_ns - entry.came_ns <= self.hold_ns:
                stream.ledger.dropped[cause] -= 1
                stream.ledger.fused += 1
                entry.is_fused, stream.shown_ns = True, entry.taken_ns
                entries = [entry if k == index else None for k in (0, 1)]
                return self._degraded(entries, INFRARED_LOST if index else VISIBLE_LOST)
        return None

    def _degraded(self, entries: "list[Entry | None]", said: str) -> FramePair:
        self.pairs += 1
        living = next((entry.frame for entry in entries if entry), None)
        infrared, visible = (
            entry.frame if entry else self._blank(index, living) for index, entry in enumerate(entries)
        )
        alive = sum(1 << index for index, entry in enumerate(entries) if entry)
        key = (*(visible if entries[1] else infrared).image.shape[:2], alive)
        if key not in self._validity:
            self._validity = {key: np.zeros((*key[:2], 2), np.uint8)}
            for index, entry in enumerate(entries):
                self._validity[key][:, :, index] = 255 if entry else 0
        taken = tuple(entry.taken_ns if entry else None for entry in entries)
        return FramePair(infrared, visible, self._validity[key], (taken[0], taken[1]), said, number=self.pairs - 1)

    def _blank(self, index: int, living: Frame | None) -> Frame:
        """Return a black frame of a camera's size, or of the other's if it has not given one."""
        streams = self._streams[index], self._streams[1 - index]
        like = living or next(entry.frame for entry in (stream.newest for stream in streams) if entry)
        size = next((stream.size for stream in streams if stream.size), like.image.shape[:2])
        return Frame(np.zeros(size if index == 0 else (*size, 3), np.uint8), 0, ORDER, 0, "", like.color_order)

    def _is_lost(self, stream: FrameBuffer, other: FrameBuffer, now_ns: int) -> bool:
        if stream.last:
            self._ask_by(stream.last.came_ns + self.hold_ns + 1, now_ns)
            return now_ns - stream.last.came_ns > self.hold_ns
        return other.first_came_ns is not None and now_ns - other.first_came_ns > START_NS

    def _ask_by(self, due_ns: int, after_ns: int = 0) -> None:
        if due_ns > after_ns:
            self.due_ns = due_ns if self.due_ns is None else min(self.due_ns, due_ns)

    def _use(self, used: "Sequence[Entry | None]") -> None:
        """Count frames as fused, infrared first, and let go of those before them."""
        before = [stream.before(entry) for entry, stream in zip(used, self._streams, strict=True)]
        for index, entries in enumerate(before):
            for unused in entries:
                self._count_unused(index, unused, "overtaken")
        for entry, entries, stream in zip(used, before, self._streams, strict=True):
            for _ in entries:
                stream.entries.popleft()
            if entry:
                stream.ledger.held += entry.is_fused
                stream.ledger.fused += not entry.is_fused
                entry.is_fused = True

    def _retire(self, index: int, cause: str = "overtaken") -> None:
        """Let go of a camera's oldest frame."""
        self._count_unused(index, self._streams[index].entries[0], cause)
        self._streams[index].entries.popleft()

    def _count_unused(self, index: int, entry: Entry, cause: str) -> None:
        """Count why a frame was not fused, unless it was: by the cause, if the other camera has a partner for it."""
        if entry.is_fused:
            return
        ledger = self._streams[index].ledger
        if self._streams[1 - index].nearest(entry, self.slop_ns):
            ledger.dropped[cause] += 1
        else:
            ledger.unpaired += 1

    def _expire(self, now_ns: int) -> None:
        """Let go of what is too old to be fused."""
        if self.policy == "every":
            return
        for index, stream in enumerate(self._streams):
            while stream.entries and now_ns - stream.entries[0].came_ns > self.hold_ns:
                self._retire(index, "too old")
