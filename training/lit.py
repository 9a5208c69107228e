"""Nights as the control `light` shows them to the network: brightened, with the noise that this lifts."""

import math

import torch
from torch import Generator, Tensor

from cled_edge.image import Uint8
from cled_edge.light import COLOUR, brightened, gains
from training.degradations import darkened, draw, jpeg, sensor_noise

_LEAST_LIGHT = 0.7  # of the control: below it little is lifted
_CODED_SHARE = 0.3  # of nights that came through a codec
_QUALITIES = (70.0, 97.0)


def lit_night(x: Tensor, is_night: bool, generator: Generator, night: float) -> tuple[Tensor, Tensor]:
    """Return a night, brightened, with the noise of a dark exposure and without it, both like x.

    x: (1, 3, H, W) in [0, 1]; what is no night image is darkened first. If it is so dark that its mean stays below
    `night`, the two are the dark image and x: it would pass for low light, which is restored and not kept.
    """
    dark = x if is_night else darkened(x, generator).clamp(0, 1)
    peak = torch.exp(draw(1, math.log(150), math.log(10000), generator))
    noisy = sensor_noise(dark, peak, draw(1, 0, 0.12, generator).square(), generator).clamp(0, 1)
    if torch.rand((), generator=generator) < _CODED_SHARE:
        noisy = jpeg(noisy, generator, _QUALITIES)
    pixels = _bytes(noisy)
    noisy = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255  # a camera's steps are lifted too
    gain = gains(pixels, draw(1, _LEAST_LIGHT, 1, generator).item())
    noisy_lit, lit = (image if gain is None else _lifted(image, torch.from_numpy(gain)) for image in (noisy, dark))
    return (noisy, x) if not is_night and lit.mean() < night else (noisy_lit, lit)


def _lifted(x: Tensor, gain: Tensor) -> Tensor:
    """Return (1, 3, H, W) in [0, 1] with the gains of pixels, (H, W), as `light.lifted` has it."""
    own = gain**COLOUR
    return (own * x + (gain - own) * x.mean(dim=1, keepdim=True)).clamp_max(1)


def lit_reference(degraded: Uint8, generator: Generator) -> Uint8:
    """Return a real image of low light, (H, W, 3), brightened: its reference is what the network makes of the rest."""
    return brightened(degraded, draw(1, _LEAST_LIGHT, 1, generator).item())


def _bytes(x: Tensor) -> Uint8:
    pixels: Uint8 = (x[0].permute(1, 2, 0) * 255).round().byte().contiguous().numpy()
    return pixels
