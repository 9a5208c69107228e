"""What stands still in the synthetic street: ground, houses, props and lamps, ray cast once into static layers.

The file is long because each surface is written out with its place, colour, texture and warmth.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.scene.canvas import (
    CAMERA_HEIGHT_M,
    CAMERA_X_M,
    HORIZON_HEIGHTS,
    SUBPIXEL_BITS,
    Camera,
    Canvas,
    Paint,
    Point,
    Pose,
    Rgb,
    Shape,
)

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

SUPERSAMPLE = 2  # of the static layers, which are ray cast without antialiasing

ROAD_M, KERB_M, FACADE_M, OUTER_M = 4.0, 4.2, 7.0, 30.0  # half widths
JUNCTION_M, SKY_M = 62.0, 500.0
SHOP_M, FLOOR_M, PITCH_M = 3.6, 3.0, 2.4  # heights of the ground floor and the others, distance between windows
LEFT_ENDS_M = (2.0, 10.0, 17.5, 25.0, 33.0), (39.0, 50.0, JUNCTION_M)  # house fronts, a side street between
RIGHT_ENDS_M = (2.0, 8.5, 13.5, 21.0, 30.0, 40.0, 51.0, JUNCTION_M)
CAFE_M = (13.5, 21.0)  # z range of the cafe, on the right

VISIBILITY_M = 50.0  # the haze leaves 1/e of the light at this distance
LAMP_REACH = 4.0  # lamps outshine the haze by this factor
NIGHT_LIGHT = (0.0012, 0.0015, 0.0024)  # linear
LIGHT_GAMMA = 1.9  # below the 2.2 of the eye: the camera crushes shadows
SODIUM, WARM, TEAL, PINK = (1.0, 0.74, 0.42), (1.0, 0.8, 0.55), (0.35, 1.0, 0.85), (1.0, 0.2, 0.5)
LAMP_GLASS = Paint((255, 226, 180), 142, shine=1.0)
WINDOW_SHINE, SIGN_SHINE = 0.5, 0.54  # not as bright as a lamp

HOUSES: tuple[Rgb, ...] = (
    (152, 86, 68), (214, 196, 160), (196, 154, 96), (140, 152, 162),
    (202, 144, 120), (152, 162, 130), (218, 212, 200), (124, 76, 66),
)  # fmt: skip
TREES_M = ((-4.8, 21.5), (5.0, 28.0), (-4.8, 30.0), (5.0, 37.0), (-4.8, 45.0), (5.0, 49.0))
LAMP_POSTS_M = ((-4.5, 17.0), (4.5, 24.0), (-4.5, 38.0), (4.5, 54.0))
LAMP_HEIGHT_M, LAMP_ARM_M, LAMP_INTENSITY = 5.8, 1.5, 18.0
BUSHES_M = ((-6.6, 11.0), (-6.6, 15.0), (6.6, 12.2), (6.6, 21.8), (-6.6, 24.0))


class Lamp(NamedTuple):
    """A source of light: position, intensity (linear light at 1 m), colour, and whether it shines down only."""

    at_m: Point
    intensity: float
    rgb: tuple[float, float, float]
    down: bool


class Street(NamedTuple):
    """What does not move. surface, light: as in `Canvas`.

    solid_m: (H, W) distance along z of houses, trees and posts; infinite on the ground and in the sky. nearest_m: the
    least of them.
    """

    camera: Camera
    lamps: list[Lamp]
    surface: Uint8
    light: Uint8
    solid_m: Float32
    nearest_m: float


class _Rays:
    """The static layers while they are built, and the rays through their pixels.

    canvas.surface: (H, W, 4) RGB and infrared. canvas.light: (H, W, 4), 255 where a surface shines, else 0.
    depth_m: (H, W) distance along z. across, fall: (1, W) and (H, 1) metres right and down per metre along z.
    """

    def __init__(self, camera: Camera) -> None:
        height, width = camera.height_px, camera.width_px
        blank = np.zeros((height, width, 4), np.uint8)
        self.canvas = Canvas(camera, blank, blank.copy())
        self.across = ((np.arange(width, dtype=np.float32) - (width - 1) / 2) / camera.focal_px)[None]
        rows = np.arange(height, dtype=np.float32) - HORIZON_HEIGHTS * height + 0.5
        self.fall = (rows / camera.focal_px)[:, None]
        self.depth_m = np.full((height, width), SKY_M, np.float32)

    def put(self, part: tuple[slice, slice], mask: Mask, surface: Floats, shine: Floats, depth_m: Floats) -> None:
        """Overwrite the masked pixels of a part; the arrays are (N, 4), (N,) and (N,) for the N pixels of the mask."""
        self.canvas.surface[part][mask] = np.clip(surface, 0, 255)
        self.canvas.light[part][mask] = np.clip(shine * 255, 0, 255)[:, None]
        self.depth_m[part][mask] = depth_m

    def draw(self, x_m: float, z_m: float, shapes: Sequence[Shape]) -> None:
        """Draw a flat prop that stands at x and z, its shapes in (0, up, right) of that place."""
        for outline in self.canvas.draw(Pose(x_m, z_m), shapes):
            cv2.fillConvexPoly(self.depth_m, outline, z_m, cv2.LINE_8, SUBPIXEL_BITS)


def build_street(camera: Camera, rng: np.random.Generator) -> Street:
    """Ray cast houses, ground and props, and light them."""
    height, width = camera.height_px, camera.width_px
    rays = _Rays(Camera(height * SUPERSAMPLE, width * SUPERSAMPLE))
    _put_sky(rays)
    ground_rng, house_rng, prop_rng = rng.spawn(3)  # so that the size of the picture does not change the houses
    _put_ground(rays, ground_rng)
    ground = rays.depth_m.copy()
    _put_houses(rays, house_rng)
    lamps = _put_props(rays, prop_rng)

    every = np.s_[::SUPERSAMPLE, ::SUPERSAMPLE]
    depth = rays.depth_m[every]
    solid = np.where(depth == ground[every], np.float32(np.inf), depth)
    surface, shine = (
        np.asarray(cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        for layer in (rays.canvas.surface, rays.canvas.light)
    )
    x, y = CAMERA_X_M + rays.across[:, ::SUPERSAMPLE] * depth, CAMERA_HEIGHT_M - rays.fall[::SUPERSAMPLE] * depth
    transmission = np.exp(-depth / VISIBILITY_M)[:, :, None]
    lit = encoded_light(np.stack([x, y, depth], axis=2), lamps) * transmission
    own = shine[:, :, :3] / np.float32(255)
    lit = np.maximum(lit * (1 - own), own * np.minimum(1, LAMP_REACH * transmission))
    light = np.rint(255 * np.concatenate([lit, transmission], axis=2)).astype(np.uint8)
    return Street(camera, lamps, surface, light, solid, float(solid.min()))


def _put_sky(rays: _Rays) -> None:
    """Paint the whole picture as sky, paler towards the horizon."""
    up = np.clip(-rays.fall / 0.5, 0, 1)[:, :, None]
    low, high = np.array((206, 218, 230, 24)), np.array((112, 160, 216, 6))
    rays.canvas.surface[...] = (low + (high - low) * up).astype(np.uint8)


def _put_ground(rays: _Rays, rng: np.random.Generator) -> None:
    """Paint road with markings and a crossing, kerbs, paved walks, and the side street."""
    part = slice(int(np.searchsorted(rays.fall[:, 0], CAMERA_HEIGHT_M / 200)), None), slice(None)
    below = np.ones((len(rays.fall[part[0]]), rays.across.size), dtype=bool)
    z = np.broadcast_to(CAMERA_HEIGHT_M / rays.fall[part[0]], below.shape)[below]
    x = np.broadcast_to(rays.across, below.shape)[below] * z + CAMERA_X_M
    side, size = np.abs(x), (len(x), 1)
    surface = np.tile(np.array((98, 98, 102, 88), np.float32), size)
    walk = (side > ROAD_M) & ~(_in_side_street(z) & (x < -ROAD_M)) & (z < JUNCTION_M)
    surface[walk] = (156, 150, 140, 80)
    joint = ((z % 1.2 < 0.05) | (side % 0.8 < 0.03)) & (z < 16)
    surface[walk & joint] = (134, 128, 120, 76)
    surface[walk & (side < KERB_M)] = (186, 184, 178, 84)
    road = ~walk & (z < JUNCTION_M)
    middle = (side < 0.08) & (z % 6 < 3) & (z > 12)
    edge = np.abs(side - ROAD_M + 0.35) < 0.06
    crossing = (z > 6.2) & (z < 9.2) & ((x + 0.25) % 1.0 < 0.5) & (side < ROAD_M - 0.3)
    surface[road & (middle | (edge & ~((z > 5.8) & (z < 9.6))) | crossing)] = (224, 224, 218, 82)
    surface *= 1 + 0.045 * rng.standard_normal(size, dtype=np.float32)
    worn = 1 + 0.06 * np.sin(x * 2.1 + np.sin(z * 0.7)) * np.sin(z * 1.3 + 2 * np.sin(x * 0.9))
    rays.put(part, below, surface * worn[:, None], np.zeros(len(x), np.float32), z)


def _in_side_street(z: Floats) -> Mask:
    """Tell which distances along z lie in the gap between the houses on the left."""
    return (z > LEFT_ENDS_M[0][-1]) & (z < LEFT_ENDS_M[1][0])


def _put_houses(rays: _Rays, rng: np.random.Generator) -> None:
    """Put both rows of houses and the row that closes the street, far before near."""
    places = [(11.0 * k, 11.0 * (k + 1), JUNCTION_M + 9.0, SKY_M) for k in range(-4, 4)]
    for ends in LEFT_ENDS_M:
        places += [(-OUTER_M, -FACADE_M, near, far) for near, far in pairwise(ends)]
    places += [(FACADE_M, OUTER_M, near, far) for near, far in pairwise(RIGHT_ENDS_M)]
    colors = rng.permutation(len(HOUSES))
    order = sorted(range(len(places)), key=lambda k: -places[k][2])
    for (left, right, near, far), k in ((places[k], k) for k in order):
        house = _House(rng, HOUSES[colors[k % len(HOUSES)]], cafe=left > 0 and (near, far) == CAFE_M)
        corners = [(x, y, near) for x in (left, right) for y in (0.0, house.height_m)]
        rows, columns = rays.canvas.camera.window(np.array(corners))
        across = rays.across[:, columns]
        along = CAMERA_X_M - left + near * across
        _put_wall(rays, house, (rows, columns), near + 0 * across, along, length_m=right - left)

        if far == SKY_M:
            continue  # the row that closes the street shows its front only
        wall = right if right < CAMERA_X_M else left
        corners = [(wall, y, z) for y in (0.0, house.height_m) for z in (near, far)]
        rows, columns = rays.canvas.camera.window(np.array(corners))
        depth = (wall - CAMERA_X_M) / rays.across[:, columns]
        _put_wall(rays, house, (rows, columns), depth, depth - near, length_m=far - near)


def _put_wall(
    rays: _Rays, house: "_House", part: tuple[slice, slice], depth_m: Floats, along_m: Floats, *, length_m: float
) -> None:
    """Put an upright wall within a part (rows, columns) of the picture.

    depth_m, along_m: (1, columns) distance along z, and place on the wall from 0 to `length_m`.
    """
    up = CAMERA_HEIGHT_M - rays.fall[part[0]] * depth_m
    mask = (along_m > 0) & (along_m < length_m) & (up > 0) & (up < house.height_m)
    along, depth = (np.broadcast_to(values, mask.shape)[mask] for values in (along_m, depth_m))
    rays.put(part, mask, *house.paint(along, up[mask], depth, length_m), depth)


class _House:
    """Colours, height and lit windows of one house."""

    def __init__(self, rng: np.random.Generator, rgb: Rgb, cafe: bool) -> None:
        self.height_m = SHOP_M + FLOOR_M * int(rng.integers(2, 4)) + float(rng.uniform(0.5, 1.1))
        self.wall = np.array((*rgb, int(rng.integers(60, 80))), np.float32)
        self.lit = rng.choice(3, size=(8, 16), p=(0.72, 0.2, 0.08))  # dark, warm, cool
        self.cafe = cafe

    def paint(self, along: Floats, up: Floats, depth: Floats, length_m: float) -> tuple[Floats, Floats]:
        """Return the surface (N, 4) and shine (N,) at metres along and up a wall seen from `depth` metres."""
        surface = np.tile(self.wall, (len(along), 1))
        course = (up % 0.3 < 0.04) & (depth < 22)
        surface[course] *= (0.9, 0.9, 0.9, 0.98)
        surface[up < 0.7] *= (0.72, 0.72, 0.72, 1.04)
        surface[(up > self.height_m - 0.35) | (np.abs(up - SHOP_M + 0.12) < 0.12)] = (206, 200, 190, 84)
        shine = np.zeros(len(along), np.float32)

        columns = max(int(length_m / PITCH_M), 1)
        pitch = length_m / columns
        column, row = (along / pitch).astype(int), ((up - SHOP_M) / FLOOR_M).astype(int)
        beside = np.abs(along / pitch - column - 0.5) * pitch
        above = (up - SHOP_M) - row * FLOOR_M
        framed = (beside < 0.62) & (above > 0.75) & (above < 2.45) & (up > SHOP_M) & (up < self.height_m - 0.5)
        glass = framed & (beside < 0.54) & (above > 0.85) & (above < 2.35) & (beside > 0.04)
        surface[framed] = (226, 222, 214, 88)
        self._glaze(surface, shine, glass, self.lit[row % 8, column % 16], above / FLOOR_M)

        shop = (up < 2.6) & (up > 0.75) & (beside < 0.9) & (column % 3 != 1)
        self._glaze(surface, shine, shop, np.full(len(up), int(self.cafe)), up / SHOP_M)
        surface[(up < 2.3) & (beside < 0.5) & (column % 3 == 1)] = (92, 58, 44, 92)
        if self.cafe:
            sign = (np.abs(up - 3.05) < 0.32) & (along > 0.4) & (along < length_m - 0.4)
            surface[sign] = (24, 176, 158, 84)
            surface[sign & (np.abs(up - 3.05) > 0.26)] = (240, 250, 240, 88)
            shine[sign] = SIGN_SHINE
        return surface, shine

    def _glaze(self, surface: Floats, shine: Floats, mask: Mask, kind: NDArray[np.int64], above: Floats) -> None:
        """Paint the masked pixels as glass: dark, warm or cool by `kind`; lit rooms are brighter at their ceiling."""
        panes = np.array([(66, 82, 98, 62), (255, 206, 128, 112), (204, 224, 255, 106)], np.float32)[kind[mask]]
        panes[:, :3] *= (0.8 + 0.35 * above[mask] % 1)[:, None]
        surface[mask] = panes
        shine[mask] = WINDOW_SHINE * (kind[mask] > 0)


def _put_props(rays: _Rays, rng: np.random.Generator) -> list[Lamp]:
    """Draw trees, bushes, lamp posts and the hanging sign, far before near; return all lamps."""
    props = [(x, z, _tree(rng)) for x, z in TREES_M] + [(x, z, _bush(rng)) for x, z in BUSHES_M]
    props += [(x, z, _lamp_post(-np.sign(x) * LAMP_ARM_M)) for x, z in LAMP_POSTS_M]
    props.append((FACADE_M, CAFE_M[0] + 0.2, _hanging_sign()))
    for x, z, shapes in sorted(props, key=lambda prop: -prop[1]):
        rays.draw(x, z, shapes)
    near, far = CAFE_M
    heads = [(x - np.sign(x) * LAMP_ARM_M, LAMP_HEIGHT_M - 0.1, z) for x, z in LAMP_POSTS_M]
    lamps = [Lamp(head, LAMP_INTENSITY, SODIUM, True) for head in heads]
    lamps += [Lamp((5.5, 1.6, z), 1.6, WARM, False) for z in (near + 2.0, far - 2.0)]
    lamps.append(Lamp((6.2, 3.0, (near + far) / 2), 0.9, TEAL, False))
    lamps.append(Lamp((6.2, 4.4, near - 0.3), 0.5, PINK, False))
    return lamps


def _leaves(up: float, radius: float, height: float, count: int, rng: np.random.Generator) -> list[Shape]:
    """Return a ball of leaves, dark ones below and behind, light ones above and before."""
    turn, out = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
    places = np.stack([out * np.sin(turn), out * np.cos(turn)], axis=1)
    shapes = []
    for k, (high, right) in enumerate(places[np.argsort(places[:, 0] + rng.standard_normal(count))]):
        bright = float(np.clip(0.5 + 0.35 * k / count + 0.25 * high + 0.1 * rng.standard_normal(), 0.3, 1.3))
        paint = Paint((int(78 * bright), int(132 * bright), int(52 * bright)), int(44 + 12 * bright))
        shapes.append(Shape([(0.0, up + high * height, right * radius, rng.uniform(0.1, 0.2) * radius)], paint))
    return shapes


def _tree(rng: np.random.Generator) -> list[Shape]:
    """Return a street tree."""
    bark = Paint((86, 66, 50), 66)
    branches = [Shape([(0.0, 2.2, 0.0, 0.09), (0.0, 3.8, side, 0.05)], bark) for side in (-0.8, 0.7)]
    return [Shape([(0.0, 0.0, 0.0, 0.17), (0.0, 3.4, 0.05, 0.11)], bark), *branches, *_leaves(4.4, 1.6, 1.5, 220, rng)]


def _bush(rng: np.random.Generator) -> list[Shape]:
    """Return a bush in a box."""
    box = [(0.0, up, right, 0.02) for up in (0.0, 0.45) for right in (-0.45, 0.45)]
    return [*_leaves(0.8, 0.5, 0.38, 70, rng), Shape(box, Paint((120, 96, 78), 78))]


def _lamp_post(arm_m: float) -> list[Shape]:
    """Return a post, its arm over the road and the lit head."""
    metal, top = Paint((74, 80, 84), 60), LAMP_HEIGHT_M
    return [
        Shape([(0.0, 0.0, 0.0, 0.1), (0.0, 0.9, 0.0, 0.1)], metal),
        Shape([(0.0, 0.0, 0.0, 0.075), (0.0, top - 0.4, 0.0, 0.05)], metal),
        Shape([(0.0, top - 0.4, 0.0, 0.045), (0.0, top, arm_m, 0.045)], metal),
        Shape([(0.0, top, arm_m - 0.3, 0.1), (0.0, top, arm_m + 0.3, 0.1)], metal),
        Shape([(0.0, top - 0.1, arm_m - 0.22, 0.08), (0.0, top - 0.1, arm_m + 0.22, 0.08)], LAMP_GLASS),
    ]


def _hanging_sign() -> list[Shape]:
    """Return a lit sign with a steaming cup that hangs from a house front and faces the camera."""
    pink, cream = Paint((206, 30, 92), 98, SIGN_SHINE), Paint((255, 240, 206), 102, SIGN_SHINE)
    low, high, left, right = 3.9, 5.1, -1.3, -0.2
    shapes = [Shape([(0.0, high + 0.12, left, 0.03), (0.0, high + 0.12, 0.0, 0.03)], Paint((60, 60, 64), 60))]
    for inset, paint in ((0.0, cream), (0.06, pink)):
        corners = [(0.0, up, b, 0.02) for up in (low + inset, high - inset) for b in (left + inset, right - inset)]
        shapes.append(Shape(corners, paint))
    cup = [(0.0, 4.45, -1.03, 0.0), (0.0, 4.45, -0.6, 0.0), (0.0, 4.12, -0.94, 0.02), (0.0, 4.12, -0.7, 0.02)]
    shapes += [Shape([(0.0, 4.33, -0.56, 0.1)], cream), Shape([(0.0, 4.33, -0.56, 0.05)], pink), Shape(cup, cream)]
    steam = [[(0.0, 4.56, b, 0.025), (0.0, 4.72, b + 0.06, 0.025), (0.0, 4.88, b, 0.025)] for b in (-0.92, -0.74)]
    return shapes + [Shape(line[k : k + 2], cream) for line in steam for k in (0, 1)]


def encoded_light(points_m: Floats, lamps: Sequence[Lamp]) -> Floats:
    """Return the light (..., 3) at points (..., 3), 0 to 1, gamma encoded like the surface colours."""
    kind = points_m.dtype
    linear = np.zeros_like(points_m) + np.asarray(NIGHT_LIGHT, kind)
    for lamp in lamps:
        offset = points_m - np.asarray(lamp.at_m, kind)
        square = np.einsum("...k,...k->...", offset, offset) + 0.5
        cone = np.clip(-offset[..., 1] / np.sqrt(square), 0.02, 1) ** 2.5 if lamp.down else 0.6
        linear += (lamp.intensity * cone / square)[..., None] * np.asarray(lamp.rgb, kind)
    return np.asarray(np.minimum(linear, 1) ** (1 / LIGHT_GAMMA), kind)
