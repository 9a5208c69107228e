"""TensorRT's runner over a GPU in host memory: every frame is its own, a graph is verified, nothing is left behind."""

import gc
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from cled_edge.backend.facts import details, notes
from cled_edge.backend.graph_cache import FOLDER_VARIABLE
from cled_edge.backend.opener import available_backends, open_backend
from cled_edge.backend.protocol import FrameBackend
from cled_edge.backend.tensorrt.build_options import BuildOptions, Profile
from cled_edge.backend.tensorrt.build_record import engine_key
from cled_edge.backend.tensorrt.launch import ONE_GRAPH
from cled_edge.backend.tensorrt.run_options import CudaOptions
from cled_edge.backend.tensorrt.runner import TensorRtBackend
from cled_edge.backend.tensorrt.store import default_folder, engine_paths, graph_sha256
from cled_edge.bundle.reader import Bundle
from cled_edge.cli import app as cli
from cled_edge.contract import Controls
from cled_edge.errors import BackendError, EngineError, OptionError
from cled_edge.fuser import Fuser
from tests.backend.tensorrt.test_cuda import install
from tests.fakes.engines import NumpyBackend, facts_of, small_bundle, write_plan
from tests.fakes.tensorrt.cuda import TOTAL_BYTES, Gpu, Status
from tests.fakes.tensorrt.releases import VERSIONS
from tests.fakes.tensorrt.runtime import fake_tensorrt

SIZE = (16, 24)
STEPS = Controls(steps=3)  # there is no loop of three
LOOP, STEP, FUSION = "fused_loop-fp16", "unet_step-fp16", "fusion-fp16"
LAUNCHED = {
    "cuda": ONE_GRAPH,
    "pycuda": "stream launches: pycuda has no stream capture; take binding cuda for CUDA graphs",
}


class Machine:
    """A release of TensorRT on a GPU, with engines of a small bundle at `SIZE`."""

    def __init__(self, monkeypatch, folder: Path, release: str = "10.3", binding: str = "cuda") -> None:
        self.gpu, self.release = Gpu(), release
        self.binding = install(monkeypatch, self.gpu, binding)
        monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "cache"))
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(self.gpu, release))
        self.bundle = small_bundle(folder / "bundle")
        self.write()

    def write(self, size: tuple[int, int] = SIZE, **behaviour: object) -> None:
        for name in self.bundle.manifest.graphs:
            write_plan(self.bundle, name, size, self.release, **behaviour)

    def open(self, text: str = "tensorrt") -> TensorRtBackend:
        backend = open_backend(text, self.bundle, cuda=CudaOptions(self.binding))
        assert isinstance(backend, TensorRtBackend)
        return backend

    def fuser(self) -> Fuser:
        return Fuser(self.bundle, self.open())

    def empty(self) -> bool:
        gc.collect()
        gpu = self.gpu
        return not (gpu.blocks or gpu.graphs or gpu.streams or gpu.events or gpu.pinned)


@pytest.fixture
def machine(monkeypatch, tmp_path) -> Machine:
    return Machine(monkeypatch, tmp_path)


@pytest.fixture(params=["cuda", "cudart", "pycuda"])
def either(request, monkeypatch, tmp_path) -> Machine:
    """One for each binding."""
    return Machine(monkeypatch, tmp_path, binding=request.param)


@pytest.fixture(params=VERSIONS)
def any_release(request, monkeypatch, tmp_path) -> Machine:
    return Machine(monkeypatch, tmp_path, request.param)


def frames(count: int, size: tuple[int, int] = SIZE) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(5)
    for _ in range(count):
        yield rng.integers(0, 256, size, np.uint8), rng.integers(0, 256, (*size, 3), np.uint8)


def same(fused, expected) -> bool:
    return all(
        np.array_equal(getattr(fused, name), getattr(expected, name)) for name in ("picture", "infrared", "visible")
    )


def loop_inputs(seed: int, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "infrared": rng.integers(0, 256, (1, *size, 1), np.uint8),
        "visible": rng.integers(0, 256, (1, *size, 3), np.uint8),
        "strength": rng.random(2, np.float32),
        "balance": rng.random(1, np.float32),
    }


def test_every_release_computes_what_numpy_does_in_both_forms(any_release: Machine) -> None:
    reference = Fuser(any_release.bundle, NumpyBackend(any_release.bundle))
    with any_release.fuser() as fuser:
        for pair in frames(3):
            for controls in (Controls(), STEPS, Controls(strength_visible=0.3, balance=0.9)):
                assert same(fuser(*pair, controls), reference(*pair, controls))
        assert set(fuser.backend.runs.cuda_graph) == {f"{LOOP} 16x24", f"3 x {STEP}, {FUSION} 16x24"}
        assert set(fuser.backend.runs.cuda_graph.values()) == {ONE_GRAPH}
    assert any_release.empty()


def test_a_thousand_frames_each_with_strengths_of_its_own(either: Machine) -> None:
    """A stale frame, an upload or control that does not arrive, a leak or a new capture would show."""
    reference = Fuser(either.bundle, NumpyBackend(either.bundle))
    rng = np.random.default_rng(9)
    with either.fuser() as fuser:
        for index, pair in enumerate(frames(1000)):
            first, second, balance = (float(value) for value in rng.random(3, np.float32))
            controls = Controls((2, 3)[index % 2], first, second, balance)
            assert same(fuser(*pair, controls), reference(*pair, controls)), index
            if index == 3:
                held = either.gpu.used, len(either.gpu.pinned), len(either.gpu.graphs), either.gpu.calls["cudaMalloc"]
                captures = either.gpu.calls["cudaStreamBeginCapture"]
        gpu = either.gpu
        assert (gpu.used, len(gpu.pinned), len(gpu.graphs), gpu.calls["cudaMalloc"]) == held
        assert gpu.calls["cudaStreamBeginCapture"] == captures == (0 if either.binding == "pycuda" else 4)
        assert set(fuser.backend.runs.cuda_graph.values()) == {LAUNCHED[either.binding]}
    assert either.empty()


def test_a_frame_is_one_launch(machine: Machine) -> None:
    with machine.fuser() as fuser:
        pairs = list(frames(3))
        for controls in (Controls(), STEPS):
            fuser(*pairs[0], controls)
            before = machine.gpu.calls.copy()
            for pair in pairs:
                fuser(*pair, controls)
            calls = {name: count for name, count in (machine.gpu.calls - before).items() if "Error" not in name}
            assert calls == {"cudaGraphLaunch": 3, "cudaEventRecord": 3, "cudaEventSynchronize": 3}


def test_outputs_live_through_the_next_run_and_after_the_backend(either: Machine) -> None:
    backend = either.open()
    first = backend.run(LOOP, loop_inputs(1))
    kept = [value.copy() for value in first]
    second = backend.run(LOOP, loop_inputs(2))
    assert all(np.array_equal(value, copy) for value, copy in zip(first, kept, strict=True))
    assert not any(np.array_equal(one, two) for one, two in zip(first, second, strict=True))
    third = backend.run(LOOP, loop_inputs(3))
    assert third[0] is first[0], "two sets take turns"
    kept = [value.copy() for value in third]
    backend.close()
    assert all(np.array_equal(value, copy) for value, copy in zip(third, kept, strict=True))
    del first, second, third
    assert either.empty()


def test_an_output_may_be_the_next_input_and_inputs_need_not_be_contiguous(either: Machine) -> None:
    rng = np.random.default_rng(2)
    backend, x_in = either.open(), rng.uniform(-1, 1, (2, 3, *SIZE)).astype(np.float32)
    inputs = {"x_in": np.asfortranarray(x_in), "t": np.float32([500]), "coef": np.float32([0.2, 0.3, 0.1, 0.4])}
    chained, expected = x_in, x_in
    for _ in range(4):
        chained = backend.run(STEP, {**inputs, "x_t": chained})[0]
        expected = NumpyBackend(either.bundle).run(STEP, {**inputs, "x_in": x_in, "x_t": expected})[0]
        assert np.array_equal(chained, expected)


def test_a_strength_map_goes_step_by_step_and_into_a_loop_that_takes_one(machine: Machine) -> None:
    reference, (pair,) = Fuser(machine.bundle, NumpyBackend(machine.bundle)), frames(1)
    shares = np.random.default_rng(0).integers(0, 256, (*SIZE, 2), np.uint8)
    with machine.fuser() as fuser:
        for controls in (Controls(), STEPS):
            assert same(fuser(*pair, controls, strength_map=shares), reference(*pair, controls, strength_map=shares))
        assert f"{STEP} 16x24" in fuser.backend.runs.cuda_graph


def test_a_state_never_outlives_its_frame(machine: Machine) -> None:
    """The same frame twice, with another between, is the same."""
    one, other = frames(2)
    with machine.fuser() as fuser:
        first = fuser(*one, STEPS)
        fuser(*other, STEPS)
        assert same(fuser(*one, STEPS), first)


BROKEN: dict[str, tuple[dict[str, object], dict[str, Status], str]] = {
    "enqueue": ({"refuse": "captured"}, {}, rf"TensorRT refused to run {LOOP} \(Error Code 1: myelin says no\)"),
    "stale": ({"stale": True}, {}, r"a CUDA graph gave \d+ other bytes of \d+ in output 0"),
    "drift": ({"drift": True}, {}, "a CUDA graph gave "),
    "begin": ({}, {"cudaStreamBeginCapture": Status.cudaErrorInvalidValue}, "cudaStreamBeginCapture returned"),
    "end": ({}, {"cudaStreamEndCapture": Status.cudaErrorStreamCaptureInvalidated}, r"cudaStreamEndCapture .*\(901\)"),
    "instantiate": ({}, {"cudaGraphInstantiate": Status.cudaErrorMemoryAllocation}, "cudaGraphInstantiate returned"),
    "upload": ({}, {"cudaGraphUpload": Status.cudaErrorInvalidValue}, "cudaGraphUpload returned"),
    "launch": ({}, {"cudaGraphLaunch": Status.cudaErrorInvalidValue}, "cudaGraphLaunch returned"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_graph_that_cannot_be_or_is_wrong_falls_back_and_says_why(machine: Machine, name: str) -> None:
    behaviour, failing, words = BROKEN[name]
    machine.write(**behaviour)
    machine.gpu.failing = failing
    reference = Fuser(machine.bundle, NumpyBackend(machine.bundle))
    with machine.fuser() as fuser:
        for pair in frames(5):
            assert same(fuser(*pair), reference(*pair))
        (said,) = fuser.backend.runs.cuda_graph.values()
        assert not machine.gpu.graphs
        engine, line = notes(details(fuser.backend.facts, fuser.backend.runs))
        assert engine.startswith(f"engine: {LOOP} 16x24: {LOOP}-")
        for text in (said, line):
            with pytest.raises(BackendError, match=f"stream launches: {words}"):
                raise BackendError(text)
        assert "\n" not in line
        assert not machine.gpu.last_error
        assert machine.gpu.streams[fuser.backend._handle].recorded is None, "the stream still captures"


def test_an_interrupt_within_a_capture_leaves_a_stream_that_works(machine: Machine, monkeypatch) -> None:
    from cled_edge.backend.tensorrt.engine import BoundEngine

    backend, enqueue, captures = machine.open(), BoundEngine.enqueue, [0]

    def interrupted(self, handle: int) -> None:
        captures[0] += machine.gpu.streams[handle].recorded is not None
        if captures[0] == 2:
            raise KeyboardInterrupt
        enqueue(self, handle)

    monkeypatch.setattr(BoundEngine, "enqueue", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.run(LOOP, loop_inputs(1))
    captures[0] = 3
    for stream in machine.gpu.streams.values():
        assert stream.recorded is None
    assert np.array_equal(
        backend.run(LOOP, loop_inputs(2))[0], NumpyBackend(machine.bundle).run(LOOP, loop_inputs(2))[0]
    )
    assert backend.runs.cuda_graph == {f"{LOOP} 16x24": ONE_GRAPH}


def test_a_refusal_outside_a_capture_is_an_error(either: Machine) -> None:
    either.write(refuse="always")
    words = rf"TensorRT refused to run {LOOP} \(Error Code 1: myelin says no\); build it again: cled-edge build$"
    with pytest.raises(BackendError, match=words):
        either.open().run(LOOP, loop_inputs(1))


def test_an_error_on_the_device_is_raised_where_it_is_waited_for(machine: Machine) -> None:
    backend = machine.open()
    backend.run(LOOP, loop_inputs(1))
    machine.gpu.failing = {"cudaEventSynchronize": Status.cudaErrorIllegalAddress}
    with pytest.raises(BackendError, match=r"cudaEventSynchronize returned cudaErrorIllegalAddress \(700\); run again"):
        backend.run(LOOP, loop_inputs(2))


def test_sizes_take_turns_and_three_are_kept(either: Machine) -> None:
    sizes = [(16, 24), (24, 16), (32, 32), (8, 8), (40, 16)]
    for size in sizes:
        either.write(size)
    backend, reference = either.open(), NumpyBackend(either.bundle)
    for _ in range(2):
        for index, size in enumerate(sizes):
            inputs = loop_inputs(index, size)
            for seen, expected in zip(backend.run(LOOP, inputs), reference.run(LOOP, inputs), strict=True):
                assert np.array_equal(seen, expected)
            assert len(backend._launches) <= 3
            assert len(either.gpu.graphs) <= 6
            assert len(backend._engines) <= 3
    backend.close()
    del backend, seen
    assert either.empty()


def test_memory_grows_for_a_hungrier_engine_and_what_ran_before_still_does(machine: Machine) -> None:
    write_plan(machine.bundle, STEP, SIZE, machine.release, memory=100)
    backend, reference = machine.open(), NumpyBackend(machine.bundle)
    x_in = np.random.default_rng(1).uniform(-1, 1, (2, 3, *SIZE)).astype(np.float32)
    inputs = {"x_t": x_in, "x_in": x_in, "t": np.float32([5]), "coef": np.float32([1, 2, 3, 4])}
    for _ in range(2):
        assert np.array_equal(backend.run(STEP, inputs)[1], reference.run(STEP, inputs)[1])
        assert np.array_equal(backend.run(LOOP, loop_inputs(1))[2], reference.run(LOOP, loop_inputs(1))[2])
    assert backend.runs.arena_bytes == 2000


def test_an_engine_of_any_size_is_told_the_size(any_release: Machine) -> None:
    any_release.write(dynamic=True)
    backend = any_release.open()
    assert np.array_equal(
        backend.run(LOOP, loop_inputs(1))[0], NumpyBackend(any_release.bundle).run(LOOP, loop_inputs(1))[0]
    )


UNFIT: dict[str, tuple[dict[str, object], str]] = {
    "name": (
        {"rename": "balance"},
        "differs from the manifest in tensor balance, balance_2: it is another's; build it",
    ),
    "shape": ({"shape": (1, 8, 8, 1)}, r"takes infrared as \(1, 8, 8, 1\), needed \(1, 16, 24, 1\); build it again"),
    "dynamic": ({"dynamic": True, "shape": (1, 8, 8, 1)}, r"TensorRT refused shape \(1, 16, 24, 1\) of infrared in"),
    "infer": ({"missing": ("strength",)}, "lacks shapes of strength; build it again"),
    "context": ({"no_context": True}, f"TensorRT made no context for {LOOP}; free GPU memory"),
    "major": (
        {"major": "7"},
        rf"TensorRT 10.3.0 cannot read the engine of {LOOP} \(the engine is of another version\)",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_engine_that_does_not_fit_is_refused_and_leaves_nothing(machine: Machine, name: str) -> None:
    behaviour, words = UNFIT[name]
    machine.write(**behaviour)
    backend = machine.open()
    with pytest.raises(BackendError, match=words) as caught:
        backend.run(LOOP, loop_inputs(1))
    assert "\n" not in str(caught.value)
    backend.close()
    assert machine.empty()


def test_out_of_memory_says_how_much_was_free_and_leaves_nothing(either: Machine) -> None:
    either.write((1024, 2048))
    filling = either.gpu.allocate(TOTAL_BYTES - 4_000_000)
    backend = either.open()
    with pytest.raises(
        BackendError, match=r"out of memory for 6.3 MB: \d of 67 MB are free; close .* or fuse in tiles"
    ):
        backend.run(LOOP, loop_inputs(1, (1024, 2048)))
    assert np.array_equal(
        backend.run(LOOP, loop_inputs(1))[0], NumpyBackend(either.bundle).run(LOOP, loop_inputs(1))[0]
    )
    backend.close()
    either.gpu.free(filling)
    del backend
    assert either.empty()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda inputs: {}, rf"TensorRT refused {LOOP}.onnx: infrared has shape \(\), needed"),
        (
            lambda inputs: {**inputs, "more": np.zeros(1)},
            "inputs are balance, infrared, more, strength, visible, needed",
        ),
        (lambda inputs: {**inputs, "balance": np.zeros(1)}, r"balance is float64 \(1,\), needed float32 \(1,\)"),
        (lambda inputs: {**inputs, "visible": inputs["visible"][:, 1:]}, r"visible is uint8 \(1, 15, 24, 3\), needed"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(machine: Machine, change: Callable[..., dict], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        machine.open().run(LOOP, change(loop_inputs(1)))


def test_a_missing_engine_is_refused_with_the_command_that_builds_it(machine: Machine) -> None:
    with pytest.raises(EngineError, match=rf"build it: bundle .*, graphs {LOOP}, precision fp16, size 24x32") as caught:
        machine.open().run(LOOP, loop_inputs(1, (24, 32)))
    assert caught.value.exit_code == 20
    assert "\n" not in str(caught.value)


def test_an_altered_engine_is_never_read(machine: Machine) -> None:
    for path in default_folder().glob("*.engine"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(EngineError, match=r"altered; build it: bundle .*, graphs "):
        machine.open().run(LOOP, loop_inputs(1))


def test_what_builds_on_demand_is_handed_in(machine: Machine) -> None:
    built = []

    def build(bundle: Bundle, graph: str, size: tuple[int, int], facts, folder, binding: str) -> None:
        assert (bundle, facts, folder, binding) == (
            machine.bundle,
            facts_of(machine.release),
            default_folder(),
            machine.binding,
        )
        built.append((graph, size))
        write_plan(machine.bundle, graph, size, machine.release)

    cuda = CudaOptions(build_missing=build)
    backend = open_backend("tensorrt", machine.bundle, cuda=cuda)
    backend.run(LOOP, loop_inputs(1))
    backend.run(LOOP, loop_inputs(1, (24, 32)))
    assert built == [(LOOP, (24, 32))]
    assert backend.runs.cache == {LOOP: "built"}
    with pytest.raises(OptionError, match="for backend onnxruntime:fp32; they are of backend tensorrt alone; leave"):
        open_backend("onnxruntime", machine.bundle, cuda=cuda)


def test_closed_is_closed_from_any_thread(either: Machine) -> None:
    backend = either.open()
    backend.run(LOOP, loop_inputs(1))
    closing = threading.Thread(target=backend.close)
    closing.start()
    closing.join()
    backend.close()
    with pytest.raises(BackendError, match="backend tensorrt:fp16 is closed; open another"):
        backend.run(LOOP, loop_inputs(1))


@pytest.mark.parametrize(("release", "opsets"), [("8.6", (17,)), ("10.3", (20, 17)), ("11.4", (20, 17))])
def test_a_release_runs_the_newest_graphs_that_it_parses(monkeypatch, tmp_path, release, opsets) -> None:
    machine = Machine(monkeypatch, tmp_path, release)
    machine.bundle = small_bundle(tmp_path / "both", opset_20_size=SIZE)
    for size in (SIZE, (24, 24)):
        machine.write(size)
    with machine.fuser() as fuser:
        assert fuser.backend.opsets == opsets
        for size in (SIZE, (24, 24)):
            fuser(*next(frames(1, size)), STEPS)
        word = "" if release == "8.6" else "-opset20"
        assert list(fuser.backend.runs.cuda_graph) == [
            f"3 x {STEP}{word}, {FUSION}{word} 16x24",
            f"3 x {STEP}, {FUSION} 24x24",
        ]


def test_verify_runs_what_the_release_parses(monkeypatch, tmp_path) -> None:
    from cled_edge.verify import Case, verify

    machine = Machine(monkeypatch, tmp_path, "8.6")
    (pair,) = frames(1)
    expected = Fuser(machine.bundle, NumpyBackend(machine.bundle))(*pair)
    values = {name: getattr(expected, name) for name in ("picture", "infrared", "visible")}
    cases = [Case(*pair, Controls(), values)]
    in_one_graph = {"one graph": values}
    monkeypatch.setattr("cled_edge.verify._computed", lambda fuser, opset, case, form: in_one_graph.get(form))
    assert [check.verdict for check in verify(machine.bundle, "tensorrt", cases)] == ["OK"]
    assert verify(machine.bundle, "tensorrt", cases, opset=20) == []


def test_it_is_found_with_its_precisions_and_says_what_it_is(machine: Machine) -> None:
    assert [str(c) for c in available_backends() if c.name == "tensorrt"] == [
        "tensorrt:fp16",
        "tensorrt:fp32",
        "tensorrt:int8",
    ]
    backend = machine.open("tensorrt:fp32")
    assert isinstance(backend, FrameBackend)
    assert not isinstance(NumpyBackend(machine.bundle), FrameBackend)
    assert backend.description == "tensorrt 10.3.0 Fake Orin fp32"
    backend.run("fused_loop", loop_inputs(1))
    assert json.loads(json.dumps(details(backend.facts, backend.runs))) == {
        "sdk": "tensorrt 10.3.0",
        "device": "GPU Fake Orin",
        "precision": "fp32",
        "threads": None,
        "cuda": "cuda-python, CUDA 12.6",
        "cuda_graph": {"fused_loop 16x24": ONE_GRAPH},
        "engines": {"fused_loop 16x24": engine_paths(default_folder(), "fused_loop", backend_key(machine))[0].name},
        "cache": {"fused_loop": "read"},
        "arena_bytes": 2000,
    }
    with pytest.raises(OptionError, match="threads is 1, but backend tensorrt has none; give 0"):
        open_backend("tensorrt", machine.bundle, threads=1)


def test_a_library_that_is_missing_or_too_old_is_one_line(machine: Machine, monkeypatch) -> None:
    old = fake_tensorrt(machine.gpu, "8.6")
    old.__version__, old.IExecutionContext = "8.4.1", SimpleNamespace()
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(
        BackendError, match=r"TensorRT 8.4.1 has no IExecutionContext.execute_async_v3, needed 8.6, 10 or 11"
    ):
        machine.open()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"TensorRT is not installed .* JetPack") as caught:
        machine.open()
    assert "\n" not in str(caught.value)
    assert "tensorrt" not in {choice.name for choice in available_backends()}


def backend_key(machine: Machine) -> str:
    options, sha256 = BuildOptions(precision="fp32", size=SIZE), graph_sha256(machine.bundle, "fused_loop")
    return engine_key(sha256, options, facts_of(machine.release))


def test_engines_of_other_options_and_folders_run_and_are_named(
    machine: Machine, write_pairs, tmp_path, monkeypatch
) -> None:
    infrared, visible = write_pairs(size=SIZE)
    elsewhere, profile = tmp_path / "elsewhere", Profile(min=(8, 8), opt=SIZE, max=(32, 32))
    for options in (BuildOptions(profile=profile), BuildOptions(size=SIZE, tf32=True)):
        file = write_plan(machine.bundle, LOOP, SIZE, machine.release, options, elsewhere)
        monkeypatch.setenv("CLED_EDGE_ENGINES", str(elsewhere))
        command = ["fuse", "--infrared", str(infrared), "--visible", str(visible), "--bundle", str(tmp_path / "bundle")]
        done = CliRunner().invoke(cli.app, [*command, "--backend", "tensorrt", "--out", str(tmp_path / "out")])
        assert done.exit_code == 0, done.output
        said = "TF32" if options.tf32 else "for 8x8,16x24,32x32"
        assert f"engine: {LOOP} 16x24: {file.name} ({said})" in done.output
    monkeypatch.delenv("CLED_EDGE_ENGINES")
    backend = open_backend("tensorrt", machine.bundle, cuda=CudaOptions(engines=elsewhere))
    backend.run(LOOP, loop_inputs(1))
    assert "TF32" in backend.runs.engines[f"{LOOP} 16x24"]


def test_verify_runs_the_sizes_that_have_engines_and_counts_the_others(machine: Machine, monkeypatch) -> None:
    from cled_edge import verify

    reference = Fuser(machine.bundle, NumpyBackend(machine.bundle))
    cases = []
    for size in (SIZE, (24, 32), (40, 40)):
        (pair,) = frames(1, size)
        for steps in (2, 3):  # in one graph and step by step, and step by step alone
            x_in, controls = reference.prepare(*pair), Controls(steps)
            residual, fused, kinds = reference.residual_and_fused(x_in, controls)
            expected = {"residual": residual, "fused": fused, "kinds": kinds}
            whole = reference(*pair, controls)
            expected |= {name: getattr(whole, name) for name in ("picture", "infrared", "visible")}
            cases.append(verify.Case(*pair, controls, expected))
    remarks = verify.Remarks()
    checks = verify.verify(machine.bundle, "tensorrt", cases, remarks=remarks)
    assert [(check.size, check.form, check.steps, check.verdict) for check in checks] == [
        (SIZE, "step by step", 2, "OK"),
        (SIZE, "one graph", 2, "OK"),
        (SIZE, "step by step", 3, "OK"),
    ]
    assert len(remarks.left_out) == 6
    assert remarks.left_out[0].wanted["size"] == "24x32"
    assert f"tensorrt:fp16: CUDA graph: {LOOP} 16x24: {ONE_GRAPH}" in remarks.notes
    with pytest.raises(EngineError, match="size 24x32"):
        verify.verify(machine.bundle, "tensorrt", cases)
    # The command: it says how many were left out, and fails only if nothing could be run.
    monkeypatch.setattr(verify, "read_golden", lambda bundle: cases)
    command = ["verify", str(machine.bundle.path), "--backend", "tensorrt"]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    assert "left out: 6 runs of golden pairs without an engine, first: " in done.stderr
    assert "build it: cled-edge build " in done.stderr
    assert f"CUDA graph: {LOOP} 16x24: {ONE_GRAPH}" in done.stderr
    monkeypatch.setattr(verify, "read_golden", lambda bundle: cases[2:])
    assert isinstance(CliRunner().invoke(cli.app, command).exception, EngineError)


def test_what_a_graph_tells_of_kinds_comes_back_in_one_graph_and_step_by_step(machine: Machine) -> None:
    reference, (pair,) = Fuser(machine.bundle, NumpyBackend(machine.bundle)), frames(1)
    with Fuser(machine.bundle, open_backend("tensorrt", machine.bundle)) as fuser:
        for steps in (2, 3):  # in one graph, and step by step on the GPU
            seen, wanted = (each(*pair, Controls(steps)) for each in (fuser, reference))
            assert np.allclose(seen.kinds, wanted.kinds, atol=1e-6)
            assert fuser.kinds(seen) == reference.kinds(wanted)
    likely = fuser.kinds(seen)
    assert (list(likely.infrared), list(likely.visible)) == (["stripes", "noise"], ["noise"])
    assert likely.infrared["stripes"] == pytest.approx(1 / (1 + np.exp(1 - 2 * float(seen.kinds[0, 0]))))


def test_launches_call_by_call_can_be_asked_for_and_the_gpu_be_timed(either: Machine) -> None:
    options = CudaOptions(either.binding, graphs=False, timed=True)
    with Fuser(either.bundle, open_backend("tensorrt", either.bundle, cuda=options)) as fuser:
        reference, (pair,) = Fuser(either.bundle, NumpyBackend(either.bundle)), frames(1)
        assert same(fuser(*pair), reference(*pair))
        assert fuser.backend.runs.cuda_graph == {f"{LOOP} 16x24": "stream launches: as was asked for"}
        assert fuser.backend.runs.gpu_ms == 0.5
        assert not either.gpu.calls["cudaStreamBeginCapture"]
    del fuser
    assert either.empty()


def test_inputs_written_into_pinned_arrays_are_read_there(machine: Machine, monkeypatch) -> None:
    backend, reference = machine.open(), NumpyBackend(machine.bundle)
    arrays = backend.pinned_inputs(LOOP, SIZE)
    for seed in range(3):  # the first run prepares, and writes other frames into these arrays meanwhile
        inputs = loop_inputs(seed)
        for name, value in inputs.items():
            arrays[name][...] = value
        if seed == 1:  # from here on nothing is copied on the host
            monkeypatch.setattr(np, "copyto", None)
        for seen, expected in zip(backend.run(LOOP, arrays), reference.run(LOOP, inputs), strict=True):
            assert np.array_equal(seen, expected)


def test_auto_does_not_keep_a_refusal_that_a_build_would_lift(machine: Machine, monkeypatch) -> None:
    from cled_edge import select as auto
    from cled_edge.backend.choice import BackendChoice

    choices = [BackendChoice.parse(text) for text in ("onnxruntime", "tensorrt")]

    def opener(choice: BackendChoice, bundle: Bundle, threads: int):
        return NumpyBackend(bundle, str(choice)) if choice.name == "onnxruntime" else machine.open(str(choice))

    verdict = auto.choose(machine.bundle, 0, (24, 24), choices, opener)
    assert "; refused tensorrt:fp16: " in verdict.line
    assert "build it: bundle " in verdict.line
    machine.write((24, 24))
    verdict = auto.choose(machine.bundle, 0, (24, 24), choices, opener)
    assert "refused" not in verdict.line
    assert verdict.line.endswith("measured now")


def test_fuse_prints_how_frames_were_launched(machine: Machine, write_pairs, tmp_path) -> None:
    infrared, visible = write_pairs(size=SIZE)
    command = ["fuse", "--infrared", str(infrared), "--visible", str(visible), "--bundle", str(tmp_path / "bundle")]
    command += ["--backend", "tensorrt", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    assert f"CUDA graph: {LOOP} 16x24: {ONE_GRAPH}" in done.output
    machine.write(refuse="captured")
    done = CliRunner().invoke(cli.app, [*command, "--json"])
    (note,) = (note for note in json.loads(done.stdout)["notes"] if note.startswith("CUDA graph"))
    assert note.startswith(f"CUDA graph: {LOOP} 16x24: stream launches: TensorRT refused")
    refused = CliRunner().invoke(cli.app, [*command, "--cuda-binding", "cupy"])
    assert isinstance(refused.exception, OptionError)
