"""Train a preset in two stages (section 4.1.1): restoration, then fusion with the UNet frozen.

    python -m training.train training/recipes/nano.toml --data ../shared/data --out runs/nano
    python -m training.train training/recipes/nano.toml --data ../shared/data --out runs/nano --stage fuse
    torchrun --nproc-per-node 8 -m training.train training/recipes/edge.toml --data DATA --out runs/edge

Writes into --out: model.safetensors (averaged weights), log.jsonl, curves/ (TensorBoard), samples/, and one state file
per stage; the same command continues from them. Seeds make item k of a run the same after a resume.
"""

import logging
import subprocess
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from cled_edge.errors import CheckpointError, DataError, OptionError, one_line_errors
from cled_edge.files import make_folder
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint
from cled_edge.network.fusion import remove
from cled_edge.network.lineage import LineageUNet
from cled_edge.network.sampler import CledFusion
from cled_edge.network.unet import KINDS, ResidualUNet
from cled_edge.schedule import TRAIN_STEPS
from training.losses import fusion_losses, kinds_loss, pattern_loss, residual_loss
from training.pairs import FusionBatches, RestorationBatches
from training.pictures import Pictures
from training.recipe import Recipe, RestoreRecipe, StageRecipe, check_crops, fusion_data, model_of, read_recipe
from training.stage import Draws, Stage, Task
from training.validation import FusionValidation, Validation

log = logging.getLogger("training")
Precision = Literal["auto", "fp32", "bf16"]


def restore_stage(model: CledFusion, recipe: Recipe, data: Path, runner: "Runner") -> int:
    """Stage 1: Eq. 15 on single pictures of both modalities. Return the iterations it took."""
    stage = recipe.restore
    batches = RestorationBatches(data, recipe.data, stage.batch, stage.crop, recipe.seed, **runner.reading)
    validation = Validation(data, recipe.data, **runner.held_out, count=stage.held_out_crops)
    states = States(model, stage)

    def inputs_of(batch: list[Tensor], draws: Draws) -> list[Tensor]:
        x_in, clean, kinds = batch
        x_t, time_in = states.draw(x_in, clean, draws)
        return [x_in, clean, kinds, x_t, time_in, weights_of(kinds, stage.kind_weights)]

    def loss_of(network: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        x_in, clean, kinds, x_t, time_in, weights = inputs
        predicted, logits = network(x_t, x_in, time_in)
        predicted, residual = predicted.float(), x_in - clean
        loss = residual_loss(predicted, residual, stage.weighting, weights)
        if logits is None:
            return loss, {}
        told, pattern = kinds_loss(logits, kinds), pattern_loss(predicted - residual, model.config.unet.unshuffle)
        parts = {"residual": loss.detach(), "kinds": told.detach(), "pattern": pattern.detach()}
        return loss + stage.weight_kinds * told + stage.weight_pattern * pattern, parts

    if (stage.weight_kinds or stage.weight_pattern) and not isinstance(model.unet, ResidualUNet):
        raise DataError(
            "recipe: restore.weight_kinds and weight_pattern must be 0 for a lineage preset, whose network tells no "
            "kinds and has no patches"
        )
    trained = _Judging(model.unet)
    if runner.compiled:
        trained.compile()
    task = Task(trained, batches, inputs_of, loss_of, lambda: validation(model))
    return runner.stage("restore", stage, recipe).run(task)


def weights_of(kinds: Tensor, by_kind: Mapping[str, float]) -> Tensor:
    """Return the weight of each picture, (N,), by what `kinds` (N, K) says it has; 1 where none is or none is known."""
    weights = torch.tensor([by_kind.get(kind, 1.0) for kind in KINDS], device=kinds.device)
    largest = (kinds.nan_to_num() * weights).amax(dim=1)
    return torch.where(largest > 0, largest, 1.0)


def fuse_stage(model: CledFusion, recipe: Recipe, data: Path, runner: "Runner") -> int:
    """Stage 2: Eq. 16 to 19 on pairs, strengths and balance drawn at random; or all at once, the one-stage form.

    Return the iterations it took.
    """
    stage = recipe.fuse
    if stage.fresh:
        untrained = CledFusion(model.config)
        model.fusion.load_state_dict(untrained.fusion.state_dict())
        if stage.one_stage:
            model.unet.load_state_dict(untrained.unet.state_dict())
    items = fusion_data(recipe)
    batches = FusionBatches(data, items, stage.batch, stage.crop, recipe.seed, **runner.reading)
    validation = FusionValidation(data, items, crop=stage.crop, **runner.held_out)
    names = ("intensity", "gradient", "color", "edges", "information", "hot", "residual")
    weights = {name: getattr(stage, f"weight_{name}") for name in names}
    measured = bool(stage.weight_edges or stage.weight_information)
    trained: nn.Module = _Joint(model, stage.steps) if stage.one_stage else model.fusion
    model.unet.requires_grad_(stage.one_stage).to(runner.accelerator.device)
    if isinstance(model.unet, ResidualUNet):
        model.unet.kinds.requires_grad_(False)  # not asked here; processes would wait for its gradient

    def inputs_of(batch: list[Tensor], draws: Draws) -> list[Tensor]:
        infrared, _, visible, _ = batch
        strength = _sometimes(draws, draws.uniform(2), 1.0, stage.full_strength_share).to(infrared.device)
        balance = _sometimes(draws, draws.uniform(1), 0.5, stage.balanced_share).to(infrared.device)
        residuals = [] if stage.one_stage else model.restore(infrared, visible, stage.steps)
        return [*batch, strength, balance, *residuals]

    def loss_of(network: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        infrared, infrared_clean, visible, visible_clean, strength, balance, *residuals = inputs
        if stage.one_stage:
            fused, *residuals = network(infrared, visible, strength, balance)
        else:
            fused = network(infrared, residuals[0], visible, residuals[1], strength, balance)
        targets = fusion_targets(inputs[:4], strength, stage.target)
        with torch.autocast(infrared.device.type, enabled=False):  # a gradient of 1/256 is what bf16 would round away
            pictures = _unit(fused.float()), _unit(targets[0]), _unit(targets[1])
            parts = fusion_losses(*pictures, balance, stage.salience, measured)
            if stage.one_stage:
                true = torch.cat([infrared - infrared_clean, visible - visible_clean])
                parts["residual"] = residual_loss(torch.cat(list(residuals)).float(), true, recipe.restore.weighting)
        loss = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return loss, {name: part.detach() for name, part in parts.items()}

    if runner.compiled:
        model.unet.compile()
        trained.compile()
    task = Task(trained, batches, inputs_of, loss_of, lambda: validation(model), recordable=not stage.one_stage)
    return runner.stage("fuse", stage, recipe).run(task)


class _Judging(nn.Module):
    """The residual network as stage 1 trains it: it also tells which degradations it sees, if it is of the kind."""

    def __init__(self, unet: ResidualUNet | LineageUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x_t: Tensor, x_in: Tensor, time: Tensor) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.unet, ResidualUNet):
            return self.unet.judge(x_t, x_in, time)
        return self.unet(x_t, x_in, time), None


class _Joint(nn.Module):
    """Both networks as one, for training in one stage (the paper's Table 4)."""

    def __init__(self, model: CledFusion, steps: int) -> None:
        super().__init__()
        self.model, self.steps = model, steps

    def forward(self, infrared: Tensor, visible: Tensor, strength: Tensor, balance: Tensor) -> tuple[Tensor, ...]:
        residuals = self.model.restore(infrared, visible, self.steps)
        return self.model.fusion(infrared, residuals[0], visible, residuals[1], strength, balance), *residuals


def fusion_targets(
    batch: list[Tensor], strength: Tensor, target: Literal["clean", "source"] = "clean"
) -> tuple[Tensor, Tensor]:
    """Return what each stream should contribute: the input less `strength` of its true residual.

    The true residual comes from the clean picture. target: `source` is the letter of Eq. 16 to 18, which name the
    inputs themselves and so teach to degrade again.
    """
    infrared, infrared_clean, visible, visible_clean = batch
    if target == "source":
        return infrared, visible
    s = strength.reshape(-1, 2, 1, 1, 1)
    return remove(infrared, infrared - infrared_clean, s[:, 0]), remove(visible, visible - visible_clean, s[:, 1])


class States:
    """Draws the states x_t that the restoration network is trained on, a batch of one sort at a time."""

    def __init__(self, model: CledFusion, recipe: RestoreRecipe) -> None:
        self.model, self.recipe = model, recipe
        schedule = model.sampler.schedule
        columns = (schedule.residual_cum, schedule.noise_std, schedule.shared_cum)
        self.table = torch.tensor([list(c) for c in columns], dtype=torch.float32)

    def draw(self, x_in: Tensor, clean: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return (x_t, time), (N, 3, H, W) and (N,), time being A_t * 1000."""
        sort, begin, length, later = draws.shared(4)
        if sort < self.recipe.random_share:
            return self.random(x_in, clean, draws)
        steps = 2 + int(length * (self.recipe.max_steps - 1))
        step = 1 + int(later * (steps - 1))
        x_t, time_in = self.in_loop(x_in, steps, 0 if begin < self.recipe.start_share else step)
        return x_t, time_in.repeat(len(x_in))

    def in_loop(self, x_in: Tensor, steps: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the state before `step`, counted from 0, of a loop without start noise."""
        table = self.model.sampler.schedule.step_table(steps)
        x_t = table.start_input * x_in
        if step:
            with torch.no_grad():
                for state, _ in islice(self.model.sampler.trajectory(x_in, steps), step):
                    x_t = state.float()
        return x_t, torch.tensor([table.time[step]], dtype=torch.float32, device=x_in.device)

    def random(self, x_in: Tensor, clean: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return states of Eq. 12 at t ~ U{0..T-1}; a share of them without noise, as the deterministic start."""
        t = (draws.uniform() * TRAIN_STEPS).long()
        noisy = (draws.uniform(1, 1, 1) >= self.recipe.silent_share).float()
        noise = (draws.normal(*x_in.shape[1:]) * noisy).to(x_in.device)
        a, b, d = self.table[:, t].reshape(3, -1, 1, 1, 1).to(x_in.device)
        return clean + a * (x_in - clean) + b * noise - d * x_in, (self.table[0, t] * 1000).to(x_in.device)


class Runner:
    """What both stages of a run have in common: where it runs, at what precision, what it reads, where it writes."""

    def __init__(
        self,
        accelerator: Accelerator,
        precision: str,
        out: Path,
        workers: int,
        pictures: Pictures,
        strict: bool,
        compiled: bool,
    ) -> None:
        self.accelerator, self.precision, self.out, self.workers = accelerator, precision, out, workers
        self.compiled = compiled
        self.held_out: dict[str, Any] = {"pictures": pictures, "strict": strict}
        self.reading: dict[str, Any] = {**self.held_out, "rank": accelerator.process_index}

    def stage(self, name: str, stage: StageRecipe, recipe: Recipe) -> Stage:
        """Return the loop of a stage."""
        data = recipe.data.model_dump(mode="json", exclude={"keep_gib"})
        beside: dict[str, Any] = {"model": model_of(recipe).as_dict(), "data": data}
        if recipe.fuse.one_stage:
            beside["weighting"] = recipe.restore.weighting
        return Stage(name, stage, recipe.seed, self.out, self.accelerator, self.precision, self.workers, beside)


def _unit(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (x + 1) / 2


def _sometimes(draws: Draws, drawn: Tensor, fixed: float, share: float) -> Tensor:
    """Replace a share of the rows of `drawn` by the constant."""
    return torch.where(draws.uniform(1) >= share, drawn, torch.full_like(drawn, fixed))


def pick_precision(asked: Precision, device: torch.device) -> str:
    """Return fp32 or bf16; `auto` takes bf16 where it multiplies half as fast again, measured in a tenth of a second.

    Instructions alone do not tell: with AVX-512 BF16 a Zen 4 core is twice as fast in it, an Emerald Rapids core
    without AMX slower.
    """
    if asked != "auto":
        return asked
    seconds = {}
    for kind in (torch.float32, torch.bfloat16):
        x = torch.ones(1024, 1024, dtype=kind, device=device)
        taken = []
        for _ in range(4):
            begin = time.perf_counter()
            (x @ x)[0, 0].item()  # waits for a GPU as well
            taken.append(time.perf_counter() - begin)
        seconds[kind] = min(taken)
    return "bf16" if seconds[torch.bfloat16] * 1.5 < seconds[torch.float32] else "fp32"


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
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto is a GPU if there is one")] = "auto",
    precision: Annotated[Precision, typer.Option(help="auto is bf16 where it multiplies faster, measured")] = "auto",
    workers: Annotated[
        int, typer.Option(min=0, help="processes that prepare batches; 0 on a CPU, which has nothing to spare")
    ] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="refuse a picture that cannot be decoded instead of skipping its pair")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="compile the networks first: minutes, then a fifth faster on a CPU")
    ] = False,
) -> None:
    """Train a preset and write OUT/model.safetensors."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = read_recipe(recipe_path)
    check_crops(recipe)
    if device == "cuda" and not torch.cuda.is_available():
        raise OptionError("--device cuda: torch sees no GPU here; install a CUDA build of torch, or give --device cpu")
    # Buffers are constants, the same everywhere, and some are views that cannot be written to.
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
    accelerator = Accelerator(cpu=device == "cpu" or not torch.cuda.is_available(), kwargs_handlers=handlers)
    if not accelerator.is_main_process:
        log.setLevel(logging.WARNING)
    make_folder(out)
    torch.manual_seed(recipe.seed)
    model_path = out / "model.safetensors"
    model, earlier = starting_model(model_path, recipe, stage, init)
    chosen = pick_precision(precision, accelerator.device)
    log.info(
        "preset %s on %d x %s, %s, %d threads",
        *(recipe.preset, accelerator.num_processes, accelerator.device, chosen, torch.get_num_threads()),
    )
    runner = Runner(accelerator, chosen, out, workers, Pictures(recipe.data.keep_gib), strict, compiled)
    stages = [("fuse", fuse_stage)] if recipe.fuse.one_stage else [("restore", restore_stage), ("fuse", fuse_stage)]
    commit, reached = _commit(), earlier[-1].get("last_stage") if model_path.exists() else None
    for name, run_stage in stages:
        if stage not in ("all", name):
            continue
        iterations = run_stage(model, recipe, data, runner)
        if not iterations and reached in (name, "fuse"):
            log.info("%s had already been at its end", name)
            continue
        record = {"commit": commit, "recipe": recipe.model_dump(mode="json"), "last_stage": name}
        if accelerator.is_main_process:
            save_checkpoint(model, {**record, "earlier": earlier}, model_path)
            log.info("wrote %s", model_path)
        earlier = [*earlier, record]
    accelerator.end_training()


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
