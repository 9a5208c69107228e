"""Where the infrared image lies in the visible one, with nothing known: every scale and every shift is tried."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.image import Float32
from cled_edge.registration.lens import Matrix
from cled_edge.registration.structure import structure

GreyPair = tuple[NDArray[Any], NDArray[Any]]  # infrared and visible, (H, W) of any depth
_WIDTH_PX = 160  # of the visible image in the search
_SMALLEST, _LARGEST, _SCALE_STEP = 0.3, 1.7, 0.04  # width of the infrared's view, in widths of the visible's
_LEAST_OVERLAP = 0.35  # of the smaller image
_LEAST_SIDE_PX = 24
_APART = 0.06  # widths: two places that are nearer than this are the same


@dataclass(frozen=True)
class Place:
    """One place of the infrared image in the visible one.

    scale: visible pixels per infrared pixel. shift_px: of the infrared image's corner, x and y, in visible pixels.
    similarity: correlation of both structures where they overlap, times the root of the overlap in search pixels.
    """

    scale: float
    shift_px: tuple[float, float]
    similarity: float

    def matrix(self) -> Matrix:
        """Return the map from visible to infrared pixels."""
        s, (x, y) = self.scale, self.shift_px
        middle = (s - 1) / 2  # images are resized about the corner of the corner's pixel, not about its centre
        return np.linalg.inv(np.array([[s, 0, x + middle], [0, s, y + middle], [0, 0, 1]]))


def places(pairs: Sequence[GreyPair]) -> list[Place]:
    """Return the best place at each scale, the most similar first; all pairs of the rig vote together."""
    infrared_px, visible_px = pairs[0][0].shape[1], pairs[0][1].shape[1]
    factor = _WIDTH_PX / visible_px
    visible = [structure(_resized(image, factor)) for _, image in pairs]
    # Images of two sides may be of another aspect; one transform of one size serves all scales.
    wide = _LARGEST * visible_px * factor
    size = tuple(
        cv2.getOptimalDFTSize(int(np.ceil(a + wide * b / infrared_px)) + 1)
        for a, b in zip(visible[0].shape[:2], pairs[0][0].shape[:2], strict=True)
    )
    transforms = [_Transform.of(each, size) for each in visible]
    found = []
    for share in np.exp(np.arange(np.log(_SMALLEST), np.log(_LARGEST), _SCALE_STEP)):
        scale = share * visible_px / infrared_px
        place = _best_shift(pairs, transforms, float(scale), factor, size)
        if place:
            found.append(place)
    return sorted(found, key=lambda place: -place.similarity)


def runner_up(found: Sequence[Place], pair: GreyPair) -> Place | None:
    """Return the most similar place that is not the first one or beside it: its view's corners lie elsewhere."""
    (height, width), visible_px = pair[0].shape, pair[1].shape[1]
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)

    def corners_of(place: Place) -> NDArray[np.float64]:
        return corners * place.scale + place.shift_px

    # Beside it: the next scales find the same place, with a somewhat wrong shift; that is a ridge, no other place.
    best = corners_of(found[0])
    for place in found[1:]:
        moved = corners_of(place)
        middle = np.linalg.norm(moved.mean(axis=0) - best.mean(axis=0)) / visible_px
        ratio = abs(np.log(place.scale / found[0].scale))
        if middle > _APART * (1 + 3 * ratio):
            return place
    return None


@dataclass(frozen=True, eq=False)
class _Transform:
    """Fourier transforms of a structure, of its energy and of its area."""

    channels: NDArray[np.complex64]
    energy: NDArray[np.complex64]
    area: NDArray[np.complex64]
    pixels: int

    @classmethod
    def of(cls, channels: Float32, size: tuple[int, ...]) -> "_Transform":
        energy = np.einsum("hwc,hwc->hw", channels, channels)
        ones = np.ones(energy.shape, np.float32)
        return cls(
            np.stack([np.fft.rfft2(channels[:, :, k], size) for k in range(channels.shape[2])]),
            np.asarray(np.fft.rfft2(energy, size), np.complex64),
            np.asarray(np.fft.rfft2(ones, size), np.complex64),
            energy.size,
        )


def _best_shift(
    pairs: Sequence[GreyPair], visible: Sequence[_Transform], scale: float, factor: float, size: tuple[int, ...]
) -> Place | None:
    total: NDArray[Any] | None = None
    for (image, _), of_visible in zip(pairs, visible, strict=True):
        small = _resized(image, factor * scale)
        if min(small.shape) < _LEAST_SIDE_PX:
            return None
        similarity = _similarity(of_visible, _Transform.of(structure(small), size), size)
        total = similarity if total is None else total + similarity
    if total is None:
        return None
    place = np.unravel_index(int(total.argmax()), total.shape)
    # A shift beyond what the infrared can be shifted to the right or down is one to the left or up.
    seen = np.rint(np.array(pairs[0][1].shape) * factor)
    y, x = (int(at) if at < limit else int(at) - side for at, limit, side in zip(place, seen, size, strict=True))
    return Place(scale, (x / factor, y / factor), float(total[place]) / len(pairs))


def _similarity(visible: _Transform, infrared: _Transform, size: tuple[int, ...]) -> NDArray[Any]:
    """Return for every shift the correlation where both overlap, times the root of the overlap."""
    both = np.fft.irfft2((visible.channels * infrared.channels.conj()).sum(axis=0), size)
    of_visible = np.fft.irfft2(visible.energy * infrared.area.conj(), size)
    of_infrared = np.fft.irfft2(visible.area * infrared.energy.conj(), size)
    overlap = np.fft.irfft2(visible.area * infrared.area.conj(), size)
    correlation = both / np.sqrt(np.maximum(of_visible, 1e-3) * np.maximum(of_infrared, 1e-3))
    enough = overlap >= _LEAST_OVERLAP * min(visible.pixels, infrared.pixels)
    return np.where(enough, correlation * np.sqrt(np.maximum(overlap, 0)), -np.inf)


def _resized(image: NDArray[Any], factor: float) -> NDArray[Any]:
    """Return an image at `factor` of its size, float32."""
    size = tuple(max(1, round(side * factor)) for side in image.shape[::-1])
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image.astype(np.float32), size, interpolation=way))
