"""How good probabilities are: the area under the curve of a kind against the rest, and their calibration."""

import numpy as np
from numpy.typing import NDArray

_BINS = 10


def area_under_curve(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Return how often a positive scores above a negative, ties half (Mann and Whitney); NaN without both."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def calibration_error(probabilities: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Return the expected calibration error: over ten equal bins, |mean probability - share of positives|, weighted."""
    place = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    sums = np.bincount(place, probabilities - labels, _BINS)
    return float(np.abs(sums).sum() / len(labels))
