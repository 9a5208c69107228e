"""Train a preset in two stages (section 4.1.1): restoration, then fusion with the UNet frozen.

    python -m training.train training/recipes/nano.toml --data ../shared/data --out runs/nano
    python -m training.train training/recipes/nano.toml --data ../shared/data --out runs/nano --stage fuse

Writes into --out: model.safetensors (averaged weights), log.jsonl, and one state file per stage; the same command
continues from them. Seeds make item k of a run the same after a resume.
"""

import json
import logging
import math
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from cled_edge.errors import CheckpointError, one_line_errors
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint
from cled_edge.network.fusion import remove
from cled_edge.network.sampler import CledFusion
from cled_edge.schedule import TRAIN_STEPS
from training.losses import fusion_losses, residual_loss
from training.pairs import FusionBatches, RestorationBatches
from training.recipe import Recipe, RestoreRecipe, StageRecipe, model_of, read_recipe
from training.validation import Validation

log = logging.getLogger("training")
Precision = Literal["auto", "fp32", "bf16"]
SAVE_EVERY = 500
AHEAD = 2  # batches in preparation per worker

Batches = Callable[[int], list[Tensor]]
VALIDATE_EVERY = 2000


def restore_stage(model: CledFusion, recipe: Recipe, data: Path, out: Path, precision: str, workers: int) -> None:
    """Stage 1: Eq. 15 on single pictures of both modalities."""
    stage = recipe.restore
    batches = RestorationBatches(data, recipe.data, stage.batch, stage.crop, recipe.seed)
    validation = Validation(data, recipe.data, stage.held_out_crops)
    states = States(model, stage)

    def loss_of(batch: list[Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x_in, clean = batch
        x_t, time_in = states.draw(x_in, clean, generator)
        loss = residual_loss(model.unet(x_t, x_in, time_in).float(), x_in - clean, stage.weighting)
        return loss, {"residual": loss.item()}

    Stage("restore", stage, recipe.seed, out, precision, workers).run(
        model.unet, batches, loss_of, lambda: validation(model)
    )


def fuse_stage(model: CledFusion, recipe: Recipe, data: Path, out: Path, precision: str, workers: int) -> None:
    """Stage 2: Eq. 16 to 19 on pairs, the UNet frozen, strengths and balance drawn at random."""
    stage = recipe.fuse
    batches = FusionBatches(data, recipe.data, stage.batch, stage.crop, recipe.seed)
    model.unet.requires_grad_(False)
    weights = {"intensity": stage.weight_intensity, "gradient": stage.weight_gradient, "color": stage.weight_color}

    def loss_of(batch: list[Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        infrared, _, visible, _ = batch
        n = infrared.shape[0]
        with torch.no_grad():
            residuals = model.restore(infrared, visible, stage.steps)
        strength = _sometimes(torch.rand(n, 2, generator=generator), 1.0, stage.full_strength_share, generator)
        balance = _sometimes(torch.rand(n, 1, generator=generator), 0.5, stage.balanced_share, generator)
        fused = model.fusion(infrared, residuals[0], visible, residuals[1], strength, balance)
        targets = fusion_targets(batch, residuals, strength, recipe.data.min_target_luma)
        with torch.autocast("cpu", enabled=False):  # a gradient of 1/256 is what bf16 would round away
            parts = fusion_losses(_unit(fused.float()), _unit(targets[0]), _unit(targets[1]), balance)
        loss = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return loss, {name: part.item() for name, part in parts.items()}

    Stage("fuse", stage, recipe.seed, out, precision, workers).run(model.fusion, batches, loss_of, dict)


def fusion_targets(
    batch: list[Tensor], residuals: tuple[Tensor, Tensor], strength: Tensor, min_target_luma: float
) -> tuple[Tensor, Tensor]:
    """Return what each stream should contribute: the input less `strength` of its true residual.

    The true residual comes from the clean picture. A visible one too dark to be clean has none, so the frozen
    network's estimate stands in (the paper's Eq. 16 to 18 take the sources, which would teach to degrade again).
    """
    infrared, infrared_clean, visible, visible_clean = batch
    dark = (_unit(visible_clean).mean(dim=(1, 2, 3), keepdim=True) < min_target_luma).to(visible.dtype)
    visible_residual = dark * residuals[1] + (1 - dark) * (visible - visible_clean)
    s = strength.reshape(-1, 2, 1, 1, 1)
    return remove(infrared, infrared - infrared_clean, s[:, 0]), remove(visible, visible_residual, s[:, 1])


class States:
    """Draws the states x_t that the restoration network is trained on, a batch of one sort at a time."""

    def __init__(self, model: CledFusion, recipe: RestoreRecipe) -> None:
        self.model, self.recipe = model, recipe
        schedule = model.sampler.schedule
        columns = (schedule.residual_cum, schedule.noise_std, schedule.shared_cum)
        self.table = torch.tensor([list(c) for c in columns], dtype=torch.float32)

    def draw(self, x_in: Tensor, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return (x_t, time), (N, 3, H, W) and (N,) or (1,), time being A_t * 1000."""
        sort, begin = torch.rand(2, generator=generator).tolist()
        if sort < self.recipe.random_share:
            return self.random(x_in, clean, generator)
        steps = int(torch.randint(2, self.recipe.max_steps + 1, (), generator=generator))
        step = int(torch.randint(1, steps, (), generator=generator))
        return self.in_loop(x_in, steps, 0 if begin < self.recipe.start_share else step)

    def in_loop(self, x_in: Tensor, steps: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the state before `step`, counted from 0, of a loop without start noise."""
        table = self.model.sampler.schedule.step_table(steps)
        x_t = table.start_input * x_in
        if step:
            with torch.no_grad():
                for state, _ in islice(self.model.sampler.trajectory(x_in, steps), step):
                    x_t = state.float()
        return x_t, torch.tensor([table.time[step]], dtype=torch.float32)

    def random(self, x_in: Tensor, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return states of Eq. 12 at t ~ U{0..T-1}. Half of them have no noise, as the deterministic start."""
        n = x_in.shape[0]
        t = torch.randint(0, TRAIN_STEPS, (n,), generator=generator)
        noisy = (torch.rand(n, 1, 1, 1, generator=generator) < 0.5).float()
        noise = torch.randn(x_in.shape, generator=generator) * noisy
        a, b, d = self.table[:, t].reshape(3, -1, 1, 1, 1)
        return clean + a * (x_in - clean) + b * noise - d * x_in, self.table[0, t] * 1000


class Stage:
    """The optimisation loop that both stages share: resume, averaged weights, log, checkpoints."""

    def __init__(self, name: str, recipe: StageRecipe, seed: int, out: Path, precision: str, workers: int) -> None:
        self.name, self.recipe, self.seed, self.out = name, recipe, seed, out
        self.precision, self.workers = precision, workers
        self.state_path = out / f"{name}.state.pt"

    def run(
        self,
        network: nn.Module,
        batches: Batches,
        loss_of: Callable[[list[Tensor], torch.Generator], tuple[Tensor, dict[str, float]]],
        validate: Callable[[], dict[str, float]],
    ) -> None:
        """Train `network` in place; it ends with its averaged weights."""
        recipe = self.recipe
        network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99))
        average = AveragedModel(network, multi_avg_fn=warmed_average(recipe.ema_decay))
        start = self._resume(network, average, optimizer)
        bar = tqdm(
            range(start, recipe.iterations), desc=self.name, initial=start, total=recipe.iterations, mininterval=5
        )
        for iteration, batch in zip(bar, self._prepared(batches, start), strict=True):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + iteration)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * learning_rate_factor(iteration, recipe)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
                loss, parts = loss_of(batch, generator)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            if norm.isfinite():
                optimizer.step()
                average.update_parameters(network)
            else:
                log.warning("%s %d: gradient not finite, step skipped", self.name, iteration)
            if (iteration + 1) % 50 == 0:
                self._log({"iteration": iteration + 1, "loss": loss.item(), **parts})
            if (iteration + 1) % SAVE_EVERY == 0:
                self._save(iteration + 1, network, average, optimizer)
            if (iteration + 1) % VALIDATE_EVERY == 0 or iteration + 1 == recipe.iterations:
                self._log({"iteration": iteration + 1, **self._validate_average(network, average, validate)})
        network.load_state_dict(average.module.state_dict())
        self._save(recipe.iterations, network, average, optimizer)

    def _prepared(self, batches: Batches, start: int) -> Iterator[list[Tensor]]:
        """Yield the batches from `start` on, prepared ahead by threads: decoding and arithmetic release the GIL."""
        iterations = iter(range(start, self.recipe.iterations))
        if not self.workers:
            yield from map(batches, iterations)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            waiting = deque(pool.submit(batches, k) for k in islice(iterations, AHEAD * self.workers))
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(pool.submit(batches, k) for k in islice(iterations, 1))
                yield batch

    def _validate_average(
        self, network: nn.Module, average: AveragedModel, validate: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        trained = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(average.module.state_dict())
        network.eval()
        result = validate()
        network.load_state_dict(trained)
        network.train()
        return result

    def _save(
        self, iteration: int, network: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer
    ) -> None:
        partial = self.state_path.with_suffix(".partial")
        state = {
            "iteration": iteration,
            "recipe": self._comparable_recipe(),
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        torch.save(state, partial)
        partial.replace(self.state_path)

    def _resume(self, network: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer) -> int:
        if not self.state_path.exists():
            return 0
        state = torch.load(self.state_path, weights_only=True)
        if state["recipe"] != self._comparable_recipe():
            raise CheckpointError(
                f"{self.state_path} was trained by another recipe; restore that, or choose another --out"
            )
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        log.info("%s: continuing at iteration %d from %s", self.name, state["iteration"], self.state_path)
        return int(state["iteration"])

    def _comparable_recipe(self) -> dict[str, Any]:
        """Return what must be the same to continue a run: all but its length."""
        return {**self.recipe.model_dump(exclude={"iterations"}), "seed": self.seed}

    def _log(self, values: dict[str, float]) -> None:
        line = {"stage": self.name, "time_s": round(time.time(), 1)} | {k: round(v, 5) for k, v in values.items()}
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def warmed_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """Return the exponential average of AveragedModel, young at first: after n updates the decay is (1 + n) / (10 + n).

    With a constant 0.999 a third of the average would still be the untrained weights after 1000 updates.
    """

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        n = float(updates)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def learning_rate_factor(iteration: int, recipe: StageRecipe) -> float:
    """Linear warm-up, then a cosine from 1 to 0.01."""
    warm = min(1.0, (iteration + 1) / max(1, recipe.warmup))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * iteration / recipe.iterations)))


def _unit(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (x + 1) / 2


def _sometimes(drawn: Tensor, fixed: float, share: float, generator: torch.Generator) -> Tensor:
    """Replace a share of the rows of `drawn` by the constant."""
    keep = torch.rand(drawn.shape[0], 1, generator=generator) >= share
    return torch.where(keep, drawn, torch.full_like(drawn, fixed))


def pick_precision(asked: Precision) -> str:
    """Return fp32 or bf16; `auto` takes bf16 where this CPU multiplies it in hardware."""
    if asked != "auto":
        return asked
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def starting_model(path: Path, recipe: Recipe, stage: str, init: Path | None) -> tuple[CledFusion, list[Any]]:
    """Return the run's model so far, that of `init`, or a fresh one, and the records of what trained it before.

    CheckpointError if it does not fit the recipe or the stage.
    """
    config = model_of(recipe)
    source = path if path.exists() or init is None else init
    if not source.exists() and source == path:
        if stage == "fuse":
            raise CheckpointError(f"{path} does not exist, and fusion needs a trained UNet; run --stage restore first")
        return CledFusion(config), []
    model, record = load_checkpoint(source)
    if model.config != config:
        raise CheckpointError(
            f"{source} is not the model of the recipe, {recipe.preset!r} and its changes; "
            f"choose another {'--out' if source == path else '--init'}"
        )
    return model, [*record.pop("earlier", []), record]


def _commit() -> str:
    answer = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def main(
    recipe_path: Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML file, see training/recipes")],
    data: Annotated[Path, typer.Option(help="folder that holds the folders named in the recipe")],
    out: Annotated[Path, typer.Option(help="folder of the run; an earlier run there is continued")],
    stage: Annotated[Literal["all", "restore", "fuse"], typer.Option(help="which stage to run")] = "all",
    init: Annotated[
        Path | None, typer.Option(help="model.safetensors to start from, such as training/weights/nano.safetensors")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="auto is bf16 where the CPU multiplies it, else fp32")] = "auto",
    workers: Annotated[
        int, typer.Option(min=0, help="threads that prepare batches; 0 on a CPU, which has nothing to spare")
    ] = 0,
    compiled: Annotated[
        bool, typer.Option("--compile", help="compile the network first: a minute, then a fifth faster on a CPU")
    ] = False,
) -> None:
    """Train a preset and write OUT/model.safetensors."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = read_recipe(recipe_path)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    model_path = out / "model.safetensors"
    model, earlier = starting_model(model_path, recipe, stage, init)
    chosen = pick_precision(precision)
    if compiled:
        model.unet.compile()
        model.fusion.compile()
    log.info("preset %s, precision %s, %d threads", recipe.preset, chosen, torch.get_num_threads())
    for name, run_stage in (("restore", restore_stage), ("fuse", fuse_stage)):
        if stage in ("all", name):
            run_stage(model, recipe, data, out, chosen, workers)
            record = {"commit": _commit(), "recipe": recipe.model_dump(mode="json"), "last_stage": name}
            save_checkpoint(model, {**record, "earlier": earlier}, model_path)
            earlier = [*earlier, record]
    log.info("wrote %s", model_path)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
