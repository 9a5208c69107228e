"""What systemd wants to hear of a service: that it is ready, that its loop is alive, that it ends. See sd_notify(3)."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from cled_edge.frame import FusedFrame


class Watchdog:
    """A `Monitor` that tells the service manager of each sign of life; without one it does nothing.

    It is the loop itself that says so, at each fused frame and each dead tile. So a loop that hangs is started anew
    after the unit's WatchdogSec, and one that waits for lost cameras is not.
    environ: has NOTIFY_SOCKET and WATCHDOG_USEC where a manager listens.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, now: Callable[[], int] = time.monotonic_ns) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        # Half of the time that systemd waits, as its manual advises.
        self._period_ns = int(environ.get("WATCHDOG_USEC") or 0) * 1000 // 2
        self._now, self._due_ns = now, 0

    def begin(self, status: Callable[[], dict[str, Any]]) -> None:  # noqa: ARG002 (of no interest here)
        """Say that the service is ready: the model is loaded, and the cameras are being read."""
        self._tell("READY=1\nSTATUS=waiting for the first pair")

    def show(self, frame: FusedFrame) -> None:
        """Say that the loop is alive, twice in the time after which it would be taken for dead."""
        if not self._address or self._now() < self._due_ns:
            return
        self._due_ns = self._now() + (self._period_ns or 10**9)
        self._tell(f"WATCHDOG=1\nSTATUS=fusing, {frame.degraded or 'both cameras'}, pair {frame.name}")

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        place = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setblocking(False)  # a manager that does not read must not hold up the loop
            line.sendto(text.encode(), place)
