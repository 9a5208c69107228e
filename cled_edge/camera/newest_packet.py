"""The newest packet of a stream whose frames stand alone: nobody decodes what a newer one has overtaken."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class NewestPacket:
    """Reads packets on a daemon thread, and gives the newest with when it came, by `now`.

    A reader that decodes between two reads leaves what comes meanwhile in the socket. A busy one falls behind for ever,
    and without times in the stream nobody sees it: each frame seems fresh, and is seconds old.
    skipped: packets that a newer one overtook.
    """

    def __init__(self, packets: Iterator[Any], now: Callable[[], int] = time.monotonic_ns) -> None:
        self.skipped = 0
        self._packets, self._now = packets, now
        self._held: tuple[Any, int] | None = None
        self._error: Exception | None = None
        self._is_over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="packets", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        """Yield until the packets end, and then raise what ended them."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held or self._is_over)
                held, self._held = self._held, None
            if held is None:
                if self._error:
                    raise self._error
                return
            yield held

    def stop(self, within_s: float) -> bool:
        """Read no more; False if the thread still waits for a packet."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _read(self) -> None:
        try:
            for packet in self._packets:
                with self._changed:
                    if self._is_over:
                        return
                    self.skipped += self._held is not None
                    self._held = packet, self._now()
                    self._changed.notify_all()
        except Exception as error:  # whoever iterates raises it
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
