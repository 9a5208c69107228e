"""What a run shows just now, once a second: "infrared stripes .9; visible haze .7, noise .2"."""

import time
from collections.abc import Callable
from typing import Any

from cled_edge.evidence.likelihood import likely_kinds
from cled_edge.evidence.signs import signs_of
from cled_edge.evidence.told import Evidence
from cled_edge.image import Uint8

_PERIOD_NS = 1_000_000_000


def evidence_of(infrared: Uint8, visible: Uint8) -> Evidence:
    """Return the evidence of a pair, grey (H, W) and RGB (H, W, 3), uint8; a few milliseconds at 480x640."""
    return Evidence(likely_kinds(signs_of(infrared), "infrared"), likely_kinds(signs_of(visible), "visible"))


class EvidenceLine:
    """Looks at a pair where a second `is_due`, and says what it saw. now: nanoseconds of a clock that never goes back.

    tell: takes each line. latest: the last evidence, None before the first. told: the last of the network's own, None
    if its bundle tells none.
    """

    def __init__(self, tell: Callable[[str], None], now: Callable[[], int] = time.monotonic_ns) -> None:
        self.tell, self.now = tell, now
        self.latest: Evidence | None = None
        self.told: Evidence | None = None
        self._due_ns: int | None = None

    def is_due(self) -> bool:
        """Return whether a second has gone by since this last said so."""
        now_ns = self.now()
        if self._due_ns is not None and now_ns < self._due_ns:
            return False
        self._due_ns = now_ns + _PERIOD_NS
        return True

    def look(self, images: tuple[Uint8, Uint8], told: Evidence | None = None) -> None:
        """Take note of a pair, grey (H, W) and RGB (H, W, 3). told: what the network says of it."""
        self.latest, self.told = evidence_of(*images), told
        self.tell(str(self.latest) + ("" if told is None else f" (the network: {told})"))

    def as_dict(self) -> dict[str, Any] | None:
        """Return the last evidence as plain JSON types, None before the first."""
        if self.latest is None:
            return None
        return {**self.latest.rounded(), **({} if self.told is None else {"network": self.told.rounded()})}
