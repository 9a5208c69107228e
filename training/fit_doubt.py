"""Fit the network of doubt to a trained model, whose estimates stay as they are, and calibrate it.

    python -m training.fit_doubt training/weights/nano.safetensors training/recipes/nano.toml --data DATA --out FILE

It learns on the degraded images of the recipe's first stage, of which the loop gives the estimate and its true error is
known. Which pixels are off most is learnt from the ranks of the errors in an image. How far is a quantile: it learns by
the pinball loss of the logarithm of the error (Koenker and Bassett, 1978), so that faint doubts count as much as large
ones. Samples learn by the continuous ranked probability score of their means over blocks of several sizes (Gneiting and
Raftery, 2007), estimated from a few of them. Where the input leaves an exposure open, whole regions of a sample move
together; where it leaves grain open, each pixel by itself.
Last, one number widens or narrows all uncertainties until they hold on pairs that are kept to choose by.
"""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from cled_edge.errors import one_line_errors
from cled_edge.files import check_writable
from cled_edge.network.blocks import LUMA
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint
from cled_edge.network.doubt import DoubtNet, mixed
from cled_edge.network.presets import DoubtConfig
from cled_edge.network.sampler import CledFusion
from training.batches import from_bytes
from training.fitting import fit
from training.origin import with_doubt
from training.pairs import RestorationBatches
from training.recipe import read_recipe

_BATCH, _CROP_PX = 8, 192
_LEARNING_RATE, _DECAY = 1.5e-3, 0.998
_WITHIN = 0.9  # share of the pixels that the uncertainty is to hold
_MARGIN = 0.01  # of it: images that nothing was chosen by err a little more than those that it is widened by
_SAMPLES, _BLOCKS_PX = 3, (1, 4, 16, 64)
_STEP_SHARES = 0.25, 0.85  # of images: restored by one step, by the default's; the rest by three
_LEVELS = 127.5
_FAINT = 0.25  # grey levels: half of what rounding to bytes leaves anyhow
_SAMPLE_WEIGHT = 0.2


class Restored(NamedTuple):
    """degraded, residual, clean: (N, 3, S, S): what the network of doubt sees, and the truth."""

    degraded: Tensor
    residual: Tensor
    clean: Tensor

    @property
    def error_levels(self) -> Tensor:
        """Return by how many grey levels the estimate is off, (N, 3, S, S)."""
        return (self.degraded - self.residual - self.clean) * _LEVELS


def luma_of(x: Tensor) -> Tensor:
    """Return the luma, (N, 1, S, S), of (N, 3, S, S)."""
    return (x * x.new_tensor(LUMA).reshape(1, 3, 1, 1)).sum(dim=1, keepdim=True)


@torch.no_grad()
def restored(model: CledFusion, batches: RestorationBatches, iteration: int) -> Restored:
    """Return a batch with the residual of a loop of one, the default's, or three steps."""
    batch = from_bytes(batches(iteration))
    share = (iteration * 0.618) % 1
    one, usual = _STEP_SHARES
    steps = 1 if share < one else model.config.default_steps if share < usual else 3
    residual = model.sampler(batch.degraded, steps)
    clean = (batch.degraded - residual).clamp(-1, 1)
    return Restored(batch.degraded, batch.degraded - clean, batch.clean)


def quantile_loss(log_uncertainty: Tensor, error_levels: Tensor) -> Tensor:
    """Return the pinball loss of the logarithm of an absolute error, both (N, 1, H, W)."""
    over = torch.log(error_levels + _FAINT) - log_uncertainty
    return torch.maximum(_WITHIN * over, (_WITHIN - 1) * over).mean()


def sample_loss(samples: list[Tensor], truth: Tensor, typical: Tensor) -> Tensor:
    """Return the ranked probability score of samples, (N, 3, H, W) in levels, of their means over blocks.

    typical: the size of an image's doubts, (N, 1, 1, 1), by which it is divided: of the input alone, so that the score
    stays a proper one.
    """
    losses = []
    for side in _BLOCKS_PX:
        means = [F.avg_pool2d(x, side) for x in (*samples, truth)]
        drawn, wanted = means[:-1], means[-1]
        far = torch.stack([(x - wanted).abs() for x in drawn]).mean(0)
        pairs = [(x - y).abs() for i, x in enumerate(drawn) for y in drawn[:i]]
        # Errors of larger blocks are smaller; by their square root of the side all scales weigh about alike.
        losses.append(math.sqrt(side) * ((far - torch.stack(pairs).mean(0) / 2) / typical).mean())
    return torch.stack(losses).sum()


def rank_loss(pattern: Tensor, error_levels: Tensor) -> Tensor:
    """Return the mean squared difference of a pattern and the ranks of an error in its image, both (N, 1, H, W).

    Ranks are spread evenly, with a variance of 1. What is least is the mean rank that the input leaves open, and no
    other pattern has a higher Spearman correlation with the error on average.
    """
    order = error_levels.flatten(1).argsort(dim=1)
    count = order.shape[1]
    even = (torch.arange(count, device=order.device) / (count - 1) - 0.5) * math.sqrt(12)
    ranks = torch.empty_like(error_levels.flatten(1)).scatter_(1, order, even.expand_as(order))
    return (pattern.flatten(1) - ranks).square().mean()


def loss_of(network: DoubtNet, made: Restored, generator: torch.Generator) -> Tensor:
    """Return what a batch's loss is."""
    judged = network.judge(made.degraded, made.residual)
    error = made.error_levels
    size = luma_of(error).abs()
    # Samples learn their shares of it; how large it is the quantile says.
    width = judged.log_uncertainty.detach().clamp(math.log(_FAINT), math.log(2 * _LEVELS)).exp()
    deviation = network.deviation(width, judged.log_ratios) * _LEVELS
    samples = [
        deviation * mixed(torch.randn(error.shape, generator=generator), judged.weights) for _ in range(_SAMPLES)
    ]
    typical = width.mean(dim=(1, 2, 3), keepdim=True) + 0.5
    scored = sample_loss(samples, -error, typical)
    return rank_loss(judged.pattern, size) + quantile_loss(judged.log_uncertainty, size) / 2 + _SAMPLE_WEIGHT * scored


@torch.no_grad()
def errors_over_uncertainty(
    model: CledFusion, network: DoubtNet, batches: RestorationBatches, count: int
) -> Iterator[Tensor]:
    """Yield the luma's absolute error over its uncertainty, of every pixel of the batches."""
    for iteration in range(count):
        made = restored(model, batches, iteration)
        _, uncertainty = network(made.degraded, made.residual, torch.zeros_like(made.degraded))
        yield (luma_of(made.error_levels).abs() / uncertainty).flatten()


def main(
    checkpoint: Annotated[Path, typer.Argument(help="model.safetensors of a training run")],
    recipe: Annotated[Path, typer.Argument(help="what it was trained by")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="the shared data, with pairs/ in it")],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="where the checkpoint goes; may be the same")],
    iterations: Annotated[int, typer.Option(min=1, help="batches to learn from")] = 6000,
) -> None:
    """Fit, calibrate, print how much is held, and write."""
    with one_line_errors():
        check_writable(out)
        model, record = load_checkpoint(checkpoint)
        read = read_recipe(recipe)
        batches = RestorationBatches(data, read.data, _BATCH, _CROP_PX, read.seed)
        torch.manual_seed(read.seed)
        network = copy.deepcopy(model.doubt) if model.doubt is not None else DoubtNet(DoubtConfig())
        network.calibration.data.zero_()
        generator = torch.Generator().manual_seed(read.seed)

        def loss_at(iteration: int) -> Tensor:
            return loss_of(network, restored(model, batches, iteration), generator)

        fit(network, loss_at, iterations, _LEARNING_RATE, _DECAY, "doubt")
        kept = RestorationBatches(data, read.data, _BATCH, _CROP_PX, read.seed, part="choose")
        ratios = torch.cat(list(errors_over_uncertainty(model, network, kept, 40)))
        network.calibration.data.fill_(math.log(float(ratios.sort().values[int((_WITHIN + _MARGIN) * len(ratios))])))
        made = with_doubt(model, network)
        told = RestorationBatches(data, read.data, _BATCH, _CROP_PX, read.seed + 1, part="report")
        held = torch.cat(list(errors_over_uncertainty(made, network, told, 40)))
        share, wider = float((held <= 1).float().mean()), float(network.calibration.exp())
        print(f"widened by {wider:.3f}; on the report part {share:.1%} of the pixels lie within")
        save_checkpoint(made, {**record, "doubt": {"iterations": iterations}}, out)
        print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
