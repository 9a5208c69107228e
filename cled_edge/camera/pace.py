"""Real time for what has none: recorded and rendered frames come when they are due."""

import threading
import time
from collections.abc import Callable

_NS = 10**9
TOGETHER_NS = 2 * _NS  # cameras that begin within it begin together
ONE_CLOCK_NS = 60 * _NS  # recordings whose first stamps are so near count by one clock

_lock = threading.Lock()
_begun: tuple[int, int | None] | None = None  # the origin by time.monotonic_ns, and the first stamp that it stands for


class Pace:
    """When frames are due, in ns of `now`, time.monotonic_ns.

    begin: start to count. Cameras of one process that begin within two seconds share their origin, so that two
    recordings of one scene stay together. start_ns: the stamp of the first frame by the recording's own clock.
    """

    def __init__(self, now: Callable[[], int] = time.monotonic_ns) -> None:
        self.origin_ns = 0
        self._now, self._over = now, threading.Event()

    def begin(self, start_ns: int | None = None) -> None:
        """Let the first frame be due now, or together with another camera that has just begun."""
        global _begun  # noqa: PLW0603 (what cameras share that know nothing of each other)
        with _lock:
            if _begun is None or not 0 <= self._now() - _begun[0] < TOGETHER_NS:
                _begun = self._now(), start_ns
            origin_ns, first_ns = _begun
        apart_ns = 0 if start_ns is None or first_ns is None else start_ns - first_ns
        self.origin_ns = origin_ns + (apart_ns if abs(apart_ns) < ONE_CLOCK_NS else 0)

    @property
    def time_ns(self) -> int:
        """Return how long ago the origin was."""
        return self._now() - self.origin_ns

    def wait(self, time_ns: int) -> bool:
        """Wait until a frame of that time from the origin is due; False if it is over before."""
        while not self._over.is_set():
            left_ns = time_ns - self.time_ns
            if left_ns <= 0:
                return True
            self._over.wait(left_ns / _NS)
        return False

    @property
    def is_over(self) -> bool:
        """Say whether `end` was called."""
        return self._over.is_set()

    def end(self) -> None:
        """Let nothing wait any more; any thread may call it."""
        self._over.set()
