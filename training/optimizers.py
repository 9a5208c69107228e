"""The optimisers of a recipe: Adam for all, or Muon for what is a matrix and Adam for the rest."""

from typing import Any

import torch
from torch import Tensor, nn

from training.recipe import StageRecipe

_DECAY = 0.1  # its updates never get smaller by themselves: without, a run of 24,000 iterations diverged after 4,400


class Optimizers:
    """One or two optimisers that step as one, at a common factor of their learning rates."""

    def __init__(self, network: nn.Module, recipe: StageRecipe) -> None:
        matrices = [p for p in network.parameters() if recipe.optimizer == "muon" and is_matrix(p)]
        known = {id(p) for p in matrices}
        rest = [p for p in network.parameters() if id(p) not in known]
        self.views = [(p, nn.Parameter(as_matrix(p.detach()))) for p in matrices]
        self.parts: list[tuple[torch.optim.Optimizer, float]] = []
        if rest:
            adam = torch.optim.Adam(rest, lr=recipe.learning_rate, betas=recipe.betas)
            self.parts.append((adam, recipe.learning_rate))
        if matrices:
            rate = recipe.matrix_learning_rate
            muon = torch.optim.Muon([view for _, view in self.views], lr=rate, weight_decay=_DECAY)
            self.parts.append((muon, rate))

    def step(self, factor: float) -> None:
        """Update the network from its gradients, at `factor` times the learning rates."""
        for parameter, view in self.views:
            view.grad = None if parameter.grad is None else as_matrix(parameter.grad)
        for optimizer, rate in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter, _ in self.views:
            parameter.grad = None
        for optimizer, _ in self.parts:
            optimizer.zero_grad()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what `load_state_dict` takes."""
        return [optimizer.state_dict() for optimizer, _ in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Continue from there."""
        for (optimizer, _), state in zip(self.parts, states, strict=True):
            optimizer.load_state_dict(state)


def is_matrix(parameter: Tensor) -> bool:
    """Return whether a parameter maps many channels to many: no vector, no gain per channel, no depthwise kernel."""
    return parameter.ndim >= 2 and parameter.shape[0] > 1 and parameter.shape[1] > 1


def as_matrix(weight: Tensor) -> Tensor:
    """Return a (rows, columns) view of a weight; the order of columns does not matter to Muon.

    A convolution's is (out, in * k * k), with the kernel before the channels if they come last in memory.
    """
    if weight.ndim == 4 and not weight.is_contiguous():
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)
