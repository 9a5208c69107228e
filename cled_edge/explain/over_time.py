"""Curves over the frames of a video: evidence, what was taken, and the share of infrared. As CSV, and as plots."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cled_edge.evidence.likelihood import KINDS, likely_kinds
from cled_edge.evidence.signs import signs_of
from cled_edge.explain.explanation import MODALITIES, Explanation
from cled_edge.files import write_whole
from cled_edge.json_text import counted

CSV, PLOT = "over_time.csv", "over_time.svg"
_SHOWN_ABOVE = 0.3  # kinds that were never likelier are left out of the plot


class OverTime:
    """Collects a row per pair."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float | str]] = []

    def add(self, name: str, time_s: float | None, told: Explanation) -> None:
        """Take note of a pair. time_s: from the first one; None where no time is known."""
        row: dict[str, float | str] = {"frame": name, "time_s": "" if time_s is None else round(time_s, 6)}
        for place, modality in enumerate(MODALITIES):
            before, after = (likely_kinds(signs_of(told.images(k)[place]), modality) for k in (None, told.steps - 1))
            for k in range(told.steps):
                row[f"{modality}_step{k + 1}_took_rms_levels"] = float(told.change_rms_levels[k, place])
            row |= {f"{modality}_{kind}": before[kind] for kind in KINDS[modality]}
            row |= {f"{modality}_restored_{kind}": after[kind] for kind in KINDS[modality]}
        row["share_of_infrared"] = told.origin.share_of_infrared
        row["restoring_levels"] = float(np.abs(told.origin.restoring.sum(axis=0)).mean())
        row["own_levels"] = float(np.abs(told.origin.own).mean())
        self.rows.append(row)

    def csv_text(self) -> str:
        """Return the rows as CSV, with a header."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def write(self, folder: Path) -> None:
        """Write the CSV and a plot beside the page; OutputError if it cannot."""
        write_whole(folder / CSV, self.csv_text())
        write_whole(folder / PLOT, self.drawn()["plots"][0][1])

    def drawn(self) -> dict[str, Any]:
        """Return what the page shows: a sentence, and plots with their captions."""
        from cled_edge.explain.panels import plot  # noqa: PLC0415

        plots = []
        for name in MODALITIES:
            curves = {kind: self._column(f"{name}_{kind}") for kind in KINDS[name]}
            likely = {kind: values for kind, values in curves.items() if values.max() >= _SHOWN_ABOVE}
            plots.append(
                (f"{name}: how likely each kind is, as it came", plot(self._lines(likely, "likelihood", 1.02)))
            )
        took = {
            f"{name}, step {k}": self._column(column)
            for name in MODALITIES
            for k in range(1, 11)
            if (column := f"{name}_step{k}_took_rms_levels") in self.rows[0]
        }
        plots.append(("What each step took, root mean square", plot(self._lines(took, "grey levels", None))))
        share = {"share of infrared": self._column("share_of_infrared")}
        plots.append(("Share of infrared in the fused brightness", plot(self._lines(share, "share", 1.02))))
        return {"sentence": f"{counted(len(self.rows), 'pair')} were explained.", "plots": plots}

    def _column(self, name: str) -> Any:
        return np.array([row[name] for row in self.rows], float)

    def _lines(self, curves: dict[str, Any], label: str, top: float | None) -> Callable[[Any], None]:
        timed = all(row["time_s"] != "" for row in self.rows)
        places = self._column("time_s") if timed else np.arange(len(self.rows))

        def draw(axes: Any) -> None:
            for name, values in curves.items():
                axes.plot(
                    places, values, label=name.replace("_", " "), lw=1.5, marker="." if len(places) < 40 else None
                )
            axes.set(xlabel="time, s" if timed else "pair", ylabel=label)
            axes.set_ylim(0, top)
            axes.grid(visible=True)
            if curves:
                axes.legend(frameon=False, fontsize=9, ncols=2)
            else:
                axes.text(0.5, 0.5, "no kind was likely in any pair", transform=axes.transAxes, ha="center")

        return draw
