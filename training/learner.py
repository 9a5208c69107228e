"""What a stage trains and keeps: a network, the average of its weights, its optimisers, and their rate over time."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from training.optimizers import Optimizers
from training.recipe import StageRecipe

Tensors = tuple[Tensor, ...] | list[Tensor]


class Learner:
    """A network in training, with the exponential average of its weights and the optimisers of a recipe."""

    def __init__(self, network: nn.Module, recipe: StageRecipe) -> None:
        self.network, self.recipe = network, recipe
        self.optimizer = Optimizers(network, recipe)
        self.average = AveragedModel(network, multi_avg_fn=warmed_average(recipe.ema_decay))

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the network its averaged weights and evaluation mode for a while."""
        trained = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.settle()
        self.network.eval()
        yield
        self.network.load_state_dict(trained)
        self.network.train()

    def settle(self) -> None:
        """Give the network its averaged weights for good."""
        self.network.load_state_dict(self.average.module.state_dict())


def warmed_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return the exponential average of AveragedModel, young at first: after n updates the decay is (1 + n) / (10 + n).

    With a constant 0.999 a third of the average would still be the untrained weights after 1000 updates.
    """

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
        n = float(updates)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def learning_rate_factor(iteration: int, recipe: StageRecipe) -> float:
    """Return the share of the learning rate: a linear warm-up, then constant, or a cosine from 1 to 0.01."""
    warm = min(1.0, (iteration + 1) / max(1, recipe.warmup))
    if recipe.decay == "none":
        return warm
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * iteration / recipe.iterations)))
