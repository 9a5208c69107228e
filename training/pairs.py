"""Batches of clean pairs with simulated degradations, and of real degraded images with their references.

An item is a pure function of (seed, iteration, place in the batch). So a resumed run sees what an uninterrupted one
would have seen, threads may build several batches at once, and processes their parts of one. Degrading items one by one
costs no more than a batch in one go: what one needs fits into the cache.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Generic

import numpy as np
import torch
from torch import Generator, Tensor

from cled_edge.data.datasets import DataSet, Pair, find_pairs, pairs_of_set
from cled_edge.data.split import Part, part_of
from cled_edge.errors import DataError
from training.batches import Fields, FusionBatch, RestorationBatch, each
from training.crops import monochrome, random_crop, tinted, unit_images, within_border
from training.degradations import EXPOSURES, MODALITIES, Modality, degrade, draw_kinds
from training.image_cache import ImageCache, Member, readable
from training.lit import lit_night, lit_reference
from training.recipe import DataRecipe, ReferenceRecipe


def readable_pairs(pairs: Sequence[Pair], images: ImageCache, strict: bool = False) -> list[Pair]:
    """Return the pairs whose images can all be decoded; the others are named in the log, or refused if `strict`."""
    usable = readable([_members(pair) for pair in pairs], images, strict, "pairs")
    kept = [pair for pair, is_usable in zip(pairs, usable, strict=True) if is_usable]
    if not kept:
        raise DataError(f"none of {len(pairs)} pairs can be read, the first is {pairs[0].infrared}; mend the images")
    return kept


def _members(pair: Pair) -> tuple[Member, ...]:
    """Return the images of a pair, each once."""
    members = [(path, modality) for modality in MODALITIES for path in _with_reference(pair, modality)]
    return tuple(dict.fromkeys(members))


def _with_reference(pair: Pair, modality: Modality) -> tuple[Path, Path]:
    """Return a pair's image of a modality and its clean reference."""
    if modality == "infrared":
        return pair.infrared, pair.infrared_clean
    return pair.visible, pair.visible_clean


class _Batches(Generic[Fields]):
    """What both stages share: the readable pairs, their images, and items one by one.

    strict: an image that cannot be decoded is a DataError instead of a line in the log.
    images: those of the other stage, so that each is decoded once for both.
    rank: of this process among those that share a batch; it makes the items from `rank * batch` on.
    holds: whether items are held, as the recipe says, for the network that learns; else each has its clean image.
    """

    def __init__(
        self,
        root: Path,
        recipe: DataRecipe,
        batch: int,
        crop: int,
        seed: int,
        *,
        strict: bool = False,
        images: ImageCache | None = None,
        rank: int = 0,
        part: Part = "train",
        holds: bool = False,
    ) -> None:
        self.root, self.recipe, self.batch, self.crop, self.seed, self.rank = root, recipe, batch, crop, seed, rank
        self.part, self.held = part, frozenset(recipe.held if holds else ())
        self.strict = strict
        self.images = images or ImageCache(recipe.keep_gib)
        pairs = readable_pairs(find_pairs(root, recipe.all_sets, part), self.images, strict)
        self.pairs = [self._without_repeats(pair) for pair in pairs]
        self._prepare()

    def _prepare(self) -> None:
        """Look further into the pairs."""

    def _without_repeats(self, pair: Pair) -> Pair:
        """Drop a reference of the same bytes as its image: EMS repeats the modality that it has not degraded."""
        same = {
            modality: len({self.images.facts(path, modality).checksum for path in _with_reference(pair, modality)}) == 1
            for modality in MODALITIES
        }
        return replace(
            pair,
            infrared_clean=pair.infrared if same["infrared"] else pair.infrared_clean,
            visible_clean=pair.visible if same["visible"] else pair.visible_clean,
        )

    def __call__(self, iteration: int) -> Fields:
        """Return the batch of an iteration, images as bytes; to the bit the same on any number of cores.

        Bytes are what a camera gives, and a quarter of what processes, page-locked memory and a GPU would else copy.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums over an image round otherwise, and an item is too small to share out
        try:
            return self._batch(iteration)
        finally:
            torch.set_num_threads(threads)

    def _batch(self, iteration: int) -> Fields:
        first = self._placed(iteration, 0)
        batch = each(first, self._empty)
        for row in range(self.batch):
            item = self._placed(iteration, row) if row else first
            for x, one in zip(batch, item, strict=True):
                x[row] = (one[0] * 255).round_() if one.ndim == 4 else one  # one channel is repeated
        return batch

    def _placed(self, iteration: int, row: int) -> Fields:
        """Return the item of a row, by its place in the whole batch."""
        place = self.rank * self.batch + row
        rng = np.random.default_rng((self.seed, iteration, place))
        return self._item(place + 2 * iteration, rng, Generator().manual_seed(int(rng.integers(2**62))))

    def _empty(self, item: Tensor) -> Tensor:
        """Return what holds a batch of such items."""
        if item.ndim == 4:
            return torch.empty(self.batch, 3, self.crop, self.crop, dtype=torch.uint8)
        return torch.empty(self.batch, *item.shape)

    def _item(self, turn: int, rng: np.random.Generator, generator: Generator) -> Fields:
        """Return the fields of one item: images (1, 1 or 3, S, S) in [0, 1], and vectors.

        turn: its place in the whole batch and two for each iteration before, where modalities or kinds take turns.
        """
        raise NotImplementedError

    def _is_bright(self, path: Path) -> bool:
        return self.recipe.is_bright(self.images.facts(path, "visible").mean)

    def _degraded(
        self, clean: Tensor, modality: Modality, generator: Generator, without: frozenset[str], kind: int | None = None
    ) -> tuple[Tensor, tuple[str, ...]]:
        """Return a clean image, (1, C, S, S) in [0, 1], degraded, and by which kinds; none of them is in `without`.

        kind: the number, however large, of the recipe's kind; None draws none, one or two.
        """
        names = self.recipe.kinds_of(modality)
        if kind is not None:
            kinds: tuple[str, ...] = (names[kind % len(names)],)
        else:
            kinds = draw_kinds(names, generator, self.recipe.clean_share, self.recipe.mixed_share)
        kinds = tuple(kind for kind in kinds if kind not in without)
        return degrade(clean, modality, [kinds], generator), kinds


class RestorationBatches(_Batches[RestorationBatch]):
    """Stage 1: images of both modalities, which take turns.

    A share of the visible items comes from night images, darker than `min_target_luma`: they are clean as they are, a
    night street is dark, so their exposure is left alone. A share of the items comes from real degraded images with a
    reference.
    """

    def _prepare(self) -> None:
        self.clean: dict[Modality, list[Path]] = {
            modality: list(dict.fromkeys(_with_reference(pair, modality)[1] for pair in self.pairs))
            for modality in MODALITIES
        }
        self.night = [path for path in self.clean["visible"] if not self._is_bright(path)]
        self.clean["visible"] = [path for path in self.clean["visible"] if self._is_bright(path)]
        if not self.clean["visible"]:
            raise DataError(
                f"{self.root}: no visible image has a mean of {self.recipe.min_target_luma} or more, in [0, 1]; add "
                "daylight images, or lower min_target_luma in the recipe"
            )
        self.references: dict[Modality, list[tuple[Path, Path]]] = {"infrared": [], "visible": []}
        for entry in self.recipe.references:
            self.references[entry.modality] += self._couples(entry)
        for modality, couples in self.references.items():
            own = [_with_reference(pair, modality) for pair in self.pairs]
            couples += [(path, clean) for path, clean in own if path != clean]

    def _couples(self, entry: ReferenceRecipe) -> list[tuple[Path, Path]]:
        """Return the degraded images and their references that are trained on, paired by stem."""
        folders = DataSet(root="", infrared=entry.degraded, visible=entry.reference)
        found = [(pair.infrared, pair.visible) for pair in pairs_of_set(self.root, folders)]
        couples = [couple for couple in found if part_of(couple[0].stem) == self.part]
        members = [[(path, entry.modality) for path in couple] for couple in couples]
        usable = readable(members, self.images, self.strict, f"references in {entry.degraded}")
        return [couple for couple, is_usable in zip(couples, usable, strict=True) if is_usable]

    def _item(self, turn: int, rng: np.random.Generator, generator: Generator) -> RestorationBatch:
        modality = self.recipe.modalities[turn % len(self.recipe.modalities)]
        references, clean = self.references[modality], self.clean[modality]
        if references and rng.random() < self.recipe.reference_share:
            return self._real(references[rng.integers(len(references))], modality, rng, generator)
        if modality == "visible" and self.night and rng.random() < self.recipe.night_share:
            path, without = self.night[rng.integers(len(self.night))], EXPOSURES
        else:
            path, without = clean[rng.integers(len(clean))], frozenset[str]()
        if modality == "visible" and _drawn(self.recipe.lit_share, rng):
            return self._lit(path, bool(without), rng, generator)
        x = unit_images(random_crop([self.images(path, modality)], self.crop, rng))
        kind = turn // 2 if self.recipe.cycle_kinds else None
        if modality == "infrared" and _drawn(self.recipe.black_hot_share, rng):
            x = 1 - x
        degraded, kinds = self._degraded(x, modality, generator, without, kind)
        held = float(bool(kinds) and self.held.issuperset(kinds))
        if held:
            x = degraded
        if modality == "visible" and _drawn(self.recipe.grey_share, rng):
            degraded, grey = monochrome(degraded), monochrome(x)
            if self.recipe.grey_is_tinted:
                degraded, grey = tinted(degraded, grey)
            x, held = (x, 2.0) if held else (grey, 0.0)
        if _drawn(self.recipe.border_share, rng):
            seen = within_border(x.shape[-1], rng)
            degraded, x = degraded * seen, x * seen
        told = torch.tensor([float(kind in kinds) for kind in self.recipe.kinds])
        return RestorationBatch(degraded, x, told, torch.tensor(held))

    def _real(
        self, paths: tuple[Path, Path], modality: Modality, rng: np.random.Generator, generator: Generator
    ) -> RestorationBatch:
        """Return the item of a real degraded image and its reference."""
        degraded, clean = random_crop([self.images(path, modality) for path in paths], self.crop, rng)
        if modality == "visible" and _drawn(self.recipe.lit_share, rng):
            degraded = lit_reference(degraded, generator)
        return self._unsimulated(unit_images([degraded]), unit_images([clean]))

    def _lit(self, path: Path, is_night: bool, rng: np.random.Generator, generator: Generator) -> RestorationBatch:
        """Return the item of a night that is brightened."""
        x = unit_images(random_crop([self.images(path, "visible")], self.crop, rng))
        return self._unsimulated(*lit_night(x, is_night, generator, self.recipe.min_target_luma))

    def _unsimulated(self, degraded: Tensor, clean: Tensor) -> RestorationBatch:
        """Return the item of an image of which nobody knows the kinds."""
        untold, is_held = torch.full((len(self.recipe.kinds),), math.nan), bool(self.held)
        return RestorationBatch(degraded, degraded if is_held else clean, untold, torch.tensor(float(is_held)))


def _drawn(share: float, rng: np.random.Generator) -> bool:
    """Return whether an item is of a share; a share of 0 draws nothing, so that recipes without it stay as they are."""
    return share > 0 and rng.random() < share


class FusionBatches(_Batches[FusionBatch]):
    """Stage 2: pairs with their clean references.

    An image with a reference of its own comes as it is; the others are degraded, night images in all but exposure.
    """

    def _item(self, turn: int, rng: np.random.Generator, generator: Generator) -> FusionBatch:  # noqa: ARG002
        pair = self.pairs[rng.integers(len(self.pairs))]
        members = _members(pair)
        night = frozenset[str]() if self._is_bright(pair.visible_clean) else EXPOSURES
        crops = dict(zip(members, random_crop([self.images(*m) for m in members], self.crop, rng), strict=True))
        images: dict[Modality, tuple[Tensor, Tensor]] = {}
        for modality in MODALITIES:
            path, reference = _with_reference(pair, modality)
            clean = unit_images([crops[reference, modality]])
            if path != reference:
                degraded = unit_images([crops[path, modality]])
            else:
                degraded, _ = self._degraded(clean, modality, generator, night)
            images[modality] = degraded, clean
        return FusionBatch(*images["infrared"], *images["visible"])
