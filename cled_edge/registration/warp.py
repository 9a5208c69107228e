"""Two cameras as one: every pair is warped into one camera's frame, by maps that are computed once."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import OptionError
from cled_edge.frame import INFRARED_LOST, FramePair
from cled_edge.image import Float32, Uint8, grey_from_any
from cled_edge.registration.calibration import Calibration
from cled_edge.registration.drift import DriftWatch
from cled_edge.registration.lens import Points
from cled_edge.size import Size
from cled_edge.thermal import WHITE_HOT, Thermal

Modality = Literal["infrared", "visible"]
# Where the warped camera is far coarser than the result, cells of so many pixels are looked up, and what lies between
# them is interpolated, as it would be from the camera's own pixels: a cell spans no more of those than this.
_STEPS, _CELL_SPANS = (4, 2), 0.6
SOFT_PX = 8  # over which validity falls to 0 at the border of what the warped camera sees


class Registrar:
    """Warps pairs of one rig into the frame of one of its cameras.

    frame: whose view the result has. That camera's images are only scaled and cropped; the other's are warped.
    size: of the result, (height, width); None is that camera's own. Another aspect is cropped evenly at two sides.
    distance_m: of what is to match, see `Calibration.infrared_points`.

    The infrared leaves as 8-bit grey, see `grey_from_any`. `FramePair.validity` says where both see something.
    OptionError for an unknown frame and for a distance that is not positive.
    """

    def __init__(
        self,
        calibration: Calibration,
        frame: Modality = "visible",
        size: Size | None = None,
        distance_m: float | None = None,
    ) -> None:
        if frame not in get_args(Modality):
            raise OptionError(f"frame is {frame!r}; needed one of {', '.join(get_args(Modality))}; choose one")
        if distance_m is not None and not 0 < distance_m < np.inf:
            raise OptionError(f"distance_m is {distance_m}; it must be above 0, in metres")
        self.calibration, self.frame = calibration, frame
        sizes = {"infrared": calibration.infrared_size, "visible": calibration.visible_size}
        own = sizes[frame]
        self.size = size or own
        self._view = _View.of(own, self.size)
        self._distance_m = distance_m
        points = self._view.points(self.size)
        if frame == "visible":
            places = calibration.infrared_points(points, distance_m)
        else:
            places = calibration.visible_points(points, distance_m)
        self._warp = _Warp.of(places, sizes["infrared" if frame == "visible" else "visible"], self.size)
        other = np.full(self.size, 255, np.uint8)
        pair = (self._warp.validity, other) if frame == "visible" else (other, self._warp.validity)
        self._watch = DriftWatch(self._warp.validity)
        self.validity: Uint8 = np.ascontiguousarray(np.stack(pair, axis=-1))
        self._without: dict[str, Uint8] = {}

    @property
    def drift_px(self) -> float | None:
        """See `DriftWatch.drift_px`: pixels of the result."""
        return self._watch.drift_px

    @property
    def covered(self) -> float:
        """The share of the result that the warped camera sees."""
        return float((self._warp.validity > 0).mean())

    def infrared_pixel(self, row: float, column: float) -> tuple[int, int] | None:
        """Return the infrared camera's pixel, row and column, at a pixel of the result; None where it sees nothing."""
        place = self._view.place(np.array([[column, row]], np.float64))
        if self.frame == "visible":
            place = self.calibration.infrared_points(place, self._distance_m)
        x, y = np.rint(np.clip(place[0], -1, 2**20)).astype(int)
        height, width = self.calibration.infrared_size
        return (int(y), int(x)) if 0 <= y < height and 0 <= x < width else None

    def __call__(self, pair: FramePair, thermal: Thermal = WHITE_HOT) -> FramePair:
        """Return the pair in one frame, both of `size`, with its validity. SizeMismatchError for other cameras.

        A lost camera's blank frame is valid nowhere.
        thermal: how infrared values become grey: before they are warped, so that nothing beyond the border counts.
        """
        pair = self._completed(pair) if pair.degraded else pair
        sizes = ((frame.image.shape[0], frame.image.shape[1]) for frame in (pair.infrared, pair.visible))
        self.calibration.check_sizes(*sizes)
        infrared = replace(pair.infrared, image=grey_from_any(pair.infrared.image, pair.infrared.color_order, thermal))
        if self.frame == "visible":
            images = self._warp(infrared.image), self._view(pair.visible.image, self.size)
        else:
            images = self._view(infrared.image, self.size), self._warp(pair.visible.image)
        validity = self._validity_without(pair.degraded)
        if not pair.degraded:
            self._watch.look(*images)
        frames = replace(infrared, image=images[0]), replace(pair.visible, image=images[1])
        return replace(pair, infrared=frames[0], visible=frames[1], validity=validity)

    def _validity_without(self, degraded: str) -> Uint8:
        """Return where both see something, or where the one does that is not lost."""
        if not degraded:
            return self.validity
        if degraded not in self._without:
            self._without[degraded] = self.validity.copy()
            self._without[degraded][:, :, 0 if degraded == INFRARED_LOST else 1] = 0
        return self._without[degraded]

    def _completed(self, pair: FramePair) -> FramePair:
        """Return a pair with one camera lost, whose blank frame has that camera's size: it may never have been seen."""
        if pair.degraded == INFRARED_LOST:
            blank = np.zeros(self.calibration.infrared_size, np.uint8)
            return replace(pair, infrared=replace(pair.infrared, image=blank))
        blank = np.zeros((*self.calibration.visible_size, 3), np.uint8)
        return replace(pair, visible=replace(pair.visible, image=blank))


@dataclass(frozen=True)
class _View:
    """The middle of an image that is scaled to a size. rows, columns: which pixels. scale: image pixels a pixel."""

    rows: slice
    columns: slice
    scale: tuple[float, float]

    @classmethod
    def of(cls, image: Size, size: Size) -> "_View":
        scale = min(image[0] / size[0], image[1] / size[1])
        used = min(image[0], round(size[0] * scale)), min(image[1], round(size[1] * scale))
        top, left = ((whole - part) // 2 for whole, part in zip(image, used, strict=True))
        return cls(slice(top, top + used[0]), slice(left, left + used[1]), (used[0] / size[0], used[1] / size[1]))

    def points(self, size: Size) -> Points:
        """Return where each pixel of the result lies in the image, row by row."""
        y, x = np.mgrid[: size[0], : size[1]]
        return self.place(np.stack([x.ravel(), y.ravel()], axis=-1).astype(np.float64))

    def place(self, points: Points) -> Points:
        """Return where points (N, 2) of the result lie in the image."""
        down, right = self.scale
        return (points + 0.5) * (right, down) - 0.5 + (self.columns.start, self.rows.start)

    def __call__(self, image: NDArray[Any], size: Size) -> NDArray[Any]:
        part = image[self.rows, self.columns]
        if part.shape[:2] == size:
            return part
        return _reduced(part, size)


@dataclass(frozen=True, eq=False)
class _Warp:
    """A precomputed map. small: the size to which an image is reduced before. validity: (H, W), 0 where nothing is.

    places: x and y, each (h, w), of cells of `step` pixels, which are the part of the result around all that is seen,
    and a cell more at each side. part: its size. beyond: rows and columns above, below, left and right of it.
    """

    small: Size
    places: tuple[Float32, Float32]
    step: int
    part: Size
    beyond: tuple[int, int, int, int]
    validity: Uint8

    @classmethod
    def of(cls, places: Points, image: Size, size: Size) -> "_Warp":
        """places: where each pixel of the result lies in the image, row by row."""
        # Where one pixel of the result spans several of the image, their mean is meant.
        grid = places.reshape(*size, 2)
        middle = grid[size[0] // 4 : -size[0] // 4 or None, size[1] // 4 : -size[1] // 4 or None]
        span = max(float(np.median(np.linalg.norm(np.diff(middle, axis=k), axis=-1))) for k in (0, 1))
        height, width = (max(1, round(side / max(1.0, span))) for side in image)
        ratio = np.array([width / image[1], height / image[0]])
        scaled = (places + 0.5) * ratio - 0.5
        inside = ((scaled >= 0) & (scaled <= (width - 1, height - 1))).all(axis=1).reshape(size)
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            rows, columns = np.arange(1), np.arange(1)
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        beyond = rows[0], size[0] - rows[-1] - 1, columns[0], size[1] - columns[-1] - 1
        step = next((step for step in _STEPS if step * span <= _CELL_SPANS), 1)
        # Clipped here, because a pixel beyond the border takes remap far longer than one inside. Of OpenCV 5.0, maps of
        # float take half the time of fixed-point ones.
        x, y = (
            np.ascontiguousarray(np.clip(_cells(axis.reshape(size)[part], step), 0, side - 1), dtype=np.float32)
            for axis, side in zip(scaled.T, (width, height), strict=True)
        )
        around = tuple(int(side) for side in beyond)
        shown = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
        return cls((height, width), (x, y), step, shown, around, _soft(inside))  # type: ignore[arg-type]

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        if image.shape[:2] != self.small:
            image = _reduced(image, self.small)
        seen = cv2.remap(image, *self.places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if self.step > 1:
            seen = cv2.resize(seen, None, fx=self.step, fy=self.step, interpolation=cv2.INTER_LINEAR)
        seen = seen[self.step :, self.step :][: self.part[0], : self.part[1]]
        # The last pixel goes on beyond the border: black there would be an edge, and darken what the network sees.
        return np.asarray(
            cv2.copyMakeBorder(seen, *self.beyond, cv2.BORDER_REPLICATE | cv2.BORDER_ISOLATED), image.dtype
        )


def _cells(places: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Return the middles of cells of `step` pixels, and of one more at each side, of one coordinate of places."""
    more = [(step, step + -side % step) for side in places.shape]
    framed = np.pad(places, more, mode="reflect", reflect_type="odd")
    height, width = (side // step for side in framed.shape)
    return np.asarray(framed.reshape(height, step, width, step).mean(axis=(1, 3)), np.float64)


def _reduced(image: NDArray[Any], size: Size) -> NDArray[Any]:
    """Return an image at a smaller or larger size."""
    # Down to a half, linear misses no pixel: from 720x1280 to 480x640 a pair takes 2.0 ms with it, 4.3 with area.
    spans = max(whole / part for whole, part in zip(image.shape, size, strict=False))
    way = cv2.INTER_AREA if spans > 2 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=way), image.dtype)


def _soft(inside: NDArray[np.bool_]) -> Uint8:
    """Return 255 well inside, 0 outside, and a ramp of SOFT_PX pixels within the border between both."""
    # The image's own edge is no border: what lies beyond it is not shown.
    framed = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.rint(np.clip(depth / SOFT_PX, 0, 1) * 255).astype(np.uint8)
