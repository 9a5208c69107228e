"""Train a preset in two stages (section 4.1.1): restoration, then fusion with the UNet frozen.

    python -m training.train training/recipes/one-pass.toml --data DATA --out runs/one-pass
    python -m training.train training/recipes/one-pass.toml --data DATA --out runs/one-pass --stage fuse
    torchrun --nproc-per-node 8 -m training.train training/recipes/edge.toml --data DATA --out runs/edge

Writes into --out: model.safetensors (averaged weights), log.jsonl, curves/ (TensorBoard), samples/, and one state file
per stage; the same command continues from them. Seeds make item k of a run the same after a resume.
"""

import logging
import subprocess
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from accelerate import Accelerator, DistributedDataParallelKwargs

from cled_edge.errors import OptionError, one_line_errors
from cled_edge.files import make_folder
from cled_edge.network.checkpoint import save_checkpoint
from cled_edge.network.sampler import CledFusion
from training.fuse_stage import fuse_stage
from training.image_cache import ImageCache
from training.origin import starting_model
from training.recipe import check_crops, read_recipe
from training.restore_stage import restore_stage
from training.run import Run

log = logging.getLogger("training")
Precision = Literal["auto", "fp32", "bf16"]
Stages = Literal["all", "restore", "fuse"]
Device = Literal["auto", "cpu", "cuda"]
STAGES = {"restore": restore_stage, "fuse": fuse_stage}


def train_stages(model: CledFusion, run: Run, stage: Stages, earlier: list[Any]) -> None:
    """Train the stages that are asked for, and write the model after each that took an iteration.

    earlier: the records of what trained the model before, the last one last.
    """
    path, commit = run.out / "model.safetensors", _commit()
    reached = earlier[-1].get("last_stage") if path.exists() else None
    for name in ["fuse"] if run.recipe.fuse.one_stage else list(STAGES):
        if stage not in ("all", name):
            continue
        iterations = STAGES[name](model, run)
        if not iterations and reached in (name, "fuse"):
            log.info("%s had already been at its end", name)
            continue
        record = {"commit": commit, "recipe": run.recipe.model_dump(mode="json"), "last_stage": name}
        if run.accelerator.is_main_process:
            save_checkpoint(model, {**record, "earlier": earlier}, path)
            log.info("wrote %s", path)
        earlier = [*earlier, record]


def accelerator_of(device: Device) -> Accelerator:
    """Return where to train: `auto` is a GPU if there is one. OptionError if a GPU is asked for and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise OptionError("--device cuda: torch sees no GPU here; install a CUDA build of torch, or give --device cpu")
    # Buffers are constants, the same everywhere, and some are views that cannot be written to.
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
    return Accelerator(cpu=device == "cpu" or not torch.cuda.is_available(), kwargs_handlers=handlers)


def pick_precision(asked: Precision, device: torch.device) -> str:
    """Return fp32 or bf16; `auto` takes bf16 where it multiplies half as fast again, measured in a tenth of a second.

    Instructions alone do not tell: with AVX-512 BF16 a Zen 4 core is twice as fast in it, an Emerald Rapids core
    without AMX slower.
    """
    if asked != "auto":
        return asked
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(1024, 1024, dtype=dtype, device=device)
        taken = []
        for _ in range(4):
            begin = time.perf_counter()
            (x @ x)[0, 0].item()  # waits for a GPU as well
            taken.append(time.perf_counter() - begin)
        seconds[dtype] = min(taken)
    return "bf16" if seconds[torch.bfloat16] * 1.5 < seconds[torch.float32] else "fp32"


def _commit() -> str:
    answer = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def main(
    recipe_path: Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML file, see training/recipes")],
    data: Annotated[Path, typer.Option(help="folder that holds the folders named in the recipe")],
    out: Annotated[Path, typer.Option(help="folder of the run; an earlier run there is continued")],
    stage: Annotated[Stages, typer.Option(help="which stage to run")] = "all",
    init: Annotated[
        Path | None, typer.Option(help="model.safetensors to start from, such as training/weights/one-pass.safetensors")
    ] = None,
    device: Annotated[Device, typer.Option(help="auto is a GPU if there is one")] = "auto",
    precision: Annotated[Precision, typer.Option(help="auto is bf16 where it multiplies faster, measured")] = "auto",
    workers: Annotated[
        int, typer.Option(min=0, help="processes that prepare batches; 0 on a CPU, which has nothing to spare")
    ] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="refuse an image that cannot be decoded instead of skipping its pair")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="compile the networks first: minutes, then a fifth faster on a CPU")
    ] = False,
) -> None:
    """Train a preset and write OUT/model.safetensors."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = read_recipe(recipe_path)
    check_crops(recipe)
    accelerator = accelerator_of(device)
    if not accelerator.is_main_process:
        for name in ("training", "cled_edge"):
            logging.getLogger(name).setLevel(logging.WARNING)
    make_folder(out)
    torch.manual_seed(recipe.seed)
    model, earlier = starting_model(out / "model.safetensors", recipe, stage, init)
    chosen = pick_precision(precision, accelerator.device)
    log.info(
        "preset %s on %d x %s, %s, %d threads",
        *(recipe.preset, accelerator.num_processes, accelerator.device, chosen, torch.get_num_threads()),
    )
    images = ImageCache(recipe.data.keep_gib)
    run = Run(recipe, data, out, accelerator, images, chosen, workers, strict, compiled)
    train_stages(model, run, stage, earlier)
    accelerator.end_training()


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
