"""Work on threads beside the caller's: a relay between two threads, reading ahead, writing behind."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Relay(Generic[T]):
    """Holds one item between a giver and a taker. Either may close it: the other then never waits.

    newest_only: an item still there when the next one comes is dropped, and counted in `dropped`. Else the giver waits.
    """

    def __init__(self, newest_only: bool = False) -> None:
        self.dropped = 0
        self._newest_only = newest_only
        self._held: deque[T] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Hand an item on; return False if the relay is closed, and the item not taken."""
        with self._changed:
            if not self._newest_only:
                self._changed.wait_for(lambda: self._closed or not self._held)
            if self._closed:
                return False
            self.dropped += len(self._held)
            self._held.clear()
            self._held.append(item)
            self._changed.notify_all()
            return True

    def get(self) -> T | None:
        """Wait for an item and take it; return None if the relay is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._held)
            item = self._held.popleft() if self._held else None
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Take no more; what is held can still be taken. Closing twice does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class ReadAhead(Generic[T]):
    """Draws items on a thread of its own while the caller works on the last one.

    newest_only: the items do not wait for the caller, who always gets the newest; `dropped` counts the others.
    """

    def __init__(self, items: Iterable[T], newest_only: bool = False) -> None:
        self._items = items
        self._relay: Relay[tuple[T, int]] = Relay(newest_only)

    @property
    def dropped(self) -> int:
        """Return how many items were overtaken."""
        return self._relay.dropped

    def next(self) -> tuple[T, int] | None:
        """Return the next item and the nanoseconds it took to draw, or None at the end.

        What ended the items early is raised, when those before it are taken.
        """
        drawn = self._relay.get()
        if drawn is None:
            self._thread.result()
        return drawn

    def _draw_all(self) -> None:
        try:
            items = iter(self._items)
            start_ns = time.perf_counter_ns()
            for item in items:
                if not self._relay.put((item, time.perf_counter_ns() - start_ns)):
                    return
                start_ns = time.perf_counter_ns()
        finally:
            self._relay.close()

    def __enter__(self) -> "ReadAhead[T]":
        self._thread = _run_beside("read", self._draw_all)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._relay.close()
        _wait_for_end(self._thread)


class WriteBehind(Generic[T]):
    """Calls `write` on a thread of its own, item by item in order, until it returns False.

    beside: False calls it on the caller's thread instead. waited_ns: what the last `put` waited for room.
    Leaving the context writes what was put, and raises what `write` raised unless an error is on its way already.
    """

    def __init__(self, write: Callable[[T], bool], beside: bool = True) -> None:
        self.waited_ns = 0
        self._write = write
        self._relay: Relay[T] = Relay()
        self._beside = beside
        self._thread: Future[None] | None = None

    def put(self, item: T) -> bool:
        """Take an item, waiting while one is held already; return False if no more are wanted, or writing failed."""
        if not self._beside:
            return self._write(item)
        start_ns = time.perf_counter_ns()
        taken = self._relay.put(item)
        self.waited_ns = time.perf_counter_ns() - start_ns
        return taken

    def _write_all(self) -> None:
        try:
            while (item := self._relay.get()) is not None:
                if not self._write(item):
                    return
        finally:
            self._relay.close()

    def __enter__(self) -> "WriteBehind[T]":
        if self._beside:
            self._thread = _run_beside("write", self._write_all)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._relay.close()
        failure = _wait_for_end(self._thread) if self._thread else None
        if failure and (kind is None or issubclass(kind, KeyboardInterrupt)):
            raise failure


def _run_beside(name: str, work: Callable[[], None]) -> "Future[None]":
    pool = ThreadPoolExecutor(1, name)
    future = pool.submit(work)
    pool.shutdown(wait=False)  # the thread ends with its work
    return future


def _wait_for_end(thread: "Future[None]") -> BaseException | None:
    """Wait until a thread has ended, and return what it raised.

    A second Ctrl-C does not cut this short: OpenCV crashes if a camera or video is closed under a thread that uses it.
    """
    while True:
        try:
            return thread.exception()
        except KeyboardInterrupt:
            continue
