"""How many steps of the loop fit into a deadline, by what the last frames took."""

from collections import deque
from collections.abc import Sequence
from statistics import median

_REMEMBERED = 20  # frames
_TRIALS = 3  # runs of a number of steps that tell what it costs, after one that prepares its graph


class StepBudget:
    """Chooses the steps of each frame: as many as fit by the slowest of ten recent frames, one at least.

    What a number of steps costs is told as a multiple of the least number's time, by its first runs; how fast the
    machine is just now is told by the last frames, whatever their steps. A number that has not run yet is tried as soon
    as the one below it fits, so that only the first frames may come late by a step.
    """

    def __init__(self) -> None:
        self._runs: dict[int, list[float]] = {}
        self._speeds_ms: deque[float] = deque(maxlen=_REMEMBERED)

    def choose(self, deadline_ms: float, choices: Sequence[int]) -> int:
        """Return the steps of the next frame, out of `choices`; the least of them if none fits."""
        ordered = sorted(choices)
        chosen = ordered[0]
        for steps in ordered:
            if not self._is_known(steps):
                return steps
            if self._cost(steps) * self._speed_ms() > deadline_ms:
                break
            chosen = steps
        return chosen

    def ran(self, steps: int, took_ms: float) -> None:
        """Take note of a frame that ran so many steps."""
        runs = self._runs.setdefault(steps, [])
        if not self._is_known(steps):
            runs.append(took_ms / median(self._speeds_ms) if self._speeds_ms else took_ms)
            if not self._speeds_ms and self._is_known(steps):  # the least: its own time is the unit
                self._speeds_ms.append(self._cost(steps))
                self._runs[steps] = [run / self._speeds_ms[0] for run in runs]
            return
        self._speeds_ms.append(took_ms / self._cost(steps))

    def _is_known(self, steps: int) -> bool:
        return len(self._runs.get(steps, ())) > _TRIALS

    def _cost(self, steps: int) -> float:
        """Return what so many steps take, in times of the least."""
        return median(self._runs[steps][1:])

    def _speed_ms(self) -> float:
        """Return the 90th percentile of what the least number of steps would have taken lately."""
        ordered = sorted(self._speeds_ms)
        return ordered[(9 * len(ordered) - 1) // 10]
