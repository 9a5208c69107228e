"""Fitting doubt: losses that are least where they should be, and a command that leaves the estimates as they are."""

import math

import pytest
import torch

from cled_edge.network.doubt import DoubtNet
from cled_edge.network.presets import DoubtConfig
from training.fit_doubt import Restored, loss_of, quantile_loss, rank_loss, sample_loss


def test_the_quantile_loss_is_least_at_the_ninth_decile() -> None:
    error = torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0)).abs() * 10
    losses = {
        width: float(quantile_loss(torch.full_like(error, math.log(width)), error)) for width in (5.0, 16.7, 40.0)
    }
    assert min(losses, key=lambda width: losses[width]) == 16.7


def test_the_rank_loss_is_least_for_the_mean_ranks_of_errors_of_two_sizes() -> None:
    error = torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0)).abs()
    error[..., 100:] *= 3
    halves = torch.ones(1, 1, 1, 200).repeat(1, 1, 200, 1)
    halves[..., :100] = -1
    losses = {share: float(rank_loss(share * halves, error)) for share in (-0.5, 0.0, 0.25, 0.5, 1.0)}
    assert losses[0.0] == pytest.approx(1, abs=0.01)
    assert min(losses, key=lambda share: losses[share]) == 0.5  # 1.73 (P - 1/2): P = 0.80 that the larger is


@pytest.mark.parametrize("common", [False, True])
def test_the_score_of_samples_is_least_for_those_that_err_as_the_truth_does(common: bool) -> None:
    """The truth's errors are each pixel's own, or common to the image; so must be those of the samples."""
    generator = torch.Generator().manual_seed(1)

    def drawn(is_common: bool) -> torch.Tensor:
        side = 1 if is_common else 64
        return torch.randn(64, 3, side, side, generator=generator).expand(64, 3, 64, 64) * 5

    truth, typical = drawn(common), torch.full((64, 1, 1, 1), 5.0)
    scores = {kind: float(sample_loss([drawn(kind) for _ in range(3)], truth, typical)) for kind in (False, True)}
    assert min(scores, key=lambda kind: scores[kind]) is common


def test_a_short_training_tells_where_the_error_is() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = DoubtNet(DoubtConfig((8, 8, 8)))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(80):
        clean = torch.rand(2, 3, 64, 64, generator=generator) * 0.2 - 0.1
        noise = torch.randn(clean.shape, generator=generator)
        noise[..., :32] *= 0.02  # the left half has little
        noise[..., 32:] *= 0.2
        made = Restored(clean + noise, torch.zeros_like(clean), clean)
        loss = loss_of(network, made, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        _, uncertainty = network(made.degraded, made.residual, torch.zeros_like(clean))
    assert uncertainty[..., 40:].mean() > 1.5 * uncertainty[..., :24].mean()
