"""Metrics of a fused image against its two sources: MI, VIF, Q^AB/F, N^AB/F, SSIM, SCD; and EN, SD, SF, AG.

They reward copying: the maximum of two sources, or one of them untouched, scores above most published fusions. Read
them beside the scores of both.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.image import Uint8
from cled_edge.metrics.edges import edge_artefacts, edge_preservation
from cled_edge.metrics.luma import Float64, check_sizes, check_smallest, luma
from cled_edge.metrics.reference import (
    SSIM_RANGE,
    Profile,
    average_gradient,
    bits_of,
    checked_profile,
    deviation,
    entropy_bits,
    spatial_frequency,
    ssim_and_contrast,
)
from cled_edge.metrics.windows import gaussian, local_moments, smoothed

VIF_SCALES = 17, 9, 5, 3  # window, pixels
VIF_NOISE = 2.0  # sigma_n^2 of the eye, grey levels squared: it fixes the range of images to 0 to 255
VIF_TINY = 1e-10
SMALLEST = 41  # a side that leaves the coarsest scale of VIF one window


def fusion_scores(
    infrared: NDArray[Any], visible: NDArray[Any], fused: NDArray[Any], profile: Profile = "strict"
) -> dict[str, float]:
    """Score a fused image against its sources, all uint8, grey (H, W) or RGB (H, W, 3), by their luma.

    mi: bits, sum over the sources; vif, ssim, scd: sums over the sources, the last two 2 at most; qabf: 0 to 1; nabf: 0
    is best; en: bits; sd, sf, ag: grey levels. `paper` computes ssim and nabf with the constants of published tables,
    `strict` as their authors defined them; the others do not differ. SizeMismatchError; OptionError under 41 pixels a
    side.
    """
    checked_profile(profile)
    check_sizes(infrared=infrared, visible=visible, fused=fused)
    a8, b8, f8 = luma(infrared, "infrared"), luma(visible, "visible"), luma(fused, "fused")
    check_smallest(f8, SMALLEST, "VIF")
    a, b, f = (x.astype(np.float64) for x in (a8, b8, f8))
    return {
        "mi": mutual_information_bits(a8, f8) + mutual_information_bits(b8, f8),
        "vif": information_fidelity(a, f) + information_fidelity(b, f),
        "qabf": edge_preservation(a, b, f),
        "nabf": edge_artefacts(a, b, f, profile),
        "ssim": sum(ssim_and_contrast(source, f, SSIM_RANGE[profile])[0] for source in (a, b)),
        "scd": correlation(f - b, a) + correlation(f - a, b),
        "en": entropy_bits(f8),
        "sd": deviation(f8),
        "sf": spatial_frequency(f8),
        "ag": average_gradient(f8),
    }


def mutual_information_bits(x: Uint8, y: Uint8) -> float:
    """Return I(X;Y) of two 8-bit lumas (H, W) from their joint histogram of 256x256 bins, bits."""
    counts = np.bincount((x.astype(np.intp) * 256 + y).ravel(), minlength=256**2).reshape(256, 256)
    return bits_of(counts.sum(1)) + bits_of(counts.sum(0)) - bits_of(counts.ravel())


def information_fidelity(reference: Float64, image: Float64) -> float:
    """Return VIF of lumas (H, W) in the pixel domain (Sheikh and Bovik 2006): 1 if equal; contrast adds.

    Four scales, each filtered where the window fits and halved. 1 if the reference is flat: it holds nothing to lose.
    """
    kept, held = 0.0, 0.0
    x, y = reference, image
    for scale, size in enumerate(VIF_SCALES):
        window = gaussian(size, size / 5)
        if scale:
            x, y = smoothed(x, window)[::2, ::2], smoothed(y, window)[::2, ::2]
        kept_here, held_here = _information(x, y, window)
        kept, held = kept + kept_here, held + held_here
    return kept / held if held else 1.0


def _information(x: Float64, y: Float64, window: Float64) -> tuple[float, float]:
    """Return the bits (of any base) about x that y and x itself carry through the eye's noise, at one scale.

    The model is y = g x + noise of variance `residue`, window by window.
    """
    at = local_moments(x, y, window)
    variance = np.where(at.variance_x < VIF_TINY, 0, at.variance_x)
    held = np.log(1 + variance / VIF_NOISE)
    g = at.covariance / (variance + VIF_TINY)
    g = np.where((variance > 0) & (g > 0), g, 0)  # nothing is carried by a flat window, nor by one of reversed contrast
    residue = np.maximum(at.variance_y - g * at.covariance, VIF_TINY)
    return float(np.log(1 + g * g * variance / (residue + VIF_NOISE)).sum()), float(held.sum())


def correlation(x: Float64, y: Float64) -> float:
    """Return Pearson's correlation, 0 if either is flat (which leaves it undefined)."""
    x, y = x - x.mean(), y - y.mean()
    spread = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / spread) if spread else 0.0
