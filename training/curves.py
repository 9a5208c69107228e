"""Draw the curves of finished runs, one after the other, as one SVG: what a model card shows of how weights came about.

    python -m training.curves runs/a/log.jsonl runs/b/log.jsonl --out training/weights/nano.svg

While a run goes on, `tensorboard --logdir OUT/curves` shows the same and more.
"""

import io
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from cled_edge.errors import DataError, OptionError, one_line_errors
from cled_edge.files import Reader, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = dict[str, Any]
POINTS = 100  # of a loss that is drawn: each is a mean over so many parts of all the runs
STAGES = ("restore", "fuse")


@dataclass
class Curves:
    """What a stage logged: (iteration, value) by name, iterations counted through all runs, and where runs begin."""

    logged: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    begins: list[int] = field(default_factory=list)
    iterations: int = 0

    def add(self, lines: Iterable[Line]) -> None:
        """Add the lines of one run."""
        begin = self.iterations
        for line in lines:
            at = begin + line["iteration"]
            self.iterations = max(self.iterations, at)
            for name, value in line.items():
                if name not in ("stage", "time_s", "iteration"):
                    self.logged.setdefault(name, []).append((at, value))
        if self.iterations > begin:
            self.begins.append(begin)


_MAX_LOG_BYTES = 2**30
_LOGS = Reader(DataError, DataError, "give the log.jsonl in a run's --out", follow_links=True)


def read_curves(logs: Sequence[Path]) -> dict[str, Curves]:
    """Return the curves of each stage in the runs' `log.jsonl`, in the order given; DataError for one that is none."""
    found = {stage: Curves() for stage in STAGES}
    for path in logs:
        try:
            lines: list[Line] = [json.loads(text) for text in _LOGS.read(path, _MAX_LOG_BYTES).splitlines()]
            for stage, curves in found.items():
                curves.add(line for line in lines if line["stage"] == stage)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no log.jsonl of a run ({error!r}); give the one in a run's --out") from error
    return {stage: curves for stage, curves in found.items() if "loss" in curves.logged}


def gains(curves: Curves) -> dict[str, list[tuple[int, float]]]:
    """Return what one step of restoration gains on held-out crops in dB, by modality and kind of degradation."""
    before = {name.removesuffix("_input"): dict(points) for name, points in curves.logged.items() if "_input" in name}
    kinds = {kind: points for kind, points in before.items() if not kind.endswith("_clean")}
    return {
        kind.replace("_", " "): [(at, value - points[at]) for at, value in curves.logged.get(f"{kind}_1", ())]
        for kind, points in kinds.items()
    }


def draw(found: dict[str, Curves]) -> str:
    """Return the SVG: a row for each stage, its loss on the left and what validation found on the right."""
    try:
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise OptionError(f"curves need matplotlib ({error}); install it: pip install 'cled-edge[report]'") from error
    from cled_edge.bench.plots import STYLE  # noqa: PLC0415

    with mpl.rc_context({**STYLE, "svg.hashsalt": "cled-edge"}):
        figure = Figure(figsize=(10, 3.6 * len(found)), layout="constrained")
        rows = figure.subplots(len(found), 2, squeeze=False)
        for (stage, curves), (left, right) in zip(found.items(), rows, strict=True):
            left.plot(*zip(*thinned(curves.logged["loss"], curves.iterations), strict=True))
            left.set(title=f"{stage}: loss, means over a {POINTS}th of the iterations", ylim=(0, None))
            if stage == "restore":
                _lines(right, gains(curves), "held-out crops: gain in dB, one step")
            else:
                held_out = {n: p for n, p in curves.logged.items() if n.startswith("held_out_")}
                shown = {name.removeprefix("held_out_").replace("_", " "): held_out[name] for name in sorted(held_out)}
                _lines(right, shown, "held-out crops: terms of the loss")
            for axes in (left, right):
                for begin in curves.begins[1:]:
                    axes.axvline(begin, color="#999999", linewidth=0.8, linestyle=":")
                axes.set(xlabel="iterations in thousands; a dotted line begins a run", xlim=(0, curves.iterations))
                axes.xaxis.set_major_formatter(lambda at, _: f"{at / 1000:g}")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return text.getvalue()


def thinned(points: list[tuple[int, float]], iterations: int) -> list[tuple[float, float]]:
    """Return the mean place and value of the points in each of POINTS equal parts, less parts without points."""
    edges = np.linspace(0, iterations, POINTS + 1)
    at, values = np.array(points, dtype=float).T
    parts = [(at > low) & (at <= high) for low, high in itertools.pairwise(edges)]
    return [(float(at[part].mean()), float(values[part].mean())) for part in parts if part.any()]


def _lines(axes: "Axes", series: dict[str, list[tuple[int, float]]], title: str) -> None:
    """Draw a line for each name; those of one first word, as `infrared`, are dashed alike and differ in colour."""
    groups: dict[str, list[str]] = {}
    for name in series:
        groups.setdefault(name.partition(" ")[0], []).append(name)
    for style, names in zip(itertools.cycle(("-", "--", ":")), groups.values(), strict=False):
        for k, name in enumerate(names):
            if series[name]:
                at, values = zip(*series[name], strict=True)
                axes.plot(at, values, label=name, marker="o", markersize=2, color=f"C{k}", linestyle=style)
    axes.set(title=title)
    axes.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))


def main(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="log.jsonl of runs, in their order")],
    out: Annotated[Path, typer.Option(metavar="FILE.svg", help="where the drawing goes")],
) -> None:
    """Draw the curves of LOG... into one SVG."""
    found = read_curves(logs)
    if not found:
        named = ", ".join(map(str, logs))
        raise DataError(f"{named} hold no iteration that was logged; give the log.jsonl in a run's --out")
    write_whole(out, draw(found))


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
