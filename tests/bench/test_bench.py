"""`cled-edge bench`: scenarios on a told clock, the record, the page, and the command line as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cled_edge.bench.feed import FileFeed, MemoryFeed, rendered_pairs
from cled_edge.bench.measure import PATIENCE, WARM_UP_CALLS, Budget, busy_reasons, measure, settle, warm_up
from cled_edge.bench.record import CameraResult, Record, Samples, Summary
from cled_edge.bench.report import render
from cled_edge.bench.scenario import SCENARIOS, Scenario, scenario_name
from cled_edge.bench.subject import Candidate, Inputs
from cled_edge.errors import OptionError, ResultError
from cled_edge.frame import FramePair
from tests.fakes.bench import FakeClock, FakeSubject, fake_record

SECOND_NS = 1_000_000_000


def block_of(scenario: Scenario, call_ms: float, span_s: float = 1.0):
    clock = FakeClock()
    return scenario.block(FakeSubject("a", clock, call_ms), clock, round(span_s * SECOND_NS))


def test_single_stream_begins_a_query_when_the_last_has_ended() -> None:
    block = block_of(Scenario("single-stream"), 40)
    assert [s.latency_ns for s in block.samples] == [40_000_000] * 25
    assert [s.start_ns for s in block.samples] == [k * 40_000_000 for k in range(25)]
    assert block.samples[0].stages_ns == {"steps": 30_000_000, "fusion": 10_000_000}


def test_a_multi_stream_query_holds_all_its_pairs() -> None:
    block = block_of(Scenario("multi-stream", streams=4), 40)
    assert {s.latency_ns for s in block.samples} == {160_000_000}
    assert block.samples[0].stages_ns == {"steps": 120_000_000, "fusion": 40_000_000}


def test_a_block_makes_at_least_one_query() -> None:
    assert len(block_of(Scenario("offline"), 3000, span_s=0.1).samples) == 1


def test_a_camera_that_is_slower_than_the_fuser_makes_it_wait() -> None:
    block = block_of(Scenario("camera", rate_hz=10), 40)
    assert len(block.samples) == 10
    assert {s.age_ns for s in block.samples} == {40_000_000}
    assert [s.stages_ns["wait"] for s in block.samples] == [0] + [60_000_000] * 9
    assert block.skipped == 0


def test_a_slow_fuser_takes_the_newest_frame_and_skips_the_ones_before() -> None:
    # Frames at 0, 100, 200 ms ...; calls of 250 ms begin at 0, 250, 500 ... with the frames of 0, 200, 500 ms.
    block = block_of(Scenario("camera", rate_hz=10), 250)
    assert [s.age_ns // 1_000_000 for s in block.samples] == [250, 300, 250, 300]
    assert block.skipped == 4  # those of 100, 300, 400 and 600 ms


def test_a_stall_makes_the_frames_behind_it_old_too() -> None:
    clock = FakeClock()
    factors = iter([1.0, 1.0, 20.0, *[1.0] * 100])
    block = Scenario("camera", rate_hz=20).block(
        FakeSubject("a", clock, 40, lambda: next(factors)), clock, 2 * SECOND_NS
    )
    ages_ms = [s.age_ns // 1_000_000 for s in block.samples if s.age_ns is not None]
    assert ages_ms[:2] == [40, 40]
    assert ages_ms[2] == 800
    assert block.skipped == 15
    assert max(ages_ms[4:]) <= 50


def test_deadlines_are_missed_by_late_and_by_skipped_frames() -> None:
    result = CameraResult.of([20.0, 49.0, 51.0], skipped=1, rate_hz=20)
    assert (result.offered, result.late, result.skipped, result.miss_percent) == (4, 1, 1, 50)


def test_percentiles_are_those_of_the_samples_and_null_where_there_are_too_few() -> None:
    values = np.random.default_rng(0).permutation(1001).tolist()
    assert Summary.of(values).percentiles == {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999}
    few = Summary.of(values[:50])
    assert few.percentiles["p90"] == pytest.approx(np.percentile(values[:50], 90))
    assert few.percentiles["p99"] is None
    assert few.missing == {"p99": "needs 100 samples, there are 50", "p99.9": "needs 1000 samples, there are 50"}
    assert Summary.of([]).max is None


def test_warm_up_lasts_its_seconds_and_three_calls_at_least() -> None:
    clock = FakeClock()
    assert len(warm_up(FakeSubject("a", clock, 100), 2.0, clock)) == 20
    assert len(warm_up(FakeSubject("a", clock, 5000), 2.0, clock)) == WARM_UP_CALLS


def test_backends_take_turns_and_each_is_measured_long_enough() -> None:
    clock, log = FakeClock(), []
    a, b = (FakeSubject(name, clock, ms, log=log) for name, ms in (("a", 40), ("b", 90)))
    measured = measure([a, b], Budget(Scenario("single-stream"), duration_s=10), clock, np.random.default_rng(0))
    assert all(10 * SECOND_NS <= m.span_ns < 12 * SECOND_NS for m in measured)
    assert [len(m.blocks) for m in measured] == [10, 10]
    turns = "".join(log[-200:])
    assert len(re.findall("a+|b+", turns)) >= 5


def test_a_run_goes_on_for_samples_and_gives_up() -> None:
    budget = Budget(Scenario("single-stream"), duration_s=4, min_samples=50)
    spans_s = {}
    for call_ms in (200, 2000):
        clock = FakeClock()
        (m,) = measure([FakeSubject("a", clock, call_ms)], budget, clock, np.random.default_rng(0))
        spans_s[call_ms] = m.span_ns / SECOND_NS
        assert m.count == (50 if call_ms == 200 else PATIENCE * 2)
    assert spans_s == {200: 10, 2000: PATIENCE * 4}


def test_the_headline_needs_its_own_samples() -> None:
    assert Budget(Scenario("single-stream"), min_samples=1).needed_samples == 10
    assert Budget(Scenario("multi-stream", streams=4), min_samples=1).needed_samples == 100
    assert Budget(Scenario("camera", rate_hz=30), min_samples=1).needed_samples == 100
    assert Budget(Scenario("offline"), min_samples=7).needed_samples == 7


def test_settling_waits_until_the_threads_of_the_last_subject_sleep() -> None:
    class SpinningClock(FakeClock):
        def process_ns(self) -> int:
            return min(self.time_ns, 50_000_000)

    spinning, idle = SpinningClock(), FakeClock()
    settle(spinning)
    settle(idle)
    assert 50_000_000 <= spinning.now_ns() <= 60_000_000
    assert idle.now_ns() <= 5_000_000


def test_samples_keep_every_stage_of_every_round() -> None:
    clock = FakeClock()
    subject = FakeSubject("a", clock, 40)
    scenario = Scenario("camera", rate_hz=20)
    blocks = [scenario.block(subject, clock, SECOND_NS) for _ in range(2)]
    samples = Samples.of(blocks, 0)
    assert samples.block == [0] * 20 + [1] * 20
    assert set(samples.stages_ms) == {"wait", "steps", "fusion"}
    assert all(len(column) == 40 for column in (samples.start_ms, samples.age_ms, *samples.stages_ms.values()))
    assert {k: len(v) for k, v in samples.blocks_ms().items()} == {0: 20, 1: 20}


@pytest.mark.parametrize(("others", "reason"), [(9.0, None), (50.0, "other processes used 50 % of the CPU time")])
def test_a_run_on_a_busy_machine_is_invalid(others: float, reason: str | None) -> None:
    reasons = busy_reasons(others)
    assert [text.partition(", needed 10 % at most")[0] for text in reasons] == ([reason] if reason else [])


def test_a_record_survives_json_with_its_numbers_on_one_line() -> None:
    record = fake_record({"a": [[40.0, 41.0], [42.0]]})
    text = record.to_json()
    assert Record.model_validate_json(text) == record
    assert '"latency_ms": [ 40.0, 41.0, 42.0 ]' in text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Budget(Scenario("offline"), duration_s=0), "duration_s is 0; it must lie above 0"),
        (lambda: Budget(Scenario("offline"), duration_s=-3), "duration_s is -3; it must lie above 0"),
        (lambda: Budget(Scenario("offline"), duration_s=float("inf")), "duration_s is inf"),
        (lambda: Budget(Scenario("offline"), warm_up_s=-1), "warm_up_s is -1; it must lie between"),
        (lambda: Budget(Scenario("offline"), min_samples=0), "min_samples is 0; it must be 1 or more"),
        (lambda: Scenario("camera", rate_hz=0), "rate_hz is 0; it must lie above 0"),
        (lambda: Scenario("camera", rate_hz=float("nan")), "rate_hz is nan; it must lie above 0"),
        (lambda: Scenario("camera"), "camera, and only camera, needs one"),
        (lambda: Scenario("offline", rate_hz=30), "camera, and only camera, needs one"),
        (lambda: Scenario("offline", streams=4), "streams is 4 in scenario offline"),
        (lambda: Scenario("multi-stream", streams=0), "streams is 0 in scenario multi-stream"),
        (lambda: scenario_name("server"), f"'server' is unknown; known: {', '.join(SCENARIOS)}"),
        (lambda: Inputs(infrared="a"), "one of infrared and visible is missing"),
        (lambda: Inputs("a", "b", (480, 640)), "a size is given beside sources"),
        (lambda: FileFeed("0", "1"), "0 is a camera, which shows each backend another scene"),
        (lambda: Candidate.parse("tensorflow"), "backend 'tensorflow' is unknown; known: onnxruntime"),
    ],
)
def test_what_cannot_be_measured_is_refused(make, words: str) -> None:
    with pytest.raises(OptionError, match=re.escape(words)):
        make()


def test_targets_are_bundles_backends_or_both(tmp_path: Path) -> None:
    texts = "openvino:fp32", str(tmp_path), f"{tmp_path}@openvino:fp32"
    candidates = [Candidate.parse(text) for text in texts]
    assert [t.bundle for t in candidates] == [None, tmp_path, tmp_path]
    assert [str(t.backend) for t in candidates] == ["openvino:fp32", "onnxruntime:fp32", "openvino:fp32"]
    assert [t.label for t in candidates] == ["openvino:fp32", f"{tmp_path}@onnxruntime:fp32", texts[2]]


def test_files_are_read_over_and_over_and_their_decoding_timed(write_pairs) -> None:
    feed = FileFeed(*map(str, write_pairs(("a", "b", "c"))))
    assert feed.size == (40, 56)
    read = [feed.next() for _ in range(7)]
    assert [pair.name for pair, _ in read] == ["b", "c", "a", "b", "c", "a", "b"]
    assert all(set(stages) == {"decode"} and stages["decode"] > 0 for _, stages in read)
    feed.close()


def test_pairs_in_memory_repeat_and_cost_nothing() -> None:
    pairs = rendered_pairs((64, 64))
    feed = MemoryFeed("street", pairs)
    shown = [feed.next() for _ in range(len(pairs) + 1)]
    assert isinstance(shown[0][0], FramePair)
    assert shown[0][0] is shown[-1][0]
    assert not np.array_equal(shown[0][0].visible, shown[1][0].visible)
    assert all(stages == {} for _, stages in shown)


FALLBACK = "CUDA graph: fused_loop 480x640: stream launches: &lt;refused&gt;"


def test_the_page_needs_nothing_from_elsewhere_and_shows_what_was_measured() -> None:
    rounds = np.random.default_rng(0).normal(40, 2, (5, 30)).tolist()
    record = fake_record(
        {"onnxruntime:fp32": rounds, "<b>": rounds}, rate_hz=30, reasons=["the machine was throttled: hot"]
    )
    record.backends[0].details["cuda_graph"] = {"fused_loop 480x640": "stream launches: <refused>"}
    page = render([("run", record)])
    # The only addresses are the names of the SVG language itself.
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"<(script|link|iframe)\b", page)
    assert page.count("<svg") == 4
    assert 'name="viewport"' in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    for words in (
        "the machine was throttled: hot",
        "deadline 33.3 ms",
        "unet_step.onnx",
        "a fake CPU",
        "p99.9",
        FALLBACK,
    ):
        assert words in page


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(OptionError, match=re.escape("pip install 'cled-edge[report]'")):
        render([("run", fake_record({"a": [[40.0]]}))])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist; give a file that cled-edge bench wrote"),
        ("not json", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ("{}", "is not a result; give a file that cled-edge bench wrote"),
        ('{"kind": "cled-edge bench", "schema_version": 9}', "has schema version 9, needed 1"),
        ('{"kind": "cled-edge bench", "schema_version": 1}', "run_id: is missing; measure again"),
    ],
)
def test_what_is_no_result_is_refused(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ResultError, match=re.escape(words)):
        Record.read(path)


def cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cled_edge.cli", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


QUICK = ("--height", 64, "--width", 64, "--steps", 1, "--duration-s", 0.4, "--warm-up-s", 0, "--min-samples", 1)


def test_a_run_and_its_page(tmp_path: Path) -> None:
    out, page, peaks = tmp_path / "run.json", tmp_path / "run.html", tmp_path / "peaks.json"
    peaks.write_text('{"fp32_gflops": 100.0}')
    done = cli(*QUICK, "--threads", 1, "--peaks", peaks, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime:fp32: p90" in done.stdout
    values = json.loads(out.read_text())
    (result,) = values["backends"]
    assert result["threads"] == 1
    assert result["bundle"]["sha256"].keys() >= {"unet_step.onnx", "fusion.onnx", "fused_loop.onnx"}
    assert result["latency_ms"]["count"] == len(result["samples"]["latency_ms"]) >= 10
    parts = np.sum([result["samples"]["stages_ms"][stage] for stage in result["stages_ms"]], axis=0)
    assert np.all(parts <= np.array(result["samples"]["latency_ms"]) + 0.01)
    assert values["peaks"] == {"fp32_gflops": 100.0}
    assert values["machine"]["memory_mb"] > 100
    assert values["versions"]["onnxruntime"]
    assert values["gauges"]["peak_memory_mb"] > 10
    done = cli("report", out, "--out", page)
    assert done.returncode == 0, done.stderr
    assert "<svg" in page.read_text()


def test_slower_can_fail_a_build(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(fake_record({"a": [[40.0]] * 20, "b": [[50.0]] * 20}).to_json())
    done = cli("compare", f"{path}@a", f"{path}@b", "--fail-if-slower")
    assert done.returncode == 17
    assert "error: B is slower than A by 25.0 %" in done.stderr
    faster = cli("compare", f"{path}@b", f"{path}@a", "--fail-if-slower", "--json")
    assert faster.returncode == 0
    assert json.loads(faster.stdout)["verdict"] == "faster"


BAD_INPUT = {
    "backend": (("--backends", "tensorflow"), 2, "backend 'tensorflow' is unknown"),
    "twice": (("--backends", "onnxruntime,onnxruntime:fp32"), 2, "names one twice"),
    "precision": (("--backends", "onnxruntime:int3"), 2, "'int3' is not one of"),
    "scenario": (("--scenario", "server"), 2, "scenario 'server' is unknown"),
    "duration": (("--duration-s", "0"), 2, "duration_s is 0; it must lie above 0"),
    "rate": (("--scenario", "camera", "--rate-hz", "0"), 2, "rate_hz is 0; it must lie above 0"),
    "height": (("--height", "0"), 2, "size is 0 x 640"),
    "folder": (("--out", "{tmp}"), 11, "is a folder; give the name of a file"),
    "unwritable": (("--out", "{tmp}/none/r.json"), 11, "cannot be written: No such file or directory"),
    "peaks": (("--peaks", "{tmp}/none.json"), 16, "none.json does not exist"),
    "bundle": (("--bundle", "{tmp}"), 8, "manifest.json does not exist"),
    "report": (("report", "{tmp}/none.json", "--out", "{tmp}/r.html"), 16, "none.json does not exist"),
    "mixed": (("compare", "onnxruntime", "r.json"), 2, "one is a result, the other is not"),
    "early option": (("--steps", "1", "compare", "a", "b"), 2, "--steps stands before compare"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_its_own_code(case: str, tmp_path: Path, capsys, monkeypatch) -> None:
    from cled_edge.cli.app import main

    arguments, code, words = BAD_INPUT[case]
    monkeypatch.setattr(sys, "argv", ["cled-edge", "bench", *(text.format(tmp=tmp_path) for text in arguments)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as stopped:
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == code, lines
    assert len(lines) == 1
    assert words in lines[0]
    assert list(tmp_path.iterdir()) == []
