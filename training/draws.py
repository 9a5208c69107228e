"""The random numbers of one iteration, the same whatever the number of processes."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Random numbers drawn for the whole batch, of which this process takes its part.

    Every process draws the same, so that what holds for a batch as a whole is the same in all of them.
    count: images, or pairs, of this process.
    """

    generator: torch.Generator
    count: int
    rank: int = 0
    processes: int = 1

    def shared(self, count: int) -> list[float]:
        """Return numbers of U(0, 1), the same in every process."""
        return [float(x) for x in torch.rand(count, generator=self.generator)]

    def uniform(self, *shape: int) -> Tensor:
        """Return (count, *shape) of U(0, 1)."""
        return self._own(torch.rand(self.processes * self.count, *shape, generator=self.generator))

    def normal(self, *shape: int) -> Tensor:
        """Return (count, *shape) of N(0, 1)."""
        return self._own(torch.randn(self.processes * self.count, *shape, generator=self.generator))

    def _own(self, drawn: Tensor) -> Tensor:
        return drawn[self.rank * self.count :][: self.count]
