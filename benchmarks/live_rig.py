"""Two cameras whose pictures tell when they were drawn, to be lost and found again: by RTSP, or in this process."""

import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from typing import Protocol

import numpy as np

from benchmarks import rtsp_camera as camera_program
from benchmarks.rtsp_camera import PYTHON, draw_clock, rtsp_camera
from cled_edge.address import Address
from cled_edge.camera.source import Camera, open_camera
from cled_edge.errors import SourceUnreadableError
from cled_edge.frame import ARRIVAL, Frame
from cled_edge.size import Size

MJPEG = "mjpeg"
RTSP_PROGRAM = (PYTHON, camera_program.__file__)


@dataclass(frozen=True)
class Faults:
    """What is wrong with both cameras, as options of `benchmarks.rtsp_camera`. loss: of packets, sent by UDP then."""

    drift: float = 0.0
    jitter_ms: float = 0.0
    stall_at: float = 0.0
    stall_for: float = 0.0
    loss: float = 0.0

    def options(self) -> list[str]:
        """Return them as options of the camera's program."""
        names = ("--drift", "--jitter-ms", "--stall-at", "--stall-for", "--loss")
        return [word for name, value in zip(names, astuple(self), strict=True) for word in (name, str(value))]


class Rig(Protocol):
    """Two cameras, infrared first; as a context it ends them."""

    def opener(self, index: int) -> Callable[[str], Camera]:
        """Return what opens a camera, whatever the address."""
        ...

    def lose(self, index: int) -> None:
        """Let a camera go away."""
        ...

    def bring_back(self, index: int) -> None:
        """Let it be there again; returns when it answers."""
        ...


class NetworkRig(ExitStack):
    """Two processes with a server on loopback: RTSP by GStreamer, or, where codec is mjpeg, HTTP."""

    def __init__(self, sizes: tuple[Size, Size], rates_hz: tuple[float, float], faults: Faults, codec: str) -> None:
        super().__init__()
        self._how = list(zip(sizes, rates_hz, _free_ports(), strict=True))
        self._options = faults.options() if codec == MJPEG else ["--codec", codec, *faults.options()]
        self._program = (sys.executable, "-m", "benchmarks.http_camera") if codec == MJPEG else RTSP_PROGRAM
        self._transport = "#transport=udp" if faults.loss else ""
        self._running = [self._start(index) for index in (0, 1)]

    def _start(self, index: int) -> tuple[Callable[[], None], str]:
        size, rate_hz, port = self._how[index]
        life = self.enter_context(ExitStack())
        _, address = life.enter_context(rtsp_camera(size, rate_hz, port, *self._options, program=self._program))
        return life.close, address

    def opener(self, index: int) -> Callable[[str], Camera]:
        """See `Rig`."""
        return lambda _address: open_camera(self._running[index][1] + self._transport)

    def lose(self, index: int) -> None:
        """Kill the camera's process."""
        self._running[index][0]()

    def bring_back(self, index: int) -> None:
        """Start another."""
        self._running[index] = self._start(index)


def _free_ports() -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class DrawnRig(ExitStack):
    """Two cameras in this process, for a computer without GStreamer: all but network and decoder. No packets are lost.

    Their frames are stamped on arrival, `jitter_ms` after they were drawn at most.
    """

    def __init__(self, sizes: tuple[Size, Size], rates_hz: tuple[float, float], faults: Faults) -> None:
        super().__init__()
        self._is_there = [threading.Event(), threading.Event()]
        self._how = list(zip(sizes, rates_hz, strict=True))
        self._faults, self._begin_s = faults, time.monotonic()
        for event in self._is_there:
            event.set()
            self.callback(event.clear)

    def opener(self, index: int) -> Callable[[str], Camera]:
        """See `Rig`."""

        def open_(_address: str) -> Camera:
            if not self._is_there[index].is_set():
                raise SourceUnreadableError("the drawn camera is away; needed it; wait for it")
            return _DrawnCamera(*self._how[index], self._faults, self._begin_s, self._is_there[index])

        return open_

    def lose(self, index: int) -> None:
        """Let it give no more."""
        self._is_there[index].clear()

    def bring_back(self, index: int) -> None:
        """Let it be opened again."""
        self._is_there[index].set()


class _DrawnCamera(Camera):
    is_live = True

    def __init__(self, size: Size, rate_hz: float, faults: Faults, begin_s: float, is_there: threading.Event) -> None:
        super().__init__(Address("drawn", "drawn", "drawn"))
        self.rate_hz = rate_hz
        self._size, self._faults, self._begin_s, self._is_there = size, faults, begin_s, is_there

    def __iter__(self) -> Iterator[Frame]:
        height, width = self._size
        base = (np.add.outer(np.arange(height), np.arange(width)) % 200).astype(np.uint8)
        faults, begin_s, number = self._faults, time.monotonic(), 0
        while self._is_there.is_set():
            passed_s = time.monotonic() - self._begin_s
            if faults.stall_at <= passed_s < faults.stall_at + faults.stall_for:
                time.sleep(faults.stall_at + faults.stall_for - passed_s)
            begin_due_s = begin_s + number / ((self.rate_hz or 1.0) * (1 + faults.drift))
            time.sleep(max(0.0, begin_due_s - time.monotonic()))
            image = np.roll(base, number, axis=1)
            draw_clock(image, time.monotonic_ns() // 10**6)
            time.sleep(random.random() * faults.jitter_ms / 1000)  # noqa: S311
            yield Frame(np.dstack([image] * 3), time.monotonic_ns(), ARRIVAL, number, "drawn", "BGR")
            number += 1
        raise SourceUnreadableError("the drawn camera went away; needed it; wait for it")
