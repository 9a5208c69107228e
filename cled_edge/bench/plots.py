"""Plots of results as SVG text for a page. Needs matplotlib, and no screen."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cled_edge.bench.record import BackendResult

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
STAGE_COLORS = ("#bbbbbb", "#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377")
WIDTH_IN, ROW_IN = 6.4, 0.5
MANY_POINTS = 2000  # as vectors they would make the page heavy; the axes and letters stay vectors
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # letters stay letters, in the page's font
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.prop_cycle": cycler(color=COLORS),
    "savefig.transparent": True,
}


def latency_distribution(results: Sequence[BackendResult]) -> str:
    """Return the share of queries at or below a latency, a line a backend."""
    series = {result.label: result.samples.latency_ms for result in results}
    return _svg(lambda axes: _draw_distribution(axes, series, "latency, ms"), 3.2)


def frame_age(results: Sequence[BackendResult], period_ms: float) -> str:
    """Return the share of a camera's frames at or below an age when their output was there, and the deadline."""
    series = {result.label: result.samples.age_ms for result in results}

    def draw(axes: Axes) -> None:
        _draw_distribution(axes, series, "frame age at output, ms")
        axes.axvline(period_ms, color="#888888", linestyle="--", label=f"deadline {period_ms:.1f} ms")
        axes.legend(frameon=False, loc="lower right")

    return _svg(draw, 3.2)


def latency_over_time(results: Sequence[BackendResult]) -> str:
    """Return every query's latency at the moment it began: shows drift, spikes, and the backends' turns."""

    def draw(axes: Axes) -> None:
        for result in results:
            samples = result.samples
            seconds = np.array(samples.start_ms) / 1e3
            rasterized = seconds.size > MANY_POINTS
            axes.plot(seconds, samples.latency_ms, ".", markersize=4, label=result.label, rasterized=rasterized)
        axes.set(xlabel="time since the run began, s", ylabel="latency, ms", ylim=(0, None))
        axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))

    return _svg(draw, 3.2)


def stage_bars(results: Sequence[BackendResult]) -> str:
    """Return the median time of each stage, laid end to end, a bar a backend; the wait for a camera left out."""
    stages = [name for name in dict.fromkeys(s for r in results for s in r.stages_ms) if name != "wait"]

    def draw(axes: Axes) -> None:
        rows = np.arange(len(results))
        left = np.zeros(len(results))
        for k, stage in enumerate(stages):
            widths = [r.stages_ms[stage].percentiles["p50"] or 0.0 if stage in r.stages_ms else 0.0 for r in results]
            axes.barh(rows, widths, left=left, height=0.6, label=stage, color=STAGE_COLORS[k % len(STAGE_COLORS)])
            left += widths
        axes.set(yticks=rows, yticklabels=[result.label for result in results], xlabel="median, ms", ylim=(-0.5, None))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))

    return _svg(draw, 1.6 + ROW_IN * len(results))


def _draw_distribution(axes: Axes, series: dict[str, list[float]], label: str) -> None:
    for name, values in series.items():
        if values:
            axes.ecdf(np.array(values), label=name, linewidth=1.8)
    axes.set(xlabel=label, ylabel="share of queries", ylim=(0, 1.01))
    axes.legend(frameon=False, loc="lower right")


def _svg(draw: Callable[[Axes], None], height_in: float) -> str:
    """Draw into new axes; return the SVG element, without the XML header that HTML has no place for."""
    with mpl.rc_context(STYLE):
        # A Figure of its own, not pyplot's: pyplot keeps every figure and may look for a screen.
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
