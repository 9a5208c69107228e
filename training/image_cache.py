"""The decoded images of a training set: each decoded once, kept as bytes up to a limit, checked in one pass."""

import logging
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from tqdm import tqdm

from cled_edge.errors import CledEdgeError, DataError
from cled_edge.image import Uint8, read_image
from training.degradations import Modality

log = logging.getLogger("training")
Member = tuple[Path, Modality]
GIB = 2**30


@dataclass(frozen=True)
class Facts:
    """What is known of an image once it has been decoded. mean: of its bytes, 0 to 255. checksum: CRC-32 of them."""

    size: tuple[int, int]
    mean: float
    checksum: int


class ImageCache:
    """Decoded images, uint8 (H, W, 1 or 3), shared by threads.

    They are kept first come, first served, and for good: all are drawn equally often, so none deserves another's place.
    """

    def __init__(self, keep_gib: float) -> None:
        self.limit_bytes = int(keep_gib * GIB)
        self.kept_bytes = 0
        self.decoded = 0
        self._kept: dict[Member, Uint8] = {}
        self._facts: dict[Member, Facts] = {}
        self._is_full = False
        self._lock = Lock()

    def __call__(self, path: Path, modality: Modality) -> Uint8:
        """Return an image, read-only; the errors of `read_image` if it cannot be decoded."""
        kept = self._kept.get((path, modality))
        return kept if kept is not None else self._decoded((path, modality))

    def facts(self, path: Path, modality: Modality) -> Facts:
        """Return what is known of an image, decoding it only if that has never been done."""
        if (path, modality) not in self._facts:
            self._decoded((path, modality))
        return self._facts[path, modality]

    def _decoded(self, member: Member) -> Uint8:
        image = read_with_channels(*member)
        image.flags.writeable = False
        if member not in self._facts:
            height_px, width_px, _ = image.shape
            self._facts[member] = Facts((height_px, width_px), float(image.mean()), zlib.crc32(image.tobytes()))
        with self._lock:
            self.decoded += 1
            if member not in self._kept:
                self._keep(member, image)
        return image

    def _keep(self, member: Member, image: Uint8) -> None:
        if self.kept_bytes + image.nbytes <= self.limit_bytes:
            self._kept[member] = image
            self.kept_bytes += image.nbytes
        elif not self._is_full:
            self._is_full = True
            log.info(
                "%d images fill the %.2f GiB of keep_gib; the others are decoded at each use",
                len(self._kept),
                self.limit_bytes / GIB,
            )


def read_with_channels(path: Path, modality: Modality) -> Uint8:
    """Return an image as uint8 (H, W, 1 or 3)."""
    image = read_image(path, color=modality == "visible")
    return image if image.ndim == 3 else image[:, :, None]


def readable(groups: Sequence[Sequence[Member]], images: ImageCache, strict: bool, what: str) -> list[bool]:
    """Decode every image once, by threads, and return which groups can be used.

    An image that cannot be decoded is named in the log, and in the end the groups that are left out are counted, as
    `what`; with `strict` it is a DataError. Images of one group that differ in size are a DataError in any case: then
    the set is not what the recipe says.
    """
    usable = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = pool.map(lambda group: _fault(group, images), groups)
        for message in tqdm(faults, "reading images", len(groups), leave=False, mininterval=1, disable=None):
            if message and strict:
                pool.shutdown(wait=False, cancel_futures=True)
                raise DataError(f"{message}; mend or remove it, or train without strict reading to skip it")
            if message:
                log.warning("skipped: %s", message)
            usable.append(not message)
    log.info("%s: %d read, %d skipped", what, sum(usable), len(usable) - sum(usable))
    return usable


def _fault(group: Sequence[Member], images: ImageCache) -> str:
    """Return why a group cannot be used, empty if it can; DataError if its images differ in size."""
    sizes = []
    for path, modality in group:
        try:
            sizes.append(images.facts(path, modality).size)
        except CledEdgeError as error:  # a refusal of a depth or a shape does not know the path
            return str(error) if str(path) in str(error) else f"{path}: {error}"
        if sizes[-1] != sizes[0]:
            raise DataError(
                f"{path} is {_shown(sizes[-1])}, {group[0][0]} is {_shown(sizes[0])}; the images of a pair must "
                "have one size; register and crop them, or remove them"
            )
    return ""


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
