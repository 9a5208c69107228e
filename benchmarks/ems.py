"""Test degradations: uint8 images made dark, hazy, noisy and so on, drawn from a NumPy generator.

They follow the parameters that EMS publishes (Yi et al., EMS_make_degradation_func) where it has any, and plain physics
where it has none: EMS's low light, overexposure and low contrast are real images. Nothing is shared with what
training degrades by, so that a network cannot have learnt the test. Every function takes an image, (H, W) or
(H, W, 3), and a generator, and returns a new image of the same shape.

The strengths are set to the mean PSNR that others have of degraded daylight images of MSRS: low light 11.0,
overexposure 8.4, noise 22.4, haze 12.2, rain 29.4, blur 31.6 dB.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.image import Uint8

Rng = np.random.Generator
Degradation = Callable[[Uint8, Rng], Uint8]
Floats = NDArray[np.float32]

GAMMA = 2.2  # of displays: linear light is (value / 255) ** GAMMA
FULL_WELL = 10000.0  # electrons at 255 of the sensor that low light is simulated on
HAZE_DENSITY, AIR_LIGHT, DEPTH_SLOPE, DEPTH_FAR = 0.12, 0.8, -0.04, 17.0  # EMS, at 480x640
RAIN_LENGTH = 50  # pixels of a streak, EMS


def low_light(image: Uint8, rng: Rng) -> Uint8:
    """Expose too little: linear light is divided, then comes the sensor's shot and read noise."""
    exposure = rng.uniform(0.035, 0.135)
    electrons = _light(image) * (exposure * FULL_WELL)
    electrons = rng.poisson(electrons) + rng.normal(0, 2.0, image.shape)
    return _from_light(electrons / FULL_WELL)


def overexposure(image: Uint8, rng: Rng) -> Uint8:
    """Expose too much: linear light is multiplied and clipped, after a glow of the bright parts into the dark ones.

    An image that is bright already is multiplied by less, so that something is left of it.
    """
    light = _light(image)
    light = light * np.float32(min(rng.uniform(4.8, 9.2), 1.3 / max(float(light.mean()), 0.01)))
    glow = cv2.GaussianBlur(light, (0, 0), 12.0)
    return _from_light(0.9 * light + 0.1 * np.minimum(glow, 2.0))


def haze(image: Uint8, rng: Rng) -> Uint8:
    """Mix with airlight by the depth that EMS supposes: far in the middle, near at the edges. I = J t + A (1 - t)."""
    height, width = image.shape[:2]
    row, column = height * rng.uniform(0.1, 0.35), width * rng.uniform(0.3, 0.7)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    distance = np.hypot(rows - row, columns - column) * (800 / np.hypot(height, width))
    depth = np.maximum(DEPTH_SLOPE * distance + DEPTH_FAR, 0)
    through = _planes(np.exp(-rng.uniform(0.75, 1.05) * HAZE_DENSITY * depth), image)
    air = 255 * (AIR_LIGHT + rng.uniform(-0.05, 0.05))
    return _bytes(image * through + air * (1 - through))


def rain(image: Uint8, rng: Rng) -> Uint8:
    """Add streaks, 50 pixels long and up to 45 degrees from the vertical, to an image dimmed by a tenth."""
    drops = np.where(rng.random(image.shape[:2]) > 1 - 5 / 256, 1.0, 0.0).astype(np.float32)
    streaks = cv2.filter2D(drops, -1, _line(RAIN_LENGTH, rng.uniform(-45, 45), 3), borderType=cv2.BORDER_REFLECT)
    streaks = streaks * (255 / max(float(streaks.max()), 1e-6))
    return _bytes(0.9 * image + 0.1 * 0.8 * _planes(streaks, image))


def blur(image: Uint8, rng: Rng) -> Uint8:
    """Blur by sigma 1, then lose every second or fourth pixel and interpolate."""
    height, width = image.shape[:2]
    factor = int(rng.choice((2, 4)))
    soft = cv2.GaussianBlur(image, (0, 0), 1.0)
    small = cv2.resize(soft, (width // factor, height // factor), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def noise(image: Uint8, rng: Rng) -> Uint8:
    """Add Gaussian noise of 10 levels, then shot noise of 70 to 90 counts at 255."""
    return _shot(image + rng.normal(0, 10, image.shape), rng.uniform(70, 90), rng)


def infrared_noise(image: Uint8, rng: Rng) -> Uint8:
    """Add Gaussian noise of 20 levels, then shot noise of 80 counts at 255, and single dead pixels."""
    noisy = _shot(image + rng.normal(0, 20, image.shape), 80, rng)
    dead = rng.random(image.shape)
    noisy[dead < 1e-6] = 0
    noisy[dead > 1 - 3e-6] = 255
    return noisy


def low_contrast(image: Uint8, rng: Rng) -> Uint8:
    """Squeeze the range to 0.25 to 0.55 of itself around another level, as an uncooled camera does without its gain."""
    squeezed = rng.uniform(0.25, 0.55) * (image - float(image.mean()))
    return _bytes(squeezed + rng.uniform(60, 150))


def stripes(image: Uint8, rng: Rng) -> Uint8:
    """Add one offset to each column, of 3 to 8 levels, and pixel noise of 3 to 5."""
    return _striped(image, rng.uniform(3, 8), rng.uniform(3, 5), rng)


def strong_stripes(image: Uint8, rng: Rng) -> Uint8:
    """Add stripes as DRMF's: 20 to 25 levels a column, and pixel noise of 25 to 30."""
    return _striped(image, rng.uniform(20, 25), rng.uniform(25, 30), rng)


VISIBLE: dict[str, Degradation] = {
    "low_light": low_light,
    "overexposure": overexposure,
    "haze": haze,
    "rain": rain,
    "blur": blur,
    "noise": noise,
}
INFRARED: dict[str, Degradation] = {
    "low_contrast": low_contrast,
    "stripes": stripes,
    "noise": infrared_noise,
    "strong_stripes": strong_stripes,
    "blur": blur,
}


@dataclass(frozen=True)
class Case:
    """What happens to a pair: names of degradations of each modality, in order; () leaves one clean."""

    infrared: tuple[str, ...] = ()
    visible: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return such as `visible haze+noise`, the modalities joined by a comma."""
        both = {"infrared": self.infrared, "visible": self.visible}
        return ", ".join(f"{modality} {'+'.join(names)}" for modality, names in both.items() if names)

    def __call__(self, infrared: Uint8, visible: Uint8, seed: Sequence[int]) -> tuple[Uint8, Uint8]:
        """Return the degraded pair. The same seed gives the same pair, whatever was degraded before."""
        rng = np.random.default_rng([*seed, *self.name.encode()])
        for name in self.infrared:
            infrared = INFRARED[name](infrared, rng)
        for name in self.visible:
            visible = VISIBLE[name](visible, rng)
        return infrared, visible


# Nine single degradations, which the literature's numbers are of; then stronger and rarer ones, and mixtures.
SINGLE = (
    *(Case(visible=(name,)) for name in VISIBLE),
    *(Case(infrared=(name,)) for name in ("low_contrast", "stripes", "noise")),
)
CASES = (
    *SINGLE,
    *(Case(infrared=(name,)) for name in ("strong_stripes", "blur")),
    Case(visible=("haze", "noise")),
    Case(visible=("low_light", "noise")),
    Case(visible=("haze", "rain")),
    Case(infrared=("stripes", "noise")),
    Case(infrared=("low_contrast", "stripes"), visible=("low_light",)),
)


def _shot(values: NDArray[Any], counts: float, rng: Rng) -> Uint8:
    return _bytes(rng.poisson(np.clip(values, 0, 255) * (counts / 255)) * (255 / counts))


def _striped(image: Uint8, column_levels: float, pixel_levels: float, rng: Rng) -> Uint8:
    columns = rng.normal(0, column_levels, (1, image.shape[1]))
    pixels = rng.normal(0, pixel_levels, image.shape[:2])
    return _bytes(image + _planes(columns + pixels, image))


def _line(length: int, angle: float, width: int) -> Floats:
    """Return the kernel of a streak, `angle` degrees from the vertical, of sum 1."""
    kernel = np.zeros((length, length), np.float32)
    middle, reach = (length - 1) / 2, (length - 1) / 2
    offset = reach * np.array((np.sin(np.radians(angle)), np.cos(np.radians(angle))))
    ends = [tuple(round(float(v)) for v in middle + sign * offset) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1)
    kernel = np.asarray(cv2.GaussianBlur(kernel, (width, width), 0), np.float32)
    return kernel / kernel.sum()


def _planes(values: NDArray[Any], image: Uint8) -> NDArray[Any]:
    """Return (H, W) values as they broadcast over the image's channels."""
    return values if image.ndim == 2 else values[..., None]


def _light(image: Uint8) -> Floats:
    return np.asarray((np.arange(256) / 255) ** GAMMA, np.float32)[image]


def _from_light(light: NDArray[Any]) -> Uint8:
    return _bytes(255 * np.clip(light, 0, 1) ** (1 / GAMMA))


def _bytes(values: NDArray[Any]) -> Uint8:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
