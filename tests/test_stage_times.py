"""Percentiles by stage, memory that does not grow with the run, and the age of a process."""

import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from cled_edge.stage_times import KEPT_FRAMES, LatencyLog


def test_percentiles_are_those_of_the_samples() -> None:
    log = LatencyLog()
    for k in range(101):
        log.add({"steps": k * 1_000_000, "decode": 2_000_000})
    table = log.summary_ms()
    assert list(table) == ["decode", "steps", "total"]
    assert table["steps"] == {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    assert table["total"]["p50"] == pytest.approx(52)


def test_waiting_is_shown_and_no_part_of_the_total() -> None:
    log = LatencyLog()
    log.add({"write": 3_000_000, "wait": 50_000_000, "decode": 2_000_000})
    table = log.summary_ms()
    assert list(table) == ["wait", "decode", "write", "total"]
    assert (table["wait"]["p50"], table["total"]["p50"]) == (50, 5)


def test_only_the_last_frames_are_kept() -> None:
    log = LatencyLog()
    for k in range(KEPT_FRAMES + 500):
        log.add({"steps": k * 1_000_000})
    wanted = np.percentile(np.arange(500, KEPT_FRAMES + 500), 50)
    assert log.summary_ms()["steps"]["p50"] == pytest.approx(wanted)


def test_the_memory_of_a_stage_is_taken_at_its_first_sample() -> None:
    log = LatencyLog()
    log.add({"steps": 10**9})
    tracemalloc.start()
    try:
        for k in range(KEPT_FRAMES + 500):
            log.add({"steps": 10**9 + k})
        grew_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grew_bytes < 10_000


def test_nothing_measured_is_an_empty_table() -> None:
    assert LatencyLog().summary_ms() == {}


def test_the_age_of_a_process_counts_from_its_start() -> None:
    code = "from cled_edge.stage_times import process_age_s as age; import time; a = age(); time.sleep(0.2)"
    code += "; print(a, age())"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lived_s = time.perf_counter() - start
    first, second = map(float, done.stdout.split())
    assert second - first == pytest.approx(0.2, abs=0.1)
    assert 0 < first < second <= lived_s + 0.02, "its imports count, and nothing before its start"
