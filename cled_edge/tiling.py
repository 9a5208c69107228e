"""Images larger than a camera's, fused tile by tile: the tiles overlap, are brought to one tone and blended.

The networks steer by means over all that they see, so that a tile alone may come out 140 of 255 levels brighter than in
the whole image (benchmarks/tiling.py at the tag studies-2026-11). No overlap hides that. The whole image, reduced
until it fits one tile, is therefore fused first, and tells every tile its tone: around each reduced pixel, a gain and
an offset.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.areas import Areas
from cled_edge.contract import Controls
from cled_edge.errors import OptionError
from cled_edge.frame import Frame, FusedFrame
from cled_edge.fuser import Fuser
from cled_edge.image import Float32, Uint8, grey_from_any
from cled_edge.light import Moment
from cled_edge.memory import Memory
from cled_edge.size import padded, parse_size, size_text
from cled_edge.tensors import check_maps, maps_of, start_noise
from cled_edge.thermal import WHITE_HOT

OVERLAP_PX = 128
_REACH = 16  # reduced pixels on each side of one that tell its gain and offset
_FLAT = 30.0  # variance, in 8-bit levels squared, below which there is little to tell a gain from
_MAX_GAIN = 4.0
_SHRUNK_ROWS = 64  # made at a time


@dataclass(frozen=True)
class Tiling:
    """How images are cut: tiles of one size, (height, width), of which neighbours share `overlap_px` or more.

    Both are multiples of the bundle's size multiple, which `check` refuses otherwise.
    """

    tile: tuple[int, int]
    overlap_px: int = OVERLAP_PX

    def __post_init__(self) -> None:
        """Refuse a tile smaller than twice the overlap, with an OptionError."""
        if self.overlap_px < 1:
            raise OptionError(f"overlap_px is {self.overlap_px}; it must be 1 or more")
        if min(self.tile) < 2 * self.overlap_px:
            raise OptionError(
                f"tile {self} has a side below twice the overlap of {self.overlap_px} pixels; take a larger one"
            )

    @classmethod
    def parse(cls, text: str) -> "Tiling":
        """Return the tiling of `HEIGHTxWIDTH`; anything else is an OptionError."""
        return cls(parse_size(text, "tile"))

    def __str__(self) -> str:
        return size_text(self.tile)

    def check(self, multiple: int) -> None:
        """Raise OptionError unless the tile's sides and the overlap are multiples of `multiple`."""
        if any(side % multiple for side in self.tile):
            nearest = size_text(padded(self.tile, multiple))
            raise OptionError(f"tile is {self}; this bundle needs multiples of {multiple}; take {nearest}")
        if self.overlap_px % multiple:
            raise OptionError(f"overlap_px is {self.overlap_px}; this bundle needs a multiple of {multiple}")


def fuse_tiled(
    fuser: Fuser,
    infrared: NDArray[Any] | Frame,
    visible: NDArray[Any] | Frame,
    controls: Controls | None,
    tiling: Tiling,
    *,
    strength_map: Uint8 | None = None,
    validity: Uint8 | None = None,
    attention: Float32 | None = None,
    areas: Areas | None = None,
    memory: Memory | None = None,
    moment: Moment | None = None,
) -> FusedFrame:
    """Fuse a pair of equal height and width tile by tile; the same as `fuser` of it, if it fits one tile.

    Images, maps, areas and moment as `Fuser.__call__` takes them; of the memory the light alone. Beside them and the
    result, the process holds the networks' memory for one tile, one row of tiles in float32, and an image of 16 bit
    once more in 8. Start noise is drawn for the whole image, 16 bytes a pixel, and cut as the tiles are. The latency
    of a stage is its sum over all tiles and the reduced image; `output` has the blending. OptionError if the tiling
    does not fit the bundle, if even reduced by the bundle's size multiple the image would not fit one tile, or for a
    steadiness.
    """
    tiling.check(fuser.bundle.manifest.size_multiple)
    if controls is not None and controls.steadiness:
        raise OptionError(
            f"steadiness is {controls.steadiness:g}, but each tile is fused for itself; leave it at 0, or fuse "
            "without tiles"
        )
    return fuser(
        infrared,
        visible,
        controls,
        strength_map=strength_map,
        validity=validity,
        attention=attention,
        areas=areas,
        memory=memory,
        moment=moment,
        way=partial(_in_tiles, fuser, tiling),
    )


def _in_tiles(
    fuser: Fuser,
    tiling: Tiling,
    infrared: NDArray[Any],
    visible: NDArray[Any],
    controls: Controls,
    strength_map: Uint8 | None,
) -> FusedFrame:
    """Fuse images as `Fuser.fuse` does, tile by tile."""
    multiple = fuser.bundle.manifest.size_multiple
    size = infrared.shape[0], infrared.shape[1]
    rows, columns = (
        Axis.cut(side, tile, tiling.overlap_px, multiple) for side, tile in zip(size, tiling.tile, strict=True)
    )
    if len(rows.starts) == len(columns.starts) == 1:
        return fuser.fuse(infrared, visible, controls, strength_map)
    check_maps(maps_of(strength_map), size)
    stages_ns: Counter[str] = Counter()
    factor = reduction(size, tiling, multiple)
    with _timed(stages_ns, "prepare"):
        # 16 bit is stretched by what the whole image holds.
        infrared = grey_from_any(infrared, fuser.color_order, fuser.thermal)
        reduced = shrunk(infrared, factor), shrunk(visible, factor)
    if controls.deadline_ms is not None:  # of the whole image: each part gets its share
        parts = 1 + len(rows.starts) * len(columns.starts)
        controls = replace(controls, deadline_ms=max(1.0, controls.deadline_ms / parts))
    noise = start_noise(controls, size)
    plain = fuser.with_thermal(WHITE_HOT)  # what is grey already stays so
    coarse = None if noise is None else _coarse(noise, factor)
    whole = plain.fuse(*reduced, controls, None if strength_map is None else shrunk(strength_map, factor), coarse)
    stages_ns.update(whole.latency_ns)
    images = np.empty((*size, 3), np.uint8), np.empty(size, np.uint8), np.empty((*size, 3), np.uint8)
    uncertainty = None if whole.uncertainty is None else np.empty((*size, 2), np.float32)
    band, told = _Band(rows.tile_px, images if uncertainty is None else (*images, uncertainty)), []
    for row, top in enumerate(rows.starts):
        for column, left in enumerate(columns.starts):
            place = rows.slice(row), columns.slice(column)
            fused = plain.fuse(
                infrared[place], visible[place], controls, _part(strength_map, place), _tile_noise(noise, place)
            )
            stages_ns.update(fused.latency_ns)
            told.append(fused.kinds)
            with _timed(stages_ns, "output"):
                weight = rows.weights[row, place[0], None] * columns.weights[column, None, place[1]]
                for index, (image, tone) in enumerate(zip(_images(fused), _images(whole), strict=True)):
                    band.add(index, place[1], toned(image, tone[top // factor :, left // factor :], factor), weight)
                if fused.uncertainty is not None:
                    band.add(len(images), place[1], fused.uncertainty.transpose(1, 2, 0).copy(), weight)
        with _timed(stages_ns, "output"):
            band.leave(rows.starts[row + 1] if row + 1 < len(rows.starts) else rows.side_px)
    # Of the tiles, which have the pixels as they came; what a reduced image shows of noise is another.
    known = [each for each in told if each is not None]
    kinds = np.asarray(np.mean(known, axis=0), np.float32) if known else None
    fused = FusedFrame(*images, whole.controls, whole.color_order, stages_ns, kinds=kinds)
    if uncertainty is None:
        return fused
    return replace(fused, uncertainty=np.ascontiguousarray(uncertainty.transpose(2, 0, 1)))


@contextmanager
def _timed(stages_ns: Counter[str], stage: str) -> Iterator[None]:
    """Add what is done inside to the time of a stage."""
    start_ns = time.perf_counter_ns()
    yield
    stages_ns[stage] += time.perf_counter_ns() - start_ns


def _part(image: NDArray[Any] | None, place: tuple[slice, slice]) -> NDArray[Any] | None:
    return None if image is None else np.ascontiguousarray(image[place])


def _tile_noise(noise: Float32 | None, place: tuple[slice, slice]) -> Float32 | None:
    """Return what of an image's noise lies in a tile, but its first pixel: the whole image's number, in every tile."""
    part = _part(noise, place)
    if part is not None and noise is not None:
        part = part.copy()
        part[0, 0] = noise[0, 0]
    return part


def _coarse(noise: Float32, factor: int) -> Float32:
    """Return the noise of the reduced image: of the same variance at a pixel, as a square's mean has less."""
    coarse = shrunk(noise, factor) * np.float32(factor)
    coarse[0, 0] = noise[0, 0]
    return np.asarray(coarse, np.float32)


def _images(fused: FusedFrame) -> tuple[Uint8, Uint8, Uint8]:
    return fused.picture, fused.infrared, fused.visible


def reduction(size: tuple[int, int], tiling: Tiling, multiple: int) -> int:
    """Return by how much to reduce an image to fit one tile: a divisor of `multiple`, on which all tiles start."""
    for factor in range(1, multiple + 1):
        if multiple % factor == 0 and all(a <= b * factor for a, b in zip(size, tiling.tile, strict=True)):
            return factor
    least = "{}x{}".format(*(max(2 * tiling.overlap_px, -(-side // multiple**2) * multiple) for side in size))
    raise OptionError(f"tile {tiling} is too small for an image of {size[0]}x{size[1]}; take {least} or larger")


@dataclass(frozen=True)
class Axis:
    """Where the tiles lie along one side of an image, and how much of each is seen there.

    starts: multiples of the bundle's, so that a tile's patches are those of the whole image. The last tile is shifted
    to end with the image, or beyond it by less than a multiple: the fuser pads it there, as it does whole images.
    weights: (tiles, side_px) in [0, 1]; their sum over the tiles is 1 at every pixel.
    """

    side_px: int
    tile_px: int
    starts: tuple[int, ...]
    weights: Float32

    @classmethod
    def cut(cls, side_px: int, tile_px: int, overlap_px: int, multiple: int) -> "Axis":
        """Return the fewest tiles that cover the side and overlap so much; tile and overlap are in multiples."""
        apart, padded = tile_px - overlap_px, side_px + -side_px % multiple
        tile_px = min(tile_px, padded)
        last = padded - tile_px
        starts = (*range(0, last, apart), last)
        return cls(side_px, tile_px, starts, _weights(side_px, tile_px, starts))

    def slice(self, index: int) -> slice:
        """Return the pixels of a tile that lie in the image."""
        return slice(self.starts[index], min(self.starts[index] + self.tile_px, self.side_px))


def _weights(side_px: int, tile_px: int, starts: Sequence[int]) -> Float32:
    """Return raised cosines over the whole of each overlap: what a tile takes of a pixel, the next one's ramp gives."""
    centres = np.arange(side_px) + 0.5
    ramps = [np.ones(side_px)]
    for before, start in pairwise(starts):
        share = np.clip((centres - start) / (before + tile_px - start), 0, 1)
        ramps.append(0.5 - 0.5 * np.cos(np.pi * share))
    ramps.append(np.zeros(side_px))
    return -np.diff(ramps, axis=0).astype(np.float32)


class _Band:
    """The rows in work: sums of weighted tiles in float32, which leave for the result; bytes are rounded once."""

    def __init__(self, height_px: int, results: Sequence[NDArray[Any]]) -> None:
        self._results = results
        self._sums = [np.zeros((height_px, *result.shape[1:]), np.float32) for result in results]
        self._top = 0

    def add(self, index: int, columns: slice, image: Float32, weight: Float32) -> None:
        """Add an image of a tile, which begins at the band's first row, to the result of that index; spoils it."""
        image *= weight[:, :, None] if image.ndim == 3 else weight
        self._sums[index][: len(image), columns] += image

    def leave(self, until: int) -> None:
        """Give the rows above `until` to the results; the band begins there then."""
        count = until - self._top
        for result, total in zip(self._results, self._sums, strict=True):
            if result.dtype == np.uint8:
                np.rint(total[:count], out=total[:count])
            result[self._top : until] = total[:count]
            total[:-count] = total[count:]
            total[-count:] = 0
        self._top = until


def shrunk(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Return means over squares of `factor` pixels, of bytes rounded; what is left at the bottom and right has no part.

    (H, W) or (H, W, C) becomes (H // factor, W // factor), or 1 where a side is shorter than the factor.
    """
    height, width = (side // factor for side in image.shape[:2])
    used = image[: height * factor or None, : width * factor or None]
    reduced = np.empty((max(height, 1), max(width, 1), *image.shape[2:]), image.dtype)
    for top in range(0, len(reduced), _SHRUNK_ROWS):
        # In bands: OpenCV copies what is not contiguous in memory.
        out = reduced[top : top + _SHRUNK_ROWS]
        band = used[top * factor : (top + _SHRUNK_ROWS) * factor]
        out[:] = cv2.resize(band, out.shape[1::-1], interpolation=cv2.INTER_AREA).reshape(out.shape)
    return reduced


def toned(image: Uint8, tone: Uint8, factor: int) -> Float32:
    """Return a tile in the tone of the whole image, float32 in [0, 255], same shape.

    `tone` is the whole image, reduced by `factor`, from where the tile begins. As in a guided filter, each
    surrounding of 33x33 reduced pixels gives the gain and the offset that bring the tile, reduced alike, nearest to it.
    """
    small = shrunk(image, factor)
    gain, offset = _gain_and_offset(small, tone[: small.shape[0], : small.shape[1]])
    result = _grown(gain, image, factor)
    result *= image
    result += _grown(offset, image, factor)
    return np.clip(result, 0, 255, out=result)


def _gain_and_offset(small: Uint8, wanted: Uint8) -> tuple[Float32, Float32]:
    x, y = small.astype(np.float32), wanted.astype(np.float32)
    mean_x, mean_y = _around(x), _around(y)
    variance, covariance = _around(x * x) - mean_x * mean_x, _around(x * y) - mean_x * mean_y
    gain: Float32 = np.clip((covariance + _FLAT) / (variance + _FLAT), 1 / _MAX_GAIN, _MAX_GAIN)
    return _around(gain), _around(mean_y - gain * mean_x)


def _around(x: Float32) -> Float32:
    side = 2 * _REACH + 1
    return np.asarray(cv2.blur(x, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)


def _grown(x: Float32, image: Uint8, factor: int) -> Float32:
    """Return what `shrunk` reduced at the size of `image` again, linear in between."""
    height, width = image.shape[:2]
    rows, columns = (side // factor * factor or side for side in (height, width))
    grown = cv2.resize(x, (columns, rows), interpolation=cv2.INTER_LINEAR)
    if (rows, columns) != (height, width):
        grown = cv2.copyMakeBorder(grown, 0, height - rows, 0, width - columns, cv2.BORDER_REPLICATE)
    return np.asarray(grown, np.float32)
