"""Fit what tells the offsets of an image's rows; nothing else of a network learns.

    python -m training.fit_rows training/weights/nano.safetensors training/recipes/nano.toml --data DATA --out FILE

Row patterns of known offsets are added to most of the degraded infrared images of the recipe's first stage and to a few
visible ones, and the network learns them by Eq. 15's loss of the offsets. From all other images it learns to tell
none: a horizon, a window blind and a fence are no pattern. How much of a pattern is left on pairs that are kept to
choose by is printed.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Generator, Tensor

from cled_edge.errors import CheckpointError, one_line_errors
from cled_edge.files import check_writable
from cled_edge.network.blocks import patches_from_images
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint
from cled_edge.network.experts import ExpertUNet
from cled_edge.network.row_offsets import RowOffsets
from training.batches import from_bytes
from training.fitting import fit
from training.pairs import RestorationBatches
from training.recipe import read_recipe

_BATCH, _CROP_PX = 12, 192
_LEARNING_RATE, _DECAY = 4e-3, 0.995
_SHARES = 0.6, 0.1  # of infrared and of visible images that get a pattern
_LOWEST, _HIGHEST = 0.006, 0.2  # standard deviation of a pattern, over a range of 2
_UNTOUCHED = 0.04  # mean offset told of an image without a pattern that is as bad as missing one, over a range of 2


@dataclass(frozen=True)
class Patterned:
    """images: (N, 3, S, S) in [-1, 1] with the pattern. offsets: its own, (N, 1, S, 1); 0 where there is none."""

    images: Tensor
    offsets: Tensor


def patterned(images: Tensor, generator: Generator) -> Patterned:
    """Add a pattern of rows to some images, (N, 3, S, S) in [-1, 1], infrared and visible in turns; round to bytes."""
    n, _, height, _ = images.shape
    shares = torch.tensor(_SHARES).repeat(n)[:n]
    chosen = (torch.rand(n, generator=generator) < shares).float()[:, None, None, None]
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    deviation = torch.exp(low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator))
    offsets = torch.randn(n, 1, height, 1, generator=generator) * deviation * chosen
    seen = ((images + offsets).clamp(-1, 1) * 127.5).round() / 127.5
    return Patterned(seen, offsets)


def loss_of(network: RowOffsets, made: Patterned) -> Tensor:
    """Return the mean absolute error of the offsets over that of telling none, and what is told of images without."""
    told = network.told(patches_from_images(made.images + 1, network.factor))
    truth = made.offsets.flatten(1)
    error = (told - truth).abs().mean(dim=1)
    size = truth.abs().mean(dim=1)
    # Faint patterns count as much as strong ones, and 1/3 grey level is as good as none.
    return torch.where(size > 0, error / (size + 0.005), error / _UNTOUCHED).mean()


@torch.no_grad()
def left_over(network: RowOffsets, batches: RestorationBatches, count: int) -> tuple[float, float]:
    """Return the share of a pattern's energy that is left, and the levels told of images without a pattern."""
    shares, levels = [], []
    for index in range(count):
        made = patterned(from_bytes(batches(index)).clean, Generator().manual_seed(index))
        told = network.told(patches_from_images(made.images + 1, network.factor))
        truth = made.offsets.flatten(1)
        has = truth.square().mean(dim=1) > 0
        left = (told - truth).square().mean(dim=1) / truth.square().mean(dim=1)
        shares += left[has].tolist()
        levels += (127.5 * told.abs().mean(dim=1))[~has].tolist()
    return sum(shares) / len(shares), sum(levels) / len(levels)


def main(
    checkpoint: Annotated[Path, typer.Argument(help="model.safetensors of a training run")],
    recipe: Annotated[Path, typer.Argument(help="what it was trained by")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="the shared data, with pairs/ in it")],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="where the checkpoint goes; may be the same")],
    iterations: Annotated[int, typer.Option(min=1, help="batches to learn from")] = 4000,
) -> None:
    """Fit, print what is left of a pattern, and write."""
    with one_line_errors():
        check_writable(out)
        model, record = load_checkpoint(checkpoint)
        if not isinstance(model.unet, ExpertUNet):
            raise CheckpointError(f"{checkpoint} is of form {model.config.unet.form!r}; needed one of form 'experts'")
        read = read_recipe(recipe)
        batches = RestorationBatches(data, read.data, _BATCH, _CROP_PX, read.seed)
        rows = model.unet.rows

        def loss_at(iteration: int) -> Tensor:
            generator = Generator().manual_seed(read.seed * 1_000_003 + iteration)
            return loss_of(rows, patterned(from_bytes(batches(iteration)).degraded, generator))

        fit(rows, loss_at, iterations, _LEARNING_RATE, _DECAY, "row patterns")
        kept = RestorationBatches(data, read.data, _BATCH, _CROP_PX, read.seed, part="choose")
        share, levels = left_over(rows, kept, 20)
        print(
            f"of a row pattern {share:.1%} of its energy is left; of images without one {levels:.2f} levels are taken"
        )
        save_checkpoint(model, {**record, "rows": {"iterations": iterations}}, out)
        print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
