"""The programs of benchmarks/: what they count, in which order they time, what they refuse; small runs of each."""

import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peaks
from benchmarks.child import in_child
from benchmarks.timing import timed_rounds, whole_numbers, write_result
from cled_edge.errors import OptionError


class FakeClock:
    """Moves on by what each call is said to take."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now_s

    def call(self, name: str, takes_s: float):
        def run() -> None:
            self.order.append(name)
            self.now_s += takes_s

        return run


def test_calls_take_turns_and_the_first_round_is_not_kept() -> None:
    clock = FakeClock()
    calls = {"a": clock.call("a", 0.5), "b": clock.call("b", 0.25)}
    assert timed_rounds(calls, 2, clock_s=clock) == {"a": [500.0] * 2, "b": [250.0] * 2}
    assert "".join(clock.order) == "ab" * 3


def test_discarded_calls_go_before_each_timed_one() -> None:
    clock = FakeClock()
    assert timed_rounds({"a": clock.call("a", 1), "b": clock.call("b", 1)}, 1, discarded=2, clock_s=clock)["a"] == [
        1000
    ]
    assert "".join(clock.order) == "ab" + "aaabbb"


def test_the_limit_ends_the_rounds_but_one_is_always_kept() -> None:
    clock = FakeClock()
    assert len(timed_rounds({"a": clock.call("a", 1.0)}, 100, limit_s=3.5, clock_s=clock)["a"]) == 3
    assert len(timed_rounds({"a": clock.call("a", 1.0)}, 100, limit_s=0, clock_s=clock)["a"]) == 1


@pytest.mark.parametrize("text", ["", "0", "1,,2", "1,-2", "a", "1.5"])
def test_lists_that_are_no_whole_numbers_are_refused(text: str) -> None:
    assert whole_numbers("--steps", "3,1") == (3, 1)
    with pytest.raises(OptionError, match=re.escape(f"--steps is {text!r}; it must list whole numbers above 0")):
        whole_numbers("--steps", text)


def test_a_result_says_its_machine_and_versions(tmp_path: Path) -> None:
    path = write_result("kind", {"rows": [1]}, tmp_path / "results")
    result = json.loads(path.read_text())
    assert path.name.startswith("kind-")
    assert result["rows"] == [1]
    assert result["machine"]["usable_cores"] >= 1
    assert result["versions"]["numpy"] == np.__version__


def test_peaks_are_the_best_of_what_is_installed() -> None:
    rows = peaks.measure_gemm((64,), 0.01, ("fp32", "int8"))
    assert {"numpy", "onnxruntime"} <= {row["library"] for row in rows if row["precision"] == "fp32"}
    best = peaks.best(rows)
    assert best["fp32_gflop_s"] == max(row["gflop_s"] for row in rows if row["precision"] == "fp32") > 0
    assert best["bf16_gflop_s"] is None
    assert peaks.measure_copy(0.01, bytes_copied=1 << 20) > 0


def test_a_child_returns_fails_dies_or_is_ended() -> None:
    assert in_child(dict, 60, [("latency_ms", 3)]) == {"latency_ms": 3}
    assert in_child(int, 60, "x")["failed"].startswith("ValueError: invalid literal")  # type: ignore[arg-type]
    assert in_child(os._exit, 60, 3) == {"failed": "its process ended with code 3"}
    assert in_child(time.sleep, 0.5, 60) == {"failed": "not done within 0.5 s"}  # type: ignore[arg-type]
