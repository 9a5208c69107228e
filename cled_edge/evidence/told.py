"""How likely kinds of degradation are in a pair, and what makes probabilities of the network's own numbers."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from cled_edge.evidence.likelihood import summary_line
from cled_edge.image import Float32


class Evidence(NamedTuple):
    """How likely each kind of degradation is in a pair of images, as they came."""

    infrared: dict[str, float]
    visible: dict[str, float]

    def __str__(self) -> str:
        return f"infrared {summary_line(self.infrared)}; visible {summary_line(self.visible)}"

    def rounded(self) -> dict[str, dict[str, float]]:
        """Return plain JSON types."""
        return {name: {kind: round(p, 3) for kind, p in kinds.items()} for name, kinds in self._asdict().items()}


def probabilities(kinds: Iterable[tuple[str, tuple[float, float] | None]], told: Float32) -> dict[str, float]:
    """Return the probability of each kind that a modality has, of a network's log odds, (K,).

    kinds: name, and the scale and offset that calibrate it (Platt, 1999); None for a kind that the modality never has.
    """
    found = {}
    for (name, calibration), log_odds in zip(kinds, told.tolist(), strict=True):
        if calibration is not None:
            scale, offset = calibration
            found[name] = float(1 / (1 + np.exp(-np.clip(scale * log_odds + offset, -50, 50))))
    return found
