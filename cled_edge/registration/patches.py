"""Patches vote for a map: each says for every small displacement how alike both structures are, and the sum decides.

A patch on a straight edge cannot say where along it, and one on a wall says nothing. So no patch is made to choose: the
map that gets the most of all votes wins. Frames of one rig add their votes before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.image import Float32
from cled_edge.registration.lens import Lens, PixelMap, Points
from cled_edge.registration.search import GreyPair
from cled_edge.registration.structure import structure
from cled_edge.size import Size

Model = Literal["similarity", "lenses"]
# Parameters: lenses are a similarity, both directions of perspective, and a k1 for each lens. Pixels are square: an
# affine map or a homography would bend to noise where the lens does.
_FREE = {"similarity": 4, "lenses": 8}
_BORDER_PX = 5  # of the infrared image's edge that is no structure of the scene
_COVERED = 0.8  # of a patch's surroundings that the infrared must cover
_SMOOTHED_PX = (2.0, 1.0, 0.0)  # of the votes: first the coarse direction, then the place
_ALIKE = 0.95  # a correlation beyond which nothing is more likely
_DERIVATIVE = 1e-4
_ROUNDS = 15
_K1, _TILT = 0.2, 0.05  # what lenses and mounts usually have, either way
DOUBT = 5e-4  # half of the mean vote that it takes to believe in so much of either: noise asks for more
_LARGEST_K1 = 0.6  # of a lens whose focal length is the image's width


@dataclass(frozen=True)
class Level:
    """How finely to look. width_px: of the visible image. patch_px, step_px: side of a patch, and from one to the next.

    reach_px: the largest displacement that a patch votes on.
    """

    width_px: int
    patch_px: int
    step_px: int
    reach_px: int


@dataclass(frozen=True, eq=False)
class Votes:
    """What each patch says.

    points: (N, 2), centres of the patches in visible pixels. surfaces: (N, 2r+1, 2r+1) in [-1, 1], the votes for a
    displacement of y, x level pixels from what `base` says. factor: level pixels per visible pixel.
    """

    base: PixelMap
    points: Points
    surfaces: Float32
    factor: float
    infrared_size: Size
    visible_size: Size

    @property
    def reach_px(self) -> int:
        """The largest displacement, in level pixels."""
        return self.surfaces.shape[1] // 2

    def part(self, chosen: NDArray[np.bool_]) -> "Votes":
        """Return the votes of some patches."""
        return replace(self, points=self.points[chosen], surfaces=self.surfaces[chosen])

    def displacements(self, moved: PixelMap) -> Points:
        """Return by how many level pixels another map differs from `base` at each patch."""
        return (self.base.visible_points(moved.infrared_points(self.points)) - self.points) * self.factor

    def as_likelihoods(self) -> "Votes":
        """Return as votes what every displacement is as likely as: -log(1 - r^2) of its correlation r, 0 if r < 0.

        This is the likelihood of a patch that shows the other one in Gaussian noise of unknown strength. So a patch
        that fits well has more to say than two that fit half as well. Scaled to keep the patches' mean best vote.
        """
        likely = -np.log1p(-(np.clip(self.surfaces, 0, _ALIKE) ** 2))
        best, before = (float(each.max(axis=(1, 2)).mean()) for each in (likely, self.surfaces))
        return replace(self, surfaces=np.asarray(likely * (before / max(best, 1e-12)), np.float32))

    def of_each(self, moved: PixelMap) -> NDArray[np.float64]:
        """Return each patch's vote for a map, 0 if it moves the patch out of reach."""
        by = self.displacements(moved)
        value, _, _ = _vote_at(self.surfaces, by)
        return np.where(np.abs(by).max(axis=1) <= self.reach_px, value, 0).astype(np.float64)

    def score(self, moved: PixelMap) -> float:
        """Return the mean vote for a map."""
        return float(self.of_each(moved).mean())

    def own_displacements(self) -> Points:
        """Return the displacement that each patch alone likes most, in level pixels."""
        side = self.surfaces.shape[1]
        flat = self.surfaces.reshape(len(self.surfaces), -1).argmax(axis=1)
        return np.stack([flat % side, flat // side], axis=-1).astype(np.float64) - self.reach_px


def collect(pairs: Sequence[GreyPair], base: PixelMap, level: Level) -> Votes:
    """Return the votes of all pairs around a map."""
    infrared_size, visible_size = pairs[0][0].shape, pairs[0][1].shape
    width = min(level.width_px, visible_size[1])
    factor = width / visible_size[1]
    size = max(1, round(visible_size[0] * factor)), width
    warp = _LevelWarp(base, infrared_size, visible_size, size)
    half, reach = level.patch_px // 2, level.reach_px
    margin = half + reach
    centers = [
        (x, y)
        for y in range(margin, size[0] - margin + 1, level.step_px)
        for x in range(margin, size[1] - margin + 1, level.step_px)
        if warp.covered[y - margin : y + margin, x - margin : x + margin].mean() >= _COVERED
    ]
    total = np.zeros((len(centers), 2 * reach + 1, 2 * reach + 1), np.float32)
    weight = np.full(len(centers), 1e-6, np.float32)
    for infrared, visible in pairs:
        warped = structure(warp(infrared))
        seen = structure(cv2.resize(visible.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA))
        for index, (x, y) in enumerate(centers):
            patch = seen[y - half : y + half, x - half : x + half]
            around = warped[y - margin : y + margin, x - margin : x + margin]
            # A patch without structure in this frame has little to say beside one with it.
            strength = float(patch.std())
            total[index] += strength * cv2.matchTemplate(around, patch, cv2.TM_CCOEFF_NORMED)
            weight[index] += strength
    # The middle of a patch of an even side lies half a pixel before its center's index.
    points = (np.array(centers, np.float64).reshape(-1, 2)) / factor - 0.5
    return Votes(base, points, total / weight[:, None, None], factor, infrared_size, visible_size)


class _LevelWarp:
    """Infrared images as the visible camera would see them by a map, at the size of a level."""

    def __init__(self, base: PixelMap, infrared_size: Size, visible_size: Size, size: Size) -> None:
        y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
        factor = visible_size[1] / size[1]
        points = (np.stack([x.ravel(), y.ravel()], -1) + 0.5) * factor - 0.5
        # Reduced first where a pixel of the level spans several: no aliasing.
        shrink = max(1.0, base.infrared_px_per_visible_px(visible_size) * factor)
        self._small = tuple(max(2, round(side / shrink)) for side in infrared_size)
        ratio = np.array(self._small[::-1]) / np.array(infrared_size[::-1])
        places = (base.infrared_points(points) + 0.5) * ratio - 0.5
        self._x, self._y = (np.clip(p, -1e4, 1e4).astype(np.float32).reshape(size) for p in places.T)
        inside = (places > -0.5).all(axis=1) & (places < np.array(self._small[::-1]) - 0.5).all(axis=1)
        kernel = np.ones((2 * _BORDER_PX + 1,) * 2, np.uint8)
        self.covered = cv2.erode(
            inside.reshape(size).astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1
        )

    def __call__(self, infrared: NDArray[Any]) -> Float32:
        image = infrared.astype(np.float32)
        if self._small != infrared.shape:
            image = np.asarray(cv2.resize(image, self._small[::-1], interpolation=cv2.INTER_AREA), np.float32)
        return np.asarray(cv2.remap(image, self._x, self._y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def elect(votes: Votes, model: Model, doubt: float = DOUBT) -> PixelMap:
    """Return the map of a model, near the votes' base, that gets the most votes.

    doubt: 0 takes every lens for as likely as another.
    """
    moved = _Moved(votes, model, doubt)
    found = np.zeros(_FREE[model])
    for smoothed_px in _SMOOTHED_PX:
        surfaces = votes.surfaces
        if smoothed_px:
            surfaces = np.stack([cv2.GaussianBlur(each, (0, 0), smoothed_px) for each in surfaces])
        found = _climbed(moved, surfaces, found)
    return moved.map(found)


def _climbed(moved: "_Moved", surfaces: Float32, start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Climb to the most votes by damped Newton steps (Levenberg and Marquardt)."""
    found, damping = start, 1e-2
    best = moved.total(surfaces, found)
    for _ in range(_ROUNDS):
        _, slope, bend = _vote_at(surfaces, moved.displacements(found))
        bends, ways = np.linalg.eigh(-bend)
        curvature = (ways * np.maximum(bends, 0)[:, None, :]) @ ways.transpose(0, 2, 1)
        normal = np.einsum("nim,nij,njk->mk", moved.jacobian, curvature, moved.jacobian, optimize=True)
        normal += np.diag(moved.doubt)
        pull = np.einsum("nim,ni->m", moved.jacobian, slope) - moved.doubt * (moved.offset + found)
        gained = 0.0
        while damping < 1e5:
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-9), pull)
            total = moved.total(surfaces, found + step)
            if total > best:
                gained, best, found, damping = total - best, total, found + step, max(damping / 3, 1e-4)
                break
            damping *= 5
        if gained < 1e-6 * abs(best):
            break
    return found


class _Moved:
    """Maps around the base of some votes, by the free parameters of a model; 0 is the base itself."""

    def __init__(self, votes: Votes, model: Model, doubt: float) -> None:
        self._votes, self._model = votes, model
        (height, width), (ir_height, ir_width) = votes.visible_size, votes.infrared_size
        self._to_pixels = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1]])
        self._from_pixels = np.linalg.inv(self._to_pixels)
        base = votes.base
        self._infrared = base.infrared or Lens((ir_width, ir_width), ((ir_width - 1) / 2, (ir_height - 1) / 2))
        self._visible = base.visible or Lens((width, width), ((width - 1) / 2, (height - 1) / 2))
        free = _FREE[model]
        self.doubt = doubt * len(votes.points) / np.array([np.inf] * 4 + [_TILT] * 2 + [_K1] * 2)[:free] ** 2
        self.offset = np.array([0.0] * 6 + [self._infrared.distortion[0], self._visible.distortion[0]])[:free]

    def map(self, free: NDArray[np.float64]) -> PixelMap:
        a, b, x, y = free[:4]
        change = np.array([[a, -b, x], [b, a, y], [0, 0, 0]])
        if self._model == "lenses":
            change[2, :2] = free[4:6]
        base = self._votes.base
        matrix = base.matrix @ self._to_pixels @ (np.eye(3) + change) @ self._from_pixels
        if self._model != "lenses":
            return PixelMap(matrix / matrix[2, 2], base.infrared, base.visible)
        lenses = (_with_k1(lens, k1) for lens, k1 in zip((self._infrared, self._visible), free[6:], strict=True))
        return PixelMap(matrix / matrix[2, 2], *lenses)

    def displacements(self, free: NDArray[np.float64]) -> Points:
        """Return the displacement of each patch, in level pixels: so near the base it grows with the parameters."""
        return self.jacobian @ free

    def total(self, surfaces: Float32, free: NDArray[np.float64]) -> float:
        by = self.displacements(free)
        value, _, _ = _vote_at(surfaces, by)
        votes = value[np.abs(by).max(axis=1) <= self._votes.reach_px].sum()
        return float(votes - (self.doubt * (self.offset + free) ** 2).sum() / 2)

    @cached_property
    def jacobian(self) -> NDArray[np.float64]:
        """(N, 2, parameters): how the displacements change with each parameter, at the base."""
        steps = np.eye(_FREE[self._model]) * _DERIVATIVE
        columns = [self._votes.displacements(self.map(s)) - self._votes.displacements(self.map(-s)) for s in steps]
        return np.stack(columns, axis=-1) / (2 * _DERIVATIVE)


def _with_k1(lens: Lens, more: float) -> Lens:
    k1, *others = lens.distortion
    return Lens(lens.focal_px, lens.center_px, (float(np.clip(k1 + more, -_LARGEST_K1, _LARGEST_K1)), *others))  # type: ignore[arg-type]


def _vote_at(surfaces: Float32, by: Points) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return value (N,), gradient (N, 2) and second derivatives (N, 2, 2) of the surfaces at displacements (N, 2).

    A parabola through the nearest vote and its eight neighbours.
    """
    reach = surfaces.shape[1] // 2
    column, row = (np.clip(np.rint(by[:, k]), 1 - reach, reach - 1).astype(int) + reach for k in (0, 1))
    index = np.arange(len(surfaces))

    def at(x: int, y: int) -> NDArray[Any]:
        return surfaces[index, row + y, column + x]

    dx, dy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    dxx, dyy = at(1, 0) - 2 * at(0, 0) + at(-1, 0), at(0, 1) - 2 * at(0, 0) + at(0, -1)
    dxy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    x, y = np.clip(by[:, 0] + reach - column, -1, 1), np.clip(by[:, 1] + reach - row, -1, 1)
    value = at(0, 0) + dx * x + dy * y + (dxx * x * x + dyy * y * y) / 2 + dxy * x * y
    slope = np.stack([dx + dxx * x + dxy * y, dy + dyy * y + dxy * x], axis=-1)
    bend = np.stack([np.stack([dxx, dxy], -1), np.stack([dxy, dyy], -1)], -2)
    return value, slope, bend
