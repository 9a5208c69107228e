"""How the latency of a call grows with resolution, threads, steps and batch.

    python -m benchmarks.scaling --backends openvino:bf16,onnxruntime

writes benchmarks/results/scaling-<bundle>-<machine>.json.

Each sweep changes one of the four and leaves the others at the base: 480x640, all CPUs, the bundle's default steps, one
pair. All cases of all backends take turns in one run. `batch` pairs go through the networks as one tensor, without the
conversion from and to bytes; the other sweeps time the whole call, bytes in to bytes out.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.timing import random_inputs, summary_ms, timed_rounds, whole_numbers, write_result
from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.cpu import usable_cores
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import Controls
from cled_edge.errors import one_line_errors
from cled_edge.fuser import Fuser
from cled_edge.scene.night_street import night_street
from cled_edge.size import padded, parse_size

SIZES = "256x320,480x640,720x1280,1080x1920"  # (height, width), as everywhere
SWEEPS = ("size", "threads", "steps", "batch")


@dataclass(frozen=True)
class Case:
    """One point: size is (height, width); batch None is a whole call, a number is the networks alone."""

    backend: str
    size: tuple[int, int]
    threads: int
    steps: int
    batch: int | None = None

    @property
    def megapixels(self) -> float:
        """Of all pairs together."""
        return self.size[0] * self.size[1] * (self.batch or 1) / 1e6


def cases(base: Case, backends: list[str], sweeps: dict[str, tuple[Any, ...]]) -> list[Case]:
    """Return the points of all sweeps around `base` for each backend, each point once."""
    points = [replace(base, **{name: value}) for name, values in sweeps.items() for value in values]
    return [replace(point, backend=backend) for backend in backends for point in dict.fromkeys(points)]


def measure(bundle: Bundle, points: list[Case], rounds: int, limit_s: float) -> list[dict[str, Any]]:
    """Return a row per point: the case, the summary, ms per megapixel of the median, and the raw samples."""
    with ExitStack() as stack:
        fusers: dict[tuple[str, int], Fuser] = {}
        for point in points:
            key = point.backend, point.threads
            if key not in fusers:
                fusers[key] = stack.enter_context(Fuser.load(bundle.path, backend=point.backend, threads=point.threads))
        calls = {p: _call(fusers[p.backend, p.threads], p) for p in points}
        results = timed_rounds(calls, rounds, limit_s, discarded=1)
    rows = []
    for point, samples_ms in results.items():
        latency_ms = summary_ms(samples_ms)
        per_megapixel = round(latency_ms["p50"] / point.megapixels, 2)
        rows.append(
            {**asdict(point), "latency_ms": latency_ms, "ms_per_megapixel": per_megapixel, "samples_ms": samples_ms}
        )
    return rows


def _call(fuser: Fuser, point: Case) -> Callable[[], object]:
    if point.batch is not None:
        return _network_call(fuser, point, point.batch)
    pair = next(iter(night_street(1, point.size)))
    controls = Controls(steps=point.steps)
    return lambda: fuser(pair.infrared, pair.visible, controls)


def _network_call(fuser: Fuser, point: Case, batch: int) -> Callable[[], object]:
    """Return a call of the step graph, `steps` times, and of the fusion graph, with random values."""
    manifest = fuser.bundle.manifest
    height, width = padded(point.size, manifest.size_multiple)
    sizes = {"height": height, "width": width}
    # Infrared and visible are one batch in the step graph.
    step = random_inputs(manifest.graphs["unet_step"], {**sizes, "batch": 2 * batch})
    fusion = random_inputs(manifest.graphs["fusion"], {**sizes, "batch": batch})

    def run() -> None:
        for _ in range(point.steps):
            fuser.backend.run("unet_step", step)
        fuser.backend.run("fusion", fusion)

    return run


def main(
    backends: Annotated[str, typer.Option(metavar="A,B", help="such as openvino:bf16,onnxruntime")] = "onnxruntime",
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="exported model [default: the shipped nano]")
    ] = None,
    sizes: Annotated[str, typer.Option(help="height x width")] = SIZES,
    threads: Annotated[str, typer.Option(help="[default: 1, 2, 4 ... all CPUs]")] = "",
    steps: Annotated[str, typer.Option()] = "1,2,3,4",
    batches: Annotated[str, typer.Option(help="pairs in one tensor")] = "1,2,4",
    rounds: Annotated[int, typer.Option(min=1, help="timed calls of each case")] = 20,
    limit_s: Annotated[float, typer.Option(min=0, help="begin no round after that; the first is always whole")] = 600,
) -> None:
    """Measure and write the JSON."""
    with one_line_errors():
        names = [str(BackendChoice.parse(backend)) for backend in backends.split(",")]
        opened = Bundle.open(bundle)
        base = Case("", (480, 640), usable_cores(), opened.manifest.schedule.default_steps)
        sweeps = {
            "size": tuple(parse_size(text, "of --sizes, one") for text in sizes.split(",")),
            "threads": whole_numbers("--threads", threads) if threads else _doublings(usable_cores()),
            "steps": whole_numbers("--steps", steps),
            "batch": whole_numbers("--batches", batches),
        }
        rows = measure(opened, cases(base, names, sweeps), rounds, limit_s)
    name = opened.manifest.name
    files = opened.manifest.hashes
    write_result(f"scaling-{name}", {"bundle": name, "files": files, "base": asdict(base), "rows": rows})
    for row in rows:
        print({key: row[key] for key in ("backend", *SWEEPS, "latency_ms", "ms_per_megapixel")})


def _doublings(most: int) -> tuple[int, ...]:
    """Return 1, 2, 4 ... and `most`."""
    return (*(2**k for k in range(most.bit_length()) if 2**k < most), most)


if __name__ == "__main__":
    typer.run(main)
