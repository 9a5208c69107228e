"""The search for the shape of `nano`: each candidate trained alike and briefly, exported, and timed beside the others.

    python -m benchmarks.search --data ../shared/data       writes benchmarks/results/search-<machine>.json

Training and export are run as a user runs them, in processes of their own; their results are read from their files. A
candidate that was trained before with the same recipe, in --work, is not trained again. Candidates of stage `restore`
are judged by PSNR gained on held-out crops; those of stage `fuse` by the losses of the last fusion batches, after one
step of restoration, so that all fuse the same.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from pydantic import BaseModel, ConfigDict, TypeAdapter

from benchmarks.flops import count_gflop
from benchmarks.peaks import best, measure_gemm
from benchmarks.timing import timed_rounds, write_result
from cled_edge.backend.choice import backends_of
from cled_edge.bench.feed import rendered_pairs
from cled_edge.bundle.manifest import REFERENCE_GRAPHS
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import DataError, one_line_errors
from cled_edge.fuser import Fuser
from cled_edge.size import padded

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
SIZE = (480, 640)
LAST_LOGGED = 5  # log lines that a fusion loss is the mean of


class Candidate(BaseModel):
    """A change of the recipe, and why it was tried."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    stage: Literal["restore", "fuse"]
    note: str
    schedule: str | None = None
    default_steps: int | None = None
    unet: dict[str, Any] = {}
    fusion: dict[str, Any] = {}

    @property
    def slug(self) -> str:
        """Return the name of its folder."""
        return "".join(c if c.isalnum() else "-" for c in self.name)


def read_candidates(path: Path, only: list[str]) -> list[Candidate]:
    """Return the candidates of a TOML file, all or those named; DataError for a name that it lacks."""
    found = TypeAdapter(list[Candidate]).validate_python(tomllib.loads(path.read_text())["candidate"])
    unknown = set(only) - {c.name for c in found}
    if unknown:
        raise DataError(f"{path} has no candidate {sorted(unknown)[0]!r}; it has {', '.join(c.name for c in found)}")
    return [c for c in found if not only or c.name in only]


def recipe_text(base: Mapping[str, Any], candidate: Candidate, iterations: int, fuse_iterations: int) -> str:
    """Return the candidate's recipe: JSON's words for these values are TOML's too."""
    recipe = json.loads(json.dumps(base))
    recipe["restore"] |= {"iterations": iterations if candidate.stage == "restore" else 1, "held_out_crops": 6}
    recipe["fuse"]["iterations"] = fuse_iterations
    top = {name: recipe[name] for name in ("preset", "seed")}
    top |= {name: getattr(candidate, name) for name in ("schedule", "default_steps")}
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items() if value is not None]
    tables = {"unet": candidate.unet, "fusion": candidate.fusion, **{k: recipe[k] for k in ("restore", "fuse")}}
    data = dict(recipe["data"])
    references = data.pop("references", [])
    for name, values in {"data": data, **tables}.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    for reference in references:
        lines += ["[[data.references]]", *(f"{key} = {json.dumps(value)}" for key, value in reference.items())]
    return "\n".join(lines) + "\n"


def train_and_export(candidate: Candidate, recipe: str, data: Path, folder: Path) -> Path:
    """Return the candidate's bundle; what was made from the same recipe before is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle, path = folder / "bundle", folder / "recipe.toml"
    if not (bundle.exists() and path.exists() and path.read_text() == recipe):
        for old in (*folder.glob("*.pt"), *folder.glob("*.jsonl"), *folder.glob("*.safetensors")):
            old.unlink()
        path.write_text(recipe)
        stage = "restore" if candidate.stage == "restore" else "all"
        _run("training.train", str(path), "--data", str(data), "--out", str(folder), "--stage", stage)
        _run("export.to_onnx", str(folder / "model.safetensors"), str(bundle), "--count", "3")
    return bundle


def quality(log: Path, stage: str) -> dict[str, float]:
    """Return the PSNR gains in dB of the last validation, at each number of steps, or the last fusion losses."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    if stage == "restore":
        gains = [line for line in lines if "visible_gain_1" in line][-1]
        return {name: round(value, 2) for name, value in gains.items() if "_gain_" in name}
    last = [line for line in lines if line["stage"] == "fuse" and "intensity" in line][-LAST_LOGGED:]
    return {name: round(float(np.mean([x[name] for x in last])), 4) for name in ("intensity", "gradient", "color")}


def latencies_ms(bundles: Mapping[str, Path], rounds: int) -> dict[str, dict[str, float]]:
    """Return the median of whole calls by candidate and backend, all in turns."""
    pair = rendered_pairs(SIZE)[0]
    backends = [str(choice) for choice in backends_of(Bundle.open(next(iter(bundles.values()))))]
    with ExitStack() as stack:
        fusers = {
            (name, backend): stack.enter_context(Fuser.load(bundle, backend=backend))
            for name, bundle in bundles.items()
            for backend in backends
        }
        calls = {key: (lambda f=fuser: f(pair.infrared, pair.visible)) for key, fuser in fusers.items()}
        samples = timed_rounds(calls, rounds, discarded=1)
    return {name: {b: round(float(np.median(samples[name, b])), 2) for b in backends} for name in bundles}


def gflop_of(bundle: Bundle) -> float:
    """Return the arithmetic of a frame, padded as the candidate needs it: all steps, both modalities, fusion."""
    height, width = padded(SIZE, bundle.manifest.size_multiple)
    shapes = {"infrared": (1, height, width, 1), "visible": (1, height, width, 3), "strength": (2,), "balance": (1,)}
    return round(count_gflop(bundle.graph("fused_loop"), shapes), 2)


def main(
    data: Annotated[Path, typer.Option(help="folder that holds the folders named in the recipe")],
    only: Annotated[list[str] | None, typer.Option(help="name of a candidate; may be repeated")] = None,
    iterations: Annotated[int, typer.Option(min=1, help="of restoration")] = 500,
    fuse_iterations: Annotated[int, typer.Option(min=50, help="of fusion")] = 250,
    rounds: Annotated[int, typer.Option(min=1, help="timed calls of each candidate on each backend")] = 15,
    work: Annotated[Path, typer.Option(help="where candidates are trained")] = Path("runs/search"),
) -> None:
    """Train, export and time the candidates of benchmarks/candidates.toml; write the JSON."""
    base = tomllib.loads((HERE.parent / "training" / "recipes" / "nano.toml").read_text())
    candidates = read_candidates(HERE / "candidates.toml", only or [])
    bundles = {}
    for candidate in candidates:
        print(f"training {candidate.name}", flush=True)
        recipe = recipe_text(base, candidate, iterations, fuse_iterations)
        bundles[candidate.name] = train_and_export(candidate, recipe, data, work / candidate.slug)
    times = latencies_ms(bundles, rounds)
    peak = best(measure_gemm((1024, 2048), 1.0, ("fp32", "bf16")))
    rows = []
    for candidate in candidates:
        bundle = Bundle.open(bundles[candidate.name])
        ms, gflop = times[candidate.name], gflop_of(bundle)
        fraction = {
            name: round(gflop / value * 1e3 / rate, 3)
            for name, value in ms.items()
            if (rate := peak.get(f"{name.partition(':')[2]}_gflop_s"))
        }
        files = [bundle.manifest.graphs[role].file for role in REFERENCE_GRAPHS]
        parameters = sum(bundle.manifest.files[file].bytes for file in files) // 4
        judged = quality(work / candidate.slug / "log.jsonl", candidate.stage)
        rows.append(
            {**candidate.model_dump(), "parameters": parameters, "gflop": gflop, "ms": ms, "fraction_of_peak": fraction}
            | {"psnr_gain_db" if candidate.stage == "restore" else "losses": judged}
        )
    run = {"iterations": iterations, "fuse_iterations": fuse_iterations, "size": SIZE, "peaks": peak}
    write_result("search", {**run, "rows": rows})


def _run(module: str, *arguments: str) -> None:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
    if done.returncode:
        raise DataError(f"{' '.join(command[1:])} ended with {done.returncode}: {done.stderr.strip()[-300:]}")


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
