"""A live camera on threads of its own: read, watched, and opened again when it is lost."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any

import numpy as np

from cled_edge.camera.source import Camera, files_of, open_camera
from cled_edge.errors import CledEdgeError, SourceMissingError, SourceUnreadableError, without_credentials
from cled_edge.frame import ARRIVAL, MEDIA, MONOTONIC, ORDER, Frame
from cled_edge.size import Size

_NS = 10**9
STALE_AFTER_NS, STALE_PERIODS = _NS // 2, 3
LOST_AFTER_NS, LOST_PERIODS = 2 * _NS, 5
FIRST_WITHIN_NS = 10 * _NS  # from the begin of opening to the first frame: a video stream waits for its key frame
FIRST_PAUSE_NS, LONGEST_PAUSE_NS = _NS // 10, _NS // 2  # between two attempts to open
JUMP_NS = 5 * _NS  # that much sooner than it can be, a stamp is one of a clock that was set
MOST_LEFT = 3  # readers that hang; beyond it nothing is opened until one of them returns
_TICK_S = 0.05  # of the watch
_HURRY_NS = 1_000_000  # by which a stamp may be later than its arrival: the clock is read after it


class SourceState(str, Enum):
    """Where a source is: being opened, giving frames, silent, lost and to be opened again, or at its end."""

    OPENING = "opening"
    OPEN = "open"
    STALE = "stale"
    LOST = "lost"
    ENDED = "ended"


class LiveSource:
    """Reads a camera on a daemon thread, and opens it again with growing pauses whenever it is lost.

    A second thread watches: a source that gives no frame for three periods, at least 0.5 s, is STALE; after five, at
    least 2 s, it is LOST, and a reader that hangs in it is left to itself. The end of a recording is ENDED.

    address: see `open_camera`. open: what opens it. process: done to each frame on the reading thread. keep: how many
    frames wait for `take`; older ones are dropped as "overtaken". arrived: notified at every frame and at every change
    of state; two sources may share it. now: the clock, time.monotonic_ns.

    state: see `SourceState`. failure: why it is not open, without credentials; error: the same as an exception.
    received: frames that came: taken, waiting, or dropped. dropped: how many, by cause. oddities: what was wrong with
    frames or stamps and how often. reopened: how often it came back. rate_hz: what the camera announced, then what was
    measured. files: what a recording is read from.

    Stamps are checked. One that is zero, lies in the future, goes back, jumps ahead, or repeats under another image is
    replaced by the time of arrival; `oddities` and the frame's notes say so. A frame of the same stamp and image as the
    last is dropped as "repeated". Sequence numbers grow on over all openings.
    """

    def __init__(
        self,
        address: str,
        *,
        open: Callable[[str], Camera] = open_camera,  # noqa: A002
        process: Callable[[Frame], Frame] | None = None,
        keep: int = 8,
        arrived: threading.Condition | None = None,
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.address, self.shown = address, without_credentials(address)
        self.arrived = arrived or threading.Condition()
        self.state = SourceState.OPENING
        self.error: Exception | None = None
        self.received, self.reopened = 0, 0
        self.dropped: Counter[str] = Counter()
        self.oddities: Counter[str] = Counter()
        self.rate_hz: float | None = None
        self.files = files_of(address)
        self._open, self._process, self._keep, self._now = open, process, keep, now
        self._held: deque[Frame] = deque()
        self._last: Frame | None = None
        self._stamp: tuple[int, str] | None = None  # of the last frame, as the camera gave it
        self._period_ns, self._sequence, self._base = 0.0, -1, 0
        self._reader: _Reader | None = None
        self._left: list[_Reader] = []
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._keep_open, name=f"watch {self.shown}", daemon=True)

    @property
    def failure(self) -> str:
        """Return why the source is not open, without credentials; "" if nothing is known."""
        return _words(self.error) if self.error else ""

    @property
    def fatal(self) -> CledEdgeError | None:
        """Return why the source will never give a frame: a wrong option, or a place that was not there at first."""
        if self.received or not isinstance(self.error, CledEdgeError):
            return None
        return None if isinstance(self.error, SourceUnreadableError) else self.error

    @property
    def size(self) -> Size | None:
        """Return the size of the newest frame, (height, width); None before the first."""
        last = self._last
        return (last.image.shape[0], last.image.shape[1]) if last else None

    @property
    def pending(self) -> int:
        """Return how many frames wait to be taken."""
        return len(self._held)

    def start(self) -> None:
        """Begin to open and to read; returns at once."""
        self._watcher.start()

    def stop(self, within_s: float) -> bool:
        """End, and wait so long for the threads; False if one still hangs in its camera, which must be left alone."""
        self._stopping.set()
        until = time.monotonic() + within_s
        if self._watcher.ident is not None:
            self._watcher.join(within_s)
        readers = [*self._left, *([self._reader] if self._reader else [])]
        for reader in readers:
            reader.leave()
        for reader in readers:
            reader.join(max(0.0, until - time.monotonic()))
            if reader.is_alive():
                return False
        self._change(SourceState.ENDED)
        return not self._watcher.is_alive()

    def take(self) -> list[Frame]:
        """Return all frames that came since the last call, oldest first."""
        with self.arrived:
            frames = list(self._held)
            self._held.clear()
        return frames

    def as_dict(self) -> dict[str, Any]:
        """Return state and counts as plain JSON types."""
        with self.arrived:
            return {
                "address": self.shown,
                "state": self.state.value,
                "failure": self.failure or None,
                "received": self.received,
                "dropped": dict(self.dropped),
                "oddities": dict(self.oddities),
                "reopened": self.reopened,
                "rate_hz": round(self.rate_hz, 2) if self.rate_hz else None,
            }

    def _keep_open(self) -> None:
        """Open, watch, wait, and again, until the source ends or is stopped."""
        failed = 0
        while not self._stopping.is_set():
            self._left = [reader for reader in self._left if reader.is_alive()]
            if len(self._left) < MOST_LEFT:
                reader = self._reader = _Reader(self, self._open, self._now())
                reader.start()
                self._watch(reader)
                if self.state is SourceState.ENDED or self._stopping.is_set():
                    return
                failed = 0 if reader.count else failed + 1
            due_ns = self._now() + min(FIRST_PAUSE_NS << min(max(0, failed - 1), 9), LONGEST_PAUSE_NS)
            while self._now() < due_ns and not self._stopping.wait(min(_TICK_S, max(0, due_ns - self._now()) / _NS)):
                pass

    def _watch(self, reader: "_Reader") -> None:
        """Return when a reader is over, is lost, or is not needed any more."""
        while not reader.over.wait(_TICK_S):
            if self._stopping.is_set():
                return
            silent_ns = self._now() - reader.heard_ns
            if silent_ns > self._patience_ns(reader):
                since = f"frame for {silent_ns / _NS:.1f} s" if reader.count else "first frame"
                lost = SourceUnreadableError(f"{self.shown} gives no {since}; check its cable, power and network")
                reader.leave()
                self._left.append(reader)
                self._change(SourceState.LOST, lost)
                return
            if reader.count and silent_ns > max(STALE_AFTER_NS, STALE_PERIODS * self._period_ns):
                self._change(SourceState.STALE)
        if reader.error is None or (not self.received and _is_lasting(reader.error)):
            self._change(SourceState.ENDED, reader.error)
        else:
            self._change(SourceState.LOST, reader.error)

    def _patience_ns(self, reader: "_Reader") -> float:
        return max(LOST_AFTER_NS, LOST_PERIODS * self._period_ns) if reader.count else FIRST_WITHIN_NS

    def _change(self, state: SourceState, error: Exception | None = None) -> None:
        with self.arrived:
            if state is self.state and error is None:
                return
            self.state = state
            self.error = error if error or state is not SourceState.OPEN else None
            self.arrived.notify_all()

    def _receive(self, reader: "_Reader", frame: Frame) -> None:
        """Check a frame, count it, and hand it on; called on the reader's thread."""
        arrival_ns = self._now() if frame.arrival_ns is None else frame.arrival_ns
        if reader is not self._reader or reader.is_left:
            return
        if not reader.count:
            self.reopened += self.received > 0
            self._base = self._sequence + 1
            self._stamp = None
            self.rate_hz = reader.rate_hz or self.rate_hz
            self._period_ns = _NS / self.rate_hz if self.rate_hz else 0.0
        elif self.state is SourceState.OPEN:
            self._period_ns += 0.1 * (arrival_ns - reader.heard_ns - self._period_ns)
            if reader.count > 2 / 0.1 and self._period_ns > 0:
                self.rate_hz = _NS / self._period_ns
        number = self._base + frame.sequence
        missing = number - self._sequence - 1 if reader.count else 0
        frame, is_repeated = self._checked(replace(frame, sequence=number, arrival_ns=arrival_ns))
        self._sequence = max(self._sequence, number)
        reader.count, reader.heard_ns = reader.count + 1, arrival_ns
        if not is_repeated and self._process:
            frame = self._process(frame)
        with self.arrived:
            if reader.is_left:
                return
            self.received += 1
            if missing > 0:
                self.oddities["missing"] += missing
            if is_repeated:
                self.dropped["repeated"] += 1
            else:
                self._held.append(frame)
            if len(self._held) > self._keep:
                self._held.popleft()
                self.dropped["overtaken"] += 1
            self.state, self.error = SourceState.OPEN, None
            self.arrived.notify_all()

    def _checked(self, frame: Frame) -> tuple[Frame, bool]:
        """Return a frame with a stamp that can be trusted, and whether it is the last one again."""
        before, stamp = self._last, self._stamp
        self._last, self._stamp = frame, (frame.timestamp_ns, frame.clock)
        notes = list(frame.notes)
        if before is not None and before.image.shape != frame.image.shape:
            sizes = ["x".join(str(side) for side in image.shape[:2]) for image in (before.image, frame.image)]
            notes.append(f"the size of {self.shown} changed from {sizes[0]} to {sizes[1]}")
            self.oddities["size changed"] += 1
        since_ns = None
        if stamp is not None and stamp[1] == frame.clock and before is not None:
            since_ns = frame.timestamp_ns - stamp[0]
            if since_ns == 0 and frame.clock != ORDER and np.array_equal(before.image, frame.image):
                return frame, True
        oddity = _oddity(frame, since_ns, before)
        if oddity:
            self.oddities[oddity] += 1
            notes.append(f"a stamp of {self.shown} is wrong, {oddity}: the time of arrival stands for it")
            frame = replace(frame, timestamp_ns=frame.arrival_ns or 0, clock=ARRIVAL)
        return replace(frame, notes=tuple(notes)), False


class _Reader(threading.Thread):
    """One life of a camera: opens it, hands on its frames, closes it.

    count: frames that came; heard_ns: when the last one did, or opening began. over: it has ended, by `error` if there
    is one. is_left: nobody wants its frames any more; it ends as soon as its camera lets it.
    """

    def __init__(self, source: LiveSource, open_: Callable[[str], Camera], now_ns: int) -> None:
        super().__init__(name=f"read {source.shown}", daemon=True)
        self.count, self.heard_ns = 0, now_ns
        self.rate_hz: float | None = None
        self.error: Exception | None = None
        self.over = threading.Event()
        self.is_left = False
        self._source, self._open = source, open_
        self._camera: Camera | None = None

    def leave(self) -> None:
        """Let it end; it needs not be alive."""
        self.is_left = True
        camera = self._camera
        if camera:
            camera.interrupt()

    def run(self) -> None:
        try:
            with self._open(self._source.address) as camera:
                self.rate_hz = camera.rate_hz
                self._camera = camera
                if self.is_left:  # while it was being opened
                    return
                camera.oddities = self._source.oddities
                for frame in camera:
                    if not self.is_left:
                        self._source._receive(self, frame)
                    if self.is_left:
                        return
        except Exception as error:  # whatever a driver or a library raises: the source is lost, and says why
            self.error = error.with_traceback(None)  # which would keep the camera
            error.__cause__ = error.__context__ = None
        finally:
            self._camera = None
            self.over.set()


def _oddity(frame: Frame, since_ns: int | None, before: Frame | None) -> str:
    """Say what is wrong with a frame's stamp, "" if nothing is. since_ns: from the stamp before, by the same clock."""
    if frame.clock == ORDER:
        return ""
    is_ours, arrival_ns = frame.clock in (MONOTONIC, ARRIVAL), frame.arrival_ns or 0
    if frame.timestamp_ns <= 0 and frame.clock != MEDIA:
        return "zero stamp"
    if is_ours and frame.timestamp_ns > arrival_ns + _HURRY_NS:
        return "future stamp"
    if since_ns is None or before is None:
        return ""
    if since_ns == 0:
        return "repeated stamp"
    if since_ns < 0:
        return "stamp goes back"
    return "stamp jumps" if since_ns - (arrival_ns - (before.arrival_ns or 0)) > JUMP_NS else ""


def _is_lasting(error: Exception) -> bool:
    """Say whether a camera that never opened need not be tried again, as with an option that is wrong."""
    return isinstance(error, CledEdgeError) and not isinstance(error, (SourceMissingError, SourceUnreadableError))


def _words(error: Exception) -> str:
    words = str(error) if isinstance(error, CledEdgeError) else f"{type(error).__name__}: {error}"
    return without_credentials(words)
