"""Where a measurement's pairs come from: a rendered street held in memory, or the user's own files."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import cycle
from typing import Protocol

from cled_edge.camera.source import is_live
from cled_edge.errors import OptionError
from cled_edge.frame import ORDER, Frame, FramePair
from cled_edge.pairing import open_pair
from cled_edge.scene.night_street import night_street
from cled_edge.size import Size

RENDERED_PAIRS = 8  # more than the caches hold, and quickly drawn


class Feed(Protocol):
    """Gives pairs without end."""

    name: str
    size: tuple[int, int]

    def next(self) -> tuple[FramePair, dict[str, int]]:
        """Return a pair, and nanoseconds by stage of what it took to get it."""
        ...

    def close(self) -> None:
        """Give back what is open."""
        ...


class MemoryFeed:
    """Repeats pairs that are in memory: they cost nothing to get, as the frames of a camera driver."""

    def __init__(self, name: str, pairs: Sequence[FramePair]) -> None:
        self.name = name
        self.size = size_of(pairs[0])
        self._pairs = cycle(pairs)

    def next(self) -> tuple[FramePair, dict[str, int]]:
        """Return the next pair."""
        return next(self._pairs), {}

    def close(self) -> None:
        """Nothing is open."""


class FileFeed:
    """Reads two files or folders over and over; stage `decode` is the time that takes."""

    def __init__(self, infrared: str, visible: str) -> None:
        for source in (infrared, visible):
            if is_live(source):
                raise OptionError(
                    f"{source} is a camera, which shows each backend another scene; record it to a file and give that"
                )
        self.name = f"{infrared} | {visible}"
        self._sources = infrared, visible
        self._open()
        first, _ = self.next()
        self.size = size_of(first)

    def _open(self) -> None:
        self._stack = ExitStack()
        self._pairs = iter(self._stack.enter_context(open_pair(*self._sources)))

    def next(self) -> tuple[FramePair, dict[str, int]]:
        """Read the next pair; begin again after the last."""
        start_ns = time.perf_counter_ns()
        pair = next(self._pairs, None)
        if pair is None:
            self.close()
            self._open()
            start_ns = time.perf_counter_ns()  # opening again is the benchmark's doing
            pair = next(self._pairs)
        return pair, {"decode": time.perf_counter_ns() - start_ns}

    def close(self) -> None:
        """Release the files."""
        self._stack.close()


def rendered_pairs(size: tuple[int, int]) -> list[FramePair]:
    """Return a night street in `size` (height, width)."""
    street = night_street(RENDERED_PAIRS, size)
    return [
        FramePair(Frame(pair.infrared, k, ORDER, k, "rendered"), Frame(pair.visible, k, ORDER, k, "rendered"))
        for k, pair in enumerate(street)
    ]


def size_of(pair: FramePair) -> Size:
    """Return (height, width) of a pair."""
    return pair.infrared.image.shape[0], pair.infrared.image.shape[1]
