"""An iteration as one CUDA graph."""

from collections.abc import Callable
from typing import Generic

import torch
from torch import Tensor

from training.batches import Fields, each

UNRECORDED = 3  # iterations: the first compiles, and optimisers allocate what they keep


class Recorded(Generic[Fields]):
    """An iteration recorded once, then replayed, since launching its kernels takes longer than they.

    What it returns is overwritten by the next call.
    """

    def __init__(self, iteration: Callable[[Fields], dict[str, Tensor]]) -> None:
        self.iteration, self.calls = iteration, 0
        self.graph = torch.cuda.CUDAGraph()
        self.side = torch.cuda.Stream()

    def __call__(self, inputs: Fields) -> dict[str, Tensor]:
        """Run the iteration on inputs of the same shapes at each call."""
        if self.calls == 0:
            self.inputs = each(inputs, lambda x: torch.empty(x.shape, dtype=x.dtype, device=x.device))
        for kept, x in zip(self.inputs, inputs, strict=True):
            if kept is not None:
                kept.copy_(x)
        self.calls += 1
        if self.calls <= UNRECORDED:
            self.side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.side):
                result = self.iteration(self.inputs)
            torch.cuda.current_stream().wait_stream(self.side)
            return result
        if self.calls == UNRECORDED + 1:
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # another thread pins memory
                self.result = self.iteration(self.inputs)
        self.graph.replay()
        return self.result
