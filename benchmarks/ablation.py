"""What each loss and the second stage are worth: Table 4 of the paper, of variants that were trained alike.

    python -m benchmarks.ablation bundles/ablation/* --data ../shared/data

training/README.md tells how the variants are made; a row has its bundle's name. Writes
benchmarks/results/ablation-<machine>.json: clean held-out pairs of M3FD and LLVIP, as in `benchmarks.quality`.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.published import FOLDERS
from benchmarks.quality import COUNT, Run
from benchmarks.quality_measures import OURS
from benchmarks.timing import RESULTS, write_result
from cled_edge.errors import one_line_errors
from cled_edge.fuser import Fuser


def main(
    bundles: Annotated[list[Path], typer.Argument(help="one for each variant, exported with --name VARIANT")],
    data: Annotated[Path, typer.Option(help="folder that holds the folders of pairs")],
    backend: Annotated[str, typer.Option(help="what runs them, NAME or NAME:PRECISION")] = "onnxruntime",
    count: Annotated[int, typer.Option(min=1, help="pairs of each folder, at most")] = COUNT,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where the JSON is")] = RESULTS,
) -> None:
    """Score BUNDLES on clean pairs, and write the JSON."""
    rows = []
    for path in bundles:
        with Fuser.load(path, backend=backend) as fuser:
            run = Run(fuser, data, ("clean",), count, everything=False)
            run.clean(list(FOLDERS))
            manifest, description = fuser.bundle.manifest, fuser.backend.description
        recipe: Any = manifest.training.get("recipe", {})
        own = [row for row in run.summary()["clean"] if row["method"] == OURS and row["light"] == "all"]
        rows.append(
            {
                "variant": manifest.name,
                "files": manifest.hashes,
                "fuse": recipe.get("fuse", {}),
                "scores": {row["folder"]: row for row in own},
            }
        )
    write_result("ablation", {"backend": description, "count": count, "rows": rows}, results)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
