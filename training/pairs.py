"""Batches of clean pairs with simulated degradations, and of real degraded pictures with their references.

A batch is a pure function of (seed, iteration), so a resumed run sees what an uninterrupted one would have seen. Every
picture is decoded once and kept; a batch is degraded in one go.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from cled_edge.errors import DataError
from cled_edge.image import read_image
from training.degradations import Modality, degrade, draw_kinds
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
            self._kept[path] = read_kept(path, modality)
        return self._kept[path]


def read_kept(path: Path, modality: Modality) -> Uint8:
    """Return a picture as uint8 (H, W, 1 or 3)."""
    picture = read_image(path, color=modality == "visible")
    return picture if picture.ndim == 3 else picture[:, :, None]


class RestorationBatches:
    """Stage 1: (degraded, clean), each (N, 3, S, S) float32 in [-1, 1]; the first half infrared, the second visible.

    A visible picture darker than `min_target_luma` is no clean target: it would teach that night stays night.
    A share of the items comes from real degraded pictures with a reference.
    """

    def __init__(self, root: Path, recipe: DataRecipe, batch: int, crop: int, seed: int) -> None:
        self.recipe, self.batch, self.crop, self.seed = recipe, batch, crop, seed
        self.pictures = _Pictures()
        pairs = find_pairs(root, recipe.pairs, held_out=False)
        self.clean: dict[Modality, list[Path]] = {
            "infrared": [p.infrared for p in pairs],
            "visible": [p.visible for p in pairs if is_bright(self.pictures(p.visible, "visible"), recipe)],
        }
        if not self.clean["visible"]:
            raise DataError(
                f"{root}: no visible picture has a mean of {recipe.min_target_luma} or more, in [0, 1]; add daylight "
                "pictures, or lower min_target_luma in the recipe"
            )
        self.references: dict[Modality, list[tuple[Path, Path]]] = {"infrared": [], "visible": []}
        for entry in recipe.references:
            degraded, reference = _by_stem(root / entry.degraded), _by_stem(root / entry.reference)
            stems = sorted(s for s in degraded.keys() & reference.keys() if not is_held_out(s))
            self.references[entry.modality] += [(degraded[s], reference[s]) for s in stems]

    def __call__(self, iteration: int) -> list[Tensor]:
        """Return the batch of an iteration."""
        rng = np.random.default_rng((self.seed, iteration))
        generator = Generator().manual_seed(int(rng.integers(2**62)))
        halves = [self._half(modality, rng, generator) for modality in ("infrared", "visible")]
        return [torch.cat(parts) for parts in zip(*halves, strict=True)]

    def _half(self, modality: Modality, rng: np.random.Generator, generator: Generator) -> tuple[Tensor, Tensor]:
        clean, real = [], {}
        for index in range(self.batch // 2):
            references = self.references[modality]
            if references and rng.random() < self.recipe.reference_share:
                paths = references[rng.integers(len(references))]
                real[index], target = random_crop([self.pictures(p, modality) for p in paths], self.crop, rng)
            else:
                path = self.clean[modality][rng.integers(len(self.clean[modality]))]
                (target,) = random_crop([self.pictures(path, modality)], self.crop, rng)
            clean.append(target)
        targets = unit_pictures(clean)
        kinds = [draw_kinds(modality, generator, self.recipe.clean_share, self.recipe.mixed_share) for _ in clean]
        degraded = degrade(targets, modality, kinds, generator)
        for index, picture in real.items():
            degraded[index] = unit_pictures([picture])[0]
        return network_pictures(degraded), network_pictures(targets)


class FusionBatches:
    """Stage 2: (infrared, clean infrared, visible, clean visible), each (N, 3, S, S) float32 in [-1, 1]."""

    def __init__(self, root: Path, recipe: DataRecipe, batch: int, crop: int, seed: int) -> None:
        self.recipe, self.batch, self.crop, self.seed = recipe, batch, crop, seed
        self.pictures = _Pictures()
        self.pairs = find_pairs(root, recipe.pairs, held_out=False)

    def __call__(self, iteration: int) -> list[Tensor]:
        """Return the batch of an iteration."""
        rng = np.random.default_rng((self.seed, iteration))
        generator = Generator().manual_seed(int(rng.integers(2**62)))
        crops = []
        for _ in range(self.batch):
            pair = self.pairs[rng.integers(len(self.pairs))]
            halves = [self.pictures(pair.infrared, "infrared"), self.pictures(pair.visible, "visible")]
            crops.append(random_crop(halves, self.crop, rng))
        out = []
        modalities: tuple[Modality, Modality] = ("infrared", "visible")
        for modality, half in zip(modalities, zip(*crops, strict=True), strict=True):
            clean = unit_pictures(half)
            share = self.recipe.clean_share, self.recipe.mixed_share
            kinds = [draw_kinds(modality, generator, *share) for _ in half]
            out += [network_pictures(degrade(clean, modality, kinds, generator)), network_pictures(clean)]
        return out


def is_bright(picture: Uint8, recipe: DataRecipe) -> bool:
    """Return whether a visible picture is light enough to be a target."""
    return float(picture.mean()) >= 255 * recipe.min_target_luma


def random_crop(pictures: list[Uint8], side: int, rng: np.random.Generator) -> list[Uint8]:
    """Cut the same square of 1 to 2.5 times `side` from each, scale it to (side, side, C), mirror half of them."""
    height, width = pictures[0].shape[:2]
    largest = min(height, width, int(2.5 * side))
    size = int(rng.integers(min(side, largest), largest + 1)) if rng.random() < 0.5 else min(side, largest)
    top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    mirror = rng.random() < 0.5
    crops = []
    for picture in pictures:
        crop: NDArray[Any] = picture[top : top + size, left : left + size]
        if size != side:
            crop = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1)
        crops.append(crop[:, ::-1] if mirror else crop)
    return crops


def unit_pictures(pictures: Sequence[Uint8]) -> Tensor:
    """Return (N, C, H, W) float32 in [0, 1] of N uint8 (H, W, C)."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().float().div_(255)


def network_pictures(x: Tensor) -> Tensor:
    """Return (N, 3, H, W) in [-1, 1] of (N, 1 or 3, H, W) in [0, 1]; one channel is repeated."""
    return x.expand(-1, 3, -1, -1) * 2 - 1
