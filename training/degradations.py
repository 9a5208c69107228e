"""Simulated degradations of clean pictures, seeded, own code from the parameters in the literature.

Every function takes float32 (H, W, C) in [0, 1] and a generator, and returns the same shape and range (values may
leave [0, 1]; `degrade` clips after each). The kinds are the EMS ones: six simulated and three real there, all
simulated here. A sensor adds its noise after the optics, so mixtures keep the order of the tables below.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Degradation = Callable[[Image, np.random.Generator], Image]
Modality = Literal["infrared", "visible"]


def low_light(image: Image, rng: np.random.Generator) -> Image:
    """Darken by a gamma and a gain, leave lamps and their pools of light, add the noise of a dark exposure."""
    dark = image ** np.float32(rng.uniform(1.0, 2.5)) * np.float32(rng.uniform(0.06, 0.5))
    if rng.random() < 0.6:
        # A night picture is not evenly dark: what shines saturates, and lights what is near it.
        shining = np.clip((image.max(axis=2, keepdims=True) - rng.uniform(0.7, 0.9)) / 0.1, 0, 1)
        spread = float(rng.uniform(8, 40))
        near = cv2.GaussianBlur(shining[:, :, 0], (0, 0), spread)[:, :, None] * rng.uniform(0, 2)
        share = np.clip(np.maximum(shining * rng.uniform(0.5, 1), near), 0, 1)
        dark = dark + (image - dark) * share
    tint = rng.uniform(0.9, 1.1, image.shape[2])
    return shot_noise((dark * tint).astype(np.float32), rng, peak=rng.uniform(200, 2000), read=rng.uniform(0, 0.012))


def overexposure(image: Image, rng: np.random.Generator) -> Image:
    """Gain and lift: highlights clip, shadows wash out."""
    return image ** rng.uniform(0.5, 0.9) * rng.uniform(1.2, 1.7) + np.float32(rng.uniform(0, 0.1))


def haze(image: Image, rng: np.random.Generator) -> Image:
    """Atmospheric scattering I t + A (1 - t), t = exp(-beta d); depth d grows upwards, to the middle or evenly."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    centre = rng.uniform(0, height), rng.uniform(0, width)
    radial = 1 - np.hypot(rows - centre[0], columns - centre[1]) / np.hypot(height, width)
    even, to_middle, upwards = rng.choice([0.2, 0.5, 1.0]), rng.uniform(0, 0.8), rng.uniform(0, 0.8)
    depth = even + to_middle * radial + upwards * (1 - rows / height)
    transmission = np.exp(-rng.uniform(0.4, 1.5) * depth)[:, :, None]
    air = rng.uniform(0.65, 0.95) + rng.uniform(-0.03, 0.03, image.shape[2])
    return (image * transmission + air * (1 - transmission)).astype(np.float32)


def rain(image: Image, rng: np.random.Generator) -> Image:
    """Add bright slanted streaks: thresholded noise drawn out by a motion kernel."""
    seeds = (rng.random(image.shape[:2]) > rng.uniform(0.99, 0.998)).astype(np.float32)
    kernel = motion_kernel(int(rng.integers(9, 31)), 90 + rng.uniform(-35, 35), width=int(rng.integers(1, 3)))
    streaks = cv2.filter2D(seeds, -1, kernel / kernel.max())
    streaks = np.clip(cv2.GaussianBlur(streaks, (0, 0), 0.7), 0, 1)[:, :, None]
    return image * 0.95 + streaks * np.float32(rng.uniform(0.15, 0.45))


def blur(image: Image, rng: np.random.Generator) -> Image:
    """Defocus (Gaussian), motion, or a sensor of fewer pixels (down and up again)."""
    kind = rng.integers(3)
    if kind == 0:
        return _keep_channels(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.8)), image)
    if kind == 1:
        kernel = motion_kernel(int(rng.integers(4, 12)), rng.uniform(0, 180), width=1)
        return _keep_channels(cv2.filter2D(image, -1, kernel / kernel.sum()), image)
    height, width = image.shape[:2]
    factor = rng.uniform(1.5, 3.0)
    small = cv2.resize(image, (max(1, int(width / factor)), max(1, int(height / factor))), interpolation=cv2.INTER_AREA)
    return _keep_channels(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), image)


def noise(image: Image, rng: np.random.Generator) -> Image:
    """Gaussian read noise and Poisson shot noise."""
    return shot_noise(image, rng, peak=rng.uniform(70, 500), read=rng.uniform(0.01, 0.08))


def low_contrast(image: Image, rng: np.random.Generator) -> Image:
    """Compress towards a mean grey, as a poorly ranged thermal camera does."""
    level = rng.uniform(0.2, 0.6)
    return (level + rng.uniform(0.2, 0.7) * (image - image.mean())).astype(np.float32)


def stripes(image: Image, rng: np.random.Generator) -> Image:
    """Fixed-pattern columns: one offset per column, the same in every row, as on a microbolometer."""
    columns = (1, image.shape[1], 1)
    offsets = rng.normal(0, rng.uniform(0.015, 0.1), columns)
    gains = rng.normal(1, rng.uniform(0, 0.05), columns)
    return (image * gains + offsets).astype(np.float32)


def shot_noise(image: Image, rng: np.random.Generator, peak: float, read: float) -> Image:
    """Noise of variance image / peak + read^2: `peak` electrons at full scale, `read` in units of full scale."""
    sigma = np.sqrt(np.clip(image, 0, None) / peak + read**2)
    channels = image.shape[2] if rng.random() < 0.8 else 1
    return (image + sigma * rng.standard_normal((*image.shape[:2], channels))).astype(np.float32)


def motion_kernel(length_px: int, angle_deg: float, width: int) -> Image:
    """Return a line of that length and angle as a square kernel, values in [0, 1], not normalised."""
    size = length_px | 1
    canvas = np.zeros((size, size), np.uint8)
    middle = (size - 1) / 2
    reach = np.array([np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))]) * middle
    start, end = np.round(middle - reach).astype(int), np.round(middle + reach).astype(int)
    cv2.line(canvas, tuple(map(int, start)), tuple(map(int, end)), 255, width, cv2.LINE_AA)
    canvas[size // 2, size // 2] = 255
    return canvas.astype(np.float32) / np.float32(255)


KINDS: dict[Modality, dict[str, Degradation]] = {
    "infrared": {"blur": blur, "low_contrast": low_contrast, "noise": noise, "stripes": stripes},
    "visible": {
        "haze": haze,
        "rain": rain,
        "blur": blur,
        "overexposure": overexposure,
        "low_light": low_light,
        "noise": noise,
    },
}


def degrade(image: Image, modality: Modality, kinds: Sequence[str], rng: np.random.Generator) -> Image:
    """Apply the named kinds in the order of `KINDS`, each clipped to [0, 1]."""
    for name, function in KINDS[modality].items():
        if name in kinds:
            image = np.clip(function(image, rng), 0, 1).astype(np.float32)
    return image


def draw_kinds(modality: Modality, rng: np.random.Generator, clean: float, mixed: float) -> tuple[str, ...]:
    """Draw none (probability `clean`), two compatible kinds (`mixed`) or one kind."""
    draw = rng.random()
    if draw < clean:
        return ()
    names = list(KINDS[modality])
    count = 2 if draw < clean + mixed else 1
    picked = tuple(str(name) for name in rng.choice(names, count, replace=False))
    return picked[:1] if {"overexposure", "low_light"} <= set(picked) else picked


def _keep_channels(filtered: NDArray[np.generic], image: Image) -> Image:
    """OpenCV drops a last axis of one; put it back."""
    return filtered.reshape(image.shape).astype(np.float32)
