"""What the synthetic street is drawn with: the camera, poses, paints, shapes and the canvas.

Metres: x to the right, y up from the ground, z away from the camera. An actor's own frame is (forward, up, right).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Uint8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]
Float64 = NDArray[np.float64]
Rgb = tuple[int, int, int]
Point = tuple[float, float, float]
Light = tuple[float, float, float, float]
Circle = tuple[float, float, float, float]  # forward, up, right, radius

CAMERA_HEIGHT_M, CAMERA_X_M = 1.6, 0.4
FOCAL_HEIGHTS, HORIZON_HEIGHTS = 0.95, 0.46  # over the picture height
NEAR_M = 0.3  # nearer points are moved here: exact for edges along z, and no others come so near

SUBPIXEL_BITS = 4
EDGE_PX = 0.3  # an antialiased polygon of OpenCV is this much wider than its outline
LAMP_HEIGHTS = 1 / 300  # least radius of a lamp over the picture height: small lamps dazzle too
RIM = np.array([(cos(k * pi / 5), sin(k * pi / 5)) for k in range(10)])


class Paint(NamedTuple):
    """Colour of a surface: RGB by day, warmth in infrared (0 to 255), and how far it shines by itself (0 to 1)."""

    rgb: Rgb
    infrared: int
    shine: float = 0.0


class Shape(NamedTuple):
    """The convex hull of circles in an actor's frame, or a line through their centres as wide as the first one."""

    circles: Sequence[Circle]
    paint: Paint
    line: bool = False


class Spot(NamedTuple):
    """A soft spot on the ground: change in its middle, RGB 0 to 255; it adds light, or darkens the surface."""

    forward_m: float
    length_m: float
    width_m: float
    change: tuple[float, float, float]
    light: bool


@dataclass(frozen=True)
class Camera:
    """Pinhole camera over the road, looking along +z; its picture is (height_px, width_px)."""

    height_px: int
    width_px: int

    @property
    def focal_px(self) -> float:
        """Focal length in pixels."""
        return FOCAL_HEIGHTS * self.height_px

    def project(self, points_m: Float64) -> tuple[Float64, Float64]:
        """Return the pixels (N, 2), column before row, and the pixels per metre (N,) of points (N, 3)."""
        scale = self.focal_px / np.maximum(points_m[:, 2], NEAR_M)
        pixels = np.empty((len(points_m), 2))
        pixels[:, 0] = self.width_px / 2 - 0.5 + (points_m[:, 0] - CAMERA_X_M) * scale
        pixels[:, 1] = HORIZON_HEIGHTS * self.height_px - 0.5 + (CAMERA_HEIGHT_M - points_m[:, 1]) * scale
        return pixels, scale

    def window(self, points_m: Float64) -> tuple[slice, slice]:
        """Return the rows and columns of the picture that bound points (N, 3)."""
        pixels = np.clip(self.project(points_m)[0], -1, (self.width_px, self.height_px)).astype(int)
        (left, top), (right, bottom) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
        return slice(max(top, 0), max(bottom + 2, 0)), slice(max(left, 0), max(right + 2, 0))

    def on_ground(self, x_m: float, z_m: float) -> tuple[tuple[float, float], float]:
        """Return what `project` does for one point on the ground."""
        scale = self.focal_px / max(z_m, NEAR_M)
        column = self.width_px / 2 - 0.5 + (x_m - CAMERA_X_M) * scale
        return (column, HORIZON_HEIGHTS * self.height_px - 0.5 + CAMERA_HEIGHT_M * scale), scale


class Pose(NamedTuple):
    """Where an actor stands on the ground, and the unit vector of its heading."""

    x_m: float
    z_m: float
    heading_x: float = 0.0
    heading_z: float = 1.0

    def world(self, local: Float64) -> Float64:
        """Return points (N, 3) of the street for (N, 3 or more) forward, up and right of the actor."""
        points = np.empty((len(local), 3))
        points[:, 0] = self.x_m + local[:, 0] * self.heading_x + local[:, 2] * self.heading_z
        points[:, 1] = local[:, 1]
        points[:, 2] = self.z_m + local[:, 0] * self.heading_z - local[:, 2] * self.heading_x
        return points

    def eye(self) -> Point:
        """Return the place of the camera in the actor's frame."""
        x, z = CAMERA_X_M - self.x_m, -self.z_m
        return x * self.heading_x + z * self.heading_z, CAMERA_HEIGHT_M, x * self.heading_z - z * self.heading_x


class Canvas:
    """The pictures under construction. Both cameras are drawn by the same call, so that they cannot disagree.

    surface: (H, W, 4) RGB by day and infrared. light: (H, W, 4) what reaches the camera by night as a factor of the
    RGB surface, then the transmission of the haze, both 0 to 255.
    """

    def __init__(self, camera: Camera, surface: Uint8, light: Uint8) -> None:
        self.camera = camera
        self.surface = surface
        self.light = light
        self.lit: Light = (0.0, 0.0, 0.0, 0.0)  # `light` of the next shapes
        self.shining: Light = (255.0, 255.0, 255.0, 255.0)  # the same of those that shine

    def draw(self, pose: Pose, shapes: Sequence[Shape]) -> list[Int32]:
        """Draw the shapes in their order; return their outlines (N, 1, 2) in 1/16 pixel, column before row."""
        circles = np.array([circle for shape in shapes for circle in shape.circles])
        least_px = [self.camera.height_px * LAMP_HEIGHTS * s.paint.shine for s in shapes for _ in s.circles]
        pixels, scale = self.camera.project(pose.world(circles))
        radius_px = np.maximum(circles[:, 3] * scale - EDGE_PX, least_px)
        rims = pixels[:, None, :] + radius_px[:, None, None] * RIM
        rims_fixed, pixels_fixed = (np.rint(p * (1 << SUBPIXEL_BITS)).astype(np.int32) for p in (rims, pixels))
        first, outlines = 0, []
        for shape in shapes:
            part = slice(first, first + len(shape.circles))
            first = part.stop
            color, light = (*shape.paint.rgb, shape.paint.infrared), self._light_on(shape.paint)
            if shape.line:
                width = max(1, round(2 * float(radius_px[part.start])))
                outline = pixels_fixed[part, None]
                cv2.polylines(self.surface, [outline], False, color, width, cv2.LINE_AA, SUBPIXEL_BITS)
                cv2.polylines(self.light, [outline], False, light, width, cv2.LINE_AA, SUBPIXEL_BITS)
            else:
                outline = np.asarray(cv2.convexHull(rims_fixed[part].reshape(-1, 2)), dtype=np.int32)
                cv2.fillConvexPoly(self.surface, outline, color, cv2.LINE_AA, SUBPIXEL_BITS)
                cv2.fillConvexPoly(self.light, outline, light, cv2.LINE_AA, SUBPIXEL_BITS)
            outlines.append(outline)
        return outlines

    def _light_on(self, paint: Paint) -> Light:
        """Return the `light` value of a paint."""
        if paint.shine == 0:
            return self.lit
        red, green, blue, haze = (a + paint.shine * (b - a) for a, b in zip(self.lit, self.shining, strict=True))
        return red, green, blue, haze

    def draw_spot(self, pose: Pose, spot: Spot) -> None:
        """Draw a Gaussian spot on the ground; its length and width reach to 1/e."""
        turned = abs(pose.heading_x)
        across_m = spot.width_m + (spot.length_m - spot.width_m) * turned
        along_m = spot.length_m + (spot.width_m - spot.length_m) * turned
        x = pose.x_m + spot.forward_m * pose.heading_x
        z = pose.z_m + spot.forward_m * pose.heading_z
        fade = min(max((z - 1.0) / 4.0, 0.0), 1.0)  # the picture of a spot under the camera is unbounded
        if fade == 0:
            return
        (column, row), scale = self.camera.on_ground(x, z)
        near, far = (self.camera.on_ground(x, end)[0][1] for end in (max(z - along_m, z / 2), z + along_m))
        width_px, height_px = max(across_m * scale, 1.0), max((near - far) / 2, 1.0)
        target = self.light if spot.light else self.surface
        rows, columns = _span(row, height_px, target.shape[0]), _span(column, width_px, target.shape[1])
        if not len(rows) or not len(columns):
            return
        fade *= self.lit[3] / 255 if spot.light else 1.0
        down, right = np.exp(-(((rows - row) / height_px) ** 2)), np.exp(-(((columns - column) / width_px) ** 2))
        middle_row = np.outer(right, (*spot.change, 0.0)).astype(np.float32)
        change = np.outer((fade * down).astype(np.float32), middle_row).astype(np.uint8).reshape(len(down), -1, 4)
        part = target[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        (cv2.add if spot.light else cv2.subtract)(part, change, dst=part)


class Actor(Protocol):
    """Something that moves through the street; no part of it is farther than `reach_m` from its pose."""

    @property
    def reach_m(self) -> float:
        """Greatest distance of any part."""

    def spots(self) -> Sequence[Spot]:
        """Return its shadow and the light that it throws on the road."""

    def shapes(self, eye: Point, travelled_m: float) -> list[Shape]:
        """Return its parts, far before near, as seen from `eye` in its frame, moved on by the distance travelled."""


def _span(middle_px: float, radius_px: float, size_px: int) -> NDArray[np.int64]:
    """Return the pixel indices within 2.4 radii of the middle, cut to 0..size_px - 1."""
    first = max(int(middle_px - 2.4 * radius_px), 0)
    last = min(int(middle_px + 2.4 * radius_px) + 1, size_px)
    return np.arange(first, max(last, first))


def shaded(rgb: Rgb, factor: float) -> Rgb:
    """Return a colour times `factor`, cut at 255."""
    red, green, blue = (min(255, round(c * factor)) for c in rgb)
    return red, green, blue
