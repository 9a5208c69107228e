"""What is in bundles, how far each graph is from eager PyTorch, and what precision costs and gives here.

    python -m benchmarks.bundles BUNDLE...              writes benchmarks/results/bundles-<machine>.json
    python -m benchmarks.bundles BUNDLE... --rounds 100

The graphs' sizes, nodes and checks come from the manifests, as export verified them. Then every backend and precision
that this machine has takes turns on the same rendered pair, and runs the golden pairs: latency beside agreement. Not of
an untrained bundle (export/untrained.py): it is there for its graphs.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.timing import summary_ms, timed_rounds, write_result
from cled_edge.backend.choice import PROBE_SIZE, backends_of, open_backend
from cled_edge.bundle.manifest import GraphSpec
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import one_line_errors
from cled_edge.fuser import Fuser
from cled_edge.scene.night_street import night_street
from cled_edge.size import Size, padded
from cled_edge.verify import NEEDED_DB, read_golden, verify


def graph_rows(bundle: Bundle) -> Iterator[dict[str, Any]]:
    """Yield a row for each graph: what it is, its bytes and nodes, and the worst PSNR of the checks that ran it."""
    manifest = bundle.manifest
    folder = bundle.path.name
    for name, spec in manifest.graphs.items():
        form = "one graph" if spec.role == "fused_loop" else "step by step"
        checks = [
            check
            for check in manifest.verification.checks
            if (check.precision, check.opset, check.form) == (spec.precision, spec.opset, form)
            and spec.steps in (None, check.steps)
            and (spec.size is None or spec.size == _padded(check.size, spec, manifest.size_multiple))
        ]
        yield {
            "bundle": f"{folder} (untrained)" if is_untrained(bundle) else folder,
            "graph": name,
            "precision": spec.precision,
            "opset": spec.opset,
            "size": spec.size,
            "kb": round(manifest.files[spec.file].bytes / 1000),
            "nodes": sum(spec.nodes.values()),
            "psnr_db": min((check.psnr_db for check in checks), default=None),
            "checks": len(checks),
        }


def is_untrained(bundle: Bundle) -> bool:
    """Return whether the weights are those of export/untrained.py."""
    return bundle.manifest.training.get("weights") == "untrained"


def _padded(size: Size, spec: GraphSpec, multiple: int) -> Size:
    """Return the size of what the graph is given of a picture."""
    return size if spec.role == "fused_loop" else padded(size, multiple)


def precision_rows(bundle: Bundle, rounds: int, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Return a row for each backend and precision: whole calls in turns, and agreement on the golden pairs."""
    scene = next(iter(night_street(1, size)))
    choices = backends_of(bundle)
    cases = read_golden(bundle)
    agreement_db = {c: min(check.psnr_db for check in verify(bundle, c, cases)) for c in choices}
    with ExitStack() as stack:
        fusers = {c: stack.enter_context(Fuser(bundle, open_backend(c, bundle))) for c in choices}
        calls = {c: partial(fuser, scene.infrared, scene.visible) for c, fuser in fusers.items()}
        samples_ms = timed_rounds(calls, rounds, discarded=1)
    return [
        {
            "bundle": bundle.path.name,
            "backend": str(choice),
            "ms": summary_ms(samples_ms[choice]),
            "samples_ms": samples_ms[choice],
            "psnr_db": agreement_db[choice],
            "needed_db": NEEDED_DB[choice.precision or "fp32"],
        }
        for choice in choices
    ]


def main(
    bundles: Annotated[list[Path], typer.Argument(help="folders of bundles")],
    rounds: Annotated[int, typer.Option(min=1, help="timed calls of each backend")] = 60,
) -> None:
    """Describe BUNDLES and measure what each precision costs and gives."""
    graphs: list[dict[str, Any]] = []
    precisions: list[dict[str, Any]] = []
    for path in bundles:
        opened = Bundle.open(path)
        graphs += graph_rows(opened)
        if not is_untrained(opened):
            precisions += precision_rows(opened, rounds, PROBE_SIZE)
    write_result("bundles", {"size": PROBE_SIZE, "graphs": graphs, "precisions": precisions})


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
