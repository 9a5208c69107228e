"""The controls of a run that is under way: anyone changes them, and the loop reads them once a frame."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cled_edge.contract import Controls

Listener = Callable[[Controls], None]


class ControlBox:
    """Holds the controls that the next frame takes; `current` is one read, and never waits.

    check: raises OptionError for controls that lie in their ranges, but that this run cannot apply, such as one that
    the bundle has not. Nothing changes then.
    listeners: called after each change with the new controls, on the thread that changed them.
    """

    def __init__(self, controls: Controls | None = None, *, check: Listener = lambda _controls: None) -> None:
        self.listeners: list[Listener] = []
        self._check = check
        self._current = Controls() if controls is None else controls
        self._changing = threading.Lock()

    @classmethod
    def of(cls, controls: "Controls | ControlBox | None") -> "ControlBox":
        """Return a box as it is, and controls in a box of their own."""
        return controls if isinstance(controls, ControlBox) else cls(controls)

    @property
    def current(self) -> Controls:
        """Return the controls that hold now; they never change themselves."""
        return self._current

    def change(self, **values: Any) -> Controls:
        """Set some controls by their names, all of them or none, and return all that hold now.

        OptionError for an unknown name, for a value outside its range, and for what `check` refuses.
        """
        with self._changing:
            Controls.from_mapping(values, "a change of controls")
            changed = replace(self._current, **values)
            self._check(changed)
            self._current = changed
            for listener in tuple(self.listeners):
                listener(changed)
            return changed
