"""What each loss and the second stage are worth: Table 4 of the paper, of variants that were trained alike.

    python -m benchmarks.ablation bundles/ablation/* --data DATA --update

training/VARIANTS.md tells how the variants are made; a row has its bundle's name. Measured are clean held-out pairs of
M3FD and LLVIP, as in `benchmarks.quality`.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.measures import OURS
from benchmarks.published import PAPER_FOLDERS
from benchmarks.quality import COUNT, Run
from benchmarks.result import Out, Row, Update, check_target, new_result, save
from benchmarks.summary import means
from benchmarks.tables_paper import TABLE_4
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import one_line_errors
from cled_edge.fuser import Fuser


def main(
    bundles: Annotated[list[Path], typer.Argument(help="one for each variant, exported with --name VARIANT")],
    data: Annotated[Path, typer.Option(help="folder that holds the folders of pairs")],
    backend: Annotated[str, typer.Option(help="what runs them, NAME or NAME:PRECISION")] = "onnxruntime",
    count: Annotated[int, typer.Option(min=1, help="pairs of each folder, at most")] = COUNT,
    out: Out = None,
    update: Update = False,
) -> None:
    """Score BUNDLES on clean pairs, and print the table."""
    check_target(out, update)
    opened = [Bundle.open(path, trusted=True) for path in bundles]
    rows: list[Row] = []
    for bundle in opened:
        with Fuser.load(bundle.path, backend=backend) as fuser:
            clean = Run(fuser, data, count, everything=False).clean(list(PAPER_FOLDERS))
            description = fuser.backend.description
        recipe: Any = bundle.manifest.training.get("recipe", {})
        variant = {"method": bundle.manifest.name, "iterations": recipe.get("fuse", {}).get("iterations")}
        own = [row for row in clean if row["method"] == OURS]
        rows += [{**row, **variant} for row in means(own, ("folder", "method")) if row["light"] == "all"]
    result = new_result("ablation", "", rows, opened, {"backend": description, "pairs_per_folder": count})
    print("\n".join(TABLE_4.lines(result)))
    save(result, out, update)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
