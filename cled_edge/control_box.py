"""The controls of a run that is under way: anyone changes them, and the loop reads them once a frame."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cled_edge.contract import CONTROLS, Control, Controls

Listener = Callable[[Controls], None]


class ControlBox:
    """Holds the controls that the next frame takes; `current` is one read, and never waits.

    check: raises OptionError for controls that lie in their ranges, but that this run cannot apply, such as one that
    the bundle has not. Nothing changes then.
    refusal: why the last change was withdrawn, see `withdraw`; "" if it was not.
    entries: what there is to turn, with the ranges that this run takes.
    listeners: called after each change with the new controls, on the thread that changed them.
    """

    def __init__(
        self,
        controls: Controls | None = None,
        *,
        check: Listener = lambda _controls: None,
        entries: tuple[Control, ...] = CONTROLS,
    ) -> None:
        self.entries = entries
        self.listeners: list[Listener] = []
        self.refusal = ""
        self._check = check
        self._current = self._proven = Controls() if controls is None else controls
        self._changing = threading.Lock()

    @classmethod
    def of(cls, controls: "Controls | ControlBox | None") -> "ControlBox":
        """Return a box as it is, and controls in a box of their own."""
        return controls if isinstance(controls, ControlBox) else cls(controls)

    @property
    def current(self) -> Controls:
        """Return the controls that hold now; they never change themselves."""
        return self._current

    @property
    def proven(self) -> Controls:
        """Return the controls that a frame was fused with last; before the first, those that the box began with."""
        return self._proven

    def change(self, /, **values: Any) -> Controls:
        """Set some controls by their names, all of them or none, and return all that hold now.

        OptionError for an unknown name, for a value outside its range, and for what `check` refuses.
        """
        with self._changing:
            Controls.from_mapping(values, "a change of controls")
            changed = replace(self._current, **values)
            self._check(changed)
            self._current, self.refusal = changed, ""
            for listener in tuple(self.listeners):
                listener(changed)
            return changed

    def prove(self, controls: Controls) -> None:
        """Take it that a frame was fused with these controls; the loop says so after each."""
        self._proven = controls

    def withdraw(self, controls: Controls, reason: str) -> bool:
        """Go back to the controls of the last frame, and say whether others were tried: then these cannot be applied.

        A slider must not end a run: what fails with a change is tried again without it.
        """
        with self._changing:
            if controls == self._proven:
                return False
            if self._current == controls:
                self._current = self._proven
            self.refusal = reason
            for listener in tuple(self.listeners):
                listener(self._current)
            return True
