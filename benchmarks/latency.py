"""Latency of the fuse call, by number of steps, on this machine's CPU.

    python -m benchmarks.latency            writes benchmarks/results/latency-<host cpu>.json
    python -m benchmarks.tables             puts the table into README.md

The step counts take turns frame by frame, so that a noisy neighbour disturbs all of them alike. Raw samples are kept.
"""

import json
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import track

from cled_edge.bundle import Bundle
from cled_edge.camera.synthetic import night_street
from cled_edge.fuser import Controls, Fuser
from cled_edge.latency import PERCENTILES

RESULTS = Path(__file__).parent / "results"
STEPS = (1, 2, 3)
WARM_UP = 3


def measure(frames: int, size: tuple[int, int], threads: int) -> dict[str, Any]:
    """Return raw samples in milliseconds by step count and stage, and what they were measured on."""
    bundle = Bundle.open()
    samples: dict[int, dict[str, list[float]]] = {steps: {} for steps in STEPS}
    with Fuser.load(threads=threads) as fuser:
        scene = night_street(frames + WARM_UP, size)
        for index, pair in enumerate(track(scene, "measuring", frames + WARM_UP)):
            for steps in STEPS:
                stages = fuser(pair.infrared, pair.visible, Controls(steps=steps)).latency_ns
                if index < WARM_UP:
                    continue
                for stage, value in {**stages, "total": sum(stages.values())}.items():
                    samples[steps].setdefault(stage, []).append(round(value / 1e6, 3))
        backend = fuser.backend.description
    return {
        "bundle": bundle.manifest.name,
        "files": {name: spec.sha256 for name, spec in bundle.manifest.files.items()},
        "backend": backend,
        "threads": threads or "onnxruntime's choice",
        "size": list(size),
        "frames": frames,
        "warm_up_frames": WARM_UP,
        "hardware": hardware(),
        "versions": {name: version(name) for name in ("numpy", "onnxruntime", "opencv-python-headless")},
        "summary_ms": {
            str(steps): {
                stage: {f"p{p}": round(float(np.percentile(v, p)), 2) for p in PERCENTILES} | {"max": max(v)}
                for stage, v in stages.items()
            }
            for steps, stages in samples.items()
        },
        "samples_ms": {str(steps): stages for steps, stages in samples.items()},
    }


def hardware() -> dict[str, Any]:
    """Return the CPU's name, its visible cores and the instruction sets that matter here."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set((re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE) or ["", ""])[1].split())
    family = re.search(r"^cpu family\s*:\s*(\d+)$", text, re.MULTILINE)
    model = re.search(r"^model\s*:\s*(\d+)$", text, re.MULTILINE)
    return {
        "cpu": name[1].strip() if name else platform.processor(),
        "family_model": [int(m[1]) for m in (family, model) if m],
        "cores": text.count("processor\t:"),
        "instructions": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
        "python": platform.python_version(),
    }


def main(
    frames: Annotated[int, typer.Option(min=1, help="pairs measured for each step count")] = 40,
    height: Annotated[int, typer.Option(min=64)] = 480,
    width: Annotated[int, typer.Option(min=64)] = 640,
    threads: Annotated[int, typer.Option(min=0, help="0 is ONNX Runtime's choice")] = 0,
) -> None:
    """Measure and write the JSON."""
    result = measure(frames, (height, width), threads)
    RESULTS.mkdir(exist_ok=True)
    slug = re.sub(r"\W+", "-", result["hardware"]["cpu"].lower()).strip("-")
    path = RESULTS / f"latency-{slug}-{height}x{width}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path}")
    for steps, stages in result["summary_ms"].items():
        print(f"{steps} steps: {stages['total']}")


if __name__ == "__main__":
    typer.run(main)
