"""MRI fused with CT, PET and SPECT: bundles beside each other, trivial fusions and Table 3 of the paper.

    python -m export.to_onnx training/weights/nano-medical.safetensors bundles/nano-medical --name nano-medical
    python -m benchmarks.medical cled_edge/bundles/nano bundles/nano-medical --data ../shared/data

Writes benchmarks/results/medical-<machine>.json. MRI takes the place of the infrared picture, the other one that of the
visible. Measured are slices of patients that training held out, degraded as an MRI or a scan can be.
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.ems import Case
from benchmarks.held_out import Scene
from benchmarks.quality import COUNT, Run, compact
from benchmarks.quality_measures import OURS, Row
from benchmarks.quality_report import check_folder, pairs_in_turn
from benchmarks.quality_summary import halves_summary, means
from benchmarks.sheet import Strip, draw_sheet
from benchmarks.timing import RESULTS, write_result
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import OptionError, one_line_errors
from cled_edge.files import make_folder
from cled_edge.fuser import Fuser
from cled_edge.image import Uint8, write_png

FOLDERS = ("medical/ct-mri", "medical/pet-mri", "medical/spect-mri")
CASES = (
    *(Case(infrared=(name,)) for name in ("low_contrast", "noise", "blur")),
    *(Case(visible=(name,)) for name in ("noise", "blur")),
)
SHEET_PAIRS, TILE = 12, (240, 240)


def main(
    bundles: Annotated[list[Path], typer.Argument(help="exported models, such as cled_edge/bundles/nano")],
    data: Annotated[Path, typer.Option(help="folder that holds medical/{ct,pet,spect}-mri")],
    backend: Annotated[str, typer.Option(help="what runs them, NAME or NAME:PRECISION")] = "onnxruntime",
    count: Annotated[int, typer.Option(min=1, help="slices of each kind, at most")] = COUNT,
    everything: Annotated[bool, typer.Option("--all", help="take also slices that training saw")] = False,
    sheet: Annotated[Path | None, typer.Option(metavar="PNG", help="write slices and what was fused of them")] = None,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where the JSON is")] = RESULTS,
) -> None:
    """Score BUNDLES on slices, and write the JSON."""
    manifests = [Bundle.open(path).manifest for path in bundles]
    names = [manifest.name for manifest in manifests]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise OptionError(f"two bundles are named {repeated[0]!r}; export one with another --name")
    if sheet:
        check_folder(sheet.parent, "--sheet")
        make_folder(sheet.parent)
    shown = list(pairs_in_turn(data, list(FOLDERS), SHEET_PAIRS, everything)) if sheet else []
    fused: list[list[Uint8]] = [[] for _ in shown]
    scores: list[Row] = []
    restored: list[Row] = []
    for path, name in zip(bundles, names, strict=True):
        with Fuser.load(path, backend=backend) as fuser:
            description = fuser.backend.description
            run = Run(fuser, data, ("clean", "restored"), count, everything)
            run.clean(list(FOLDERS))
            run.degraded(list(FOLDERS), CASES)
            for scene, pictures in zip(shown, fused, strict=True):
                pictures.append(fuser(scene.infrared, scene.visible).picture)
        # Trivial fusions are the same beside every bundle.
        own = [{**row, "method": name} for row in run.rows["clean"] if row["method"] == OURS]
        scores += own if scores else [*own, *(row for row in run.rows["clean"] if row["method"] != OURS)]
        restored += [{"bundle": name, **row} for row in run.rows["restored"]]
    everywhere = [{**row, "folder": "all"} for row in scores]
    values = {
        "backend": description,
        "count": count,
        "all": everything,
        "bundles": [{"name": manifest.name, "files": manifest.hashes} for manifest in manifests],
        "scores": _all_lights(means([*everywhere, *scores], ("folder", "method"))),
        "restored": _all_lights(halves_summary(restored, ("bundle", "half", "case"))),
        "pictures": {"scores": compact(scores), "restored": compact(restored)},
    }
    write_result("medical", values, results)
    if sheet:
        write_png(sheet, _drawn(shown, fused))
        print(f"wrote {sheet}: MRI, the other one, fused by {', '.join(names)}")


def _all_lights(rows: list[Row]) -> list[Row]:
    """Return the rows of dark and bright slices together."""
    return [row for row in rows if row["light"] == "all"]


def _drawn(scenes: list[Scene], fused: list[list[Uint8]]) -> Uint8:
    strips = [
        Strip(f"{scene.folder} {scene.stem}", (scene.infrared, scene.visible, *pictures))
        for scene, pictures in zip(scenes, fused, strict=True)
    ]
    return draw_sheet(strips, columns=2, tile=TILE)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
