"""Work on threads beside the caller's: a bounded queue between two threads, reading ahead, writing behind."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
STOP_WAIT_S = 0.5  # for a thread that draws, once nobody wants its items


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

    def close(self, *, empty: bool = False) -> None:
        """Take no more; what is held can still be taken, unless it is to be emptied. Closing twice does nothing."""
        with self._changed:
            self._closed = True
            if empty:
                self._held.clear()
            self._changed.notify_all()


class ReadAhead(Generic[T]):
    """Draws items on a thread of its own while the caller works on the last one.

    is_stuck: the context has ended, and the thread still waits for an item, as from a camera that hangs. What it draws
    from must then be left alone: OpenCV crashes if a camera is closed under a thread that uses it.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self._queue: BoundedQueue[tuple[T, int]] = BoundedQueue()
        self._is_stopped = threading.Event()
        self.is_stuck = False

    def next(self) -> tuple[T, int] | None:
        """Return the next item and the nanoseconds it took to draw, or None at the end or once it is stopped.

        What ended the items early is raised, when those before it are taken.
        """
        drawn = self._queue.get()
        if drawn is None and not self._is_stopped.is_set():
            self._thread.result()
        return drawn

    def stop(self) -> None:
        """Let `next` return None from now on, at once. Any thread may call it."""
        self._is_stopped.set()
        self._queue.close(empty=True)

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
        if kind is not None:
            self._is_stopped.set()
        self._queue.close()
        while not _has_ended(self._thread, STOP_WAIT_S):
            if self._is_stopped.is_set():
                self.is_stuck = True
                return


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

    def has_ended(self, within_s: float | None = None) -> bool:
        """Wait until all is written, for ever or for a time, and say whether it is. Close it before."""
        return self._thread is None or _has_ended(self._thread, within_s)

    def failure(self) -> BaseException | None:
        """Return what `write` raised, once all is written."""
        return self._thread.exception() if self._thread else None

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

    def has_ended(self, within_s: float | None = None) -> bool:  # noqa: ARG002 (nothing runs beside)
        """Say that all is written."""
        return True

    def failure(self) -> BaseException | None:
        """Return what `write` raised."""
        return self._failure


def _run_beside(name: str, work: Callable[[], None]) -> "Future[None]":
    """Run it on a thread that does not keep the process alive: what it waits for may never come."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # told by the future
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _has_ended(thread: "Future[None]", within_s: float | None = None) -> bool:
    """Wait until a thread has ended, for ever or for a time, and say whether it has.

    A second Ctrl-C does not cut this short: OpenCV crashes if a camera or video is closed under a thread that uses it.
    """
    until_s = None if within_s is None else time.monotonic() + within_s
    while True:
        try:
            thread.exception(None if until_s is None else max(0.0, until_s - time.monotonic()))
        except FutureTimeoutError:
            return False
        except KeyboardInterrupt:
            continue
        return True
