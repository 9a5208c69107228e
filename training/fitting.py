"""Fitting a small network to a model that stays as it is: Adam, one cycle of its rate, and averaged weights."""

from collections.abc import Callable

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from training.learner import warmed_average


def fit(
    network: nn.Module,
    loss_at: Callable[[int], Tensor],
    iterations: int,
    learning_rate: float,
    ema_decay: float,
    what: str,
) -> None:
    """Give a network the average of its weights over so many iterations, and evaluation mode.

    Parameters that ask for no gradient stay. loss_at: of an iteration, from 0. what: is shown beside the progress bar.
    """
    network.train()
    average = AveragedModel(network, multi_avg_fn=warmed_average(ema_decay))
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=iterations, pct_start=0.05)
    for iteration in track(range(iterations), what, transient=True):
        loss = loss_at(iteration)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
    network.load_state_dict(average.module.state_dict())
    network.eval()
