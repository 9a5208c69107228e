"""What the newest frame shows, told to whoever asks: worked out once a second at most, and on the asker's thread."""

import threading
import time
from collections.abc import Callable
from typing import Any

from cled_edge.evidence.live_line import EvidenceLine
from cled_edge.evidence.told import Evidence
from cled_edge.frame import FusedFrame

Told = Callable[[FusedFrame], Evidence | None]


class SeenKinds:
    """Keeps the evidence of a run. told: what the network says of a frame, see `Fuser.kinds`."""

    def __init__(self, told: Told = lambda _frame: None, now: Callable[[], int] = time.monotonic_ns) -> None:
        self._told = told
        self._line = EvidenceLine(lambda _line: None, now)
        self._looking = threading.Lock()

    def of(self, frame: FusedFrame | None) -> dict[str, Any] | None:
        """Return the evidence as plain JSON types, of this frame or of one up to a second older; None before any."""
        with self._looking:
            pair = None if frame is None else frame.pair
            if frame is not None and pair is not None and not frame.degraded and self._line.is_due():
                self._line.look(pair.images(), self._told(frame))
            return self._line.as_dict()
