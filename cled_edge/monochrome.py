"""The image of a monochrome camera, as the network is to see it: with a faint warm tint.

Some networks tell the modalities by their colours: exactly grey is infrared to them, and an infrared image has no low
light to remove. With a tint they take the image for a visible one. What comes out is made grey again. What that is
worth, `python -m benchmarks.control --only grey` measures.

Noise whose channels are equal they take for texture then: the noisier the image, the fainter the tint.
"""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.evidence.signs import finest_diagonal
from cled_edge.frame import FusedFrame
from cled_edge.image import ColorOrder, Uint8

TINT = (1.02, 1.0, 1 - 0.02 * 0.299 / 0.114)  # gains of R, G and B; the BT.601 luma stays
_QUIET, _NOISY = 4.0, 6.0  # standard deviation of noise, grey levels: all of the tint up to one, none from the other
TINTED = "the visible image is grey: the network is shown it with a faint tint, and what comes out is made grey again"
_ENOUGH = 20_000  # values of the band that noise is told by
_PROBE_PX = 32  # a colour image shows its colours at one in so many rows and columns


def is_grey(visible: NDArray[Any]) -> bool:
    """Say whether an 8-bit image, (H, W) or (H, W, 1 or 3), is exactly grey."""
    if visible.dtype != np.uint8 or visible.shape[2:] not in ((), (1,), (3,)):
        return False
    if visible.shape[2:] != (3,):
        return True
    probe = visible[::_PROBE_PX, ::_PROBE_PX]
    if not (probe == probe[:, :, :1]).all():
        return False
    grey = cv2.cvtColor(cv2.extractChannel(visible, 0), cv2.COLOR_GRAY2BGR)
    return cv2.norm(visible, grey, cv2.NORM_INF) == 0


def tinted(visible: NDArray[Any], color_order: ColorOrder) -> Uint8:
    """Return a grey 8-bit image, (H, W) or (H, W, 1 or 3), with the tint that suits its noise, (H, W, 3)."""
    grey = np.ascontiguousarray(visible if visible.ndim == 2 else visible[:, :, 0])
    gains = tint(grey)
    if color_order == "BGR":
        gains = gains[::-1]
    table = np.clip(np.rint(np.arange(256)[:, None] * gains), 0, 255).astype(np.uint8)
    channels = [grey if gain == 1 else cv2.LUT(grey, column) for gain, column in zip(gains, table.T, strict=True)]
    return np.asarray(cv2.merge(channels), np.uint8)


def tint(grey: Uint8) -> NDArray[np.float64]:
    """Return the gains of R, G and B of the tint that suits the noise of an image (H, W)."""
    share = np.clip((_NOISY - noise_levels(grey)) / (_NOISY - _QUIET), 0, 1)
    return np.asarray(1 + share * (np.array(TINT) - 1))


def greyed(fused: FusedFrame) -> FusedFrame:
    """Return a result whose fused and restored visible images are grey, (H, W, 3) of equal channels."""
    code = cv2.COLOR_BGR2GRAY if fused.color_order == "BGR" else cv2.COLOR_RGB2GRAY
    picture, visible = (
        np.asarray(cv2.merge([cv2.cvtColor(x, code)] * 3), np.uint8) for x in (fused.picture, fused.visible)
    )
    return replace(fused, picture=picture, visible=visible)


def noise_levels(grey: Uint8) -> float:
    """Return the standard deviation of the noise of an image (H, W), as Donoho and Johnstone (1994) estimate it.

    It is the median of the finest diagonal Haar band over 0.6745, interpolated: bytes have few values. Of a large image
    a part of the rows is enough.
    """
    height, width = grey.shape[0] // 2 * 2, grey.shape[1] // 2 * 2
    if not height or not width:
        return 0.0
    step = max(1, height * width // (4 * _ENOUGH))
    pairs_of_rows = grey[:height, :width].reshape(height // 2, 2, width)[::step]
    whole = pairs_of_rows.reshape(-1, width).astype(np.int16)
    band = np.abs(finest_diagonal(whole))
    counts = np.bincount(band.ravel())
    below = np.concatenate(([0], np.cumsum(counts)))
    place = int(np.searchsorted(below, band.size / 2, side="right")) - 1
    within = (band.size / 2 - below[place]) / counts[place]
    return float(max(place - 0.5 + within, 0) / 2 / 0.6745)
