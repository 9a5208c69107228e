"""Draw every degradation, and mixtures also of more than training mixes, on real pairs into one PNG to look at.

python -m training.contact_sheet --data DATA --out runs/sheet.png
python -m training.contact_sheet --data DATA --out sheet.png --folder pairs/msrs --folder pairs/m3fd --count 6
"""

import logging
import zlib
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from torch import Generator

from cled_edge.data.datasets import find_pairs
from cled_edge.errors import one_line_errors
from cled_edge.files import make_folder
from cled_edge.image import Uint8, write_png
from training.crops import network_images, random_crop, unit_images
from training.degradations import DEGRADATIONS, MODALITIES, Modality, degrade
from training.image_cache import ImageCache
from training.pairs import readable_pairs
from training.recipe import DataRecipe

LABEL_PX = 18
GAP_PX = 12
WHITE, BLACK = 255, 0
MIXTURES: dict[Modality, tuple[tuple[str, ...], ...]] = {
    "infrared": (
        ("low_contrast", "stripes"),
        ("low_contrast", "noise"),
        ("noise", "stripes"),
        ("blur", "noise"),
        ("blur", "low_contrast", "noise", "stripes"),
    ),
    "visible": (
        ("low_light", "noise"),
        ("rain", "low_light"),
        ("haze", "rain"),
        ("haze", "low_light"),
        ("blur", "noise"),
        ("haze", "overexposure"),
    ),
}


def rows_of(modality: Modality) -> list[tuple[str, ...]]:
    """Return what a sheet shows: nothing, each kind, the mixtures."""
    return [(), *((kind,) for kind in DEGRADATIONS[modality]), *MIXTURES[modality]]


def column(modality: Modality, crops: list[Uint8], seed: int) -> Uint8:
    """Return the labelled rows of one modality, RGB (H, W, 3), a column for each crop (S, S, 1 or 3)."""
    clean = unit_images(crops)
    rows = []
    for kinds in rows_of(modality):
        row = []
        for index in range(len(crops)):
            generator = Generator().manual_seed(zlib.crc32(f"{seed} {kinds} {index}".encode()))
            degraded = degrade(clean[index : index + 1], modality, [kinds], generator)
            row.append(((network_images(degraded)[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
        images = np.concatenate(row, axis=1)
        label = np.full((LABEL_PX, images.shape[1], 3), WHITE, np.uint8)
        text = f"{modality}: {' + '.join(kinds) or 'clean'}"
        cv2.putText(label, text, (4, LABEL_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (BLACK,) * 3, 1, cv2.LINE_AA)
        rows += [label, images]
    return np.concatenate(rows)


def sheet(columns: list[Uint8]) -> Uint8:
    """Return columns side by side, the shorter ones filled up with white."""
    height = max(c.shape[0] for c in columns)
    padded = [np.pad(c, ((0, height - c.shape[0]), (0, GAP_PX), (0, 0)), constant_values=WHITE) for c in columns]
    return np.concatenate(padded, axis=1)


def main(
    data: Annotated[Path, typer.Option(help="folder that holds the folders of pairs")],
    out: Annotated[Path, typer.Option(help="PNG to write")],
    folder: Annotated[list[str] | None, typer.Option(help="folder of pairs below --data, several times")] = None,
    count: Annotated[int, typer.Option(min=1, help="pairs to show")] = 4,
    seed: Annotated[int, typer.Option(help="other pairs, crops and parameters")] = 0,
    side: Annotated[int, typer.Option(min=64, help="side of a crop in pixels")] = 200,
) -> None:
    """Draw the degradations on pairs that training does not see, light ones as the targets of stage 1 are."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    recipe = DataRecipe.model_validate({"pairs": folder or ["pairs/msrs"]})
    images = ImageCache(recipe.keep_gib)
    rng = np.random.default_rng(seed)
    pairs = readable_pairs(find_pairs(data, recipe.all_sets, "choose"), images)
    bright = [pair for pair in pairs if recipe.is_bright(images.facts(pair.visible, "visible").mean)] or pairs
    crops = [
        random_crop([images(pair.infrared, "infrared"), images(pair.visible, "visible")], side, rng)
        for pair in (bright[k] for k in rng.permutation(len(bright))[:count])
    ]
    columns = [
        column(modality, list(crop), seed) for modality, crop in zip(MODALITIES, zip(*crops, strict=True), strict=True)
    ]
    make_folder(out.parent)
    write_png(out, sheet(columns))
    print(f"{out}: {len(crops)} pairs, {sum(len(rows_of(m)) for m in MODALITIES)} rows")


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
