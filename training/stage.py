"""The optimisation loop that both stages share: on one device or many, resumed to the same numbers, watched.

Through Accelerate the same program runs on a CPU, on a GPU, and on many of either under `torchrun`. `batch` is what one
process takes; a picture and its degradation depend on the seed, the iteration and its place in the whole batch, so two
processes train as one with a doubled batch does.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from cled_edge.errors import CheckpointError, DivergedError, OutputError
from cled_edge.files import draft, make_folder
from cled_edge.image import write_png
from training.optimizers import Optimizers
from training.pairs import from_bytes, prepared
from training.recipe import StageRecipe

log = logging.getLogger("training")
LOG_EVERY = 50
SAVE_EVERY = 500  # and a twentieth of the run at least: on a GPU, an iteration takes milliseconds
VALIDATE_EVERY = 2000  # and a tenth
UNRECORDED = 3  # iterations: the first compiles, and optimisers allocate what they keep
Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class Evaluation:
    """What validation found: numbers, and rows of pictures, (3, H, W) in [-1, 1], by name."""

    numbers: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one iteration: drawn for the whole batch, of which this process takes its part.

    Every process draws the same, so that what holds for a batch as a whole is the same in all of them.
    """

    generator: torch.Generator
    count: int  # pictures of this process
    rank: int = 0
    processes: int = 1

    def shared(self, count: int) -> list[float]:
        """Return numbers of U(0, 1), the same in every process."""
        return [float(x) for x in torch.rand(count, generator=self.generator)]

    def uniform(self, *shape: int) -> Tensor:
        """Return (count, *shape) of U(0, 1)."""
        return self._own(torch.rand(self.processes * self.count, *shape, generator=self.generator))

    def normal(self, *shape: int) -> Tensor:
        """Return (count, *shape) of N(0, 1)."""
        return self._own(torch.randn(self.processes * self.count, *shape, generator=self.generator))

    def _own(self, drawn: Tensor) -> Tensor:
        return drawn[self.rank * self.count :][: self.count]


Inputs = Callable[[list[Tensor], Draws], list[Tensor]]
Loss = Callable[[nn.Module, list[Tensor]], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Task:
    """What a stage does: `network` learns, from `batches`, to make `loss` of `inputs` small.

    inputs: makes of a batch, without gradient, what `loss` takes: tensors of the same shapes at each iteration.
    loss: returns it and its parts by name.
    recordable: whether `loss` looks at no values, so that a GPU that trains alone may record it.
    """

    network: nn.Module
    batches: Callable[[int], list[Tensor]]
    inputs: Inputs
    loss: Loss
    evaluate: Callable[[], Evaluation]
    recordable: bool = True


class Stage:
    """One stage of a run: trains a network, keeps averaged weights, log, curves, samples and the state to resume.

    beside: what else, as JSON has it, must be the same to continue: the model and the data.
    """

    def __init__(
        self,
        name: str,
        recipe: StageRecipe,
        seed: int,
        out: Path,
        accelerator: Accelerator,
        precision: str = "fp32",
        workers: int = 0,
        beside: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.recipe, self.seed, self.out = name, recipe, seed, out
        self.beside = {"seed": seed, "processes": accelerator.num_processes, "precision": precision, **(beside or {})}
        self.accelerator, self.precision, self.workers = accelerator, precision, workers
        self.state_path = out / f"{name}.state.pt"

    def run(self, task: Task) -> int:
        """Train the network in place; it ends with its averaged weights, on the accelerator's device.

        Return how many iterations that took: none where an earlier run had already been at the end.

        DivergedError if the loss or its gradient is not finite (the batch is kept for a look), OutputError if the disk
        takes no more (what was saved before stays).
        """
        recipe, accelerator, network = self.recipe, self.accelerator, task.network
        network.train().to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = Optimizers(network, recipe)
        average = AveragedModel(network, multi_avg_fn=warmed_average(recipe.ema_decay))
        start = self._resume(network, average, optimizer)
        on_gpu = accelerator.device.type == "cuda"
        recorded = task.recordable and on_gpu and accelerator.num_processes == 1
        iterate = _Iteration(task, optimizer, self, refusing=not recorded)
        step = _Recorded(iterate) if recorded else iterate
        last: tuple[int, list[Tensor], dict[str, Tensor]] | None = None
        save_every = max(SAVE_EVERY, recipe.iterations // 20)
        validate_every = max(VALIDATE_EVERY, recipe.iterations // 10)
        bar = tqdm(
            range(start, recipe.iterations),
            desc=self.name,
            initial=start,
            total=recipe.iterations,
            mininterval=5,
            disable=not accelerator.is_main_process,
        )
        with self._journal() as journal:
            ready = prepared(task.batches, range(start, recipe.iterations), self.workers, pinned=on_gpu)
            for iteration, batch in zip(bar, ready, strict=True):
                moved = from_bytes([x.to(accelerator.device, non_blocking=True) for x in batch])
                with torch.no_grad(), self.autocast():
                    inputs = task.inputs(moved, self._draws(iteration, len(batch[0])))
                optimizer.set_rates(learning_rate_factor(iteration, recipe))
                self._refuse_divergence(last)  # a GPU was at it until now
                done, last = iteration + 1, (iteration, batch, step(inputs))
                average.update_parameters(network)
                is_logged, is_saved = done % LOG_EVERY == 0, done % save_every == 0
                is_judged = done % validate_every == 0 or done == recipe.iterations
                if is_logged or is_saved or is_judged:
                    self._refuse_divergence(last)
                if is_logged:
                    names, values = zip(*last[2].items(), strict=True)
                    mean = accelerator.reduce(torch.stack(values), "mean").tolist()
                    journal.write(done, dict(zip(names, mean, strict=True)))
                if is_saved:
                    self._save(done, network, average, optimizer)
                if is_judged:
                    journal.write_evaluation(done, self._evaluate_average(network, average, task.evaluate))
        network.load_state_dict(average.module.state_dict())
        if start < recipe.iterations:
            self._save(recipe.iterations, network, average, optimizer)
        return max(0, recipe.iterations - start)

    def autocast(self) -> torch.autocast:
        """Return the context of the network's arithmetic."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _draws(self, iteration: int, count: int) -> Draws:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + iteration)
        return Draws(generator, count, self.accelerator.process_index, self.accelerator.num_processes)

    def _evaluate_average(
        self, network: nn.Module, average: AveragedModel, evaluate: Callable[[], Evaluation]
    ) -> Evaluation:
        if not self.accelerator.is_main_process:
            return Evaluation()
        trained = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(average.module.state_dict())
        network.eval()
        with torch.compiler.set_stance("force_eager"):  # other sizes: compiling for them takes longer
            result = evaluate()
        network.load_state_dict(trained)
        network.train()
        return result

    @contextmanager
    def _journal(self) -> Iterator["Journal"]:
        journal = Journal(self.name, self.out, self.accelerator.is_main_process)
        try:
            yield journal
        except BaseException:
            with suppress(OutputError):  # of a full disk, which the first error tells already
                journal.close()
            raise
        journal.close()

    def _refuse_divergence(self, last: tuple[int, list[Tensor], dict[str, Tensor]] | None) -> None:
        """Raise a DivergedError, and keep the batch for a look, if an iteration's loss or gradient is not finite."""
        if last is None or _is_finite(last[2]):
            return
        iteration, batch, parts = last
        loss = parts["loss"].item()
        kept = self.out / f"{self.name}-diverged-{iteration}-{self.accelerator.process_index}.pt"
        _write_whole({"iteration": iteration, "batch": batch}, kept)
        raise DivergedError(
            f"{self.name}: loss {loss:g} or its gradient is not finite at iteration {iteration}; its batch is in "
            f"{kept}; begin again with --precision fp32, or with a lower learning_rate in another --out"
        )

    def _save(self, iteration: int, network: nn.Module, average: AveragedModel, optimizer: Optimizers) -> None:
        if not self.accelerator.is_main_process:
            return
        state = {
            "iteration": iteration,
            "recipe": self._comparable_recipe(),
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        _write_whole(state, self.state_path)

    def _resume(self, network: nn.Module, average: AveragedModel, optimizer: Optimizers) -> int:
        if not self.state_path.exists():
            return 0
        state = torch.load(self.state_path, map_location="cpu", weights_only=True)
        before, now = state["recipe"], self._comparable_recipe()

        def named(key: str) -> str:
            simple = isinstance(now[key], str | int | float)
            return f"{key} ({before.get(key)} then, {now[key]} now)" if simple else key

        other = [name for name in now if before.get(name) != now[name]]
        if other:
            raise CheckpointError(
                f"{self.state_path} was trained with another {' and '.join(map(named, other))}; restore that, "
                "or choose another --out"
            )
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        log.info("%s: continuing at iteration %d from %s", self.name, state["iteration"], self.state_path)
        return int(state["iteration"])

    def _comparable_recipe(self) -> dict[str, Any]:
        """Return what must be the same to continue a run: all but the stage's length."""
        return {**self.recipe.model_dump(mode="json", exclude={"iterations"}), **self.beside}


class _Iteration:
    """Forward, backward, clipping and the optimisers' step.

    refusing: whether a loss or gradient that is not finite leaves the network as it is; a graph cannot ask.
    """

    def __init__(self, task: Task, optimizer: Optimizers, stage: Stage, refusing: bool) -> None:
        self.task, self.optimizer, self.stage, self.refusing = task, optimizer, stage, refusing
        # Shares gradients among processes; of one, the network itself.
        self.network = stage.accelerator.prepare_model(task.network)

    def __call__(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """Return the loss, its parts, and the length of the gradient before it was clipped."""
        with self.stage.autocast():
            loss, parts = self.task.loss(self.network, inputs)
        self.optimizer.zero_grad()
        self.stage.accelerator.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.task.network.parameters(), self.stage.recipe.clip_norm)
        result = {**parts, "loss": loss.detach(), "gradient_norm": norm}
        if not self.refusing or _is_finite(result):
            self.optimizer.step()
        return result


class _Recorded:
    """An iteration as one CUDA graph: recorded once, then replayed, since launching its kernels takes longer than they.

    What it returns is overwritten by the next call.
    """

    def __init__(self, iteration: _Iteration) -> None:
        self.iteration, self.calls = iteration, 0
        self.graph = torch.cuda.CUDAGraph()
        self.side = torch.cuda.Stream()

    def __call__(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        if self.calls == 0:
            self.inputs = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in inputs]
        for kept, x in zip(self.inputs, inputs, strict=True):
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


class Journal:
    """What a run tells meanwhile: `log.jsonl`, curves for TensorBoard, and pictures. Silent in all but one process."""

    def __init__(self, stage: str, out: Path, active: bool) -> None:
        self.stage, self.out = stage, out
        with _writing(out / "curves"):
            self.curves = SummaryWriter(str(out / "curves")) if active else None

    def write(self, iteration: int, numbers: dict[str, float]) -> None:
        """Log numbers."""
        if self.curves is None:
            return
        line = {"stage": self.stage, "time_s": round(time.time(), 1), "iteration": iteration}
        with _writing(self.out / "log.jsonl"), (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(line | {name: round(value, 5) for name, value in numbers.items()}) + "\n")
        with _writing(self.out / "curves"):
            for name, value in numbers.items():
                self.curves.add_scalar(f"{self.stage}/{name}", value, iteration)

    def write_evaluation(self, iteration: int, result: Evaluation) -> None:
        """Log numbers and keep pictures, a row a file, in `samples/`."""
        if self.curves is None:
            return
        self.write(iteration, result.numbers)
        folder = self.out / "samples"
        make_folder(folder)
        for name, pictures in result.samples.items():
            row = ((torch.cat(pictures, dim=2).float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
            with _writing(self.out / "curves"):
                self.curves.add_image(f"{self.stage}/{name}", row, iteration)
            write_png(folder / f"{self.stage}-{name}-{iteration:07d}.png", row.permute(1, 2, 0).numpy())

    def close(self) -> None:
        """End the curves."""
        if self.curves is not None:
            with _writing(self.out / "curves"):
                self.curves.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError, as of a full disk, into an OutputError that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}; make room, then run the same again") from error


def _is_finite(parts: dict[str, Tensor]) -> bool:
    """Return whether an iteration's loss and gradient are."""
    return bool(torch.isfinite(parts["loss"] + parts["gradient_norm"]))


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
    """Linear warm-up, then constant, or a cosine from 1 to 0.01."""
    warm = min(1.0, (iteration + 1) / max(1, recipe.warmup))
    if recipe.decay == "none":
        return warm
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * iteration / recipe.iterations)))


def _write_whole(state: dict[str, Any], path: Path) -> None:
    """Write a file that appears whole or not at all; OutputError if the disk takes no more."""
    kept = f"the {path.name} of before is untouched; " if path.exists() else ""
    todo = f"{kept}make room, then run the same again"
    try:
        with draft(path, todo=todo) as made:
            torch.save(state, made)
    except RuntimeError as error:  # torch's writer, of a full disk
        raise OutputError(f"{path} cannot be written: {error}; {todo}") from error
