"""Lenses and the map between two cameras: points of one image in the other, and back.

A pixel's centre has whole coordinates (x, y), as in OpenCV; sizes are (height, width).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.size import Size

Points = NDArray[np.float64]  # (N, 2): x, y in pixels
Matrix = NDArray[np.float64]  # (3, 3)
_STEP_PX = 0.5  # of a numerical derivative
_ROUNDS, _SETTLED = 60, 1e-7  # of the fixed point that undoes a distortion; focal lengths
_WIDEST, _SLOWEST = 3.0, 0.1  # focal lengths from the centre; growth of the distorted radius with the straight one


@dataclass(frozen=True)
class Lens:
    """One camera's lens. focal_px: along x and y. center_px: x and y. distortion: OpenCV's k1, k2, p1, p2, k3."""

    focal_px: tuple[float, float]
    center_px: tuple[float, float]
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    @cached_property
    def matrix(self) -> Matrix:
        """The camera matrix."""
        (fx, fy), (cx, cy) = self.focal_px, self.center_px
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)

    def straightened(self, points: Points) -> Points:
        """Return where points of the image would lie without distortion; both in pixels."""
        if not any(self.distortion):
            return points
        seen = (points - self.center_px) / self.focal_px
        found, offset = self._without_radial(seen), np.zeros_like(seen)
        for _ in range(_ROUNDS if any(self.distortion[2:4]) else 0):
            before, offset = offset, self._distorted(found)[1]
            found = self._without_radial(seen - offset)
            if np.abs(offset - before).max(initial=0) < _SETTLED:
                break
        return found * self.focal_px + self.center_px

    def bent(self, points: Points) -> Points:
        """Return where the lens puts points of an image without distortion; undoes `straightened`."""
        if not any(self.distortion):
            return points
        straight = (points - self.center_px) / self.focal_px
        radial, tangential = self._distorted(straight)
        return (straight * radial + tangential) * self.focal_px + self.center_px

    def _distorted(self, straight: Points) -> tuple[Points, Points]:
        """Return the factor (N, 1) and the offset (N, 2) of the distortion at points in focal lengths."""
        k1, k2, p1, p2, k3 = self.distortion
        reach = self._reach
        r = np.linalg.norm(straight, axis=1, keepdims=True)
        near = np.minimum(r, reach)
        r2 = near * near
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        # Beyond its reach the polynomial turns back, and would show there what lies in the image.
        radial = np.where(r > reach, (radial * reach + r - reach) / np.maximum(r, 1e-9), radial)
        x, y = (straight * np.minimum(1, reach / np.maximum(r, 1e-9))).T
        xy, x2, y2 = 2 * x * y, 3 * x * x + y * y, x * x + 3 * y * y
        return radial, np.stack([p1 * xy + p2 * x2, p1 * y2 + p2 * xy], axis=-1)

    def _without_radial(self, bent: Points) -> Points:
        """Return the points that the radial distortion alone puts at `bent`, both in focal lengths: Newton's method."""
        k1, k2, _, _, k3 = self.distortion
        reach = self._reach
        wanted = np.linalg.norm(bent, axis=1)
        r = np.minimum(wanted, reach)
        for _ in range(_ROUNDS):
            r2 = r * r
            at, slope = r * (1 + r2 * (k1 + r2 * (k2 + r2 * k3))), 1 + r2 * (3 * k1 + r2 * (5 * k2 + r2 * 7 * k3))
            before, r = r, np.clip(r - (at - wanted) / np.maximum(slope, _SLOWEST), 0, reach)
            if np.abs(r - before).max(initial=0) < _SETTLED:
                break
        end = reach * (1 + reach**2 * (k1 + reach**2 * (k2 + reach**2 * k3)))
        r = np.where(wanted > end, wanted - end + reach, r)
        return np.asarray(bent * (r / np.maximum(wanted, 1e-12))[:, None], np.float64)

    @cached_property
    def _reach(self) -> float:
        """The radius, in focal lengths, up to which the distorted radius grows with the straight one."""
        k1, k2, _, _, k3 = self.distortion
        r = np.linspace(0, _WIDEST, 301)
        turned = np.flatnonzero(1 + 3 * k1 * r**2 + 5 * k2 * r**4 + 7 * k3 * r**6 <= _SLOWEST)
        return float(r[turned[0]]) if len(turned) else _WIDEST


@dataclass(frozen=True, eq=False)
class PixelMap:
    """Where a visible pixel lies in the infrared image, at one distance.

    matrix: homography from visible to infrared pixels, both without distortion. A lens of None has none.
    """

    matrix: Matrix
    infrared: Lens | None = None
    visible: Lens | None = None

    def infrared_points(self, points: Points) -> Points:
        """Return where points (N, 2) of the visible image lie in the infrared one."""
        straight = self.visible.straightened(points) if self.visible else points
        moved = projected(self.matrix, straight)
        return self.infrared.bent(moved) if self.infrared else moved

    def visible_points(self, points: Points) -> Points:
        """Return where points (N, 2) of the infrared image lie in the visible one."""
        straight = self.infrared.straightened(points) if self.infrared else points
        moved = projected(np.linalg.inv(self.matrix), straight)
        return self.visible.bent(moved) if self.visible else moved

    def infrared_px_per_visible_px(self, size: Size) -> float:
        """Return the map's scale in the middle of a visible image of `size`."""
        middle = np.array([[(size[1] - 1) / 2, (size[0] - 1) / 2]])
        around = middle + np.array([[0, 0], [_STEP_PX, 0], [0, _STEP_PX]])
        at, right, below = self.infrared_points(around)
        return float(np.sqrt(abs(np.linalg.det(np.stack([right - at, below - at])))) / _STEP_PX)


def projected(matrix: NDArray[Any], points: Points) -> Points:
    """Return (N, 2) points under a homography; far away where it has its horizon."""
    moved = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    depth = np.where(np.abs(moved[:, 2:]) < 1e-9, 1e-9, moved[:, 2:])
    return moved[:, :2] / depth


def grid_points(size: Size, columns: int = 24, rows: int = 18) -> Points:
    """Return points spread evenly over an image of `size`, corners included."""
    x, y = np.meshgrid(np.linspace(0, size[1] - 1, columns), np.linspace(0, size[0] - 1, rows))
    return np.stack([x.ravel(), y.ravel()], axis=-1)
