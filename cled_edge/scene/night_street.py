"""A synthetic night street: infrared and visible pictures of one moving scene without parallax.

The street is ray cast once into static layers; every frame copies them, draws the actors and applies the sensors.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import OptionError
from cled_edge.scene.actors import Role, cast
from cled_edge.scene.backdrop import LAMP_REACH, VISIBILITY_M, Lamp, Street, build_street, encoded_light
from cled_edge.scene.canvas import HORIZON_HEIGHTS, Camera, Canvas

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

MIN_SIDE_PX = 64
CHEST_M = 1.1  # an actor is as bright as its middle at this height
HAZE_RGB, HAZE_GLOW, AIRLIGHT_SHRINK = (22.0, 25.0, 33.0), 8.3, 4

BLOOM_LEVEL, BLOOMS = 160, ((0.02, 16.0), (0.075, 42.0))  # radius over the picture height, gain
READ_NOISE, SHOT_NOISE = 4.5, 0.6  # standard deviation in levels: read, and shot times the root of the level
NOISE_OFFSET, NOISE_MARGIN_PX = 24, 64
INFRARED_NOISE, INFRARED_STRIPES, INFRARED_BLUR = 2.2, 1.5, 0.9  # levels, levels, pixels at 480 rows


@dataclass(frozen=True)
class SyntheticPair:
    """One instant of the street in both cameras, on the same pixels.

    infrared: (H, W) grey, warm is bright. visible: (H, W, 3) RGB by night, with haze and noise.
    visible_clean: (H, W, 3) RGB, the same instant exposed as by day, without haze and noise.
    """

    infrared: Uint8
    visible: Uint8
    visible_clean: Uint8


def night_street(
    frames: int, size: tuple[int, int] = (480, 640), seed: int = 0, rate_hz: float = 25.0
) -> Iterator[SyntheticPair]:
    """Return an iterator over `frames` pairs of `size` (height, width), `1 / rate_hz` seconds apart.

    Frame k depends on k, `size`, `seed` and `rate_hz` alone. `seed` sets colours, lit windows and noise.
    """
    if frames < 1:
        raise OptionError(f"frames is {frames}; a synthetic street needs 1 or more")
    return night_street_at(range(frames), size, seed, rate_hz)


def night_street_at(
    frames: Iterable[int], size: tuple[int, int] = (480, 640), seed: int = 0, rate_hz: float = 25.0
) -> Iterator[SyntheticPair]:
    """Return an iterator over the frames of these numbers; see `night_street`."""
    if min(size) < MIN_SIDE_PX:
        raise OptionError(f"size is {size[0]} x {size[1]}; height and width need {MIN_SIDE_PX} pixels or more")
    if seed < 0:
        raise OptionError(f"seed is {seed}; it must be 0 or more")
    if not rate_hz > 0:
        raise OptionError(f"rate_hz is {rate_hz}; it must be above 0")
    return _render(frames, size, seed, rate_hz)


def _render(frames: Iterable[int], size: tuple[int, int], seed: int, rate_hz: float) -> Iterator[SyntheticPair]:
    """Yield the pairs; the arguments are checked."""
    street = build_street(Camera(*size), np.random.default_rng((seed, 0)))
    airlight = _airlight(street.camera, street.lamps)
    roles = cast(np.random.default_rng((seed, 1)))
    sensors = _Sensors(size, np.random.default_rng((seed, 2)))
    for k in frames:
        canvas = Canvas(street.camera, street.surface.copy(), street.light.copy())
        _draw_actors(canvas, street, roles, k / rate_hz)
        yield sensors.expose(canvas, airlight, np.random.default_rng((seed, 3, k)))


def _draw_actors(canvas: Canvas, street: Street, roles: Sequence[Role], time_s: float) -> None:
    """Draw all actors, far before near, and put back what stands before each."""
    placed = [(role.actor, *seen) for role in roles if (seen := role.pose(time_s)) is not None]
    placed.sort(key=lambda item: -item[1].z_m)
    chests = np.array([(pose.x_m, CHEST_M, max(pose.z_m, 1.0)) for _, pose, _ in placed]).reshape(-1, 3)
    levels = 255 * encoded_light(chests, street.lamps)
    for (actor, pose, travelled_m), (_, _, z), level in zip(placed, chests.tolist(), levels, strict=True):
        transmission = float(np.exp(-z / VISIBILITY_M))
        red, green, blue = (level * transmission).tolist()
        shine = 255 * min(1.0, LAMP_REACH * transmission)
        canvas.lit = red, green, blue, 255 * transmission
        canvas.shining = shine, shine, shine, 255 * transmission
        for spot in actor.spots():
            canvas.draw_spot(pose, spot)
        corners = [(pose.x_m - actor.reach_m, 2.0, z), (pose.x_m + actor.reach_m, -0.5, z)]
        part = canvas.camera.window(np.array(corners))
        if pose.z_m < -actor.reach_m or not street.solid_m[part].size:
            continue
        canvas.draw(pose, actor.shapes(pose.eye(), travelled_m))
        if z > street.nearest_m:
            hidden = (street.solid_m[part] < z).view(np.uint8)
            cv2.copyTo(street.surface[part], hidden, canvas.surface[part])
            cv2.copyTo(street.light[part], hidden, canvas.light[part])


class _Sensors:
    """Turns a canvas into what the two cameras record."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        height, width = size
        tile = height + NOISE_MARGIN_PX, width + NOISE_MARGIN_PX
        # The noise of a level grows with its root. It is added where it does not: in the integral of 1 / deviation.
        stable = 2 * np.sqrt(READ_NOISE**2 + SHOT_NOISE**2 * np.arange(256)) / SHOT_NOISE**2
        stable = (stable - stable[0]) / (stable[-1] - stable[0]) * (255 - 2 * NOISE_OFFSET)
        deviation = (stable[1] - stable[0]) * READ_NOISE
        noise = NOISE_OFFSET + deviation * rng.standard_normal((*tile, 3), dtype=np.float32)
        self._noise = np.clip(np.rint(noise), 0, 2 * NOISE_OFFSET).astype(np.uint8)
        self._to_stable = np.rint(stable).astype(np.uint8)[None]
        level = np.interp(np.arange(256) - NOISE_OFFSET, stable, np.arange(256))
        self._from_stable = np.rint(level).astype(np.uint8)[None]

        flicker = rng.standard_normal(tile, dtype=np.float32) * INFRARED_NOISE
        stripes = np.tile(rng.standard_normal((1, width), dtype=np.float32) * INFRARED_STRIPES, (height, 1))
        self._flicker, self._stripes = _signed_parts(flicker), _signed_parts(stripes)
        self._blur_px = INFRARED_BLUR * height / 480

    def expose(self, canvas: Canvas, airlight: Uint8, rng: np.random.Generator) -> SyntheticPair:
        """Return the pair of pictures of a finished canvas."""
        height, width = canvas.surface.shape[:2]
        down, right = rng.integers(0, NOISE_MARGIN_PX, 2)
        part = np.s_[down : down + height, right : right + width]

        clean = cv2.cvtColor(canvas.surface, cv2.COLOR_RGBA2RGB)
        light = cv2.cvtColor(canvas.light, cv2.COLOR_RGBA2RGB)
        haze = cv2.cvtColor(cv2.bitwise_not(cv2.extractChannel(canvas.light, 3)), cv2.COLOR_GRAY2RGB)
        seen = cv2.add(cv2.multiply(clean, light, scale=1 / 255), cv2.multiply(airlight, haze, scale=1 / 255))
        seen = cv2.add(seen, _bloom(np.asarray(seen, dtype=np.uint8)))
        visible = cv2.LUT(cv2.add(cv2.LUT(seen, self._to_stable), self._noise[part]), self._from_stable)

        infrared = cv2.GaussianBlur(cv2.extractChannel(canvas.surface, 3), (5, 5), self._blur_px)
        for more, less in ((self._flicker[0][part], self._flicker[1][part]), self._stripes):
            infrared = cv2.subtract(cv2.add(infrared, more), less)
        return SyntheticPair(*(np.asarray(picture, dtype=np.uint8) for picture in (infrared, visible, clean)))


def _signed_parts(change: Float32) -> tuple[Uint8, Uint8]:
    """Return the positive and the negative part of a small change, rounded: 8-bit pictures add and subtract fast."""
    return np.rint(np.maximum(change, 0)).astype(np.uint8), np.rint(np.maximum(-change, 0)).astype(np.uint8)


def _bloom(picture: Uint8) -> Uint8:
    """Return the light (H, W, 3) that the lens scatters around the brightest parts of a picture."""
    height, width = picture.shape[:2]
    small = cv2.subtract(picture, np.full_like(picture, BLOOM_LEVEL))
    for shrink in (2, 4, 8):  # halves are much faster than eighths
        small = cv2.resize(small, (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    bright = small.astype(np.float32)
    glow = np.zeros_like(bright)
    for radius, gain in BLOOMS:
        glow += gain * cv2.GaussianBlur(bright, (0, 0), radius * height / 8)
    wide = cv2.resize(np.clip(glow, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(wide, dtype=np.uint8)


def _airlight(camera: Camera, lamps: Sequence[Lamp]) -> Uint8:
    """Return the colour (H, W, 3) of thick haze: the glow of the sky, and halos around the lamps."""
    small = Camera(camera.height_px // AIRLIGHT_SHRINK, camera.width_px // AIRLIGHT_SHRINK)
    rows, columns = np.mgrid[: small.height_px, : small.width_px].astype(np.float32)
    rise = np.clip(1 - np.abs(rows / small.height_px - HORIZON_HEIGHTS) / 0.5, 0, 1)
    glow = np.array(HAZE_RGB, np.float32) * (0.6 + rise[:, :, None])
    for lamp in lamps:
        ((column, row),), (scale,) = small.project(np.array([lamp.at_m]))
        away_m = np.hypot(columns - column, rows - row) / scale
        halo = 0.25 / (0.25 + away_m) ** 1.2 + 0.5 * np.exp(-((away_m / 0.9) ** 2))
        glow += (HAZE_GLOW * lamp.intensity * halo)[:, :, None] * np.array(lamp.rgb)
    size = camera.width_px, camera.height_px
    return np.asarray(cv2.resize(np.clip(glow, 0, 255).astype(np.uint8), size), dtype=np.uint8)
