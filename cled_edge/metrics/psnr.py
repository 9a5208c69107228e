"""The peak signal-to-noise ratio: the one that scores, checks of bundles, trials of engines and training share."""

from math import inf, log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import SizeMismatchError

BYTES_SPAN = 255.0  # of uint8
NETWORK_SPAN = 2.0  # of the networks' images in [-1, 1]


def psnr_db(seen: NDArray[Any], reference: NDArray[Any], span: float = BYTES_SPAN) -> float:
    """Return 10 log10(span^2 / MSE) in dB over all values of two arrays of one shape; infinity if they are equal.

    span: the difference of the largest and the smallest value that there can be. SizeMismatchError for two shapes.
    """
    if seen.shape != reference.shape:
        raise SizeMismatchError(
            f"the image has shape {seen.shape}, its reference {reference.shape}; PSNR needs one shape; "
            "resize or convert one of them"
        )
    squared = float(np.square(seen.astype(np.float64) - reference).sum())
    return 10 * log10(span**2 * seen.size / squared) if squared else inf
