"""Where the work began: a preset in PyTorch as published, bytes in to bytes out, on this machine's CPU.

    python -m benchmarks.starting_point                 the lineage's T, 3 steps, with the paper-size fusion network
    python -m benchmarks.starting_point --preset nano

writes benchmarks/results/starting-point-<preset>-<machine>.json. Weights are random: they change no latency. Each mode
runs in a process of its own, so that its memory is its own and one that takes too long can be ended.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.child import in_child
from benchmarks.timing import summary_ms, timed_rounds, write_result
from cled_edge.backend.cpu import usable_cores
from cled_edge.bench.machine import Gauges
from cled_edge.errors import OptionError, one_line_errors
from cled_edge.image import bytes_from_network, network_from_bytes
from cled_edge.network.presets import preset
from cled_edge.network.sampler import CledFusion
from cled_edge.scene.night_street import night_street
from cled_edge.schedule import check_steps
from cled_edge.size import padded

MODES = ("eager-fp32", "eager-bf16", "compile-fp32", "compile-bf16")
Uint8 = NDArray[np.uint8]


def count(name: str, size: tuple[int, int], steps: int) -> dict[str, float]:
    """Return parameters, and GFLOP of one pair of `size` (height, width) after padding; a product and its sum are 2."""
    config = preset(name)
    height, width = padded(size, config.size_multiple)
    # The meta device computes shapes only: the count is exact and takes no time.
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model = CledFusion(config).eval()
        picture = torch.empty(1, 3, height, width)
        model(picture, picture, torch.empty(2), torch.empty(1), steps)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflop": round(counter.get_total_flops() / 1e9, 2),
    }


def fuse_call(name: str, mode: str, size: tuple[int, int], steps: int) -> Callable[[], Uint8]:
    """Return a call that fuses a rendered pair: uint8 arrays in, (H, W, 3) uint8 out."""
    torch.manual_seed(0)
    torch.set_num_threads(usable_cores())
    model = CledFusion(preset(name)).eval()
    if mode.startswith("compile"):
        # The networks, not the loop around them: torch 2.13 fails on the schedule's NumPy tables.
        model.sampler.step.compile()
        model.fusion.compile()
    pair = next(iter(night_street(1, size)))
    height, width = size
    full_height, full_width = padded(size, preset(name).size_multiple)
    strength, balance = torch.ones(2), torch.full((1,), 0.5)

    def tensor(picture: Uint8) -> torch.Tensor:
        margins = ((0, full_height - height), (0, full_width - width), (0, 0))
        padded = np.pad(picture.reshape(height, width, -1), margins, mode="reflect")
        values = torch.from_numpy(network_from_bytes(padded)).permute(2, 0, 1)[None]
        return values.expand(1, 3, -1, -1).contiguous()

    def call() -> Uint8:
        with torch.inference_mode(), _precision(mode):
            fused = model(tensor(pair.infrared), tensor(pair.visible), strength, balance, steps)[0]
        return bytes_from_network(fused[0, :, :height, :width].float().numpy())

    return call


def measure(name: str, mode: str, size: tuple[int, int], steps: int, rounds: int, limit_s: float) -> dict[str, Any]:
    """Return the latency of a mode after one call that is not kept, and the memory it took."""
    with Gauges() as gauges:
        call = fuse_call(name, mode, size, steps)
        (samples_ms,) = timed_rounds({mode: call}, rounds, limit_s).values()
    return {"mode": mode, "latency_ms": summary_ms(samples_ms), "samples_ms": samples_ms, "gauges": gauges.report()}


def main(
    preset_name: Annotated[str, typer.Option("--preset", help="of cled_edge.network.presets")] = "T",
    steps: Annotated[int, typer.Option(help="network evaluations")] = 3,
    height: Annotated[int, typer.Option(min=64)] = 480,
    width: Annotated[int, typer.Option(min=64)] = 640,
    modes: Annotated[str, typer.Option(metavar="A,B")] = ",".join(MODES[:3]),
    rounds: Annotated[int, typer.Option(min=1, help="timed calls of each mode")] = 3,
    limit_s: Annotated[float, typer.Option(min=1, help="for each mode, its compilation included")] = 600,
) -> None:
    """Measure and write the JSON."""
    size = (height, width)
    with one_line_errors():
        check_steps(steps)
        unknown = set(modes.split(",")) - set(MODES)
        if unknown:
            raise OptionError(f"mode {min(unknown)!r} is unknown; known: {', '.join(MODES)}")
        counts = count(preset_name, size, steps)
    rows = []
    for mode in modes.split(","):
        # No round begins in the last half of the limit, so that a slow mode still hands in what it has.
        row = in_child(measure, limit_s, preset_name, mode, size, steps, rounds, limit_s / 2)
        rows.append({"mode": mode, **row})
        print(mode, row.get("latency_ms") or row["failed"])
    values = {"preset": preset_name, "steps": steps, "size": size, **counts, "rows": rows}
    write_result(f"starting-point-{preset_name.lower()}", values)


def _precision(mode: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if mode.endswith("bf16") else nullcontext()


if __name__ == "__main__":
    typer.run(main)
