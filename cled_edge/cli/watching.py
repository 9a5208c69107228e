"""What `fuse --evidence` says while it runs: a line a second of what the inputs show."""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cled_edge.progress import print_line

if TYPE_CHECKING:
    from cled_edge.evidence.live_line import EvidenceLine
    from cled_edge.evidence.told import Evidence
    from cled_edge.frame import FusedFrame

_NICE = 10
_LAST_S = 2.0  # for the last look, at the end of a run


class Watch:
    """A `Monitor` of `fuse_pairs` that looks for evidence, beside the loop: a look takes 3 to 5 ms of a frame's time.

    line: says what was seen. told: what the network says of a frame, `Fuser.kinds`.
    """

    def __init__(self, line: "EvidenceLine", told: "Callable[[FusedFrame], Evidence | None]") -> None:
        self.line, self.told = line, told
        self._pool = ThreadPoolExecutor(1, "evidence", initializer=_be_nice)
        self._look: Future[None] | None = None

    def begin(self, status: Callable[[], dict[str, Any]]) -> None:
        """Need no state of the run."""

    def show(self, frame: "FusedFrame") -> None:
        """Have the inputs of a frame looked at, if a second has gone by and the last look is over."""
        pair = frame.pair
        is_free = self._look is None or self._look.done()
        if pair is not None and not frame.degraded and is_free and self.line.is_due():
            told = self.told(frame)
            with suppress(RuntimeError):  # the run has ended meanwhile
                self._look = self._pool.submit(lambda: self.line.look(pair.images(), told))

    def as_dict(self) -> dict[str, Any] | None:
        """Return the last evidence as plain JSON types, when the last look is over; None before the first."""
        if self._look is not None and wait([self._look], _LAST_S).done:
            self._look.result()  # raises what the look raised
        return self.line.as_dict()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def evidence_line(console: Console) -> "EvidenceLine":
    """Return what looks at a pair and prints a line on the console."""
    from cled_edge.evidence.live_line import EvidenceLine  # noqa: PLC0415

    return EvidenceLine(lambda line: print_line(console, f"evidence: {line}"))


def _be_nice() -> None:
    """Let the loop go first where a core is short; Linux has it for each thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
