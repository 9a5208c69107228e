"""The verdict of `bench compare`, on simulated machines: no call is real, no time passes."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cled_edge.bench.compare import (
    BETWEEN_RUNS_PERCENT,
    MIN_PAIRS,
    Comparison,
    DelayedSubject,
    compare_results,
    compare_subjects,
    find_result,
    is_result,
)
from cled_edge.bench.stats import block_log_ratios, paired_effect, samples_needed, unpaired_effect
from cled_edge.cli.benching import app
from cled_edge.errors import OptionError, ResultError
from tests.fakes.bench import FakeClock, FakeSubject, fake_record

SEEDS = range(20)


class NoisyMachine:
    """Factors that calls take longer by: jitter, a neighbour that comes and goes for seconds, spikes, and a drift."""

    def __init__(self, clock: FakeClock, seed: int, *, neighbour: float, spikes: float, drift_a_minute: float) -> None:
        self.clock = clock
        self.rng = np.random.default_rng(seed)
        self.neighbour, self.spikes, self.drift_a_minute = neighbour, spikes, drift_a_minute
        self.busy, self.changes_ns = False, 0

    def __call__(self) -> float:
        if self.clock.now_ns() >= self.changes_ns:
            self.busy = not self.busy
            self.changes_ns = self.clock.now_ns() + round(self.rng.exponential(3.0) * 1e9)
        log = self.rng.normal(0, 0.03) + self.neighbour * self.busy
        log += self.rng.exponential(0.5) * (self.rng.random() < self.spikes)
        return float(np.exp(log + self.drift_a_minute * self.clock.now_ns() / 60e9))


MACHINES = {
    "calm": {"neighbour": 0.0, "spikes": 0.0, "drift_a_minute": 0.0},
    "drifting": {"neighbour": 0.0, "spikes": 0.02, "drift_a_minute": 0.5},
    "neighbour": {"neighbour": 0.4, "spikes": 0.05, "drift_a_minute": 0.1},
}


def simulated(call_ms: float, machine: str, seed: int, delay_percent: float = 0.0, b_factor: float = 1.0) -> Comparison:
    clock = FakeClock()
    noise = NoisyMachine(clock, seed, **MACHINES[machine])
    a, b = (FakeSubject(name, clock, call_ms * f, noise) for name, f in (("a", 1.0), ("b", b_factor)))
    judged = DelayedSubject(b, delay_percent, clock) if delay_percent else b
    return compare_subjects(a, judged, clock, seed=seed)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("call_ms", [40.0, 400.0])
def test_a_bundle_does_not_differ_from_itself(call_ms: float, machine: str) -> None:
    verdicts = [simulated(call_ms, machine, seed).effect.verdict for seed in SEEDS]
    assert verdicts.count("no difference") >= 19


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("call_ms", [40.0, 400.0])
def test_an_inserted_delay_of_10_percent_is_found(call_ms: float, machine: str) -> None:
    verdicts = [simulated(call_ms, machine, seed, delay_percent=10).effect.verdict for seed in SEEDS]
    assert verdicts.count("slower") >= 19


def test_the_size_and_the_sign_of_a_difference() -> None:
    slower, faster = (simulated(40, "calm", 0, b_factor=factor).effect for factor in (1.2, 0.8))
    assert slower.verdict == "slower"
    assert slower.percent == pytest.approx(20, abs=2)
    assert faster.verdict == "faster"
    assert faster.percent == pytest.approx(-20, abs=2)
    assert faster.low_percent < faster.percent < faster.high_percent < 0


def test_what_is_certain_but_trifling_is_no_difference() -> None:
    effect = paired_effect(np.full(50, np.log(1.01)) + np.random.default_rng(0).normal(0, 1e-4, 50), margin_percent=3)
    assert effect.low_percent > 0
    assert effect.verdict == "no difference"
    assert effect.resolved


def test_what_is_large_but_uncertain_is_no_difference_and_says_so() -> None:
    effect = paired_effect(np.log(1.05) + np.linspace(-0.3, 0.3, 12), margin_percent=3)
    assert effect.verdict == "no difference"
    assert not effect.resolved


def test_the_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(2)
    effects = [paired_effect(rng.normal(np.log(1.04), 0.05, 30), 3) for _ in range(200)]
    held = sum(e.low_percent <= 4 <= e.high_percent for e in effects)
    assert 0.94 * 200 <= held < 200


def test_ratios_are_of_the_medians_of_neighbouring_blocks() -> None:
    ratios = block_log_ratios([[1, 2, 90], [4]], [[2, 4, 4], [2, 2]])
    assert np.exp(ratios) == pytest.approx([2, 0.5])


@pytest.mark.parametrize(("percentile", "count"), [(50, 2), (90, 10), (99, 100), (99.9, 1000)])
def test_samples_that_a_percentile_needs(percentile: float, count: int) -> None:
    assert samples_needed(percentile) == count


def test_slow_calls_still_give_the_pairs_a_verdict_needs() -> None:
    clock = FakeClock()
    a, b = (FakeSubject(name, clock, 3000) for name in "ab")
    comparison = compare_subjects(a, b, clock, duration_s=1)
    assert comparison.effect.pairs >= MIN_PAIRS
    assert len(comparison.blocks_ms[0]) == len(comparison.blocks_ms[1]) == comparison.effect.pairs


def test_a_quiet_machine_is_done_in_half_the_time() -> None:
    clock = FakeClock()
    a, b = (FakeSubject(name, clock, 40) for name in "ab")
    compare_subjects(a, b, clock, duration_s=20)
    assert 10e9 < clock.now_ns() < 14e9


def test_each_subject_comes_first_about_equally_often() -> None:
    clock, order = FakeClock(), []
    a, b = (FakeSubject(name, clock, 100, log=order) for name in "ab")
    compare_subjects(a, b, clock, duration_s=60)
    measured = order[-4 * (len(order) // 4) :]
    firsts = measured[0::2]
    assert 0.3 < firsts.count("a") / len(firsts) < 0.7


@pytest.mark.parametrize(("share", "is_invalid"), [(0.08, False), (0.5, True)])
def test_other_processes_are_told_and_too_many_make_it_invalid(share: float, is_invalid: bool) -> None:
    clock = FakeClock(others_share=share)
    a, b = (FakeSubject(name, clock, 40) for name in "ab")
    comparison = compare_subjects(a, b, clock, duration_s=2)
    assert any("other processes used" in note for note in comparison.notes)
    assert [reason.partition(" % of")[0] for reason in comparison.invalid_reasons] == (
        [f"other processes used {100 * share:g}"] if is_invalid else []
    )


def test_results_of_one_run_are_paired_by_round_whatever_drifts() -> None:
    rng = np.random.default_rng(0)
    drift = np.exp(np.linspace(0, 1, 30))
    rounds = [[40 * d * np.exp(rng.normal(0, 0.01)) for _ in range(5)] for d in drift]
    record = fake_record({"a": rounds, "b": [[1.1 * x for x in block] for block in rounds]})
    comparison = compare_results((record, record.backends[0]), (record, record.backends[1]))
    assert comparison.effect.verdict == "slower"
    assert comparison.effect.percent == pytest.approx(10, abs=0.1)
    assert comparison.notes == []


def test_results_of_two_runs_need_a_larger_difference_and_say_so() -> None:
    def run(factor: float):
        rng = np.random.default_rng(round(100 * factor))
        record = fake_record({"a": [[40 * factor * np.exp(rng.normal(0, 0.01))] for _ in range(30)]})
        return record, record.backends[0]

    small, large = (compare_results(run(1.0), run(factor)) for factor in (1.08, 1.3))
    assert small.effect.verdict == "no difference"
    assert large.effect.verdict == "slower"
    assert small.effect.high_percent - small.effect.low_percent > 2 * BETWEEN_RUNS_PERCENT * 0.9
    assert "two separate runs" in small.notes[0]
    assert compare_results(run(1.3), run(1.0)).effect.verdict == "faster"


def test_unpaired_intervals_widen_by_what_runs_differ() -> None:
    logs = np.log(np.full(20, 40.0))
    effect = unpaired_effect(logs, logs, 3, 10)
    assert effect.high_percent == pytest.approx(10)
    assert effect.low_percent == pytest.approx(100 * (1 / 1.1 - 1))


def test_short_runs_and_runs_of_different_kinds_are_refused() -> None:
    short = fake_record({"a": [[40.0]] * 11})
    with pytest.raises(ResultError, match="share 11 rounds, needed 12; measure both for longer"):
        compare_results((short, short.backends[0]), (short, short.backends[0]))
    one, other = fake_record({"a": [[40.0]]}), fake_record({"a": [[40.0]]}, size=(96, 128))
    with pytest.raises(OptionError, match=r"A was measured with size \(480, 640\), B with \(96, 128\)"):
        compare_results((one, one.backends[0]), (other, other.backends[0]))


def test_a_result_is_named_by_file_and_backend(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(fake_record({"onnxruntime:fp32": [[40.0]], "openvino:bf16": [[30.0]]}).to_json())
    assert find_result(f"{path}@openvino:bf16")[1].label == "openvino:bf16"
    assert is_result(f"{path}@openvino:bf16")
    assert is_result(str(path))
    assert not is_result("openvino:bf16")
    for text in (str(path), f"{path}@tensorrt"):
        with pytest.raises(ResultError, match="must name one of onnxruntime:fp32, openvino:bf16; write it as"):
            find_result(text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"duration_s": 0}, "duration_s is 0; it must lie above 0"),
        ({"duration_s": float("nan")}, "duration_s is nan; it must lie above 0"),
        ({"margin_percent": -1}, "margin_percent is -1; it must lie between 0 and 100"),
    ],
)
def test_values_outside_their_ranges_are_refused(values: dict[str, float], words: str) -> None:
    clock = FakeClock()
    a, b = (FakeSubject(name, clock, 40) for name in "ab")
    with pytest.raises(OptionError, match=words):
        compare_subjects(a, b, clock, **values)


def test_the_command_says_how_each_was_launched(tmp_path: Path) -> None:
    record = fake_record({name: [[10.0 + k % 3] * 5 for k in range(12)] for name in ("a", "b")})
    record.backends[1].details["cuda_graph"] = {"fused_loop 480x640": "stream launches: refused"}
    (tmp_path / "run.json").write_text(record.to_json())
    words = ["compare", f"{tmp_path}/run.json@a", f"{tmp_path}/run.json@b", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "b: CUDA graph: fused_loop 480x640: stream launches: refused" in json.loads(done.stdout)["notes"]


def test_json_holds_the_verdict_and_the_raw_blocks() -> None:
    values = json.loads(json.dumps(simulated(400, "calm", 0, delay_percent=10).as_dict()))
    assert values["verdict"] == "slower"
    assert values["b"] == "b + 10 % delay"
    assert values["low_percent"] < values["percent"] < values["high_percent"]
    assert len(values["a_blocks_ms"]) == len(values["b_blocks_ms"]) == values["pairs"]
