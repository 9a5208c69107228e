"""The GPU benchmark without a GPU: forms on fakes, what the soak catches, the bars, two parts in one file."""

import json
import sys
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import gpu, gpu_bars, gpu_frame
from benchmarks.gpu_frame import Frame
from benchmarks.gpu_soak import Stamped, soak
from cled_edge.backend.opener import open_backend
from cled_edge.backend.tensorrt.launch import ONE_GRAPH
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import Controls
from cled_edge.errors import BackendError, CheckpointError, OptionError, ResultError
from cled_edge.fuser import Fuser
from cled_edge.verify import Case
from tests.backend.tensorrt.test_runner import SIZE, Machine, frames
from tests.fakes.engines import NumpyBackend

SIDES = ("picture", "infrared", "visible")


@pytest.fixture
def machine(monkeypatch, tmp_path) -> Machine:
    """A fake GPU with engines, and a bundle whose golden pair is what NumPy makes of one."""
    made = Machine(monkeypatch, tmp_path)
    reference = Fuser(made.bundle, NumpyBackend(made.bundle))
    (pair,) = frames(1)
    fused = reference(*pair, Controls(2))
    case = Case(*pair, Controls(2), {name: getattr(fused, name) for name in SIDES})
    monkeypatch.setattr(gpu_frame, "read_golden", lambda bundle: [case])
    return made


def test_a_frame_is_measured_in_the_forms_that_are_here_and_the_others_say_why(machine: Machine) -> None:
    frame = Frame(machine.bundle, SIZE, 2)
    part = gpu.measure(frame, gpu_bars.FORMS, None, rounds=3, frames=7, limit_s=60)
    rows = {row["form"]: row for row in part["rows"]}
    assert list(rows) == ["tensorrt-graph", "tensorrt-stream"]
    assert rows["tensorrt-graph"]["how"] == ONE_GRAPH
    assert rows["tensorrt-stream"]["how"] == "stream launches: as was asked for"
    for row in rows.values():
        assert (row["psnr_db"], row["against"]) == (200.0, gpu_frame.EAGER)
        assert row["gpu_samples_ms"] == [0.5] * 3
        assert len(row["samples_ms"]) == 3
        beyond_us = np.median([(host - 0.5) * 1e3 for host in row["samples_ms"]])
        assert row["overhead_us"] == pytest.approx(beyond_us, abs=0.06)
    assert part["steady"][0]["frames"] == 7
    reasons = {row["form"]: row["reason"] for row in part["not_measured"]}
    assert set(reasons) == {"torch-eager", "torch-compile", "torch-graph", "onnxruntime-cuda"}
    assert "no --checkpoints" in reasons["torch-eager"]
    assert "has no CUDAExecutionProvider" in reasons["onnxruntime-cuda"]
    assert [row["graph"] for row in part["engines"]] == [frame.loop((17,))]
    assert machine.empty()


def test_wrong_numbers_show_and_a_fallback_is_no_cuda_graph(machine: Machine) -> None:
    machine.write(stale=True)
    frame = Frame(machine.bundle, SIZE, 2)
    frame.case.expected["visible"] = frame.case.expected["visible"] ^ 1
    part = gpu.measure(frame, ("tensorrt-graph", "tensorrt-stream"), None, rounds=2, frames=2, limit_s=60)
    (row,) = part["rows"]
    assert row["form"] == "tensorrt-stream"
    assert row["psnr_db"] == pytest.approx(48.1)
    (missing,) = part["not_measured"]
    assert missing["form"] == "tensorrt-graph"
    assert "no CUDA graph could be made: stream launches: a CUDA graph gave " in missing["reason"]
    assert part["steady"] == []


def test_engines_that_cannot_be_built_are_the_reason(machine: Machine) -> None:
    part = gpu.measure(Frame(machine.bundle, (24, 32), 2), ("tensorrt-graph",), None, rounds=2, frames=2, limit_s=60)
    (missing,) = part["not_measured"]
    assert missing["reason"].startswith("BundleMissingError: ")  # the trial has no golden pair to run


def test_torch_forms_without_torch_or_a_gpu_say_so(machine: Machine, tmp_path, monkeypatch) -> None:
    torch = pytest.importorskip("torch", reason="needs torch: make test installs it")
    frame = Frame(machine.bundle, SIZE, 2)
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="sees no GPU, needed CUDA"):
            gpu.open_form(frame, "torch-eager", tmp_path)
        assert gpu.torch_part([frame]) == {}
    for name in [name for name in sys.modules if name == "benchmarks.gpu_torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("benchmarks.gpu_torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match=r"torch cannot be imported here .*; run its forms where it can"):
        gpu.open_form(frame, "torch-eager", tmp_path)
    assert gpu.torch_part([frame]) == {}


def soaked(machine: Machine, count: int = 40, spoil=lambda index, run, inputs: run(inputs), memory=lambda: (5, 7)):
    backend = machine.open()
    arrays = backend.pinned_inputs("fused_loop-fp16", SIZE)
    calls = iter(range(-1, count))
    return soak(
        lambda inputs: spoil(next(calls), lambda given: backend.run("fused_loop-fp16", given), inputs),
        arrays,
        count,
        memory,
    )


def test_a_clean_soak_finds_nothing(machine: Machine) -> None:
    found = soaked(machine)
    assert (found["stale"], found["sees_strengths"]) == (0, True)
    assert (found["gpu_grown_bytes"], found["host_grown_bytes"]) == (0, 0)
    assert found["host_ms"]["p50"] > 0


def test_every_frame_of_a_soak_is_another(machine: Machine) -> None:
    arrays = machine.open().pinned_inputs("fused_loop-fp16", SIZE)
    stamped, seen = Stamped(arrays), set()
    for index in range(50):
        side = stamped.write(index)
        assert arrays["strength"][("infrared", "visible").index(side)] == 0
        assert arrays["strength"].max() >= 0.25
        seen |= {arrays[name].tobytes() for name in ("infrared", "visible")}
    assert len(seen) == 100


@pytest.mark.parametrize("kind", ["repeated", "strength", "infrared"])
def test_a_soak_catches_one_stale_frame(machine: Machine, kind: str) -> None:
    before: dict[str, Any] = {}

    def spoil(index, run, inputs):
        given = {name: value.copy() for name, value in inputs.items()}
        kept, before["given"] = before.get("given"), given
        if index == 17:  # whose infrared strength is 0
            if kind == "repeated":
                return before["outputs"]
            return run({**given, kind: kept[kind]})
        before["outputs"] = [output.copy() for output in run(given)]
        return before["outputs"]

    found = soaked(machine, spoil=spoil)
    assert (found["stale"], found["first_stale"]) == (1, [17])


def test_a_soak_tells_lost_memory_and_a_network_that_does_nothing(machine: Machine) -> None:
    taken = iter(range(1000, 100_000, 64))
    found = soaked(machine, memory=lambda: (next(taken), 9))
    assert found["gpu_grown_bytes"] > 0
    assert found["host_grown_bytes"] == 0

    def nothing(index, run, inputs):
        return [inputs["visible"], inputs["infrared"].copy(), inputs["visible"].copy()]

    assert soaked(machine, spoil=nothing)["sees_strengths"] is False


def row(form: str, p50: float, **changes: Any) -> dict[str, Any]:
    values = {"preset": "edge", "size": [480, 640], "steps": 2, "form": form, "runtime": "x", "how": "y"}
    values |= {"host_ms": {"p50": p50, "p90": p50, "p99": p50}, "gpu_ms": None, "overhead_us": None}
    return {**values, "psnr_db": 60.0, "device_mb": 1.0, **changes}


def passing() -> dict[str, Any]:
    """Return a result that meets every bar."""
    return {
        **deepcopy(gpu.EMPTY),
        "gpu": "NVIDIA H200",
        "rows": [
            row("torch-eager", 6.0),
            row("torch-compile", 2.6),
            row("torch-graph", 2.5),
            row("tensorrt-stream", 2.2),
            row("tensorrt-graph", 2.0, gpu_ms={"p50": 1.97}, overhead_us=30.0),
        ],
        "steady": [{"preset": "edge", "size": [480, 640], "steps": 2, "frames": 5000, "p50": 2.0, "p99": 2.2}],
        "soak": {
            "frames": 200_000,
            "sees_strengths": True,
            "stale": 0,
            "gpu_grown_bytes": 0,
            "host_grown_bytes": 4096,
        },
    }


def test_a_result_that_meets_every_bar_does_so() -> None:
    found = gpu_bars.bars(passing())
    assert [bar["met"] for bar in found] == [True] * 9
    assert found[0]["measured"] == pytest.approx(3.0)
    assert found[1]["measured"] == pytest.approx(1.25)
    assert found[2] == {"bar": found[2]["bar"], "needed": 50.0, "measured": 60.0, "met": True, "of": 2}


def spoiled(index: int, change) -> None:
    values = passing()
    change(values)
    found = [bar["met"] for bar in gpu_bars.bars(values)]
    assert found == [bar != index for bar in range(9)]


def test_each_bar_fails_alone() -> None:
    spoiled(0, lambda v: v["rows"][0]["host_ms"].update(p50=5.9))
    spoiled(1, lambda v: v["rows"][2]["host_ms"].update(p50=2.39))
    spoiled(2, lambda v: v["rows"][3].update(psnr_db=49.9))
    spoiled(3, lambda v: v["steady"][0].update(p99=2.21))
    spoiled(4, lambda v: [r["host_ms"].update(p50=r["host_ms"]["p50"] * 1.01) for r in v["rows"]])
    spoiled(5, lambda v: v["rows"][4].update(overhead_us=40.1))
    spoiled(6, lambda v: v["soak"].update(stale=1))
    spoiled(7, lambda v: v["soak"].update(gpu_grown_bytes=1))
    spoiled(8, lambda v: v["soak"].update(host_grown_bytes=17 << 20))


def test_what_was_not_measured_meets_no_bar() -> None:
    empty = {**deepcopy(gpu.EMPTY), "gpu": "NVIDIA H200"}
    assert {bar["met"] for bar in gpu_bars.bars(empty)} == {None}
    values = passing()
    values["gpu"] = "NVIDIA H100"  # the absolute time holds on an H200
    values["rows"] = [r for r in values["rows"] if r["form"] != "torch-compile"]  # so which is fastest is not known
    values["steady"][0]["frames"] = 4999
    values["soak"]["sees_strengths"] = False
    met = [bar["met"] for bar in gpu_bars.bars(values)]
    assert met == [True, None, True, None, None, True, None, None, None]


def test_two_parts_become_one_and_what_was_measured_stays(tmp_path: Path) -> None:
    key = {"preset": "edge", "size": [480, 640], "steps": 2}
    missing = [{**key, "form": form, "reason": "no torch"} for form in ("torch-eager", "torch-graph")]
    first = gpu.Result("NVIDIA H200", tmp_path)
    first.add({"rows": [row("tensorrt-graph", 2.0)], "not_measured": missing, "soak": {"frames": 10, "stale": 0}})
    work = [{**key, "gflop": 170.0, "mb": 1800.0}]
    second = gpu.Result("NVIDIA H200", tmp_path)
    second.add({"peaks": {"fp16_tflop_s": 700.0, "copy_gb_s": 4000.0}, "work": work})
    lacking = [{**key, "form": "tensorrt-graph", "reason": "no TensorRT"}]
    second.add({"rows": [row("torch-eager", 7.0)], "not_measured": lacking})
    values = json.loads(first.path.read_text())
    assert {r["form"]: r["host_ms"]["p50"] for r in values["rows"]} == {"tensorrt-graph": 2.0, "torch-eager": 7.0}
    assert [r["form"] for r in values["not_measured"]] == ["torch-graph"]
    assert values["soak"]["frames"] == 10
    assert values["work"] == work
    assert values["bars"][0]["measured"] == pytest.approx(3.5)
    second.add({"rows": [row("torch-eager", 8.0)]})
    assert len(second.values["rows"]) == 2
    assert second.values["bars"][0]["measured"] == pytest.approx(4.0)
    with pytest.raises(ResultError, match="is of a NVIDIA H200, here is a NVIDIA L4; move it away"):
        gpu.Result("NVIDIA L4", tmp_path)


def test_the_program_writes_one_file_and_judges_it(machine: Machine, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(gpu.main)
    words = [str(machine.bundle.path), "--sizes", "16x24", "--steps", "2,3", "--rounds", "2", "--frames", "3"]
    words += ["--forms", "tensorrt-graph,torch-eager", "--soak", "30", "--results", str(tmp_path / "results")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.exception
    (path,) = (tmp_path / "results").glob("gpu-*.json")
    values = json.loads(path.read_text())
    assert values["gpu"] == "Fake Orin"
    assert [(r["steps"], r["form"]) for r in values["rows"]] == [(2, "tensorrt-graph")]
    missing = {(r["steps"], r["form"]): r["reason"] for r in values["not_measured"]}
    assert list(missing) == [(2, "torch-eager"), (3, "tensorrt-graph"), (3, "torch-eager")]
    assert "has no fp16 loop of 3 steps for 16x24; export it again" in missing[3, "tensorrt-graph"]
    assert (values["soak"]["stale"], values["soak"]["how"], values["soak"]["steps"]) == (0, ONE_GRAPH, 2)
    assert values["bars"][2]["met"] is True
    assert next(iter(values["parts"])).startswith("Python 3.")


def test_without_a_gpu_it_is_one_line_and_exit_code_12(machine: Machine, monkeypatch) -> None:
    for name in ("cuda.bindings.runtime", "cuda.cudart", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        BackendError, match=r"no NVIDIA GPU can be reached here .*, needed one; see: cled-edge"
    ) as caught:
        gpu.main([machine.bundle.path], sizes="16x24")
    assert caught.value.exit_code == 12
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("size", "against"), [((64, 96), gpu_frame.EAGER), ((96, 64), gpu_frame.RUNTIME)])
def test_a_frame_is_judged_by_eager_or_by_the_graphs_that_were(size: tuple[int, int], against: str) -> None:
    nano = Bundle.open()
    frame = Frame(nano, size, 1)
    loop = frame.loop((20, 17), "fp32")
    assert loop == "fused_loop"
    with closing(open_backend("onnxruntime", nano)) as backend:
        picture, infrared, visible = backend.run(loop, frame.inputs)
    assert frame.expected[1] == against
    assert frame.psnr_db([picture, infrared, visible]) >= 60
    assert frame.psnr_db([picture, infrared, visible ^ 128]) < 20
    with pytest.raises(OptionError, match=r"has no fp16 loop of 1 steps for .*; export it again with --precision fp16"):
        frame.loop((17,))


def test_options_that_make_no_sense_are_refused(machine: Machine) -> None:
    with pytest.raises(OptionError, match=r"--forms has 'tensorflow'; known: torch-eager"):
        gpu.read_forms("torch-eager,tensorflow")
    with pytest.raises(OptionError, match="of --sizes, one is '480'; it must be HEIGHTxWIDTH"):
        gpu.main([machine.bundle.path], sizes="480")
    with pytest.raises(OptionError, match="--sizes has 20x24, needed multiples of 8"):
        Frame(machine.bundle, (20, 24), 2)
    with pytest.raises(OptionError, match="--soak needs a bundle with a loop"):
        gpu.soak_frame([Frame(machine.bundle, SIZE, 3)])
    assert gpu.soak_frame([Frame(machine.bundle, SIZE, steps) for steps in (3, 2)]).steps == 2


def test_the_torch_forms_count_their_traffic_and_take_only_the_weights_of_the_bundle(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch: make test installs it")
    from benchmarks import gpu_torch
    from cled_edge.network.checkpoint import save_checkpoint
    from export.untrained import untrained

    model = untrained("nano", 0)
    assert all(parameter.any() for parameter in model.parameters())
    with torch.device("meta"), torch.no_grad(), gpu_torch._Traffic() as traffic:
        torch.nn.Conv2d(4, 8, 3, padding=1)(torch.empty(2, 4, 10, 12))
    assert traffic.numbers == 2 * 4 * 120 + 8 * 4 * 9 + 8 + 2 * 8 * 120
    one, three = (gpu_torch.work("nano", (64, 96), steps) for steps in (1, 3))
    assert one["gflop"] < three["gflop"] < 3 * one["gflop"]
    # Another network than the bundle's would be measured beside it.
    save_checkpoint(model, {"weights": "other"}, tmp_path / "nano.safetensors")
    with pytest.raises(CheckpointError, match="was trained otherwise than"):
        gpu_torch.module_of(Frame(Bundle.open(), (64, 96), 1), tmp_path)
