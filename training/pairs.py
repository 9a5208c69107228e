"""Batches of clean pairs with simulated degradations, and of real degraded pictures with their references.

An item is a pure function of (seed, iteration, place in the batch). So a resumed run sees what an uninterrupted one
would have seen, threads may build several batches at once, and processes their parts of one. Degrading items one by one
costs no more than a batch in one go: what one needs fits into the cache.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from cled_edge.data.datasets import DataSet, Pair, find_pairs, pairs_of_set
from cled_edge.data.split import is_held_out
from cled_edge.errors import CledEdgeError, DataError
from cled_edge.network.unet import KINDS
from training.degradations import EXPOSURES, Modality, degrade, draw_kinds
from training.pictures import Member, Pictures, Uint8, whole
from training.recipe import DataRecipe, ReferenceRecipe

log = logging.getLogger("training")
AHEAD = 2  # batches in preparation per worker
MODALITIES: tuple[Modality, Modality] = ("infrared", "visible")


def whole_pairs(pairs: Sequence[Pair], pictures: Pictures, strict: bool = False) -> list[Pair]:
    """Return the pairs whose pictures can all be decoded; the others are named in the log, or refused if `strict`."""
    usable = whole([_members(pair) for pair in pairs], pictures, strict, "pairs")
    kept = [pair for pair, is_usable in zip(pairs, usable, strict=True) if is_usable]
    if not kept:
        raise DataError(f"none of {len(pairs)} pairs can be read, the first is {pairs[0].infrared}; mend the pictures")
    return kept


def _members(pair: Pair) -> tuple[Member, ...]:
    """Return the pictures of a pair, each once."""
    halves = [(path, modality) for modality in MODALITIES for path in _half_of(pair, modality)]
    return tuple(dict.fromkeys(halves))


def _half_of(pair: Pair, modality: Modality) -> tuple[Path, Path]:
    """Return a half of a pair and its clean reference."""
    if modality == "infrared":
        return pair.infrared, pair.infrared_clean
    return pair.visible, pair.visible_clean


class _Batches:
    """What both stages share: the whole pairs, their pictures, and items one by one.

    strict: a picture that cannot be decoded is a DataError instead of a line in the log.
    pictures: those of the other stage, so that each is decoded once for both.
    rank: of this process among those that share a batch; it makes the items from `rank * batch` on.
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
        pictures: Pictures | None = None,
        rank: int = 0,
    ) -> None:
        self.root, self.recipe, self.batch, self.crop, self.seed, self.rank = root, recipe, batch, crop, seed, rank
        self.strict = strict
        self.pictures = pictures or Pictures(recipe.keep_gib)
        pairs = whole_pairs(find_pairs(root, recipe.all_sets, held_out=False), self.pictures, strict)
        self.pairs = [self._without_repeats(pair) for pair in pairs]
        self._prepare()

    def _prepare(self) -> None:
        """Look further into the pairs."""

    def _without_repeats(self, pair: Pair) -> Pair:
        """Drop a reference of the same bytes as its picture: EMS repeats the half that it has not degraded."""
        same = {
            modality: len({self.pictures.facts(path, modality).checksum for path in _half_of(pair, modality)}) == 1
            for modality in MODALITIES
        }
        return replace(
            pair,
            infrared_clean=pair.infrared if same["infrared"] else pair.infrared_clean,
            visible_clean=pair.visible if same["visible"] else pair.visible_clean,
        )

    def __call__(self, iteration: int) -> list[Tensor]:
        """Return the batch of an iteration, pictures as bytes; to the bit the same on any number of cores.

        Bytes are what a camera gives, and a quarter of what processes, page-locked memory and a GPU would else copy.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums over a picture round otherwise, and an item is too small to share out
        try:
            return self._batch(iteration)
        finally:
            torch.set_num_threads(threads)

    def _batch(self, iteration: int) -> list[Tensor]:
        batch: list[Tensor] = []
        for row in range(self.batch):
            place = self.rank * self.batch + row
            rng = np.random.default_rng((self.seed, iteration, place))
            pictures = self._item(place + 2 * iteration, rng, Generator().manual_seed(int(rng.integers(2**62))))
            batch = batch or [self._empty(item) for item in pictures]
            for x, item in zip(batch, pictures, strict=True):
                x[row] = (item[0] * 255).round_() if item.ndim == 4 else item  # one channel is repeated
        return batch

    def _empty(self, item: Tensor) -> Tensor:
        """Return what holds a batch of such items."""
        if item.ndim == 4:
            return torch.empty(self.batch, 3, self.crop, self.crop, dtype=torch.uint8)
        return torch.empty(self.batch, *item.shape)

    def _item(self, turn: int, rng: np.random.Generator, generator: Generator) -> list[Tensor]:
        """Return the pictures of one item, each (1, 1 or 3, S, S) in [0, 1], and vectors that go with them.

        turn: its place in the whole batch and two for each iteration before, where modalities or kinds take turns.
        """
        raise NotImplementedError

    def _is_bright(self, path: Path) -> bool:
        return self.pictures.facts(path, "visible").mean >= 255 * self.recipe.min_target_luma

    def _degraded(
        self,
        crops: list[Uint8],
        modality: Modality,
        generator: Generator,
        without: frozenset[str],
        kind: int | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Return (degraded, clean) of a crop that comes alone, or degraded and with its reference; and its kinds.

        kind: the number, however large, of the recipe's kind; None draws none, one or two.
        """
        *real, clean = (unit_pictures([crop]) for crop in crops)
        if real:
            return [*real, clean], torch.full((len(KINDS),), math.nan)
        names = self.recipe.kinds_of(modality)
        if kind is not None:
            kinds: tuple[str, ...] = (names[kind % len(names)],)
        else:
            kinds = draw_kinds(names, generator, self.recipe.clean_share, self.recipe.mixed_share)
        kinds = tuple(kind for kind in kinds if kind not in without)
        labels = torch.tensor([float(kind in kinds) for kind in KINDS])
        return [degrade(clean, modality, [kinds], generator), clean], labels


class RestorationBatches(_Batches):
    """Stage 1: (degraded, clean, kinds); infrared and visible take turns.

    degraded, clean: (N, 3, S, S) uint8. kinds: (N, 8), for each of the network's `KINDS` whether it was
    simulated, 1 or 0, or NaN where nobody knows, in a real degraded picture.

    A share of the visible items comes from night pictures, darker than `min_target_luma`: they are clean as they are, a
    night street is dark, so their exposure is left alone. A share of the items comes from real degraded pictures with a
    reference.
    """

    def _prepare(self) -> None:
        self.clean: dict[Modality, list[Path]] = {
            modality: list(dict.fromkeys(_half_of(pair, modality)[1] for pair in self.pairs)) for modality in MODALITIES
        }
        self.night = [path for path in self.clean["visible"] if not self._is_bright(path)]
        self.clean["visible"] = [path for path in self.clean["visible"] if self._is_bright(path)]
        if not self.clean["visible"]:
            raise DataError(
                f"{self.root}: no visible picture has a mean of {self.recipe.min_target_luma} or more, in [0, 1]; add "
                "daylight pictures, or lower min_target_luma in the recipe"
            )
        self.references: dict[Modality, list[tuple[Path, Path]]] = {"infrared": [], "visible": []}
        for entry in self.recipe.references:
            self.references[entry.modality] += self._couples(entry)
        for modality, couples in self.references.items():
            own = [_half_of(pair, modality) for pair in self.pairs]
            couples += [(path, clean) for path, clean in own if path != clean]

    def _couples(self, entry: ReferenceRecipe) -> list[tuple[Path, Path]]:
        """Return the degraded pictures and their references that are trained on, paired by stem."""
        halves = DataSet(root="", infrared=entry.degraded, visible=entry.reference)
        found = [(pair.infrared, pair.visible) for pair in pairs_of_set(self.root, halves)]
        couples = [couple for couple in found if not is_held_out(couple[0].stem)]
        members = [[(path, entry.modality) for path in couple] for couple in couples]
        usable = whole(members, self.pictures, self.strict, f"references in {entry.degraded}")
        return [couple for couple, is_usable in zip(couples, usable, strict=True) if is_usable]

    def _item(self, turn: int, rng: np.random.Generator, generator: Generator) -> list[Tensor]:
        modality = MODALITIES[turn % 2]
        references, clean = self.references[modality], self.clean[modality]
        is_night = False
        if references and rng.random() < self.recipe.reference_share:
            paths: tuple[Path, ...] = references[rng.integers(len(references))]
        elif modality == "visible" and self.night and rng.random() < self.recipe.night_share:
            paths, is_night = (self.night[rng.integers(len(self.night))],), True
        else:
            paths = (clean[rng.integers(len(clean))],)
        crops = random_crop([self.pictures(path, modality) for path in paths], self.crop, rng)
        without = EXPOSURES if is_night else frozenset[str]()
        kind = turn // 2 if self.recipe.cycle_kinds else None
        pictures, kinds = self._degraded(crops, modality, generator, without, kind)
        return [*pictures, kinds]


class FusionBatches(_Batches):
    """Stage 2: (infrared, clean infrared, visible, clean visible), each (N, 3, S, S) uint8.

    A half with a reference of its own comes as it is; the others are degraded, night pictures in all but exposure.
    """

    def _item(self, turn: int, rng: np.random.Generator, generator: Generator) -> list[Tensor]:  # noqa: ARG002
        pair = self.pairs[rng.integers(len(self.pairs))]
        members = _members(pair)
        night = frozenset[str]() if self._is_bright(pair.visible_clean) else EXPOSURES
        crops = random_crop([self.pictures(*member) for member in members], self.crop, rng)
        pictures = []
        for modality in MODALITIES:
            of_half = [crop for crop, member in zip(crops, members, strict=True) if member[1] == modality]
            pictures += self._degraded(of_half, modality, generator, night)[0]
        return pictures


def prepared(
    make: Callable[[int], list[Tensor]], iterations: range, workers: int, pinned: bool = False
) -> Iterator[list[Tensor]]:
    """Yield the batches of iterations in their order, prepared ahead by processes; without workers, when needed.

    Processes and not threads: the many small operations of an item would wait for each other's turn in Python. They
    share the decoded pictures with this one, which is why they are forked. pinned: in memory that a GPU reads directly.
    """
    if not workers:
        yield from map(make, iterations)
        return
    loader = DataLoader(
        _Made(make),
        batch_size=None,
        sampler=iterations,
        num_workers=workers,
        prefetch_factor=AHEAD,
        pin_memory=pinned,
        multiprocessing_context="fork",
        worker_init_fn=_be_one_thread,
    )
    for batch in loader:
        if isinstance(batch, CledEdgeError):
            raise batch
        yield batch


@dataclass(frozen=True)
class _Made(Dataset[list[Tensor] | CledEdgeError]):
    """The batches as torch's loader asks for them, or what went wrong: the loader would add a traceback to it."""

    make: Callable[[int], list[Tensor]]

    def __getitem__(self, iteration: int) -> list[Tensor] | CledEdgeError:
        try:
            return self.make(iteration)
        except CledEdgeError as error:
            return error


def _be_one_thread(worker: int) -> None:  # noqa: ARG001
    """OpenCV's threads of before the fork are no more; torch's loader sees to torch's."""
    cv2.setNumThreads(0)


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
        crop = _scaled(picture[top : top + size, left : left + size], side)
        # cv2.flip takes a tenth of the 0.1 ms of a copy with a negative stride.
        crops.append(np.asarray(cv2.flip(crop, 1), np.uint8).reshape(crop.shape) if mirror else crop)
    return crops


def _scaled(crop: Uint8, side: int) -> Uint8:
    """Scale a square to (side, side, C), by linear interpolation after halving it where a pixel would be left out.

    OpenCV's INTER_AREA takes six times as long at factors that are no integers, for the same to 45 dB (0.4 ms, 4.13).
    """
    size, channels = crop.shape[0], crop.shape[2]
    if size == side:
        return crop
    if size >= 2 * side:
        even = crop[: size // 2 * 2, : size // 2 * 2]
        crop = np.asarray(cv2.resize(even, (size // 2, size // 2), interpolation=cv2.INTER_AREA), np.uint8)
    scaled = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(scaled, np.uint8).reshape(side, side, channels)


def unit_pictures(pictures: Sequence[Uint8]) -> Tensor:
    """Return (N, C, H, W) float32 in [0, 1] of N uint8 (H, W, C)."""
    return torch.from_numpy(np.stack([picture.transpose(2, 0, 1) for picture in pictures])).float().div_(255)


def network_pictures(x: Tensor) -> Tensor:
    """Return (N, 3, H, W) in [-1, 1] of (N, 1 or 3, H, W) in [0, 1]; one channel is repeated."""
    return 2 * x.expand(-1, 3, -1, -1) - 1


def from_bytes(batch: list[Tensor]) -> list[Tensor]:
    """Return a batch with its pictures as float32 in [-1, 1], on the device where they are."""
    return [x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x for x in batch]
