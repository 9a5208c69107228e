"""Percentiles by stage, and memory that does not grow with the run."""

import numpy as np
import pytest

from cled_edge.latency import KEPT_FRAMES, LatencyLog


def test_percentiles_are_those_of_the_samples() -> None:
    log = LatencyLog()
    for k in range(101):
        log.add({"steps": k * 1_000_000, "decode": 2_000_000})
    table = log.summary_ms()
    assert list(table) == ["decode", "steps", "total"]
    assert table["steps"] == {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    assert table["total"]["p50"] == pytest.approx(52)


def test_only_the_last_frames_are_kept() -> None:
    log = LatencyLog()
    for k in range(KEPT_FRAMES + 500):
        log.add({"steps": k * 1_000_000})
    wanted = np.percentile(np.arange(500, KEPT_FRAMES + 500), 50)
    assert log.summary_ms()["steps"]["p50"] == pytest.approx(wanted)


def test_nothing_measured_is_an_empty_table() -> None:
    assert LatencyLog().summary_ms() == {}
