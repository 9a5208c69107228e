"""The optimisers of a recipe: Adam for all, or Muon for what is a matrix and Adam for the rest."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from training.recipe import StageRecipe

_DECAY = 0.1  # its updates never get smaller by themselves: without, a run of 24,000 iterations diverged after 4,400


class Optimizers:
    """One or two optimisers that step as one, at a common factor of their learning rates.

    Rates are tensors of the network's device, so that a recorded step (`stage.py`) takes what they hold when it runs.
    """

    def __init__(self, network: nn.Module, recipe: StageRecipe) -> None:
        learning = {name: p for name, p in network.named_parameters() if p.requires_grad}
        gentle = {name for name in learning if any(part in name for part in recipe.adam_for)}
        is_muon = recipe.optimizer == "muon"
        matrices = [p for name, p in learning.items() if is_muon and is_matrix(p) and name not in gentle]
        known = {id(p) for p in matrices}
        rest = [p for p in learning.values() if id(p) not in known]
        self.views = [(p, nn.Parameter(as_matrix(p.detach()))) for p in matrices]
        self.parts: list[tuple[torch.optim.Optimizer, float, Tensor]] = []
        device = next(network.parameters()).device
        if rest:
            rate = torch.tensor(recipe.learning_rate, device=device)
            adam = torch.optim.Adam(rest, lr=rate, betas=recipe.betas, capturable=device.type == "cuda")
            self.parts.append((adam, recipe.learning_rate, rate))
        if matrices:
            rate = torch.tensor(recipe.matrix_learning_rate, device=device)
            muon = Muon([view for _, view in self.views], lr=rate, weight_decay=_DECAY)  # type: ignore[arg-type]
            self.parts.append((muon, recipe.matrix_learning_rate, rate))

    def set_rates(self, factor: float) -> None:
        """Make the learning rates `factor` times the recipe's."""
        for _, full, rate in self.parts:
            rate.fill_(full * factor)

    def step(self) -> None:
        """Update the network from its gradients."""
        for parameter, view in self.views:
            view.grad = None if parameter.grad is None else as_matrix(parameter.grad)
        for optimizer, _, _ in self.parts:
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter, _ in self.views:
            parameter.grad = None
        for optimizer, _, _ in self.parts:
            optimizer.zero_grad()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what `load_state_dict` takes."""
        return [optimizer.state_dict() for optimizer, _, _ in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Continue from there."""
        for (optimizer, _, rate), state in zip(self.parts, states, strict=True):
            optimizer.load_state_dict(state)
            for group in optimizer.param_groups:
                group["lr"] = rate


class Muon(torch.optim.Muon):
    """torch.optim.Muon, to rounding, with the matrices of one shape made orthogonal in one go.

    Matrix by matrix, a GPU waits for the launches of some thousand small products.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all matrices that have a gradient; `closure` is not supported."""
        if closure is not None:
            raise ValueError("Muon.step takes no closure; compute the gradients before it")
        for group in self.param_groups:
            matrices = [p for p in group["params"] if p.grad is not None]
            if not matrices:
                continue
            gradients, rate, keep = [p.grad for p in matrices], group["lr"], group["momentum"]
            for fresh in (p for p in matrices if p not in self.state):
                self.state[fresh]["momentum_buffer"] = torch.zeros_like(fresh)
            momenta = [self.state[p]["momentum_buffer"] for p in matrices]
            torch._foreach_lerp_(momenta, gradients, 1 - keep)
            updates = torch._foreach_lerp(gradients, momenta, keep)
            torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
            for shape in dict.fromkeys(p.shape for p in matrices):
                places = [k for k, p in enumerate(matrices) if p.shape == shape]
                stacked = orthogonalized(torch.stack([updates[k] for k in places]), group["ns_steps"])
                moves = stacked.float() * (-rate * math.sqrt(max(1, shape[0] / shape[1])))
                torch._foreach_add_([matrices[k] for k in places], list(moves.unbind()))


def orthogonalized(matrices: Tensor, steps: int) -> Tensor:
    """Return matrices (N, rows, columns) with all their singular values near 1, BF16, by Newton-Schulz iterations.

    The coefficients are those of torch.optim.Muon (Jordan 2024).
    """
    x = matrices.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if is_tall else x


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
