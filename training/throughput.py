"""Measure where the time of a training iteration goes: preparing batches, the network, and both together.

    python -m training.throughput training/recipes/one-pass.toml --data DATA
    python -m training.throughput training/recipes/one-pass.toml --data DATA --precision bf16 --compile \
        --json runs/throughput-restore.json      keeps the times

Network: forward, plain L1 loss, backward and the recipe's optimiser on a batch that is there already. The share in the
network is its time over that of both together. They take turns, and medians count, but nothing else should run
meanwhile.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cled_edge.bench.machine import describe_machine, library_versions
from cled_edge.errors import DataError, one_line_errors
from cled_edge.files import check_writable, write_whole
from cled_edge.json_text import json_of
from cled_edge.network.sampler import CledFusion
from training.batches import FusionBatch, RestorationBatch, from_bytes
from training.loader import prepared
from training.optimizers import Optimizers
from training.pairs import FusionBatches, RestorationBatches
from training.recipe import Recipe, fusion_data, model_of, read_recipe

StageName = Literal["restore", "fuse"]
Precision = Literal["fp32", "bf16"]
ROUNDS = 5  # and one before, to warm up
_TINY = 1e-3  # of the learning rates: on one batch again and again, full ones might diverge
Batch = RestorationBatch | FusionBatch
Step = Callable[[Batch], None]


def batches_of(recipe: Recipe, stage: StageName, data: Path) -> RestorationBatches | FusionBatches:
    """Return the batches of a stage; the images are decoded before this returns."""
    if stage == "restore":
        return RestorationBatches(data, recipe.data, recipe.restore.batch, recipe.restore.crop, recipe.seed)
    return FusionBatches(data, fusion_data(recipe), recipe.fuse.batch, recipe.fuse.crop, recipe.seed)


def step_of(recipe: Recipe, stage: StageName, precision: Precision, compiled: bool) -> Step:
    """Return one iteration of a stage on a fresh network: forward, backward, clipping, optimiser.

    Stage 1 makes one call at the start of the loop, the least that training does; stage 2 the frozen loop and the
    fusion network.
    """
    model = CledFusion(model_of(recipe)).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = model.unet if stage == "restore" else model.fusion
    if compiled:
        model.unet.compile()
        model.fusion.compile()
    optimizer = Optimizers(network, recipe.restore if stage == "restore" else recipe.fuse)
    table = model.sampler.schedule.step_table(1)
    at_start = torch.tensor([float(table.time[0])])

    def loss_of(batch: Batch) -> Tensor:
        if isinstance(batch, RestorationBatch):
            predicted = model.unet(table.start_input * batch.degraded, batch.degraded, at_start)
            return (predicted.float() - (batch.degraded - batch.clean)).abs().mean()
        infrared, visible = batch.infrared, batch.visible
        with torch.no_grad():
            residuals = model.restore(infrared, visible, recipe.fuse.steps)
        fused: Tensor = model.fusion(infrared, residuals[0], visible, residuals[1])
        return (fused.float() - batch.visible_clean).abs().mean()

    def step(batch: Batch) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(from_bytes(batch))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.set_rates(_TINY)
        optimizer.step()

    return step


def mean_ms(batches: Iterator[Batch], step: Step, count: int) -> float:
    """Return the mean milliseconds of `count` iterations."""
    begin = time.perf_counter()
    for batch in islice(batches, count):
        step(batch)
    return (time.perf_counter() - begin) / count * 1e3


def refuse_other_batches(make: Callable[[int], Batch], count: int, workers: int) -> None:
    """Raise a DataError if worker processes make other batches than this one does."""
    for index, batch in enumerate(prepared(make, range(count), workers)):
        pairs = zip(batch, make(index), strict=True)
        if not all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in pairs):  # NaN: nobody knows
            raise DataError(f"batch {index} of {workers} workers differs from that of none; report it as a bug")


def measure(
    make: Callable[[int], Batch], step: Step, iterations: int, workers: Sequence[int]
) -> dict[str, list[float]]:
    """Return milliseconds an iteration in each of `ROUNDS` rounds, by name."""
    count = max(1, iterations // ROUNDS)
    fixed = make(0)
    sources: dict[str, tuple[Callable[[int], Iterator[Batch]], Step]] = {
        "data_ms": (lambda start: map(make, range(start, start + count)), _nothing),
        "network_ms": (lambda _: repeat(fixed, count), step),
    }
    for number in workers:

        def ahead(start: int, number: int = number) -> Iterator[Batch]:
            return prepared(make, range(start, start + count), number)

        sources[f"together_{number}_workers_ms"] = ahead, step
    step(fixed)  # compiles
    times: dict[str, list[float]] = {name: [] for name in sources}
    for turn in range(ROUNDS + 1):
        for name, (batches, consume) in sources.items():
            times[name].append(mean_ms(batches(turn * count), consume, count))
    return {name: of_turns[1:] for name, of_turns in times.items()}


def summary(times: Mapping[str, Sequence[float]], workers: Sequence[int]) -> dict[str, float]:
    """Return the medians over rounds, and the share of the time together that the network takes alone."""
    result = {name: round(statistics.median(of_turns), 3) for name, of_turns in times.items()}
    shares = {
        f"network_share_{number}_workers": round(result["network_ms"] / result[f"together_{number}_workers_ms"], 3)
        for number in workers
    }
    return result | shares


def show(
    recipe: Recipe, stage: StageName, precision: Precision, compiled: bool, workers: int, result: Mapping[str, float]
) -> None:
    """Print a summary as a table, and whether something else ran meanwhile."""
    form = f"{precision}{', compiled' if compiled else ''}"
    title = f"{recipe.preset}, {stage}, {form}, {torch.get_num_threads()} threads"
    table = Table("ms an iteration", "", "in the network", title=title)
    table.add_row("data alone", f"{result['data_ms']:.1f}", "")
    table.add_row("network alone", f"{result['network_ms']:.1f}", "")
    for count in (0, workers):
        share = f"{result[f'network_share_{count}_workers']:.0%}"
        table.add_row(f"together, {count} workers", f"{result[f'together_{count}_workers_ms']:.1f}", share)
    Console().print(table, f"batches are the same with 0 and {workers} workers")
    if result["network_ms"] > 1.05 * result["together_0_workers_ms"]:
        print("the network alone took longer than with its data: something else ran meanwhile; measure again")


def _nothing(batch: Batch) -> None:
    """Leave a batch alone."""


def main(
    recipe_path: Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML file, see training/recipes")],
    data: Annotated[Path, typer.Option(help="folder that holds the folders named in the recipe")],
    stage: Annotated[StageName, typer.Option(help="which stage to measure")] = "restore",
    precision: Annotated[Precision, typer.Option(help="of the network's arithmetic")] = "fp32",
    compiled: Annotated[bool, typer.Option("--compile", help="compile the network first, as train does")] = False,
    iterations: Annotated[int, typer.Option(min=1, help="iterations of each measurement")] = 50,
    workers: Annotated[int, typer.Option(min=1, help="processes that prepare batches, beside none")] = 2,
    out: Annotated[Path | None, typer.Option("--json", help="file for the same numbers")] = None,
) -> None:
    """Print the time of data and network, and that batches do not depend on the number of workers."""
    recipe = read_recipe(recipe_path)
    if out:
        check_writable(out)
    torch.manual_seed(recipe.seed)
    make = batches_of(recipe, stage, data)
    refuse_other_batches(make, 6, workers)
    times = measure(make, step_of(recipe, stage, precision, compiled), iterations, (0, workers))
    result = summary(times, (0, workers))
    show(recipe, stage, precision, compiled, workers, result)
    if out is not None:
        sizes = recipe.restore if stage == "restore" else recipe.fuse
        setting: dict[str, Any] = {
            "recipe": recipe_path.stem,
            "stage": stage,
            "precision": precision,
            "compiled": compiled,
        }
        setting |= {"batch": sizes.batch, "crop": sizes.crop, "threads": torch.get_num_threads(), "workers": workers}
        where = {"machine": describe_machine(), "versions": library_versions()}
        rounds_ms = {name: [round(value, 3) for value in values] for name, values in times.items()}
        write_whole(out, json_of({**where, **setting, **result, "rounds_ms": rounds_ms}))
        print(f"wrote {out}")


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
