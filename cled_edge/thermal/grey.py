"""Infrared values as 8-bit grey: counts stretched over the band that the scene fills, and which way heat points."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import OptionError
from cled_edge.thermal.bad_pixels import repaired

Polarity = Literal["white-hot", "black-hot"]
FLAT_LEVELS = 2  # grey levels, and counts, between the darkest and the brightest pixel of a flat image
COLORED = (
    "an infrared image is coloured: its luma is taken for heat, which is wrong for a palette such as rainbow; save it "
    "in grey, or as counts"
)
_BAND_ROWS = 256
_EDGE_ROWS = 4  # of an image of 32 rows or more, where cameras put rows of telemetry
_LARGE, _SAMPLED = 100_000, 25_000  # pixels
_STRIPES = 32  # rows from one stripe to the next
_FILL_SHARE = 0.02  # of the pixels along the edge that a value must have to be a fill


@dataclass(frozen=True)
class Thermal:
    """How infrared values become 8-bit grey. OptionError for what is not allowed.

    range_counts: what becomes 0 and what becomes 255, in the camera's counts. None leaves 8 bit as it is, and stretches
        16 bit image by image, see `band_of`.
    polarity: "white-hot" if the camera shows heat bright; "black-hot" is turned over, as the model knows heat bright.
    repair_pixels: whether pixels that stand alone are replaced before, see `cled_edge.thermal.bad_pixels.repaired`.
    """

    range_counts: tuple[float, float] | None = None
    polarity: Polarity = "white-hot"
    repair_pixels: bool = True

    def __post_init__(self) -> None:
        """Check both values."""
        if self.polarity not in get_args(Polarity):
            raise OptionError(f"polarity is {self.polarity!r}; known: {', '.join(get_args(Polarity))}; choose one")
        if self.range_counts is not None:
            low, high = self.range_counts
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise OptionError(
                    f"the infrared range is {low:g} to {high:g} counts; needed a low and a higher value; correct it"
                )

    def __str__(self) -> str:
        """Say what is done, in one line."""
        low, high = self.range_counts or (0, 0)
        scaled = f"{low:g} to {high:g} counts" if self.range_counts else "8 bit as it is, 16 bit stretched"
        mended = "replaced" if self.repair_pixels else "kept"
        return f"{scaled}; bad pixels {mended}; polarity {self.polarity}"

    def grey(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return (H, W) uint8 of (H, W) uint8 or uint16."""
        if self.repair_pixels:
            values = repaired(values)
        if self.range_counts is None and values.dtype == np.uint8:
            grey = np.ascontiguousarray(values, dtype=np.uint8)
        else:
            grey = stretched(values, *(self.range_counts or band_of(values)))
        return self.turned(grey)

    def turned(self, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return grey with heat bright."""
        return grey if self.polarity == "white-hot" else np.bitwise_not(grey)


WHITE_HOT = Thermal(repair_pixels=False)  # of what is mended and grey already, and of images that are no camera's


def is_colored(picture: NDArray[Any]) -> bool:
    """Say whether a tenth of an image's pixels are of a strong colour, as a palette makes them."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype.kind != "u" or not picture.size:
        return False
    sparse = picture[::4, ::4] if picture.size > _LARGE else picture
    spread = sparse.max(axis=2).astype(np.int32) - sparse.min(axis=2)
    return float(np.mean(spread > np.iinfo(picture.dtype).max // 8)) > 0.1


def stretched(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return uint8: 0 at `low` and below, 255 at `high` and above, linear between; all 0 if both are equal."""
    grey = np.empty(values.shape, np.uint8)
    # In bands of rows, so that a large image is not held in float32 as well.
    for top in range(0, len(values), _BAND_ROWS):
        band = values[top : top + _BAND_ROWS].astype(np.float32) - np.float32(low)
        band *= np.float32(255 / (high - low) if high > low else 1)
        grey[top : top + _BAND_ROWS] = np.rint(np.clip(band, 0, 255))
    return grey


def band_of(counts: NDArray[np.uint16]) -> tuple[float, float]:
    """Return the 0.1 and the 99.9 percentile of the scene in an image of raw counts, (H, W) uint16.

    What is no scene does not count: a value that fills an area far from all others, such as the 0 around a warped
    image; the outer rows, which may be telemetry; pixels that stand alone, dead or stuck. They come out black or white.
    """
    low, high = percentiles(counts[scene_of(counts)], 0.1, 99.9)
    if high - low <= FLAT_LEVELS:  # the scene is flat: what is around it may be all that there is to see
        low, high = int(counts.min()), int(counts.max())
    return float(low), float(high if high - low > FLAT_LEVELS else low)


def percentiles(counts: NDArray[Any], *shares: float) -> list[int]:
    """Return the values at these percentiles, by a histogram: a sort takes six times as long."""
    up_to = np.cumsum(np.bincount(counts.ravel(), minlength=1))
    ranks = np.array(shares) / 100 * (counts.size - 1)
    return [int(value) for value in np.searchsorted(up_to, ranks, side="right")]


def sampled(values: NDArray[Any]) -> NDArray[Any]:
    """Return every so manyth row and column of an image, so that no more than `_SAMPLED` pixels are left to count."""
    step = max(1, math.ceil(math.sqrt(values.size / _SAMPLED)))
    return np.ascontiguousarray(values[::step, ::step])


def noise_of(values: NDArray[Any]) -> float:
    """Return the noise of a pixel, in counts, by its distance from the median around it."""
    if min(values.shape) < 3:
        return 0.0
    if values.size > _LARGE:  # stripes tell as much, in a quarter of the time
        stripes = values[: len(values) // _STRIPES * _STRIPES].reshape(-1, _STRIPES, values.shape[1])
        values = stripes[:, : _STRIPES // 4].reshape(-1, values.shape[1]) if len(stripes) else values
    apart = cv2.absdiff(values, cv2.medianBlur(values, 3))
    return 1.4826 * percentiles(sampled(np.asarray(apart, values.dtype)), 50)[0]


def scene_of(counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pixels show the scene, (H, W); all of them if that cannot be told."""
    everything = np.ones(counts.shape, np.bool_)
    inner = slice(_EDGE_ROWS, -_EDGE_ROWS) if len(counts) >= 8 * _EDGE_ROWS else slice(None)
    keep = np.zeros_like(everything)
    keep[inner] = True
    for fill in _fills(counts[inner]):
        # Warping mixes the fill into the pixels around it.
        around = cv2.dilate((counts == fill).astype(np.uint8), np.ones((5, 5), np.uint8))
        keep &= around == 0
    sparse = (slice(None, None, 2),) * 2 if counts.size > _LARGE else ()  # a quarter tells as much, in less time
    if not keep[sparse].any() or min(counts.shape) < 3:
        return everything
    # A pixel stands alone if it is far from the median around it: beyond noise, and half of what the scene spans.
    smooth = np.asarray(cv2.medianBlur(np.ascontiguousarray(counts), 3), counts.dtype)
    apart = np.asarray(cv2.absdiff(counts, smooth), counts.dtype)
    sampled = keep[sparse]
    low, high = percentiles(smooth[sparse][sampled], 1, 99)
    noise = 1.4826 * percentiles(apart[sparse][sampled], 50)[0]
    return keep & (apart <= max(8 * noise, (high - low) / 2, 1))


def _fills(counts: NDArray[Any]) -> list[int]:
    """Return the values that fill a part of the image's edge and lie apart from the others, as around a warp."""
    edge = np.concatenate([counts[0], counts[-1], counts[:, 0], counts[:, -1]])
    values, numbers = np.unique(edge, return_counts=True)
    often = values[numbers > _FILL_SHARE * edge.size]
    found = []
    for value in {int(often[0]), int(often[-1])} if len(often) else ():
        rest = counts[counts != value]
        if not rest.size:
            continue
        low, high = percentiles(rest, 2, 98)
        if max(low - value, value - high) > (high - low) / 4 > 0:
            found.append(value)
    return found
