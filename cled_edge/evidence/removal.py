"""What a restoration did to an image, as numbers with units: light, veil, sharpness, and what the residual holds.

contrast, veil   Koschmieder's law, or a gain control: input = contrast * clean + veil, by least squares over a
                 thumbnail of both lumas. Haze of transmission t has contrast t; a dark exposure has no veil
sharpening       root mean square of the finest details (period 2 px), clean over input: above 1 the restoration
                 sharpens, below 1 it smooths
the rest         `signs_of` the residual's luma: sigma of its noise, patterns along columns and rows
"""

from typing import NamedTuple

import cv2
import numpy as np

from cled_edge.evidence.signs import signs_of
from cled_edge.image import Float32, Uint8

_CELLS = 32, 24  # width, height of the thumbnail


class Removal(NamedTuple):
    """Numbers of a restoration; levels are of 255. contrast is NaN where the clean image is flat."""

    contrast: float
    veil_levels: float
    brightening: float
    sharpening: float
    noise_levels: float
    columns_levels: float
    rows_levels: float


def removal_of(before: Uint8, after: Uint8, residual: Float32) -> Removal:
    """Return what was done from `before` to `after`, grey (H, W) or RGB (H, W, 3); residual: (H, W) in grey levels."""
    first, second = (_thumbnail(image) for image in (before, after))
    spread = second - second.mean()
    power = float((spread**2).mean())
    contrast = float((spread * first).mean()) / power if power > 1e-3 else float("nan")
    signs = [signs_of(image) for image in (before, after)]
    own = signs_of(np.clip(np.rint(residual + 128), 0, 255).astype(np.uint8))
    return Removal(
        contrast=contrast,
        veil_levels=float(first.mean()) - contrast * float(second.mean()),
        brightening=(float(second.mean()) + 1) / (float(first.mean()) + 1),
        sharpening=(signs[1]["detail_2"] + 0.1) / (signs[0]["detail_2"] + 0.1),
        noise_levels=own["sigma_flat"],
        columns_levels=own["columns"],
        rows_levels=own["rows"],
    )


def _thumbnail(image: Uint8) -> Float32:
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, _CELLS, interpolation=cv2.INTER_AREA), np.float32)
