"""MRI fused with CT, PET and SPECT: bundles beside each other, baselines and Table 3 of the paper.

    python -m export.to_onnx training/weights/nano-medical.safetensors bundles/nano-medical --name nano-medical
    python -m benchmarks.medical cled_edge/bundles/nano bundles/nano-medical --data DATA --update

MRI takes the place of the infrared image, the other one that of the visible. Measured are slices of patients that
training held out, degraded as an MRI or a scan can be.
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.ems import Case
from benchmarks.measures import OURS
from benchmarks.quality import COUNT, Run
from benchmarks.result import Out, Row, Update, check_target, new_result, save
from benchmarks.summary import image_means, means
from benchmarks.tables_paper import SLICES, SLICES_RESTORED
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import OptionError, one_line_errors
from cled_edge.fuser import Fuser

FOLDERS = ("medical/ct-mri", "medical/pet-mri", "medical/spect-mri")
CASES = (
    *(Case(infrared=(name,)) for name in ("low_contrast", "noise", "blur")),
    *(Case(visible=(name,)) for name in ("noise", "blur")),
)


def main(
    bundles: Annotated[list[Path], typer.Argument(help="exported models, such as cled_edge/bundles/nano")],
    data: Annotated[Path, typer.Option(help="folder that holds medical/{ct,pet,spect}-mri")],
    backend: Annotated[str, typer.Option(help="what runs them, NAME or NAME:PRECISION")] = "onnxruntime",
    count: Annotated[int, typer.Option(min=1, help="slices of each kind, at most")] = COUNT,
    everything: Annotated[bool, typer.Option("--all", help="take also slices that training saw")] = False,
    out: Out = None,
    update: Update = False,
) -> None:
    """Score BUNDLES on slices, and print the tables."""
    check_target(out, update)
    opened = [Bundle.open(path, trusted=True) for path in bundles]
    names = [bundle.manifest.name for bundle in opened]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise OptionError(f"two bundles are named {repeated[0]!r}; needed one of each; export one with another --name")
    scores: list[Row] = []
    restored: list[Row] = []
    for bundle, name in zip(opened, names, strict=True):
        with Fuser.load(bundle.path, backend=backend) as fuser:
            run, description = Run(fuser, data, count, everything), fuser.backend.description
            clean = run.clean(FOLDERS)
            _, images = run.degraded(FOLDERS, CASES, scored=False)
        # Baselines are the same beside every bundle.
        scores += [{**row, "method": name} for row in clean if row["method"] == OURS]
        scores += [row for row in clean if row["method"] != OURS and name == names[0]]
        restored += [{**row, "method": name} for row in images]
    everywhere = [{**row, "folder": "all"} for row in scores]
    parts = {"clean": means([*everywhere, *scores], ("folder", "method"))}
    parts["restored"] = image_means(restored, ("method", "modality", "case"))
    # Dark and bright slices are taken together.
    rows = [{"part": part, **row} for part, found in parts.items() for row in found if row["light"] == "all"]
    settings = {"backend": description, "slices_per_kind": count, "all_slices": everything}
    result = new_result("medical", names[-1], rows, opened, settings)
    print("\n".join([*SLICES.lines(result), "", *SLICES_RESTORED.lines(result)]))
    save(result, out, update)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
