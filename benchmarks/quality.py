"""How good a bundle's images are: fused, restored, balanced, with people, beside baselines and the targets.

    python -m benchmarks.quality --data DATA --update      the shipped bundle, about 8 minutes
    python -m benchmarks.quality --data DATA --bundle DIR --only restored --count 6       a look, a minute

Images go through `cled_edge.fuser.Fuser`, as a user's do. Measured are the pairs that training held out, unless --all.
People with labels and in smoke are few, so all of them are measured: training had no labels.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks import held_out, measures
from benchmarks.ems import CASES, Case
from benchmarks.result import Out, Row, Update, check_target, new_result, save
from benchmarks.summary import degraded_means, gains_by_set, image_means, means, people_means, shares, targets
from benchmarks.tables_quality import QUALITY
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import DataError, OptionError, one_line_errors
from cled_edge.fuser import Fuser

PARTS = ("clean", "degraded", "restored", "references", "balance", "people", "smoke")
FOLDERS = "pairs/msrs,pairs/roadscene,pairs/m3fd,pairs/llvip"
REFERENCES = ("restoration/lol", "restoration/drmf")
LABELLED, SMOKE = "pairs/msrs", "video/0117_1620"
NEEDED = {"references": REFERENCES[0], "people": f"{LABELLED}/labels", "smoke": SMOKE}
COUNT, BALANCE_COUNT = 14, 4  # pairs of each folder


class Run:
    """Measurements of one fuser on the pairs below `root`: a row for each image and method."""

    def __init__(self, fuser: measures.PairFuser, root: Path, count: int, everything: bool) -> None:
        self.fuser, self.root, self.count, self.everything = fuser, root, count, everything

    def scenes(self, folders: Sequence[str], count: int, what: str) -> Iterable[held_out.Scene]:
        """Iterate over the pairs of folders with a progress bar."""
        total = sum(len(held_out.find_pairs(self.root, name, count, self.everything)) for name in folders)
        if not total:
            raise DataError(f"{', '.join(folders)}: no pair is held out from training; --all takes every pair")
        scenes = (s for name in folders for s in held_out.read_scenes(self.root, name, count, self.everything))
        return track(scenes, what, total=total, transient=True)

    def clean(self, folders: Sequence[str]) -> list[Row]:
        """Fuse clean pairs."""
        with measures.scorer() as score:
            scenes = self.scenes(folders, self.count, "clean")
            return [row for scene in scenes for row in measures.clean_rows(self.fuser, scene, score)]

    def degraded(self, folders: Sequence[str], cases: Sequence[Case], scored: bool) -> tuple[list[Row], list[Row]]:
        """Restore and fuse degraded pairs; scored are the fused ones of the first folder, which is slow."""
        fused, images = [], []
        with measures.scorer() as score:
            for scene in self.scenes(folders, self.count, "degraded"):
                judge = score if scored and scene.folder == folders[0] else None
                of_fused, of_images = measures.degraded_rows(self.fuser, scene, cases, judge)
                fused += of_fused
                images += of_images
        return fused, images

    def references(self) -> list[Row]:
        """Restore real degraded images."""
        return [
            measures.reference_row(self.fuser, folder, *found)
            for folder in REFERENCES
            for found in held_out.read_references(self.root, folder, self.everything)
        ]

    def balance(self, folders: Sequence[str]) -> list[Row]:
        """Fuse at both ends of the balance."""
        scenes = self.scenes(folders, min(self.count, BALANCE_COUNT), "balance")
        return [row for scene in scenes for row in measures.balance_rows(self.fuser, scene)]

    def people(self) -> list[Row]:
        """Measure the contrast of labelled people at night."""
        found = held_out.labelled_people(self.root, LABELLED)
        dark = [(scene, boxes) for scene, boxes in found if scene.light == "night"]
        return [row for scene, boxes in dark for row in measures.people_rows(self.fuser, scene, boxes)]

    def smoke(self) -> list[Row]:
        """Measure the contrast of people in smoke."""
        found = held_out.smoke_frames(self.root / SMOKE)
        return [row for scene, boxes in found for row in measures.people_rows(self.fuser, scene, boxes)]


def measure(run: Run, parts: Sequence[str], folders: Sequence[str], degraded_folders: Sequence[str]) -> list[Row]:
    """Return the rows of a result: means of each part, and the targets. A part whose data are absent says so."""
    there = [part for part in parts if part not in NEEDED or (run.root / NEEDED[part]).is_dir()]
    for part in set(parts) - set(there):
        print(f"without {part}: {NEEDED[part]} is not in --data")
    found: dict[str, list[Row]] = {}
    if "clean" in there:
        found["clean"] = means(run.clean(folders), ("folder", "method"))
    if {"degraded", "restored"} & set(there):
        fused, images = run.degraded(degraded_folders, CASES, scored="degraded" in there)
        if fused:
            found["degraded"] = degraded_means(fused)
            found["share"] = shares(found["degraded"])
        if "restored" in there:
            found |= {"restored": image_means(images), "restored_set": gains_by_set(images)}
    if "references" in there and (rows := run.references()):
        found["reference"] = image_means(rows, ("folder", "modality"))
    if "balance" in there:
        found["balance"] = means(run.balance(folders), ("balance", "modality"))
    for part, measured in (("people", run.people), ("smoke", run.smoke)):
        if part in there and (rows := measured()):
            found[part] = people_means(rows)
    found = {"target": targets(found), **found}
    return [{"part": part, **row} for part, rows in found.items() for row in rows]


def main(
    data: Annotated[Path, typer.Option(help="folder that holds the folders of pairs")],
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="exported model", show_default="nano")] = None,
    backend: Annotated[str, typer.Option(help="what runs it, NAME or NAME:PRECISION")] = "onnxruntime",
    count: Annotated[int, typer.Option(min=1, help="pairs of each folder, at most")] = COUNT,
    everything: Annotated[bool, typer.Option("--all", help="take also pairs that training saw")] = False,
    only: Annotated[str, typer.Option(metavar="A,B", help=f"of {','.join(PARTS)}")] = ",".join(PARTS),
    folders: Annotated[str, typer.Option(metavar="A,B", help="NAME/{infrared,visible} under --data")] = FOLDERS,
    degraded_folders: Annotated[
        str, typer.Option(metavar="A,B", help="those to degrade; fused images of the first are scored")
    ] = ",".join(measures.DEGRADED_FOLDERS),
    out: Out = None,
    update: Update = False,
) -> None:
    """Measure, and print the tables."""
    parts = tuple(only.split(","))
    if unknown := [part for part in parts if part not in PARTS]:
        raise OptionError(f"--only has {unknown[0]!r}; it must list some of {','.join(PARTS)}")
    if update and (parts != PARTS or count < COUNT):
        raise OptionError(f"--update with a part of the measurement; needed all of --only and --count {COUNT} or more")
    check_target(out, update)
    names, began_s = folders.split(","), time.perf_counter()
    opened = Bundle.open(bundle, trusted=True)
    with Fuser.load(opened.path, backend=backend) as fuser:
        rows = measure(Run(fuser, data, count, everything), parts, names, degraded_folders.split(","))
        settings = {
            "backend": fuser.backend.description,
            "steps": opened.manifest.schedule.default_steps,
            "pairs_per_folder": count,
            "all_pairs": everything,
            "folders": names,
            "degraded_folders": degraded_folders.split(","),
            "longest_side_px": held_out.LONGEST_SIDE,
            "seconds": round(time.perf_counter() - began_s, 1),
        }
    result = new_result("quality", opened.manifest.name, rows, [opened], settings)
    for table in QUALITY:
        if lines := table.lines(result):
            print("\n".join([f"\n{table.title}", *lines]))
    save(result, out, update)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
