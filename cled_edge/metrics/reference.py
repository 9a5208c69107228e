"""Metrics of one image against a reference (SSIM, MS-SSIM), and of one alone (EN, SD, SF, AG).

All take uint8 grey (H, W) or RGB (H, W, 3) and look at the luma only (`cled_edge.metrics.luma`).
"""

from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import OptionError
from cled_edge.metrics.luma import Float64, check_sizes, check_smallest, luma
from cled_edge.metrics.windows import gaussian, local_moments

Profile = Literal["strict", "paper"]

# Wang et al. 2004, section III-C. The range L of the two constants is where published numbers part: `strict` has 255;
# `paper` has 1 though images are 0 to 255, a slip of the toolkit that the literature uses: hardly any constants.
SSIM_WINDOW = gaussian(11, 1.5)
SSIM_K = 0.01, 0.03
SSIM_RANGE: dict[Profile, float] = {"strict": 255.0, "paper": 1.0}
SSIM_SMALLEST = len(SSIM_WINDOW)

# Wang, Simoncelli, Bovik 2003, section 4: exponents of the scales, finest first.
MS_SSIM_EXPONENTS = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333
MS_SSIM_SMALLEST = SSIM_SMALLEST * 2 ** (len(MS_SSIM_EXPONENTS) - 1)


def ssim(image: NDArray[Any], reference: NDArray[Any], profile: Profile = "strict") -> float:
    """Return the mean structural similarity of the lumas, at most 1: Gaussian window 11, sigma 1.5, no padding.

    Equals scikit-image's structural_similarity(gaussian_weights=True, use_sample_covariance=False, data_range=L).
    """
    value_range = SSIM_RANGE[checked_profile(profile)]
    x, y = _luma_pair(image, reference)
    check_smallest(x, SSIM_SMALLEST, "SSIM")
    return ssim_and_contrast(x, y, value_range)[0]


def ms_ssim(image: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the multi-scale structural similarity of the lumas, 0 to 1: five scales, each the mean of 2x2 pixels.

    Constants as `strict`. Odd sizes lose their last row or column at each halving; negative contrast terms count as 0.
    OptionError under 176 pixels a side.
    """
    x, y = _luma_pair(image, reference)
    check_smallest(x, MS_SSIM_SMALLEST, "MS-SSIM")
    terms = []
    for _ in MS_SSIM_EXPONENTS[:-1]:
        terms.append(ssim_and_contrast(x, y, SSIM_RANGE["strict"])[1])
        x, y = _halved(x), _halved(y)
    terms.append(ssim_and_contrast(x, y, SSIM_RANGE["strict"])[0])
    return prod(max(term, 0.0) ** exponent for term, exponent in zip(terms, MS_SSIM_EXPONENTS, strict=True))


def ssim_and_contrast(x: Float64, y: Float64, value_range: float) -> tuple[float, float]:
    """Return the mean SSIM of two lumas (H, W) and the mean of its contrast-structure term alone."""
    c1, c2 = ((k * value_range) ** 2 for k in SSIM_K)
    at = local_moments(x, y, SSIM_WINDOW)
    contrast = (2 * at.covariance + c2) / (at.variance_x + at.variance_y + c2)
    brightness = (2 * at.mean_x * at.mean_y + c1) / (at.mean_x**2 + at.mean_y**2 + c1)
    return float((brightness * contrast).mean()), float(contrast.mean())


def entropy_bits(image: NDArray[Any]) -> float:
    """Return EN, the entropy of the luma's 256-bin histogram, 0 to 8 bits."""
    return bits_of(np.bincount(luma(image).ravel(), minlength=256))


def bits_of(counts: NDArray[np.intp]) -> float:
    """Return the entropy in bits of a histogram."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0  # not -0.0


def deviation(image: NDArray[Any]) -> float:
    """Return SD, the population standard deviation of the luma, grey levels."""
    return float(luma(image).std())


def spatial_frequency(image: NDArray[Any]) -> float:
    """Return SF, the root of the mean squared step to the next row plus that to the next column, grey levels."""
    y = luma(image).astype(np.float64)
    return float(np.sqrt(sum((np.diff(y, axis=axis) ** 2).mean() for axis in (0, 1))))


def average_gradient(image: NDArray[Any]) -> float:
    """Return AG, sum sqrt((dx^2 + dy^2) / 2) / ((H - 1)(W - 1)), grey levels.

    Central differences, one-sided at borders. The divisor is the toolkits': over all H W pixels it
    would be a little less.
    """
    y = luma(image).astype(np.float64)
    dy, dx = np.gradient(y)
    return float(np.sqrt((dx * dx + dy * dy) / 2).sum() / ((y.shape[0] - 1) * (y.shape[1] - 1)))


def checked_profile(name: str) -> Profile:
    """Return a profile by its name; OptionError if there is none."""
    for profile in SSIM_RANGE:
        if profile == name:
            return profile
    raise OptionError(f"profile is {name!r}; there are {' and '.join(SSIM_RANGE)}; choose one")


def _luma_pair(image: NDArray[Any], reference: NDArray[Any]) -> tuple[Float64, Float64]:
    check_sizes(image=image, reference=reference)
    return luma(image).astype(np.float64), luma(reference, "reference").astype(np.float64)


def _halved(x: Float64) -> Float64:
    """Return the means of 2x2 pixels."""
    height, width = x.shape[0] // 2, x.shape[1] // 2
    return np.asarray(x[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3)), np.float64)
