"""The images that quality is measured on: pairs on disk that training never saw, by day and night, and people."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import luma_of
from benchmarks.coco import read_labels
from cled_edge.data.datasets import DataSet, pairs_of_set
from cled_edge.data.split import NAMED_PATIENTS, is_held_out
from cled_edge.decoder import IMAGE_SUFFIXES
from cled_edge.errors import DataError
from cled_edge.image import Uint8, grey_from_any, read_image, rgb_from_any
from cled_edge.pairing import open_pair, pair_by_stem

PERSON = 0  # class of the labels
NIGHT_BELOW = 56.0  # mean luma of a visible image, of 255
LONGEST_SIDE = 640  # larger images are scaled down to it, for time
SMOKE_EVERY = 30  # frames
WARMER_BY, WARMEST_BY = 40, 90  # 8-bit levels above the still background: all of a person, and the warmest tenth
PERSON_AREA = 500, 40_000  # pixels at 480x640


class Box(NamedTuple):
    """A rectangle in pixels; bottom and right are outside it."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Scene:
    """A decoded pair: infrared (H, W) and visible RGB (H, W, 3), uint8."""

    folder: str
    stem: str
    infrared: Uint8
    visible: Uint8

    @property
    def light(self) -> str:
        """Return `day` or `night`, by the mean luma of the visible image."""
        return "night" if float(luma_of(self.visible).mean()) < NIGHT_BELOW else "day"

    @property
    def seed(self) -> tuple[int, ...]:
        """Return what its degradations are drawn from: its name, so that they never change."""
        return (zlib.crc32(f"{self.folder}/{self.stem}".encode()),)


def find_pairs(root: Path, folder: str, count: int, everything: bool) -> list[tuple[str, Path, Path]]:
    """Return (stem, infrared, visible) of a folder's held-out pairs, at most `count`, spread evenly over their names.

    The folder holds `infrared` and `visible`. A medical one, such as medical/ct-mri, holds `mri` and the other scan;
    its patients are held out as a whole. A folder without them is a DataError.
    """
    entry, named = DataSet(root=folder), NAMED_PATIENTS.get(Path(folder).name, ())
    if (root / folder / "mri").is_dir():
        parent, _, name = folder.rpartition("/")
        entry = DataSet(layout="harvard", root=parent, part=name.partition("-")[0])
    pairs = [pair for pair in pairs_of_set(root, entry) if everything or is_held_out(pair.unit, named)]
    return spread([(pair.infrared.stem, pair.infrared, pair.visible) for pair in pairs], count)


def read_scenes(root: Path, folder: str, count: int, everything: bool = False) -> Iterator[Scene]:
    """Read the pairs of `find_pairs`, one at a time, scaled to LONGEST_SIDE if larger."""
    for stem, infrared, visible in find_pairs(root, folder, count, everything):
        yield read_scene(folder, stem, infrared, visible)


def read_scene(folder: str, stem: str, infrared: Path, visible: Path) -> Scene:
    """Read a pair, scaled to LONGEST_SIDE if larger; images of unequal size are a DataError."""
    images = read_image(infrared, color=False), read_image(visible, color=True)
    if images[0].shape != images[1].shape[:2]:
        raise DataError(f"{infrared} is {images[0].shape}, its visible image {images[1].shape[:2]}; resize one")
    return Scene(folder, stem, *(_scaled(image) for image in images))


def read_references(root: Path, folder: str, everything: bool) -> Iterator[tuple[str, Uint8, Uint8]]:
    """Read (name, degraded, reference) of real degraded images, RGB or grey.

    LOL has `low` and `high`, visible only; DRMF `degraded` and `reference`, each with both modalities.
    """
    where = root / folder
    sides = [(where / "low", where / "high", "visible")]
    if (where / "degraded").is_dir():
        sides = [(where / "degraded" / name, where / "reference" / name, name) for name in ("infrared", "visible")]
    for degraded, reference, modality in sides:
        color = modality == "visible"
        for stem, before, after in pair_by_stem(_images(degraded), _images(reference)):
            if everything or is_held_out(stem):
                yield f"{modality} {stem}", _scaled(read_image(before, color)), _scaled(read_image(after, color))


def labelled_people(root: Path, folder: str) -> Iterator[tuple[Scene, list[Box]]]:
    """Read the pairs of a folder that has `labels`, with the boxes of the people in them, those without left out."""
    labels, _ = read_labels(root / folder / "labels")
    for stem, found in labels.items():
        people = found.boxes[found.classes == PERSON]
        paths = [next((root / folder / name).glob(f"{stem}.*"), None) for name in ("infrared", "visible")]
        if not len(people) or paths[0] is None or paths[1] is None:
            continue
        infrared, visible = read_image(paths[0], color=False), read_image(paths[1], color=True)
        height, width = infrared.shape
        edges = np.rint(people * (width, height, width, height)).astype(int)
        yield Scene(folder, stem, infrared, visible), [Box(y1, x1, y2, x2) for x1, y1, x2, y2 in edges.tolist()]


def smoke_frames(clip: Path) -> list[tuple[Scene, list[Box]]]:
    """Return every SMOKE_EVERYth frame of a clip of a still camera, with boxes of the warm people found in it.

    A person is a blob that is WARMER_BY levels above the median of these infrared frames, of PERSON_AREA pixels and at
    least as high as wide; what is always warm, such as a window, is not one.
    """
    scenes = []
    with open_pair(str(clip / "infrared.mp4"), str(clip / "visible.mp4")) as source:
        for index, pair in enumerate(source):
            if index % SMOKE_EVERY == 0:
                infrared = grey_from_any(pair.infrared.image, pair.infrared.color_order)
                visible = rgb_from_any(pair.visible.image, pair.visible.color_order)
                scenes.append(Scene(clip.name, pair.name, infrared, visible))
    still = np.median([scene.infrared for scene in scenes], axis=0)
    return [(scene, warm_blobs(scene.infrared, still)) for scene in scenes]


def warm_blobs(infrared: Uint8, still: NDArray[Any]) -> list[Box]:
    """Return the boxes of upright blobs that are warmer than the still background, (H, W) both."""
    # A hot window moves a little as the camera is touched: its warmth counts for the still surround too.
    still = cv2.dilate(still.astype(np.float32), np.ones((31, 31), np.uint8))
    above = infrared.astype(np.float32) - still
    # A jacket hides the warmth of a chest: close the gap between head and legs.
    warm = cv2.morphologyEx((above > WARMER_BY).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((45, 5), np.uint8))
    scale = infrared.size / (480 * 640)
    boxes = []
    for left, top, width, height, area in cv2.connectedComponentsWithStats(warm)[2][1:]:
        part = above[top : top + height, left : left + width]
        warmest = np.percentile(part[part > WARMER_BY], 90) if (part > WARMER_BY).any() else 0
        if PERSON_AREA[0] <= area / scale <= PERSON_AREA[1] and height >= width and warmest > WARMEST_BY:
            boxes.append(Box(int(top), int(left), int(top + height), int(left + width)))
    return boxes


def contrast(luma: Uint8, box: Box) -> float:
    """Return by how many levels the mean of a box is above that of a ring around it, as wide as a third of the box."""
    margins = (box.bottom - box.top) // 3 + 2, (box.right - box.left) // 3 + 2
    outer = luma[
        max(box.top - margins[0], 0) : box.bottom + margins[0], max(box.left - margins[1], 0) : box.right + margins[1]
    ].astype(np.float64)
    inner = luma[box.top : box.bottom, box.left : box.right].astype(np.float64)
    ring_area = outer.size - inner.size
    return float(inner.mean() - (outer.sum() - inner.sum()) / ring_area) if ring_area and inner.size else 0.0


def spread(items: list[Any], count: int) -> list[Any]:
    """Return `count` of the items, evenly spread; all if there are fewer, or count is 0."""
    if not 0 < count < len(items):
        return items
    return [items[int(k)] for k in np.linspace(0, len(items) - 1, count).round()]


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; check --data")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _scaled(image: Uint8) -> Uint8:
    height, width = image.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = round(width * scale), round(height * scale)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
