"""The optimisation loop that both stages share: on one device or many, resumed to the same numbers, watched.

Through Accelerate the same program runs on a CPU, on a GPU, and on many of either under `torchrun`. `batch` is what one
process takes; an image and its degradation depend on the seed, the iteration and its place in the whole batch, so two
processes train as one with a doubled batch does.
"""

import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from cled_edge.errors import CheckpointError, DivergedError, OutputError
from cled_edge.files import Reader, draft
from cled_edge.json_text import shown
from cled_edge.network.presets import ModelConfig
from training.batches import each, from_bytes
from training.cuda_graph import Recorded
from training.draws import Draws
from training.journal import Evaluation, Journal
from training.learner import Learner, learning_rate_factor
from training.loader import prepared
from training.recipe import StageRecipe

log = logging.getLogger("training")
LOG_EVERY = 50
SAVE_EVERY = 500  # and a twentieth of the run at least: on a GPU, an iteration takes milliseconds
VALIDATE_EVERY = 2000  # and a tenth

Batch = TypeVar("Batch", bound=tuple[Any, ...])
Inputs = TypeVar("Inputs", bound=tuple[Any, ...])
Losses = tuple[Tensor, dict[str, Tensor]]  # what is made small, and its parts by name


@dataclass(frozen=True)
class Task(Generic[Batch, Inputs]):
    """What a stage does: `network` learns, from `batches`, to make `loss` of `inputs` small.

    inputs: makes of a batch, without gradient, what `loss` takes: tensors of the same shapes at each iteration.
    recordable: whether `loss` looks at no values, so that a GPU that trains alone may record it.
    """

    network: nn.Module
    batches: Callable[[int], Batch]
    inputs: Callable[[Batch, Draws], Inputs]
    loss: Callable[[nn.Module, Inputs], Losses]
    evaluate: Callable[[], Evaluation]
    recordable: bool = True


class _Done(NamedTuple):
    """An iteration that has been made, or that a GPU is still at: its number, its batch, its loss and the parts."""

    iteration: int
    batch: Any
    parts: dict[str, Tensor]


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

    def run(self, task: Task[Batch, Inputs]) -> int:
        """Train the network in place; it ends with its averaged weights, on the accelerator's device.

        Return how many iterations that took: none where an earlier run had already been at the end.

        DivergedError if the loss or its gradient is not finite (the batch is kept for a look), OutputError if the disk
        takes no more (what was saved before stays).
        """
        network, device = task.network, self.accelerator.device
        network.train().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        learner = Learner(network, self.recipe)
        start = self._resume(learner)
        iterate = self._iteration(task, learner)
        last: _Done | None = None
        with Journal(self.name, self.out, self.accelerator.is_main_process) as journal:
            for iteration, batch in self._batches(task, start):
                moved = from_bytes(each(batch, lambda x: x.to(device, non_blocking=True)))
                with torch.no_grad(), self.autocast():
                    inputs = task.inputs(moved, self._draws(iteration, len(batch[0])))
                learner.optimizer.set_rates(learning_rate_factor(iteration, self.recipe))
                if last is not None:
                    self._refuse_divergence(last)  # a GPU was at it until now
                last = _Done(iteration, batch, iterate(inputs))
                learner.average.update_parameters(network)
                self._report(last, learner, journal, task.evaluate)
        learner.settle()
        if start < self.recipe.iterations:
            self._save(self.recipe.iterations, learner)
        return max(0, self.recipe.iterations - start)

    def autocast(self) -> torch.autocast:
        """Return the context of the network's arithmetic."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _iteration(self, task: Task[Batch, Inputs], learner: Learner) -> Callable[[Inputs], dict[str, Tensor]]:
        """Return an iteration, as a CUDA graph where one process trains on a GPU."""
        alone = self.accelerator.device.type == "cuda" and self.accelerator.num_processes == 1
        is_recorded = task.recordable and alone
        iterate = _Iteration(task, learner, self, refusing=not is_recorded)
        return Recorded(iterate) if is_recorded else iterate

    def _batches(self, task: Task[Batch, Inputs], start: int) -> Iterator[tuple[int, Batch]]:
        """Yield each iteration's number and batch, under a bar of progress."""
        iterations, shown = range(start, self.recipe.iterations), self.accelerator.is_main_process
        numbers = tqdm(iterations, self.name, self.recipe.iterations, initial=start, mininterval=5, disable=not shown)
        on_gpu = self.accelerator.device.type == "cuda"
        yield from zip(numbers, prepared(task.batches, iterations, self.workers, pinned=on_gpu), strict=True)

    def _draws(self, iteration: int, count: int) -> Draws:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + iteration)
        return Draws(generator, count, self.accelerator.process_index, self.accelerator.num_processes)

    def _report(self, last: _Done, learner: Learner, journal: Journal, evaluate: Callable[[], Evaluation]) -> None:
        """Log, save and validate where it is time to; DivergedError before any of it."""
        done, iterations = last.iteration + 1, self.recipe.iterations
        is_logged = done % LOG_EVERY == 0
        is_saved = done % max(SAVE_EVERY, iterations // 20) == 0
        is_judged = done % max(VALIDATE_EVERY, iterations // 10) == 0 or done == iterations
        if is_logged or is_saved or is_judged:
            self._refuse_divergence(last)
        if is_logged:
            names, values = zip(*last.parts.items(), strict=True)
            mean = self.accelerator.reduce(torch.stack(values), "mean").tolist()
            journal.write(done, dict(zip(names, mean, strict=True)))
        if is_saved:
            self._save(done, learner)
        if is_judged and self.accelerator.is_main_process:
            # Of other sizes: compiling for them takes longer.
            with learner.averaged(), torch.compiler.set_stance("force_eager"):
                result = evaluate()
            journal.write_evaluation(done, result)

    def _refuse_divergence(self, last: _Done) -> None:
        """Raise a DivergedError, and keep the batch for a look, if an iteration's loss or gradient is not finite."""
        if _is_finite(last.parts):
            return
        kept = self.out / f"{self.name}-diverged-{last.iteration}-{self.accelerator.process_index}.pt"
        _write_whole({"iteration": last.iteration, "batch": last.batch._asdict()}, kept)
        raise DivergedError(
            f"{self.name}: loss {last.parts['loss'].item():g} or its gradient is not finite at iteration "
            f"{last.iteration}; its batch is in {kept}; begin again in another folder, with precision fp32 or with a "
            "lower learning_rate"
        )

    def _save(self, iteration: int, learner: Learner) -> None:
        if self.accelerator.is_main_process:
            state = {"iteration": iteration, "recipe": self._comparable_recipe(), **learner.state_dict()}
            _write_whole(state, self.state_path)

    def _resume(self, learner: Learner) -> int:
        """Continue from the state of an earlier run, if there is one, and return its iteration.

        CheckpointError if that run was another.
        """
        if not self.state_path.exists():
            return 0
        state = _read_state(self.state_path)
        before, now = state["recipe"], self._comparable_recipe()
        if "model" in before:  # what a state of an earlier release does not name has its default
            with _of_another(self.state_path):
                before["model"] = ModelConfig.from_dict(before["model"]).as_dict()
        other = [_change(name, before.get(name), now[name]) for name in now if before.get(name) != now[name]]
        if other:
            raise CheckpointError(
                f"{self.state_path} was trained with another {' and '.join(other)}; restore that, or choose another "
                "folder"
            )
        with _of_another(self.state_path):
            learner.load_state_dict(state)
        log.info("%s: continuing at iteration %d from %s", self.name, state["iteration"], self.state_path)
        return int(state["iteration"])

    def _comparable_recipe(self) -> dict[str, Any]:
        """Return what must be the same to continue a run: all but the stage's length."""
        return {**self.recipe.model_dump(mode="json", exclude={"iterations"}), **self.beside}


class _Iteration(Generic[Inputs]):
    """Forward, backward, clipping and the optimisers' step.

    refusing: whether a loss or gradient that is not finite leaves the network as it is; a graph cannot ask.
    """

    def __init__(self, task: Task[Any, Inputs], learner: Learner, stage: Stage, refusing: bool) -> None:
        self.task, self.optimizer, self.stage, self.refusing = task, learner.optimizer, stage, refusing
        # Shares gradients among processes; of one, the network itself.
        self.network = stage.accelerator.prepare_model(task.network)

    def __call__(self, inputs: Inputs) -> dict[str, Tensor]:
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


def _change(name: str, before: Any, now: Any) -> str:
    """Return the name of what has changed, with both values if they are short."""
    return f"{name} ({before} then, {now} now)" if isinstance(now, str | int | float) else name


def _is_finite(parts: dict[str, Tensor]) -> bool:
    """Return whether an iteration's loss and gradient are."""
    return bool(torch.isfinite(parts["loss"] + parts["gradient_norm"]))


def _write_whole(state: dict[str, Any], path: Path) -> None:
    """Write a file that appears whole or not at all; OutputError if the disk takes no more."""
    kept = f"the {path.name} of before is untouched; " if path.exists() else ""
    todo = f"{kept}make room, then run the same again"
    try:
        with draft(path, todo=todo) as made:
            torch.save(state, made)
    except RuntimeError as error:  # torch's writer, of a full disk
        raise OutputError(f"{path} cannot be written: {error}; {todo}") from error


@contextmanager
def _of_another(path: Path) -> Iterator[None]:
    """Turn what a state that does not fit raises into a CheckpointError."""
    try:
        yield
    except (ArithmeticError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not fit this network ({shown(error, 200)}); choose another folder, or remove it"
        ) from error


def _read_state(path: Path) -> dict[str, Any]:
    """Return the state of an earlier run, tensors and plain values alone; CheckpointError for anything else.

    torch writes its archive uncompressed: one that is compressed is not torch's, and may unfold to any size.
    """
    todo = "choose another folder, or remove it to begin again"
    with Reader(CheckpointError, CheckpointError, todo, follow_links=True).opened(path) as (file, size):
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("its archive is compressed")
            if sum(entry.file_size for entry in entries) > size:
                raise ValueError("its archive is larger inside than outside")
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # of zipfile, pickle and torch, which share no base
            raise CheckpointError(f"{path} is no state of training ({shown(error, 200)}); {todo}") from error
    is_state = isinstance(state, dict) and isinstance(state.get("recipe"), dict) and type(state.get("iteration")) is int
    if not is_state or state["iteration"] < 0:
        raise CheckpointError(f"{path} is no state of training: it has no recipe or iteration; {todo}")
    return dict(state)
