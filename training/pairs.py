"""Datasets of clean pairs with simulated degradations, and of real degraded pictures with their references.

An item is a pure function of (seed, index), so a resumed run sees what an uninterrupted one would have seen.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from cled_edge.errors import DataError
from cled_edge.image import read_image
from training.degradations import Image, Modality, degrade, draw_kinds
from training.recipe import DataRecipe

Uint8 = NDArray[np.uint8]
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Pair:
    """A clean pair on disk."""

    infrared: Path
    visible: Path


def find_pairs(root: Path, folders: tuple[str, ...], held_out: bool) -> list[Pair]:
    """Return the pairs of `root/FOLDER/{infrared,visible}`, one tenth held out by the stem's CRC-32.

    A folder that is absent, or a stem in one half only, is a DataError that names it.
    """
    pairs = []
    for folder in folders:
        halves = [_by_stem(root / folder / half) for half in ("infrared", "visible")]
        odd = sorted(halves[0].keys() ^ halves[1].keys())
        if odd:
            raise DataError(
                f"{root / folder}: {len(odd)} stems have one half only, first {odd[0]!r}; add or remove them"
            )
        pairs += [Pair(halves[0][s], halves[1][s]) for s in sorted(halves[0]) if is_held_out(s) == held_out]
    if not pairs:
        raise DataError(f"{root}: no pairs under {', '.join(folders)}; check --data")
    return pairs


def is_held_out(stem: str) -> bool:
    """Return whether a stem belongs to the tenth that training never sees."""
    return zlib.crc32(stem.encode()) % 10 == 0


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; --data must hold the folders that the recipe names")
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURE_SUFFIXES}


class _Pictures:
    """Decoded pictures, RGB or grey uint8 (H, W, C), each read once and kept."""

    def __init__(self) -> None:
        self._kept: dict[Path, Uint8] = {}

    def __call__(self, path: Path, modality: Modality) -> Uint8:
        if path not in self._kept:
            picture = read_image(path, color=modality == "visible")
            self._kept[path] = picture if picture.ndim == 3 else picture[:, :, None]
        return self._kept[path]


class RestorationPictures(Dataset[tuple[Image, Image]]):
    """Stage 1: (degraded, clean), each (3, S, S) float32 in [-1, 1]; even items infrared, odd ones visible.

    A visible picture darker than `min_target_luma` is no clean target: it would teach that night stays night.
    A share of the items comes from real degraded pictures with a reference.
    """

    def __init__(
        self, root: Path, recipe: DataRecipe, crop: int, length: int, seed: int, held_out: bool = False
    ) -> None:
        self.recipe, self.crop, self.length, self.seed = recipe, crop, length, seed
        self.pictures = _Pictures()
        pairs = find_pairs(root, recipe.pairs, held_out)
        self.clean: dict[Modality, list[Path]] = {
            "infrared": [p.infrared for p in pairs],
            "visible": [p.visible for p in pairs if self._is_bright(p.visible)],
        }
        self.references: dict[Modality, list[tuple[Path, Path]]] = {"infrared": [], "visible": []}
        for entry in recipe.references:
            degraded, reference = _by_stem(root / entry.degraded), _by_stem(root / entry.reference)
            stems = sorted(s for s in degraded.keys() & reference.keys() if is_held_out(s) == held_out)
            self.references[entry.modality] += [(degraded[s], reference[s]) for s in stems]

    def _is_bright(self, path: Path) -> bool:
        return float(self.pictures(path, "visible").mean()) >= 255 * self.recipe.min_target_luma

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Image, Image]:
        rng = np.random.default_rng((self.seed, index))
        modality: Modality = "visible" if index % 2 else "infrared"
        references = self.references[modality]
        if references and rng.random() < self.recipe.reference_share:
            paths = references[rng.integers(len(references))]
            degraded, clean = random_crop([self.pictures(p, modality) for p in paths], self.crop, rng)
        else:
            paths_clean = self.clean[modality]
            (clean,) = random_crop(
                [self.pictures(paths_clean[rng.integers(len(paths_clean))], modality)], self.crop, rng
            )
            kinds = draw_kinds(modality, rng, self.recipe.clean_share, self.recipe.mixed_share)
            degraded = degrade(clean, modality, kinds, rng)
        return _network_picture(degraded), _network_picture(clean)


class FusionPairs(Dataset[tuple[Image, Image, Image, Image]]):
    """Stage 2: (infrared, clean infrared, visible, clean visible), each (3, S, S) float32 in [-1, 1]."""

    def __init__(
        self, root: Path, recipe: DataRecipe, crop: int, length: int, seed: int, held_out: bool = False
    ) -> None:
        self.recipe, self.crop, self.length, self.seed = recipe, crop, length, seed
        self.pictures = _Pictures()
        self.pairs = find_pairs(root, recipe.pairs, held_out)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Image, Image, Image, Image]:
        rng = np.random.default_rng((self.seed, index))
        pair = self.pairs[rng.integers(len(self.pairs))]
        halves = [self.pictures(pair.infrared, "infrared"), self.pictures(pair.visible, "visible")]
        infrared, visible = random_crop(halves, self.crop, rng)
        share = self.recipe.clean_share, self.recipe.mixed_share
        infrared_in = degrade(infrared, "infrared", draw_kinds("infrared", rng, *share), rng)
        visible_in = degrade(visible, "visible", draw_kinds("visible", rng, *share), rng)
        pictures = [_network_picture(x) for x in (infrared_in, infrared, visible_in, visible)]
        return pictures[0], pictures[1], pictures[2], pictures[3]


def random_crop(pictures: list[Uint8], side: int, rng: np.random.Generator) -> list[Image]:
    """Cut the same square of 1 to 2.5 times `side` from each, scale it to (side, side, C), mirror half of them."""
    height, width = pictures[0].shape[:2]
    largest = min(height, width, int(2.5 * side))
    size = int(rng.integers(min(side, largest), largest + 1)) if rng.random() < 0.6 else min(side, largest)
    top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    mirror = rng.random() < 0.5
    crops = []
    for picture in pictures:
        crop: NDArray[Any] = picture[top : top + size, left : left + size]
        if size != side:
            crop = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1)
        crop = crop[:, ::-1] if mirror else crop
        crops.append((crop / np.float32(255)).astype(np.float32))
    return crops


def _network_picture(image: Image) -> Image:
    """Return (3, H, W) in [-1, 1] of (H, W, 1 or 3) in [0, 1]; one channel is repeated."""
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    return np.ascontiguousarray(image.transpose(2, 0, 1) * 2 - 1, dtype=np.float32)
