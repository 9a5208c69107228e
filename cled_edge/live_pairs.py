"""Two live cameras as one source of pairs: each has its own threads, and the loop asks for the newest pair."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any

from cled_edge.camera.frame_buffer import Ledger
from cled_edge.camera.live_source import LiveSource, SourceState
from cled_edge.camera.size_gate import SizeGate
from cled_edge.camera.source import camera_address, is_live
from cled_edge.data.naming import Names
from cled_edge.errors import CledEdgeError, OptionError, SourceUnreadableError, without_credentials
from cled_edge.frame import INFRARED_LOST, VISIBLE_LOST, Frame, FramePair
from cled_edge.live_pairing import MODALITIES, TimePairer
from cled_edge.pairing import PairedCameras, cropped, open_pair
from cled_edge.size import Size, size_text

ANOTHER_SIZE = "another size"  # why a frame of a camera that changed its size is left out
FIRST_WITHIN_NS = 12_000_000_000  # of one camera at least: what never gives a frame is wrong, not lost
_TICK_S = 0.05
_STOP_WITHIN_S = 0.5


class LivePairs:
    """Pairs of two live sources; as a context it starts both, and stops them at the end. Entering twice does nothing.

    infrared, visible: they share one condition `arrived`. pairer: nobody else may use it. crop_rows: as for
    `PairedCameras`. files: what both read, if they are recordings that are played in real time.
    need_both_s: a camera that is lost for so long ends the run; None lets it go on.
    tell: called on the caller's thread with a line for each change of a source: lost, and why; back.
    is_stuck: a camera did not end in time, and must be left alone.

    A lost source is opened again for ever. Only a source that is wrong from the start raises: see `next`.
    A camera that changes its size is left out, as one that is lost, until its frames fit again: see `SizeGate`. So are
    both, if they go over to a size that cannot be fused: see `leave_out`.
    """

    is_live = True
    announced = None

    def __init__(
        self,
        infrared: LiveSource,
        visible: LiveSource,
        pairer: TimePairer,
        *,
        crop_rows: tuple[int, int] = (0, 0),
        need_both_s: float | None = None,
        tell: Callable[[str], None] = lambda _line: None,
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if infrared.arrived is not visible.arrived:
            raise OptionError("two live sources have a condition each; needed one that they share; give both the same")
        self.infrared, self.visible, self.pairer = infrared, visible, pairer
        self.sizes = SizeGate(crop_rows)
        self.files = (*infrared.files, *visible.files)
        self.is_stuck = False
        if need_both_s is not None and not 0 < need_both_s < math.inf:
            raise OptionError(f"need_both_s is {need_both_s}; needed seconds above 0; correct it")
        self._need_both_s = need_both_s
        self._degraded_since_ns: int | None = None
        self._tell, self._now = tell, now
        self._arrived = infrared.arrived
        self._states = ["", ""]
        self._told_opening = False
        self._whole_sizes: tuple[Size, Size] | None = None  # of the last pair, if it is whole
        self._is_started = self._is_stopped = False
        self._begin_ns = 0
        self._at_end: list[dict[str, Any]] = [{}, {}]  # state and failure: a source that is stopped has ended

    @property
    def crop_rows(self) -> tuple[int, int]:
        """Return how many rows are cut off above and below."""
        return self.sizes.crop_rows

    @property
    def sources(self) -> tuple[LiveSource, LiveSource]:
        """Return both, infrared first."""
        return self.infrared, self.visible

    @property
    def rate_hz(self) -> float | None:
        """Return the faster camera's rate, None before it is known."""
        return max((source.rate_hz for source in self.sources if source.rate_hz), default=None)

    @property
    def states(self) -> tuple[str, str]:
        """Return the states of both, see `SourceState`."""
        return self.infrared.state.value, self.visible.state.value

    @property
    def ledgers(self) -> dict[str, Ledger]:
        """Return what became of each camera's frames, from their arrival on."""
        with self._arrived:
            return {
                name: replace(
                    ledger,
                    received=source.received,
                    dropped=ledger.dropped + source.dropped,
                    pending=ledger.pending + source.pending,
                )
                for source, (name, ledger) in zip(self.sources, self.pairer.ledgers.items(), strict=True)
            }

    @property
    def left_out(self) -> tuple[int, int]:
        """Return how many frames had no partner within the slop, infrared first."""
        infrared, visible = self.ledgers.values()
        return infrared.unpaired, visible.unpaired

    @property
    def dropped(self) -> int:
        """Return how many frames of both were dropped, by whatever cause."""
        return sum(ledger.dropped.total() for ledger in self.ledgers.values())

    def as_dict(self) -> dict[str, Any]:
        """Return settings, states, clocks and counts as plain JSON types. Any thread may ask."""
        pairer = self.pairer
        with self._arrived:
            return {
                "pairing": {
                    "policy": pairer.policy,
                    "slop_ms": pairer.slop_ns / 1e6,
                    "hold_ms": pairer.hold_ns / 1e6,
                },
                "sources": {
                    name: {**source.as_dict(), **at_end}
                    for name, source, at_end in zip(MODALITIES, self.sources, self._at_end, strict=True)
                },
                "clocks": pairer.clocks,
                "ledger": {name: ledger.as_dict() for name, ledger in self.ledgers.items()},
            }

    def next(self) -> tuple[FramePair, int] | None:
        """Wait for the newest pair, and return it with the nanoseconds that pairing took; None at the end.

        The end is a call of `stop`, or that of two recordings. SourceMissingError if a camera is not there at the
        start, SourceUnreadableError if none gives a first frame within 12 s, or if one is lost for `need_both_s`,
        OptionError for an address that is wrong.
        """
        with self._arrived:
            if self._whole_sizes:
                self.sizes.prove(self._whole_sizes)
            while not self._is_stopped:
                start_ns = time.perf_counter_ns()
                is_over = all(source.state is SourceState.ENDED for source in self.sources)
                now_ns = self._now()
                for index, source in enumerate(self.sources):
                    for frame in source.take():
                        self.pairer.put(MODALITIES[index], self._sized(index, frame), now_ns)
                if is_over:
                    self.pairer.end()
                pair = self.pairer.next_pair(now_ns)
                self._look(now_ns)
                if pair:
                    self._refuse_one(pair, now_ns)
                    self._tell_opening(pair)
                    return self._completed(pair), time.perf_counter_ns() - start_ns
                if is_over:
                    return None
                due_ns = self.pairer.due_ns
                wait_s = _TICK_S if due_ns is None else min(_TICK_S, max(0.0, due_ns - now_ns) / 1e9)
                self._arrived.wait(wait_s)
        return None

    def leave_out(self, pair: FramePair, error: CledEdgeError) -> None:
        """Take it that the last pair cannot be fused, for its size: its cameras are left out until another."""
        alive = [k for k, lost in enumerate((INFRARED_LOST, VISIBLE_LOST)) if pair.degraded != lost]
        with self._arrived:
            self._whole_sizes = None
            sizes = [size_text(pair.infrared.image.shape[:2]), size_text(pair.visible.image.shape[:2])]
            self.sizes.refuse(alive)
            self.pairer.count_refused(alive, ANOTHER_SIZE)
            self.pairer.forget(ANOTHER_SIZE)
            back = self.sizes.paired
        which = " and ".join(f"{MODALITIES[k]} {sizes[k]}" for k in alive)
        until = f"{size_text(back[0])} and {size_text(back[1])} are back" if back else "another size comes"
        self._tell(f"{which} cannot be fused: {error}; left out until {until}")

    def first_size(self) -> Size | None:
        """Wait for the first frame of either camera, and return the size of its pairs; None at the end. See `next`."""
        with self._arrived:
            while not self._is_stopped:
                for source, cut in zip(self.sources, (sum(self.crop_rows), 0), strict=True):
                    if source.received and source.size:
                        height, width = source.size
                        return height - cut, width
                if all(source.state is SourceState.ENDED for source in self.sources):
                    break
                self._look(self._now())
                self._arrived.wait(_TICK_S)
        return None

    def __iter__(self) -> Iterator[FramePair]:
        """Yield the pairs of which no camera is lost, until the end; see `next`."""
        while drawn := self.next():
            if not drawn[0].degraded:
                yield drawn[0]

    def stop(self) -> None:
        """Let `next` return None from now on, at once. Any thread may call it."""
        self._is_stopped = True
        if self._arrived.acquire(timeout=_STOP_WITHIN_S):
            self._arrived.notify_all()
            self._arrived.release()

    def _look(self, now_ns: int) -> None:
        """Tell how the sources change; raise what is wrong with one from the start."""
        for index, (modality, source) in enumerate(zip(MODALITIES, self.sources, strict=True)):
            state, before = source.state, self._states[index]
            if source.fatal:
                raise source.fatal
            if state is SourceState.LOST and before != state:
                self._tell(f"{modality} camera is lost: {source.failure}")
            elif state is SourceState.OPEN and before == SourceState.LOST:
                self._tell(f"{modality} camera is back")
            if state is not SourceState.OPENING:
                self._states[index] = state
        if not any(source.received for source in self.sources) and now_ns - self._begin_ns > FIRST_WITHIN_NS:
            raise next(
                (source.error for source in self.sources if isinstance(source.error, CledEdgeError)),
                SourceUnreadableError(
                    f"neither {self.infrared.shown} nor {self.visible.shown} gives a frame; needed one of both cameras "
                    "at least; check their cables, power and addresses"
                ),
            )

    def _sized(self, index: int, frame: Frame) -> Frame:
        """Return a frame, with an event if it has a size of which no pair can be made; tell of each change."""
        size, before = (frame.image.shape[0], frame.image.shape[1]), self.sizes.unfit
        is_alone = self.sources[1 - index].state not in (SourceState.OPEN, SourceState.STALE)
        if self.sizes.see(index, size, is_alone):
            self.pairer.forget(ANOTHER_SIZE)
            for k, (modality, was, is_) in enumerate(zip(MODALITIES, before, self.sizes.unfit, strict=True)):
                if is_ and not was and self.sizes.paired:
                    needed = size_text(self.sizes.paired[k])
                    self._tell(f"{modality} camera changed its size from {needed}: it is left out until that is back")
                elif was and not is_:
                    self._tell(f"{modality} camera fits again")
        return replace(frame, event=ANOTHER_SIZE) if self.sizes.unfit[index] else frame

    def _refuse_one(self, pair: FramePair, now_ns: int) -> None:
        """Raise SourceUnreadableError if a camera is lost for longer than it may be."""
        if not pair.degraded:
            self._degraded_since_ns = None
            return
        if self._degraded_since_ns is None:
            self._degraded_since_ns = now_ns
        lost_s = (now_ns - self._degraded_since_ns) / 1e9
        if self._need_both_s is not None and lost_s > self._need_both_s:
            reasons = [source.failure for source in self.sources if source.failure]
            raise SourceUnreadableError(
                f"{pair.degraded} for {lost_s:.1f} s; needed both cameras within {self._need_both_s:g} s; "
                f"{'; '.join(reasons) or 'check cables, power and network'}"
            )

    def _tell_opening(self, pair: FramePair) -> None:
        """Tell once that a pair lacks a camera that is still being opened, for which nobody waits any longer."""
        if self._told_opening or not pair.degraded:
            return
        for modality, source in zip(MODALITIES, self.sources, strict=True):
            if source.state is SourceState.OPENING and not source.received:
                self._told_opening = True
                self._tell(f"{modality} camera has given no frame yet; until it does, the other one is fused alone")

    def _completed(self, pair: FramePair) -> FramePair:
        if not pair.degraded:
            height, width = pair.infrared.image.shape[:2]
            self.sizes.paired = (height, width), (pair.visible.image.shape[0], pair.visible.image.shape[1])
        self._whole_sizes = None if pair.degraded else self.sizes.paired
        infrared, visible = cropped(pair.infrared, pair.visible, self.crop_rows)
        validity = pair.validity
        if validity is not None and len(validity) == len(pair.infrared.image) != len(infrared.image):
            validity = validity[self.crop_rows[0] : len(validity) - self.crop_rows[1]]
        return replace(pair, infrared=infrared, visible=visible, validity=validity, states=self.states)

    def __enter__(self) -> "LivePairs":
        if not self._is_started:
            self._is_started, self._begin_ns = True, self._now()
            for source in self.sources:
                source.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if not any(self._at_end):
            told = [source.as_dict() for source in self.sources]
            self._at_end = [{name: each[name] for name in ("state", "failure")} for each in told]
        for source in self.sources:
            if not source.stop(_STOP_WITHIN_S):
                self.is_stuck = True


def open_cameras(
    infrared: str,
    visible: str,
    pairer: TimePairer,
    *,
    names: Names | None = None,
    crop_rows: tuple[int, int] = (0, 0),
    process: Callable[[Frame], Frame] | None = None,
    need_both_s: float | None = None,
    tell: Callable[[str], None] = lambda _line: None,
) -> LivePairs | PairedCameras:
    """Return what pairs two addresses: two live cameras by `pairer`, two recordings as `open_pair` does.

    process: done to each infrared frame before the crop, as by a `ThermalStream`. need_both_s, tell: see `LivePairs`.
    OptionError if one is live and the other is not, or both are one camera; the errors of `open_pair` for recordings,
    which are opened here.
    """
    live = [is_live(address) for address in (infrared, visible)]
    if not any(live):
        return open_pair(infrared, visible, names=names, crop_rows=crop_rows, process=process)
    if not all(live):
        of_which = [without_credentials(address) for address in sorted((infrared, visible), key=is_live)]
        raise OptionError(
            f"{of_which[1]} is live and {of_which[0]} is a recording; needed two of one kind; give two live cameras, "
            "or two recordings"
        )
    _refuse_one_twice(infrared, visible)
    arrived = threading.Condition()
    sources = LiveSource(infrared, process=process, arrived=arrived), LiveSource(visible, arrived=arrived)
    return LivePairs(*sources, pairer, crop_rows=crop_rows, need_both_s=need_both_s, tell=tell)


def _refuse_one_twice(*addresses: str) -> None:
    """Raise OptionError if both live addresses name one camera: it opens once, and fused with itself shows nothing."""
    names = set()
    for text in addresses:
        address = camera_address(text)
        place, _, options = address.place.partition("?")
        if address.scheme == "v4l2":  # its number, its name and its links are one device, whatever is asked of it
            place, options = os.path.realpath(f"/dev/video{place}" if place.isdecimal() else place), ""
        names.add((address.scheme, place, options))
    if len(names) < len(addresses):
        raise OptionError(
            f"{without_credentials(addresses[0])} is both the infrared and the visible camera; needed two; correct one"
        )
