"""What tests of training share: seeds, draws, recipes, images of one level, and a stage that can be stopped."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from cled_edge.image import write_png
from cled_edge.network.sampler import CledFusion
from training.draws import Draws
from training.journal import Evaluation
from training.losses import residual_loss
from training.pairs import RestorationBatches
from training.recipe import DataRecipe, RestoreRecipe
from training.restore_stage import States
from training.stage import Task


def seeded(seed: int = 5):
    return torch.Generator().manual_seed(seed)


def draws(count: int, seed: int = 0, rank: int = 0, processes: int = 1) -> Draws:
    return Draws(seeded(seed), count, rank, processes)


def restore_recipe(**changes) -> RestoreRecipe:
    return RestoreRecipe(iterations=1, batch=2, crop=32, learning_rate=1, **changes)


def flat_images(data: Path, infrared: int, visible: int) -> None:
    for half, shape, level in (("infrared", (200, 200), infrared), ("visible", (200, 200, 3), visible)):
        for path in (data / "set" / half).iterdir():
            write_png(path, np.full(shape, level, np.uint8))


def train(recipe: Path, data: Path, out: Path, *more: str, launcher: tuple[str, ...] = ()) -> None:
    program = [sys.executable, *launcher, "-m", "training.train", str(recipe), "--data", str(data), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*program, "--device", "cpu", "--precision", "fp32", *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


def restore_task(model: CledFusion, recipe: RestoreRecipe, batches: RestorationBatches, stop: int = 99) -> Task:
    states, seen = States(model, recipe), [0]

    def inputs_of(batch, draws):
        seen[0] += 1
        if seen[0] > stop:
            raise KeyboardInterrupt
        return [*batch[:2], *states.draw(*batch[:2], draws)]

    def loss_of(network, inputs):
        x_in, clean, x_t, time = inputs
        return residual_loss(network(x_t, x_in, time), x_in - clean), {}

    return Task(model.unet, batches, inputs_of, loss_of, Evaluation)


def data_recipe(**more) -> DataRecipe:
    return DataRecipe.model_validate({"pairs": ["set"], **more})
