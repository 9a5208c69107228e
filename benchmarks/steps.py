"""What more network evaluations gain, and what they cost: restoration and the time of a pair by the number of steps.

    python -m export.to_onnx training/weights/nano.safetensors bundles/steps --unrolled 1 --unrolled 2 --unrolled 3
    python -m benchmarks.steps bundles/steps --data ../shared/data

Writes benchmarks/results/steps-<bundle>-<machine>.json. Held-out pairs and degradations are those of
`benchmarks.quality`; each number of steps has its loop as one graph, and pairs of all are timed in turns.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.ems import CASES
from benchmarks.quality import COUNT, DEGRADED_FOLDERS, Run
from benchmarks.quality_summary import bars
from benchmarks.timing import RESULTS, percentiles_ms, timed_rounds, whole_numbers, write_result
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import Controls
from cled_edge.errors import OptionError, one_line_errors
from cled_edge.fuser import Fuser
from cled_edge.scene.night_street import night_street


def main(
    bundle: Annotated[Path, typer.Argument(help="exported with --unrolled for each number of steps")],
    data: Annotated[Path, typer.Option(help="folder that holds the folders of pairs")],
    backend: Annotated[str, typer.Option(help="what runs it, NAME or NAME:PRECISION")] = "onnxruntime",
    steps: Annotated[str, typer.Option(help="network evaluations")] = "1,2,3",
    count: Annotated[int, typer.Option(min=1, help="pairs of each folder, at most")] = COUNT,
    rounds: Annotated[int, typer.Option(min=2, help="timed pairs of each")] = 100,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where the JSON is")] = RESULTS,
) -> None:
    """Measure BUNDLE with each number of steps, and write the JSON."""
    numbers, opened = whole_numbers("--steps", steps), Bundle.open(bundle)
    for number in numbers:
        if opened.manifest.find("fused_loop", "fp32", steps=number) is None:
            raise OptionError(f"{bundle} has no loop of {number} steps; export it with --unrolled {number}")
    with Fuser.load(bundle, backend=backend) as fuser:
        (street,) = night_street(1)
        stepped = {n: partial(fuser, controls=Controls(n)) for n in numbers}
        calls = {n: partial(call, street.infrared, street.visible) for n, call in stepped.items()}
        samples_ms = timed_rounds(calls, rounds, discarded=1)
        rows = []
        for n, call in stepped.items():
            run = Run(call, data, ("restored",), count, everything=False)
            run.degraded(DEGRADED_FOLDERS.split(","), CASES)
            rows.append({"steps": n, "ms": percentiles_ms(samples_ms[n]), "bars": bars(run.summary())})
        values = {
            "bundle": opened.manifest.name,
            "files": opened.manifest.hashes,
            "backend": fuser.backend.description,
            "size": list(street.infrared.shape),
            "count": count,
            "rows": rows,
            "samples_ms": samples_ms,
        }
        write_result(f"steps-{opened.manifest.name}", values, results)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
