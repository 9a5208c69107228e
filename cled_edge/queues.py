"""Work on threads beside the caller's: a bounded queue between two threads, reading ahead, writing behind."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """Holds up to `size` items between a giver and a taker. Either may close it: the other then never waits.

    drops: the oldest item leaves when a new one finds the queue full, counted in `dropped`. Else the giver waits.
    """

    def __init__(self, size: int = 1, drops: bool = False) -> None:
        self.dropped = 0
        self._size, self._drops = size, drops
        self._held: deque[T] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Hand an item on; return False if the queue is closed, and the item not taken."""
        with self._changed:
            if not self._drops:
                self._changed.wait_for(lambda: self._closed or len(self._held) < self._size)
            if self._closed:
                return False
            if len(self._held) >= self._size:
                self._held.popleft()
                self.dropped += 1
            self._held.append(item)
            self._changed.notify_all()
            return True

    def get(self) -> T | None:
        """Wait for an item and take it; return None if the queue is closed and empty."""
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
        self._queue: BoundedQueue[tuple[T, int]] = BoundedQueue(drops=newest_only)

    @property
    def dropped(self) -> int:
        """Return how many items were overtaken."""
        return self._queue.dropped

    def next(self) -> tuple[T, int] | None:
        """Return the next item and the nanoseconds it took to draw, or None at the end.

        What ended the items early is raised, when those before it are taken.
        """
        drawn = self._queue.get()
        if drawn is None:
            self._thread.result()
        return drawn

    def _draw_all(self) -> None:
        try:
            items = iter(self._items)
            start_ns = time.perf_counter_ns()
            for item in items:
                if not self._queue.put((item, time.perf_counter_ns() - start_ns)):
                    return
                start_ns = time.perf_counter_ns()
        finally:
            self._queue.close()

    def __enter__(self) -> "ReadAhead[T]":
        self._thread = _run_beside("read", self._draw_all)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._queue.close()
        _wait_for_end(self._thread)


class WriteBehind(Generic[T]):
    """Calls `write` on a thread of its own, item by item in order, until it returns False.

    size: items held while one is written. drops: see `BoundedQueue`. The thread starts with the first item.
    waited_ns: what the last `put` waited for room.
    """

    def __init__(self, write: Callable[[T], bool], size: int = 1, drops: bool = False) -> None:
        self.waited_ns = 0
        self._write = write
        self._queue: BoundedQueue[T] = BoundedQueue(size, drops)
        self._thread: Future[None] | None = None

    @property
    def dropped(self) -> int:
        """Return how many items were left out."""
        return self._queue.dropped

    def put(self, item: T) -> bool:
        """Take an item; return False if no more are wanted, or writing failed."""
        if self._thread is None:
            self._thread = _run_beside("write", self._write_all)
        start_ns = time.perf_counter_ns()
        taken = self._queue.put(item)
        self.waited_ns = time.perf_counter_ns() - start_ns
        return taken

    def close(self) -> None:
        """Take no more; what is held will still be written."""
        self._queue.close()

    def failure(self) -> BaseException | None:
        """Wait until all is written, and return what `write` raised. Close it before."""
        return _wait_for_end(self._thread) if self._thread else None

    def _write_all(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                if not self._write(item):
                    return
        finally:
            self._queue.close()


class WriteBetween(Generic[T]):
    """Calls `write` on the caller's thread, until it returns False. It offers what `WriteBehind` does.

    drops: an item is left out while writing would take over `SHARE` of the caller's time, and counted in `dropped`.
    """

    SHARE = 1 / 4

    def __init__(self, write: Callable[[T], bool], drops: bool = False) -> None:
        self.dropped = 0
        self.waited_ns = 0
        self._write, self._drops = write, drops
        self._due_ns = 0
        self._ended = False
        self._failure: Exception | None = None

    def put(self, item: T) -> bool:
        """Write an item, or leave it out; return False if no more are wanted, or writing failed."""
        start_ns = time.perf_counter_ns()
        if self._ended:
            return False
        if self._drops and start_ns < self._due_ns:
            self.dropped += 1
            return True
        try:
            self._ended = not self._write(item)
        except Exception as error:  # told by `failure`, as `WriteBehind` does
            self._ended, self._failure = True, error
        end_ns = time.perf_counter_ns()
        self._due_ns = end_ns + round((end_ns - start_ns) * (1 / self.SHARE - 1))
        return not self._ended

    def close(self) -> None:
        """Take no more."""
        self._ended = True

    def failure(self) -> BaseException | None:
        """Return what `write` raised."""
        return self._failure


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
