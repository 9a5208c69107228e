"""The uncertainty that the page shows: the loop computes it while somebody looks, and not a frame longer."""

import time
from typing import Protocol

from cled_edge.control_box import ControlBox
from cled_edge.frame import FusedFrame
from cled_edge.output.sink import is_uncertainty

ASKED_S = 2.0  # after the last look the loop goes on without


class Doubting(Protocol):
    """What fuses: see `Fuser.is_looked_at`, `look_failure` and `can_doubt`."""

    is_looked_at: bool
    look_failure: str

    @property
    def can_doubt(self) -> bool:
        """Whether it can tell its uncertainty."""


class AskedDoubt:
    """Turns the uncertainty of a run on while it is looked at. fuser: None tells none.

    `ask` may be called by any thread; `settle` by the loop's alone, between two frames.
    """

    def __init__(self, fuser: Doubting | None, box: ControlBox) -> None:
        self._fuser, self._box = fuser, box
        self._asked_s = -ASKED_S
        self.is_possible = fuser is not None and fuser.can_doubt

    def ask(self) -> None:
        """Take it that somebody looks at the uncertainty now."""
        self._asked_s = time.monotonic()

    @property
    def reason(self) -> str:
        """Why frames have none, in words; "" if the next one will."""
        if self._fuser is None or not self.is_possible:
            return "no uncertainty: this bundle and backend have no doubt graph"
        if self._fuser.look_failure:
            return f"no uncertainty: {self._fuser.look_failure}"
        if self._box.current.steadiness:
            return "no uncertainty while steadiness is above 0"
        return ""

    def settle(self) -> None:
        """Let the next frame have it, or not."""
        if self._fuser is not None:
            self._fuser.is_looked_at = time.monotonic() - self._asked_s < ASKED_S and not self.reason


def has_view(frame: FusedFrame, view: str) -> bool:
    """Say whether a frame can show a view: that of an uncertainty takes a frame that has one."""
    return frame.uncertainty is not None or not is_uncertainty(view)
