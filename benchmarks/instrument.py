"""Whether `cled-edge bench compare` can be believed: one bundle against itself, and against itself slowed on purpose.

    python -m benchmarks.instrument     writes benchmarks/results/instrument-<machine>.json

Of `--runs` comparisons each, how many say "no difference" of the bundle with itself and "slower" of the slowed one. A
verdict that is wrong once in 20 is what its confidence allows.
"""

from collections import Counter
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.timing import write_result
from cled_edge.bench.clock import SystemClock
from cled_edge.bench.compare import DelayedSubject, compare_subjects
from cled_edge.bench.subject import Inputs, Target, open_subjects
from cled_edge.contract import Controls
from cled_edge.errors import one_line_errors

DELAY_PERCENT = 10.0


def main(
    backend: Annotated[str, typer.Option(help="what runs the shipped bundle")] = "openvino:bf16",
    runs: Annotated[int, typer.Option(min=1, help="comparisons of each kind")] = 20,
    duration_s: Annotated[float, typer.Option(help="of one comparison, at most")] = 10.0,
) -> None:
    """Compare, count the verdicts, and write the JSON."""
    clock, kinds = SystemClock(), {"itself": 0.0, "slowed": DELAY_PERCENT}
    rows: dict[str, list[dict[str, object]]] = {kind: [] for kind in kinds}
    with open_subjects([Target.parse(backend)] * 2, Inputs(), Controls(), 0) as (a, b):
        for seed in track(range(runs), "comparing"):
            for kind, delay_percent in kinds.items():
                other = DelayedSubject(b, delay_percent, clock) if delay_percent else b
                found = compare_subjects(a, other, clock, duration_s=duration_s, seed=seed).as_dict()
                rows[kind].append({name: value for name, value in found.items() if not name.endswith("blocks_ms")})
    counts = {kind: dict(Counter(str(row["verdict"]) for row in found)) for kind, found in rows.items()}
    write_result("instrument", {"backend": backend, "delay_percent": DELAY_PERCENT, "counts": counts, "runs": rows})
    print(counts)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
