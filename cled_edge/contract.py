"""What a user may turn for each frame, and how the graphs of a bundle take it."""

from dataclasses import dataclass

import numpy as np

from cled_edge.errors import OptionError
from cled_edge.image import Float32
from cled_edge.schedule import check_steps


@dataclass(frozen=True)
class Controls:
    """What the user may turn for each frame.

    steps: network evaluations, 1 to 10; None is the bundle's default.
    strength_infrared, strength_visible: share of the estimated degradation to remove, 0 (none) to 1 (all).
    balance: 0 leans on the visible, 1 on the infrared, 0.5 is what the paper trains.
    """

    steps: int | None = None
    strength_infrared: float = 1.0
    strength_visible: float = 1.0
    balance: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values outside their ranges with an OptionError."""
        if self.steps is not None:
            check_steps(self.steps)
        for name in ("strength_infrared", "strength_visible", "balance"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise OptionError(f"{name} is {value}; it must lie between 0 and 1")

    @property
    def strength(self) -> Float32:
        """Both strengths as the graphs take them: (2,), infrared first."""
        return np.array([self.strength_infrared, self.strength_visible], np.float32)
