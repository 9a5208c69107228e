"""Turn a foreign checkpoint of the lineage's UNet into ours: read without running it, rename, check, save.

    python -m export.import_lineage model-300.pt runs/diffuir/model.safetensors --preset T

The lineage (DiffUIR, github.com/iSEE-Laboratory/DiffUIR, src/model.py) has no fusion network: that of the checkpoint is
freshly initialised, and its training record says "untrained".
"""

import hashlib
import logging
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
import typer
from safetensors.torch import load_file
from torch import Tensor

from cled_edge.errors import CheckpointError, OutputError, one_line_errors
from cled_edge.network.checkpoint import save_checkpoint
from cled_edge.network.lineage import LineageUNet
from cled_edge.network.presets import PRESETS, ModelConfig
from cled_edge.network.sampler import CledFusion
from cled_edge.schedule import Schedule

log = logging.getLogger("export")
LineagePreset = Literal["T", "S", "B", "L"]

# What a part of a name is called in our LineageUNet and in DiffUIR's Unet, applied from top to bottom.
NAMES: tuple[tuple[str, str], ...] = (
    ("time_mlp.2.", "time_mlp.3."),
    ("time_mlp.0.", "time_mlp.1."),
    ("stem.", "init_conv."),
    ("encoder.", "downs."),
    ("decoder.0.", "ups.3."),
    ("decoder.1.", "ups.2."),
    ("decoder.2.", "ups.1."),
    ("decoder.3.", "ups.0."),
    ("middle_in.", "mid_block1."),
    ("middle_attention.norm.", "mid_attn.fn.norm."),
    ("middle_attention.", "mid_attn.fn.fn."),
    ("middle_out.", "mid_block2."),
    ("final_block.", "final_res_block."),
    ("head.", "final_conv."),
    (".blocks.", "."),
    (".attention.norm.", ".2.fn.norm."),
    (".attention.", ".2.fn.fn."),
    (".resample.", ".3."),
    (".modulation.", ".mlp.1."),
    (".conv_in.", ".block1.proj."),
    (".norm_in.", ".block1.norm."),
    (".conv_out.", ".block2.proj."),
    (".norm_out.", ".block2.norm."),
    (".skip.", ".res_conv."),
    (".gain", ".g"),
)
# Buffers of DiffUIR's ResidualDiffusion, and what they are in Schedule.
SCHEDULE = {"alphas_cumsum": "residual_cum", "betas_cumsum": "noise_std", "delta_cumsum": "shared_cum"}
_FIRST = "init_conv.weight"  # what stands before it is the prefix of a network
_OF_TENSORS = {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch.FloatStorage"}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class ImportedUNet:
    """A foreign UNet by our names.

    weights: FP32, complete and of the shapes of `config.unet`. prefix: what stood before their names in the file.
    averaged: they are the moving average (EMA) of the training run.
    """

    config: ModelConfig
    weights: dict[str, Tensor]
    prefix: str
    averaged: bool

    def model(self, seed: int) -> CledFusion:
        """Return a model in evaluation mode with this UNet and a fusion network initialised from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = CledFusion(self.config)
        model.unet.load_state_dict(self.weights)
        return model.eval()


def foreign_name(name: str) -> str:
    """Return what DiffUIR's Unet calls the tensor `name` of LineageUNet."""
    for ours, theirs in NAMES:
        name = name.replace(ours, theirs)
    return name


def import_unet(path: Path, preset: LineagePreset | None = None) -> ImportedUNet:
    """Return the UNet in a `.safetensors`, `.pt` or `.pth` file; without `preset`, of the one its shapes fit best.

    CheckpointError: a file that cannot be read or wants to run code; no network or several; the first tensor that is
    missing, unexpected or of another shape, or that is not finite; another preset's shapes; another noise schedule.
    """
    tensors = _read(path)
    prefix, averaged = _find_network(path, tensors)
    seen = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    shapes = {name: _shapes(PRESETS[name]) for name in get_args(LineagePreset)}
    fits = {name: sum(seen[n].shape == s for n, s in shapes[name].items() if n in seen) for name in shapes}
    nearest = max(fits, key=fits.__getitem__)
    chosen = preset or nearest
    if fits[chosen] < fits[nearest]:
        raise CheckpointError(f"{path} has the shapes of preset {nearest}, not of {chosen}; give --preset {nearest}")
    for name in [*shapes[chosen], *sorted(seen)]:
        _check_tensor(f"{path}: {prefix + name!r}", seen.get(name), shapes[chosen].get(name), f"preset {chosen}")
    config = PRESETS[chosen]
    _check_schedule(path, tensors, config.schedule)
    weights = {name: seen[foreign_name(name)].float() for name in _empty(config).state_dict()}
    return ImportedUNet(config, weights, prefix, averaged)


def _find_network(path: Path, tensors: Mapping[str, Tensor]) -> tuple[str, bool]:
    """Return the prefix of the one network to take, and whether it is an average, which goes before the plain one."""
    prefixes = [name.removesuffix(_FIRST) for name in tensors if f".{name}".endswith(f".{_FIRST}")]
    words = {prefix: re.split(r"[._]", prefix) for prefix in prefixes}
    averages = [p for p in prefixes if "ema" in words[p] and "online" not in words[p]]  # ema.online_model is plain
    found = averages or prefixes
    if not found:
        raise CheckpointError(f"{path} holds no UNet of the lineage: no name ends in {_FIRST!r}; choose another file")
    if len(found) > 1:
        raise CheckpointError(f"{path} holds {len(found)} networks, {found[0]!r} and {found[1]!r}; save one alone")
    return found[0], bool(averages)


def _check_tensor(what: str, tensor: Tensor | None, needed: torch.Size | None, owner: str) -> None:
    if tensor is None:
        raise CheckpointError(f"{what} is missing, which {owner} needs; the file is of another network, or incomplete")
    if needed is None:
        raise CheckpointError(f"{what} is unexpected, {owner} has no such tensor; the file is of another network")
    if tensor.shape != needed:
        seen = tuple(tensor.shape)
        raise CheckpointError(f"{what} has shape {seen}, {owner} needs {tuple(needed)}; the file is of another network")
    if not (tensor.is_floating_point() and tensor.float().isfinite().all()):
        raise CheckpointError(f"{what} ({tensor.dtype}) is not all finite floating point; choose another file")


def _check_schedule(path: Path, tensors: Mapping[str, Tensor], name: str) -> None:
    schedule = Schedule.named(name)
    for key, tensor in tensors.items():
        field = SCHEDULE.get(key.rpartition(".")[2])
        if field is not None:
            needed = getattr(schedule, field)
            if tensor.shape != needed.shape or not np.allclose(tensor.numpy(), needed, rtol=0, atol=1e-3):
                raise CheckpointError(
                    f"{path}: {key!r} is not that of the schedule {name!r}, which the presets of the lineage use; "
                    "save the network's own state dict alone to import it all the same"
                )


def _shapes(config: ModelConfig) -> dict[str, torch.Size]:
    return {foreign_name(name): tensor.shape for name, tensor in _empty(config).state_dict().items()}


def _empty(config: ModelConfig) -> LineageUNet:
    with torch.device("meta"):
        return LineageUNet(config.unet)


def _read(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a file, those of nested dictionaries under dotted names; nothing in it is executed."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give a .safetensors, .pt or .pth file")
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointError(f"{path} is a Git LFS pointer, not the weights; fetch them with git lfs pull")
    if path.suffix not in {".safetensors", ".pt", ".pth"}:
        raise CheckpointError(f"{path} ends in {path.suffix!r}; needed .safetensors, .pt or .pth; rename it")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocol 4, which is refused with an error
            return dict(_flat(torch.load(path, map_location="cpu", weights_only=True)))
    except Exception as error:  # a damaged file raises nearly any type (torch 2.13)
        refused = re.search(r"GLOBAL (\S+)", str(error))
        name = refused[1] if refused else _stacked_global(path)
        if name is not None:
            raise CheckpointError(
                f"{path} is a pickle that wants {name!r}, which may run code; nothing of it was executed; where you "
                "trust it, save its tensors alone as .safetensors and import that"
            ) from error
        raise CheckpointError(
            f"{path} is truncated, damaged or no {path.suffix} file ({type(error).__name__}); fetch it again"
        ) from error


def _flat(content: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))


def _stacked_global(path: Path) -> str | None:
    """Return the first global of a pickle of protocol 4 or 5 that is no part of a tensor; torch does not name those.

    The pickle is disassembled, not executed, and the name is that of the two strings before the instruction.
    """
    strings: list[str] = []
    try:
        content = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        for opcode, value, _ in pickletools.genops(content):
            name = ".".join(strings[-2:])
            if opcode.name == "STACK_GLOBAL" and name not in _OF_TENSORS:
                return name
            if isinstance(value, str):
                strings.append(value)
    except Exception:  # no pickle at all: the caller says what is wrong with the file
        return None
    return None


def main(
    foreign: Annotated[Path, typer.Argument(help="checkpoint of the lineage: .safetensors, .pt or .pth")],
    out: Annotated[Path, typer.Argument(help="model.safetensors to write")],
    preset: Annotated[LineagePreset | None, typer.Option(help="guessed from the shapes if not given")] = None,
    seed: Annotated[int, typer.Option(help="of the fusion network, which is not in FOREIGN")] = 0,
) -> None:
    """Import the UNet of FOREIGN into a checkpoint with an untrained fusion network."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if out.exists():
        raise OutputError(f"{out} exists; choose another name, or remove it")
    unet = import_unet(foreign, preset)
    kind = "EMA" if unet.averaged else "plain"
    log.info("took the %s weights, at %r; preset %s", kind, unet.prefix, unet.config.name)
    record: dict[str, Any] = {
        "unet": "imported",
        "fusion": "untrained",
        "fusion_seed": seed,
        "source": {
            "file": foreign.name,
            "sha256": hashlib.sha256(foreign.read_bytes()).hexdigest(),
            "prefix": unet.prefix,
            "weights": kind,
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(unet.model(seed), record, out)
    log.warning("the fusion network is UNTRAINED (seed %d): train it before you use what it fuses", seed)
    log.info("wrote %s", out)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
