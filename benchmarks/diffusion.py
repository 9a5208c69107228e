"""What the parts of the diffusion are worth: the schedule, its shared term, one network for both modalities.

    python -m benchmarks.diffusion bundles/diffusion/* --data DATA --update

training/VARIANTS.md tells how the variants are made. A bundle is named VARIANT-SEED; a row is the mean over a variant's
seeds, and the spread is the standard deviation over them. Measured is the PSNR that held-out images gain, degraded as
in `benchmarks.control`, by steps. A bundle that was trained on one modality is scored by that one alone.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from benchmarks.control import FOLDERS, MODALITIES, cut, gains_at, trials_of
from benchmarks.held_out import read_scenes
from benchmarks.result import Out, Row, Update, check_target, new_result, save
from benchmarks.tables_paper import DIFFUSION
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import OptionError, one_line_errors
from cled_edge.fuser import Fuser
from cled_edge.size import parse_size

STEPS = (1, 2, 3, 5)


def main(
    bundles: Annotated[list[Path], typer.Argument(help="one for each variant and seed, named VARIANT-SEED")],
    data: Annotated[Path, typer.Option(help="folder that holds the folders of pairs")],
    backend: Annotated[str, typer.Option(help="what runs them, NAME or NAME:PRECISION")] = "onnxruntime",
    count: Annotated[int, typer.Option(min=1, help="pairs of each folder")] = 4,
    size: Annotated[str, typer.Option(metavar="HEIGHTxWIDTH", help="of the middle that is taken")] = "160x224",
    out: Out = None,
    update: Update = False,
) -> None:
    """Score BUNDLES on degraded images, and print the table."""
    with one_line_errors():
        check_target(out, update)
        opened = [Bundle.open(path, trusted=True) for path in bundles]
        variants = [variant_of(bundle) for bundle in opened]
        scenes = [cut(s, parse_size(size)) for name in FOLDERS for s in read_scenes(data / "pairs", name, count)]
        found: list[Row] = []
        for bundle, variant in zip(opened, variants, strict=True):
            with Fuser.load(bundle.path, backend=backend) as fuser:
                trials = [trial for scene in scenes for trial in trials_of(fuser, scene)]
                for steps in STEPS:
                    gains, _ = gains_at(fuser, trials, steps)
                    found += rows_of(variant, steps, gains)
        settings = {"backend": backend, "size": list(parse_size(size)), "pairs": len(scenes)}
        result = new_result("diffusion", "", summary(found), opened, settings)
        print("\n".join(DIFFUSION.lines(result)))
        save(result, out, update)


class Variant(NamedTuple):
    """What a bundle is a trial of. modalities: those that it was trained on."""

    name: str
    seed: str
    iterations: int
    modalities: tuple[str, ...]


def variant_of(bundle: Bundle) -> Variant:
    """Return what a bundle is; OptionError unless it is named VARIANT-SEED, and was trained by a recipe."""
    recipe: Any = bundle.manifest.training.get("recipe", {})
    name, _, seed = bundle.manifest.name.rpartition("-")
    if not name or not seed.isdigit() or "iterations" not in recipe.get("restore", {}):
        raise OptionError(
            f"{bundle.path} is named {bundle.manifest.name!r}; needed VARIANT-SEED, such as rddm09-1, of a run of "
            "training/recipes/diffusion.toml; export it with --name"
        )
    trained = recipe.get("data", {}).get("modalities", MODALITIES)
    return Variant(name, seed, recipe["restore"]["iterations"], tuple(trained))


def rows_of(variant: Variant, steps: int, gains: dict[str, list[float]]) -> list[Row]:
    """Return a row for each modality that a variant was trained on."""
    common = {"variant": variant.name, "seed": variant.seed, "steps": steps, "iterations": variant.iterations}
    return [
        {**common, "modality": modality, "images": len(gains[modality]), "gain_db": float(np.mean(gains[modality]))}
        for modality in variant.modalities
    ]


def summary(found: list[Row]) -> list[Row]:
    """Return a row for each variant and modality: the mean over its seeds by steps, and the deviation at three."""
    rows: list[Row] = []
    for variant, modality in dict.fromkeys((row["variant"], row["modality"]) for row in found):
        own = [row for row in found if (row["variant"], row["modality"]) == (variant, modality)]
        by_steps = {s: np.array([row["gain_db"] for row in own if row["steps"] == s]) for s in STEPS}
        row = {"variant": variant, "modality": modality, "iterations": own[0]["iterations"], "images": own[0]["images"]}
        row |= {"seeds": len(by_steps[3])}
        row |= {f"gain_db_{s}": round(float(values.mean()), 2) for s, values in by_steps.items()}
        spread = round(float(by_steps[3].std(ddof=1)), 2) if len(by_steps[3]) > 1 else None
        rows.append({**row, "deviation_db_3": spread})
    return sorted(rows, key=lambda row: MODALITIES.index(row["modality"]))


if __name__ == "__main__":
    typer.run(main)
