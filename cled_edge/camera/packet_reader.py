"""Packets of a stream, each stamped when it comes, though who decodes them is busy."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

_MOST = 512  # packets that wait, of a key frame and more; then they wait in the socket


class PacketReader:
    """Reads packets on a daemon thread, and gives each with when it came, by `now`.

    A reader that decodes between two reads leaves what comes meanwhile in the socket, and takes it for younger than it
    is. only_newest: of frames that stand alone, give the newest: a busy reader falls behind for ever else, and without
    times in the stream nobody sees it. Each frame seems fresh, and is seconds old.
    skipped: packets that a newer one overtook.
    """

    def __init__(
        self, packets: Iterator[Any], *, only_newest: bool = False, now: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.skipped = 0
        self._packets, self._only_newest, self._now = packets, only_newest, now
        self._held: deque[tuple[Any, int]] = deque()
        self._error: Exception | None = None
        self._is_over = self._is_stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="packets", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        """Yield until the packets end, and then raise what ended them."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held or self._is_over)
                if self._is_stopped or not self._held:
                    break
                held = self._held.popleft()
                if len(self._held) == _MOST - 1:
                    self._changed.notify_all()
            yield held
        if self._error:
            raise self._error

    def stop(self, within_s: float) -> bool:
        """Read no more; False if the thread still waits for a packet."""
        with self._changed:
            self._is_over = self._is_stopped = True
            self._changed.notify_all()
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _read(self) -> None:
        try:
            for packet in self._packets:
                came_ns = self._now()
                with self._changed:
                    self._changed.wait_for(lambda: len(self._held) < _MOST or self._is_stopped)
                    if self._is_stopped:
                        return
                    if self._only_newest:
                        self.skipped += len(self._held)
                        self._held.clear()
                    self._held.append((packet, came_ns))
                    self._changed.notify_all()
        except Exception as error:  # whoever iterates raises it
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
