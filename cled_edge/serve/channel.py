"""One slot between the loop's thread and the server's: it always holds the newest item, and never a second one."""

import asyncio
import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """Holds the newest item and its number, from 1. `put` never waits, whoever reads and however slowly."""

    def __init__(self) -> None:
        self.item: T | None = None
        self.number = 0
        self.is_closed = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._lock = threading.Lock()

    def put(self, item: T) -> None:
        """Put an item into the slot, in place of the last one, and wake who waits. Any thread may call it."""
        with self._lock:
            self.item = item
            self.number += 1
            waiting, self._waiting = self._waiting, []
        _wake(waiting)

    def close(self) -> None:
        """End all waiting, now and later. Any thread may call it."""
        with self._lock:
            self.is_closed = True
            waiting, self._waiting = self._waiting, []
        _wake(waiting)

    async def newer_than(self, number: int) -> tuple[int, T] | None:
        """Return the newest item with its number, as soon as that is above `number`; None once it is closed."""
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                if self.is_closed:
                    return None
                if self.number > number and self.item is not None:
                    return self.number, self.item
                future = loop.create_future()
                self._waiting.append((loop, future))
            await future


def _wake(waiting: "list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]") -> None:
    for loop, future in waiting:
        try:
            loop.call_soon_threadsafe(_done, future)
        except RuntimeError:  # that loop has ended, and who waited with it
            continue


def _done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
