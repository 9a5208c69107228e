"""Statistics of timings: how many samples a percentile needs, and how sure a difference between two series is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]
Verdict = Literal["faster", "slower", "no difference"]

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
# Not 95: a resampled median of a dozen pairs is too sure of itself, and one false alarm in twenty would be too many.
CONFIDENCE_PERCENT = 98.0
RESAMPLES = 4000


def samples_needed(percentile: float) -> int:
    """Return how many samples a percentile needs so that at least one lies beyond it: 10 for p90, 1000 for p99.9."""
    return max(1, round(100 / (100 - percentile)))


def percentile_name(percentile: float) -> str:
    """Return `p50`, `p99.9`."""
    return f"p{percentile:g}"


@dataclass(frozen=True)
class Effect:
    """By how many percent B's times exceed A's (negative: B is faster), with an interval that holds the truth.

    verdict is of B. margin_percent: the smallest effect that matters. resolved: whether the interval is narrow enough
    to have shown an effect of that size.
    """

    verdict: Verdict
    percent: float
    low_percent: float
    high_percent: float
    margin_percent: float
    pairs: int

    @property
    def resolved(self) -> bool:
        """Whether the interval reaches no further than the margin around the estimate."""
        return self.high_percent - self.low_percent <= 2 * self.margin_percent


def paired_effect(log_ratios: ArrayLike, margin_percent: float, seed: int = 0) -> Effect:
    """Judge B against A from log(B / A) of pairs measured close together, one number a pair.

    The estimate is the median, which a disturbed pair hardly moves. B differs only if the 98 % bootstrap interval of
    the median excludes zero and the estimate reaches the margin: many pairs would make any trifle certain.
    """
    ratios = np.asarray(log_ratios, np.float64)
    medians = _bootstrap_medians(ratios, np.random.default_rng(seed))
    return _judged(float(np.median(ratios)), medians, margin_percent, ratios.size)


def unpaired_effect(
    a_logs: ArrayLike, b_logs: ArrayLike, margin_percent: float, between_runs_percent: float, seed: int = 0
) -> Effect:
    """Judge B against A from log times of blocks of two separate runs.

    The interval is widened by what a machine changes between two runs, which no single run can show.
    """
    a, b = np.asarray(a_logs, np.float64), np.asarray(b_logs, np.float64)
    rng = np.random.default_rng(seed)
    medians = _bootstrap_medians(b, rng) - _bootstrap_medians(a, rng)
    estimate = float(np.median(b) - np.median(a))
    return _judged(estimate, medians, margin_percent, min(a.size, b.size), np.log1p(between_runs_percent / 100))


def block_log_ratios(a_blocks: Sequence[Sequence[float]], b_blocks: Sequence[Sequence[float]]) -> Float64:
    """Return log(B / A) of the median times of blocks measured side by side."""
    return np.array([np.log(np.median(b) / np.median(a)) for a, b in zip(a_blocks, b_blocks, strict=True)], np.float64)


def _bootstrap_medians(series: Float64, rng: np.random.Generator) -> Float64:
    """Return the medians of resamples with replacement, (RESAMPLES,)."""
    return np.median(rng.choice(series, (RESAMPLES, series.size)), axis=1)


def _judged(estimate: float, medians: Float64, margin_percent: float, pairs: int, widening: float = 0.0) -> Effect:
    tail = (100 - CONFIDENCE_PERCENT) / 2
    low, high = np.percentile(medians, (tail, 100 - tail))
    low, high = float(low) - widening, float(high) + widening
    percent, low_percent, high_percent = (100 * float(np.expm1(x)) for x in (estimate, low, high))
    # A margin of 3 % is a ratio of 1.03 either way: as a logarithm it is symmetric.
    matters = abs(estimate) >= np.log1p(margin_percent / 100)
    verdict: Verdict = "no difference"
    if matters and low > 0:
        verdict = "slower"
    if matters and high < 0:
        verdict = "faster"
    return Effect(verdict, percent, low_percent, high_percent, margin_percent, pairs)
