"""The GPU benchmark without a GPU: forms on fakes, and what it refuses."""

import json
import sys

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import gpu
from benchmarks.gpu import FORMS, RUNNER, GpuFrame
from cled_edge.backend.tensorrt.launch import ONE_GRAPH
from cled_edge.backend.tensorrt.store import current_record
from cled_edge.contract import Controls
from cled_edge.errors import BackendError, CheckpointError, OptionError
from cled_edge.fuser import Fuser
from cled_edge.verify import Case
from tests.backend.tensorrt.test_runner import SIZE, Machine, frames
from tests.fakes.engines import NumpyBackend, write_plan

SIDES = ("picture", "infrared", "visible")


@pytest.fixture
def machine(monkeypatch, tmp_path) -> Machine:
    """A fake GPU with engines, and a bundle whose golden pair is what NumPy makes of one."""
    made = Machine(monkeypatch, tmp_path)
    reference = Fuser(made.bundle, NumpyBackend(made.bundle))
    (pair,) = frames(1)
    fused = reference(*pair, Controls(2))
    case = Case(*pair, Controls(2), {name: getattr(fused, name) for name in SIDES})
    monkeypatch.setattr(gpu, "read_golden", lambda bundle: [case])
    return made


def test_a_frame_is_measured_in_the_forms_that_are_here_and_the_others_say_why(machine: Machine, capsys) -> None:
    (row,) = gpu.compare(GpuFrame(machine.bundle, SIZE, 2), FORMS, None, duration_s=0.05)
    assert (row["form"], row["note"], row["gpu_p50_ms"]) == (RUNNER, ONE_GRAPH, 0.5)
    assert (row["psnr_db"], row["size"], row["steps"]) == (200.0, f"{SIZE[0]}x{SIZE[1]}", 2)
    assert row["frames"] > 1
    assert 0 < row["p50_ms"] <= row["p99_ms"]
    said = capsys.readouterr().out
    assert "without torch-eager: no --checkpoints" in said
    assert "without onnxruntime-cuda: " in said
    assert machine.empty()


def test_wrong_numbers_show(machine: Machine) -> None:
    frame = GpuFrame(machine.bundle, SIZE, 2)
    frame.case.expected["visible"] = frame.case.expected["visible"] ^ 1
    (row,) = gpu.compare(frame, (RUNNER,), None, duration_s=0.05)
    assert row["psnr_db"] == pytest.approx(48.1)


def test_a_fallback_is_no_cuda_graph(machine: Machine, capsys) -> None:
    machine.write(stale=True)
    assert gpu.compare(GpuFrame(machine.bundle, SIZE, 2), (RUNNER,), None, duration_s=0.05) == []
    assert "without tensorrt-graph: no CUDA graph could be made: stream launches: a CUDA" in capsys.readouterr().out


def test_what_the_bundle_lacks_is_refused(machine: Machine) -> None:
    with pytest.raises(OptionError, match="has no fp16 loop of 3 steps for 64x96; export it again"):
        GpuFrame(machine.bundle, (64, 96), 3).loop((17,))
    with pytest.raises(OptionError, match="has no golden pair of 64x96 and 2 steps, needed to judge the outputs"):
        _ = GpuFrame(machine.bundle, (64, 96), 2).case


def test_torch_forms_without_torch_or_a_gpu_say_so(machine: Machine, tmp_path, monkeypatch) -> None:
    frame = GpuFrame(machine.bundle, SIZE, 2)
    for name in [name for name in sys.modules if name == "benchmarks.gpu_torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("benchmarks.gpu_torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match=r"torch cannot be imported here .*; run its forms where it can"):
        gpu.open_form(frame, "torch-eager", tmp_path)


def test_the_torch_forms_take_only_the_weights_of_the_bundle_and_need_a_gpu(tmp_path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch: make test installs it")
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    from benchmarks.gpu_torch import torch_frame
    from benchmarks.result import WEIGHTS
    from cled_edge.bundle.reader import Bundle

    bundle = Bundle.open()
    with pytest.raises(BackendError, match="sees no GPU, needed CUDA"):
        torch_frame(bundle, (64, 96), 1, {}, WEIGHTS, cuda_graph=False)
    other = WEIGHTS / "edge.safetensors"
    (tmp_path / "nano.safetensors").write_bytes(other.read_bytes())
    with pytest.raises(CheckpointError, match=r"nano.safetensors was trained otherwise than .*nano says"):
        torch_frame(bundle, (64, 96), 1, {}, tmp_path, cuda_graph=False)


def run(*arguments: object):
    app = typer.Typer()
    app.command()(gpu.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_program_prints_its_table(machine: Machine, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "gpu_name", lambda: "NVIDIA H200")
    size = f"{SIZE[0]}x{SIZE[1]}"
    done = run(machine.bundle.path, "--forms", RUNNER, "--size", size, "--steps", 2, "--duration-s", 0.05)
    assert done.exit_code == 0, done.output
    assert f"| {size} | 2 | tensorrt-graph |" in done.output


def test_engines_of_several_levels_are_measured_kept_and_taken_again(machine: Machine, monkeypatch, tmp_path) -> None:
    built = []

    def build(bundle, graph, options, facts, folder):
        built.append((options.level, options.max_aux_streams))
        write_plan(bundle, graph, SIZE, machine.release, options)
        return current_record(bundle, graph, options, facts, folder)

    monkeypatch.setattr(gpu, "gpu_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(gpu, "build_engine", build)
    words = (machine.bundle.path, "--size", f"{SIZE[0]}x{SIZE[1]}", "--steps", 2, "--duration-s", 0.05)
    variants = ("--levels", "3,0", "--max-aux-streams", "0,2", "--forms", RUNNER)
    for index in range(2):
        done = run(*words, *variants, "--out", tmp_path / f"{index}.json")
        assert done.exit_code == 0, done.output
        rows = json.loads((tmp_path / f"{index}.json").read_text())["rows"]
        assert [(row["level"], row["max_aux_streams"]) for row in rows] == [(3, 0), (3, 2), (0, 0), (0, 2)]
    assert built == [(3, 2), (0, 0), (0, 2)]  # the usual one was there, and in the second run all were
    done = run(*words, "--levels", "4")
    assert (done.exit_code, "--levels is '4', needed whole numbers from 0 to 3" in done.output) == (2, True)


def test_what_does_not_fit_into_the_time_is_said(machine: Machine) -> None:
    frames = [GpuFrame(machine.bundle, SIZE, 2), GpuFrame(machine.bundle, SIZE, 2, 0, 1)]
    rows, left_out = gpu.part(frames, (RUNNER,), None, 0.05, 0)
    assert (rows, left_out) == ([], ["small, level 3, 0 auxiliary streams", "small, level 0, 1 auxiliary streams"])


def test_without_a_gpu_or_with_an_unknown_form_it_is_one_line(machine: Machine, monkeypatch) -> None:
    done = run(machine.bundle.path, "--forms", "torch")
    assert (done.exit_code, "--forms has 'torch'; known: tensorrt-graph, torch-eager" in done.output) == (2, True)

    def missing() -> str:
        raise BackendError("no driver")

    monkeypatch.setattr(gpu, "device_name", missing)
    done = run(machine.bundle.path)
    assert done.exit_code == BackendError.exit_code
    assert "no NVIDIA GPU can be reached here (no driver), needed one; see: cled-edge doctor" in done.output
    assert np.char.count(done.output.strip(), "\n") == 0
