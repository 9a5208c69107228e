"""Fakes of live cameras: what they give is written down before, and a clock that a test moves."""

import threading
from collections.abc import Callable, Iterator

import numpy as np

from cled_edge.address import Address
from cled_edge.camera.source import Camera
from cled_edge.frame import MONOTONIC, Frame

HANG = "hang"  # in a script: the read blocks until the test ends


class Clock:
    """Nanoseconds that only a test moves."""

    def __init__(self) -> None:
        self.ns = 10**12

    def __call__(self) -> int:
        return self.ns

    def move(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


class LiveCamera(Camera):
    """Gives what its script says: frames, an error to raise, or HANG; then it hangs, unless it `ends`."""

    is_live = True

    def __init__(self, script: list, released: threading.Event, rate_hz: float | None = 30.0, ends: bool = False):
        super().__init__(Address("fake", "fake", "fake"))
        self.script, self.released, self.rate_hz, self.ends = script, released, rate_hz, ends
        self.closed = 0

    def __iter__(self) -> Iterator[Frame]:
        for item in self.script:
            if item is HANG:
                self.released.wait()
            elif isinstance(item, Exception):
                raise item
            else:
                yield item() if callable(item) else item
        if not self.ends:
            self.released.wait()

    def close(self) -> None:
        self.closed += 1


class Opener:
    """Opens the given cameras one after another; an error in their place is raised, and so is the last for ever."""

    def __init__(self, *cameras: Camera | Exception) -> None:
        self.cameras, self.opened = list(cameras), 0

    def __call__(self, address: str) -> Camera:
        self.opened += 1
        camera = self.cameras.pop(0) if len(self.cameras) > 1 else self.cameras[0]
        if isinstance(camera, Exception):
            raise camera
        return camera


def frame(stamp_ns: int, sequence: int = 0, level: int = 0, clock: str = MONOTONIC, size: tuple = (4, 6)) -> Frame:
    return Frame(np.full(size, level, np.uint8), stamp_ns, clock, sequence, "fake")


def moving(clock: Clock, seconds: float, make: Callable[[], Frame]) -> Callable[[], Frame]:
    """Return what moves the clock before it gives a frame."""

    def give() -> Frame:
        clock.move(seconds)
        return make()

    return give
