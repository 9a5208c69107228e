"""How good a bundle's pictures are: fused, restored, balanced, with people, beside trivial fusions and the bars set.

    python -m benchmarks.quality --data ../shared/data --report runs/quality      the shipped bundle, about 8 minutes
    python -m benchmarks.quality --data ../shared/data --bundle DIR --only restored --count 6       a look, a minute

A whole run writes benchmarks/results/quality-<bundle>-<machine>.json; a look (--only, a lower --count) writes into
runs/quality, so that it becomes no number of a README. Pictures go through `cled_edge.fuser.Fuser`, as a user's do.
Measured are the pairs that training held out, unless --all; people with labels and in smoke, who are few, all:
training had no labels.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table as RichTable

from benchmarks import held_out as pictures
from benchmarks import quality_measures as measures
from benchmarks import quality_tables as tables
from benchmarks.ems import CASES, Case
from benchmarks.quality_report import check_folder, write_report
from benchmarks.quality_summary import bars, degraded_summary, halves_summary, means, people_summary
from benchmarks.timing import RESULTS, write_result
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import DataError, OptionError, one_line_errors
from cled_edge.fuser import Fuser

PARTS = ("clean", "degraded", "restored", "references", "balance", "people", "smoke")
FOLDERS = "pairs/msrs,pairs/roadscene,pairs/m3fd,pairs/llvip"
DEGRADED_FOLDERS = "pairs/msrs,pairs/roadscene"  # sharp, with little noise of their own; others' numbers are of MSRS
REFERENCES = ("restoration/lol", "restoration/drmf")
LABELLED, SMOKE = "pairs/msrs", "video/0117_1620"
COUNT, BALANCE_COUNT = 14, 4  # pairs of each folder
LOOKS = Path("runs/quality")
WIDE = 170  # columns of a log, which nobody can make wider
Row = measures.Row


class Run:
    """One measurement of a bundle: what was asked for, the rows by part, and why parts are absent."""

    def __init__(
        self, fuser: measures.PairFuser, root: Path, parts: tuple[str, ...], count: int, everything: bool
    ) -> None:
        self.fuser, self.root, self.parts, self.count, self.everything = fuser, root, parts, count, everything
        self.rows: dict[str, list[Row]] = {}
        self.skipped: dict[str, str] = {}

    def scenes(self, folders: list[str], count: int, what: str) -> Iterable[pictures.Scene]:
        """Iterate over the pairs of folders with a progress bar."""
        found = [
            (folder, pair)
            for folder in folders
            for pair in pictures.find_pairs(self.root, folder, count, self.everything)
        ]
        if not found:
            raise DataError(f"{', '.join(folders)}: no pair is held out from training; --all takes every pair")
        everything = (
            scene for folder in folders for scene in pictures.read_scenes(self.root, folder, count, self.everything)
        )
        return track(everything, what, total=len(found), transient=True)

    def clean(self, folders: list[str]) -> None:
        """Fuse clean pairs."""
        with measures.scorer() as score:
            self.rows["clean"] = [
                row
                for scene in self.scenes(folders, self.count, "clean")
                for row in measures.clean_rows(self.fuser, scene, score)
            ]

    def degraded(self, folders: list[str], cases: Sequence[Case]) -> None:
        """Restore and fuse degraded pairs; fused ones of the first folder are scored, if asked for: it is slow."""
        fused, halves = [], []
        with measures.scorer() as score:
            chosen = score if "degraded" in self.parts else None
            for scene in self.scenes(folders, self.count, "degraded"):
                more = measures.degraded_rows(self.fuser, scene, cases, chosen if scene.folder == folders[0] else None)
                fused += more[0]
                halves += more[1]
        if chosen:
            self.rows["degraded"] = fused
        if "restored" in self.parts:
            self.rows["restored"] = halves

    def references(self) -> None:
        """Restore real degraded pictures."""
        self.rows["references"] = [
            measures.reference_row(self.fuser, folder, *found)
            for folder in REFERENCES
            for found in pictures.read_references(self.root, folder, self.everything)
        ]

    def balance(self, folders: list[str]) -> None:
        """Fuse at both ends of the balance."""
        count = min(self.count, BALANCE_COUNT)
        self.rows["balance"] = [
            row for scene in self.scenes(folders, count, "balance") for row in measures.balance_rows(self.fuser, scene)
        ]

    def people(self) -> None:
        """Measure the contrast of labelled people at night."""
        self.rows["people"] = [
            row
            for scene, boxes in pictures.labelled_people(self.root, LABELLED)
            if scene.light == "night"
            for row in measures.people_rows(self.fuser, scene, boxes)
        ]

    def smoke(self) -> None:
        """Measure the contrast of people in smoke."""
        self.rows["smoke"] = [
            row
            for scene, boxes in pictures.smoke_frames(self.root / SMOKE)
            for row in measures.people_rows(self.fuser, scene, boxes)
        ]

    def measure(self, folders: list[str], degraded_folders: list[str]) -> None:
        """Measure every part; one whose data are absent is left out with a line that says so."""
        needed: dict[str, tuple[str, ...]] = {
            "references": REFERENCES,
            "people": (f"{LABELLED}/labels",),
            "smoke": (SMOKE,),
        }
        calls: dict[str, Callable[[], None]] = {
            "clean": lambda: self.clean(folders),
            "degraded": lambda: self.degraded(degraded_folders, CASES),
            "restored": lambda: None if "degraded" in self.parts else self.degraded(degraded_folders, CASES),
            "references": self.references,
            "balance": lambda: self.balance(folders),
            "people": self.people,
            "smoke": self.smoke,
        }
        for part in self.parts:
            missing = [folder for folder in needed.get(part, ()) if not (self.root / folder).is_dir()]
            if missing:
                self.skipped[part] = f"{missing[0]} is not in --data"
                print(f"without {part}: {self.skipped[part]}")
                continue
            calls[part]()
            if not self.rows.get(part):
                self.skipped[part] = "no picture of it is held out from training"

    def summary(self) -> dict[str, Any]:
        """Return the means of every part that has rows."""
        makers: dict[str, Callable[[list[Row]], Any]] = {
            "clean": lambda rows: means(rows, ("folder", "method")),
            "degraded": degraded_summary,
            "restored": halves_summary,
            "references": lambda rows: halves_summary(rows, ("folder", "half")),
            "balance": lambda rows: means(rows, ("balance", "half")),
            "people": people_summary,
            "smoke": people_summary,
        }
        return {part: makers[part](rows) for part, rows in self.rows.items() if rows}


def compact(rows: list[Row]) -> dict[str, Any]:
    """Return rows as one line of text each, commas between, under the names of their columns."""
    columns = list(rows[0]) if rows else []
    return {"columns": columns, "rows": [",".join(_text(row[name]) for name in columns) for row in rows]}


def main(
    data: Annotated[Path, typer.Option(help="folder that holds the folders of pairs")],
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="exported model [default: the shipped nano]")
    ] = None,
    backend: Annotated[str, typer.Option(help="what runs it, NAME or NAME:PRECISION")] = "onnxruntime",
    count: Annotated[int, typer.Option(min=1, help="pairs of each folder, at most")] = COUNT,
    everything: Annotated[bool, typer.Option("--all", help="take also pairs that training saw")] = False,
    only: Annotated[str, typer.Option(metavar="A,B", help=f"of {','.join(PARTS)}")] = ",".join(PARTS),
    folders: Annotated[str, typer.Option(metavar="A,B", help="NAME/{infrared,visible} under --data")] = FOLDERS,
    degraded_folders: Annotated[
        str, typer.Option(metavar="A,B", help="those to degrade; fused pictures of the first are scored")
    ] = DEGRADED_FOLDERS,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="write an HTML page and sheets there")] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help=f"for the JSON [default: benchmarks/results, or {LOOKS} for a look]"),
    ] = None,
) -> None:
    """Measure, print the tables, and write the JSON."""
    parts = tuple(only.split(","))
    if unknown := [part for part in parts if part not in PARTS]:
        raise OptionError(f"--only has {unknown[0]!r}; it must list some of {','.join(PARTS)}")
    if report:
        check_folder(report)
    names = folders.split(",")
    began_s = time.perf_counter()
    opened = Bundle.open(bundle)
    with Fuser.load(opened.path, backend=backend) as fuser:
        run = Run(fuser, data, parts, count, everything)
        run.measure(names, degraded_folders.split(","))
        summary = run.summary()
        asked = {"parts": parts, "count": count, "all": everything, "folders": names}
        asked |= {"degraded_folders": degraded_folders.split(","), "longest_side": pictures.LONGEST_SIDE}
        asked |= {"seconds": round(time.perf_counter() - began_s, 1)}
        values: dict[str, Any] = {
            "bundle": opened.manifest.name,
            "files": opened.manifest.hashes,
            "backend": fuser.backend.description,
            "steps": opened.manifest.schedule.default_steps,
            "run": asked,
            "skipped": run.skipped,
            "notes": _notes(everything),
            "bars": bars(summary),
            "summary": summary,
            "pictures": {part: compact(rows) for part, rows in run.rows.items()},
        }
        whole = parts == PARTS and count >= COUNT
        path = write_result(f"quality-{opened.manifest.name}", values, results or (RESULTS if whole else LOOKS))
        _show(values)
        if report:
            from cled_edge.files import read_json  # noqa: PLC0415

            smoke = data / SMOKE if (data / SMOKE).is_dir() else None
            halves = run.rows.get("restored", [])
            print(f"wrote {write_report(report, read_json(path), halves, fuser, data, smoke)}")


def _notes(everything: bool) -> dict[str, str]:
    held = "all pairs" if everything else "only stems with crc32 % 10 == 0, which training holds out"
    return {
        "clean": f"{held}; scores of 8-bit lumas against both sources",
        "degraded": "degradations of benchmarks.ems, seeded by the pair's name; scores against the clean sources, on "
        "the first of degraded_folders",
        "restored": "visible pictures by day only where a bar is judged: a night street is dark when it is clean",
        "references": f"{'all' if everything else 'held-out'} pictures; LOL has no infrared, its luma stands for it",
        "people": "all labelled night pairs, held out or not: training sees no labels",
        "smoke": f"every {pictures.SMOKE_EVERY}th frame of {SMOKE}; boxes are warm upright blobs, not drawn by hand: "
        f"{pictures.WARMER_BY} levels above the median infrared frame and {pictures.PERSON_AREA} pixels large",
    }


def _show(values: dict[str, Any]) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    shown = [
        ("restored", tables.restored_table),
        ("references", tables.references_table),
        ("degraded", tables.nine_table),
    ]
    shown += [("degraded", tables.degraded_table), ("clean", tables.clean_table)]
    shown += [("people", tables.people_table)]
    for table in [build(values) for part, build in shown if part in values["summary"]] + [tables.bars_table(values)]:
        drawn = RichTable(*table.header, title=table.caption, title_justify="left")
        for row in table.rows:
            drawn.add_row(*(str(cell) for cell in row))
        console.print(drawn)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace(",", ";")


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
