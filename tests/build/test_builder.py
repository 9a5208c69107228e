"""Engines: what is built, on fakes of four releases, how a build can die, and when a kept engine is refused."""

import ast
import hashlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cled_edge.backend.opener import open_backend
from cled_edge.backend.tensorrt import device
from cled_edge.backend.tensorrt.build_options import RECIPE, BuildOptions, Profile, fitting_graph, tensor_shape
from cled_edge.backend.tensorrt.capabilities import RELEASES, USED, capabilities
from cled_edge.backend.tensorrt.cuda import open_cuda
from cled_edge.backend.tensorrt.device import DeviceFacts, kernel_driver, power_mode, read_facts
from cled_edge.backend.tensorrt.sdk import import_tensorrt
from cled_edge.backend.tensorrt.store import current_record, default_folder, engine_paths, open_engine, pick_engine
from cled_edge.build import builder
from cled_edge.build.builder import build_engine
from cled_edge.build.job import Job, Result
from cled_edge.build.process import ProgressWriter, run
from cled_edge.build.request import camera_modes, chosen_graphs
from cled_edge.build.supervisor import Limits, Step
from cled_edge.build.timing_cache import timings_path
from cled_edge.build.trial import Trial, judged, make_trial
from cled_edge.bundle.reader import Bundle
from cled_edge.cli.advice import advised
from cled_edge.cli.app import main
from cled_edge.errors import BackendError, EngineError, OptionError, OutputError, ParityError
from cled_edge.size import parse_size
from tests.fakes import tensorrt as fake_tensorrt
from tests.fakes.small_bundle import write_bundle

SIZE = (64, 96)
FP16 = BuildOptions(size=SIZE)
START = 0.5  # what a trial's first input begins with; the fake engines fill their outputs with it
Fake = Callable[..., DeviceFacts]

# `tensorrt` and `cuda.bindings.runtime` as a child process finds them on its path.
_TENSORRT = """
import os, sys
sys.path.insert(0, os.environ["FAKE_ROOT"])
from cled_edge.size import parse_size
from tests.fakes import tensorrt as fake_tensorrt
sys.modules[__name__] = fake_tensorrt.make(os.environ["FAKE_TENSORRT"], os.environ.get("FAKE_TENSORRT_FAULT", ""))
"""
_CUDA = """
import os, sys
sys.path.insert(0, os.environ["FAKE_ROOT"])
from cled_edge.size import parse_size
from tests.fakes import tensorrt as fake_tensorrt
sys.modules[__name__] = fake_tensorrt.make_cuda(int(os.environ.get("FAKE_GPUS", "1")))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Put the fakes on the path of this process and of its children; return the facts of a release."""
    packages = tmp_path / "packages"
    (packages / "cuda" / "bindings").mkdir(parents=True)
    (packages / "tensorrt.py").write_text(_TENSORRT)
    for folder in ("cuda", "cuda/bindings"):
        (packages / folder / "__init__.py").touch()
    (packages / "cuda/bindings/runtime.py").write_text(_CUDA)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.setenv("FAKE_ROOT", str(Path(__file__).parents[2]))
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setattr(builder, "make_trial", fake_trial)
    names = ("tensorrt", "cuda", "cuda.bindings", "cuda.bindings.runtime")

    def use(release: str, fault: str = "", gpus: int = 1) -> DeviceFacts:
        monkeypatch.setenv("FAKE_TENSORRT", release)
        monkeypatch.setenv("FAKE_TENSORRT_FAULT", fault)
        monkeypatch.setenv("FAKE_GPUS", str(gpus))
        for name in names:
            sys.modules.pop(name, None)
        return facts(tensorrt=fake_tensorrt.VERSIONS[release])

    yield use
    for name in names:
        sys.modules.pop(name, None)


def fake_trial(bundle: Bundle, graph: str, size: tuple[int, int]) -> Trial:
    """Return a trial of a graph that no ONNX Runtime could run."""
    spec = bundle.manifest.graphs[graph]

    def arrays(tensors, number: float) -> dict[str, np.ndarray]:
        shapes = {tensor.name: (tensor_shape(spec, tensor.shape, size), tensor.dtype) for tensor in tensors}
        return {
            name: np.full(shape, 7 if dtype == "uint8" else number, dtype) for name, (shape, dtype) in shapes.items()
        }

    # Floats beside bytes, what is told of kinds, are filled with the byte too.
    return Trial(arrays(spec.inputs, START), arrays(spec.outputs, 7 if spec.role == "fused_loop" else START))


def find_engine(*arguments: Any) -> bytes:
    return open_engine(*arguments)[0]


def facts(**changes: object) -> DeviceFacts:
    values: dict[str, object] = {
        "gpu": "Orin",
        "sm": "87",
        "driver": "12.6",
        "cuda": "12.6",
        "kernel_driver": "540.4.0",
    }
    values |= {"multiprocessors": 8, "memory_gib": 8, "power_mode": None}
    values |= {"tensorrt": "10.3.0", "os": "linux", "arch": "aarch64"}
    return DeviceFacts(**values | changes)


def run_here(bundle: Bundle, graph: str, options: BuildOptions, room: Path) -> tuple[Result, dict[str, Any]]:
    """Do a child's work in this process; return its answer and what the fake builder was told."""
    room.mkdir(exist_ok=True)
    job = Job(spec=bundle.manifest.graphs[graph], options=options, builds=1)
    builder._write_job(room, job, bundle.graph(graph), b"", ())
    with (room / "events").open("w") as events:
        run(room, ProgressWriter(events))
    return Result.model_validate_json((room / "result.json").read_bytes()), told((room / "plan.engine").read_bytes())


def told(plan: bytes) -> dict[str, Any]:
    return json.loads(plan[4:])


@pytest.mark.parametrize("release", RELEASES)
def test_capabilities_follow_the_release(release: str) -> None:
    has = capabilities(fake_tensorrt.make(release))
    assert has.strongly_typed == {"8.6": 0, "10.3": 2, "10.16": 2, "11.4": 1}[release]
    assert has.explicit_batch == (0 if release == "11.4" else 1)
    assert has.weak_fp16 == (release != "11.4")
    assert has.progress_monitor == (release != "8.6")
    assert has.newest_opset == (17 if release == "8.6" else None)
    assert has.device_memory_size == ("device_memory_size" if release == "8.6" else "device_memory_size_v2")
    assert has.own_device_memory == ("call" if release == "8.6" else "strategy")


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_builds_by_names_of_the_table(release: str, bundle: Bundle, tmp_path: Path, fake: Fake) -> None:
    fake(release)
    fake_tensorrt.SEEN.clear()
    options = BuildOptions(size=SIZE, workspace_mib=256, optimization_level=2)
    result, plan = run_here(bundle, "unet_step-fp16", options, tmp_path / "room")
    assert {"OnnxParser.parse_from_file", "ICudaEngine.get_tensor_name"} <= fake_tensorrt.SEEN
    assert not fake_tensorrt.SEEN - USED.keys()
    assert not {name for name in fake_tensorrt.SEEN if release not in USED[name].releases}
    assert plan["pools"] == {"WORKSPACE": 256 * 2**20}
    assert (plan["level"], plan["aux"]) == (2, 0)
    assert "TF32" not in plan["flags"]
    assert plan["profile"]["x_t"] == [[2, 3, *SIZE]] * 3
    assert result.tensorrt == fake_tensorrt.VERSIONS[release]
    assert result.read_back.device_memory_bytes == 12_345_678
    assert result.strongly_typed == (release != "8.6")
    events = [json.loads(line) for line in (tmp_path / "room/events").read_text().splitlines()]
    assert bool(events) == (release != "8.6")


def test_weak_typing_permits_half_and_pins_what_breaks_in_it(bundle: Bundle, tmp_path: Path, fake: Fake) -> None:
    fake("8.6")
    _, plan = run_here(bundle, "unet_step-fp16", FP16, tmp_path / "room")
    assert plan["flags"] == ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
    assert plan["network_flags"] == 1
    # Not the square root, the sum, the convolution, nor the reduction of integers.
    assert plan["pinned"] == [["SOFTMAX", "FLOAT"], ["UNARY", "FLOAT"], ["ELEMENTWISE", "FLOAT"]]
    _, plan = run_here(bundle, "unet_step", BuildOptions(size=SIZE, precision="fp32", tf32=True), tmp_path / "fp32")
    assert (plan["flags"], plan["pinned"]) == (["TF32"], [])
    _, plan = run_here(bundle, "unet_step-int8", BuildOptions(size=SIZE, precision="int8"), tmp_path / "int8")
    assert plan["flags"] == ["INT8"]


@pytest.mark.parametrize(("release", "bit"), [("10.3", 2), ("10.16", 2), ("11.4", 1)])
def test_strong_typing_sets_its_own_bit_and_no_precision(
    release: str, bit: int, bundle: Bundle, tmp_path: Path, fake: Fake
) -> None:
    fake(release)
    _, plan = run_here(bundle, "unet_step-fp16", FP16, tmp_path / "room")
    assert (plan["network_flags"], plan["flags"], plan["pinned"]) == (bit, [], [])


def test_a_profile_reaches_the_engine_and_its_sidecar(bundle: Bundle, tmp_path: Path, fake: Fake) -> None:
    here = fake("10.16")
    options = BuildOptions(profile=Profile(min=(32, 48), opt=SIZE, max=(128, 192)))
    record = build_engine(bundle, "fusion-fp16", options, here, tmp_path / "engines")
    assert [trial.size for trial in record.trials] == [(32, 48), SIZE, (128, 192)]
    infrared = next(tensor for tensor in record.read_back.tensors if tensor.name == "infrared")
    assert infrared.profile == ((1, 3, 32, 48), (1, 3, *SIZE), (1, 3, 128, 192))
    assert told(find_engine(bundle, "fusion-fp16", options, here, tmp_path / "engines"))["profile"]["infrared"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            "parser",
            r"TensorRT 10.3.0 does not parse .*node 3 GroupNormalization /net/node_3: no importer registered .*node 9",
        ),
        ("none", r"built no engine .*Error Code 10: could not find any implementation.*workspace_mib"),
        ("no_gpu", r"made no builder: CUDA initialization failure.*doctor"),
        ("profile", r"refused the profile .*size or profile"),
        ("load", r"does not load the engine.*build it again"),
        ("sigkill", r"killed by SIGKILL, most likely .*out of memory.*workspace_mib"),
        ("sigsegv", r"died by SIGSEGV inside TensorRT \(tactic 0x4711 begins\); try another optimization_level"),
        ("sigabrt", r"died by SIGABRT"),
        ("exception", r"failed with exit code 1 \(RuntimeError: std::bad_alloc\)"),
        ("dtype", r"not what its manifest says and was not kept: x_prev of type float16, needed float32"),
        ("name", r"outputs other, residual, needed residual, x_prev|outputs other"),
        ("compatibility", r"hardware compatibility AMPERE_PLUS, needed NONE"),
        ("numbers", r"TOLERANCE: the engine of .* gives x_prev at 64x96 with 18.1 dB .*, needed 50, and was not kept"),
        ("nan", r"NONFINITE: the engine of .* gives x_prev at 64x96 with 0.0 dB"),
        ("run", r"TensorRT refused to run unet_step-fp16.onnx"),
        ("hungry", r"cudaMalloc returned out of memory for 1000.0 MB: \d+ of 67 MB are free"),
    ],
)
def test_a_build_that_fails_says_why_and_keeps_nothing(
    fault: str, words: str, bundle: Bundle, tmp_path: Path, fake: Fake
) -> None:
    here = fake("10.3", fault)
    kind = {"numbers": ParityError, "nan": ParityError, "run": BackendError, "hungry": BackendError}.get(
        fault, EngineError
    )
    with pytest.raises(kind, match=words) as caught:
        build_engine(bundle, "unet_step-fp16", FP16, here, tmp_path / "engines")
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "engines").iterdir() if not path.name.endswith(".lock")] == []


def test_limits_of_time_and_memory_stop_the_child(bundle: Bundle, tmp_path: Path, fake: Fake) -> None:
    here = fake("10.3", "sleep")
    with pytest.raises(EngineError, match=r"took over 4 s and was stopped; raise timeout_s"):
        build_engine(bundle, "unet_step-fp16", FP16, here, tmp_path / "engines", limits=Limits(timeout_s=4))
    here = fake("10.3", "memory")
    with pytest.raises(EngineError, match=r"took \d+ MiB of memory, over 300, and was stopped; raise memory_mib"):
        build_engine(bundle, "unet_step-fp16", FP16, here, tmp_path / "engines", limits=Limits(60, 300))


def test_steps_are_told_and_without_a_monitor_the_time(bundle: Bundle, tmp_path: Path, fake: Fake) -> None:
    steps: list[Step] = []
    build_engine(bundle, "unet_step-fp16", FP16, fake("10.3"), tmp_path / "a", on_step=steps.append)
    assert ("Tactic timing", 3, 3) in {(step.phase, step.done, step.total) for step in steps}
    steps.clear()
    build_engine(bundle, "unet_step-fp16", FP16, fake("8.6", "slow"), tmp_path / "b", on_step=steps.append)
    assert len(steps) >= 2
    assert {step.total for step in steps} == {0}
    assert [step.elapsed_s for step in steps] == sorted(step.elapsed_s for step in steps)


def test_all_that_tensorrt_says_is_added_to_a_file(
    bundle: Bundle, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = fake("8.6")
    monkeypatch.chdir(tmp_path)  # the child's folder is another
    log = Path("build.log")
    for graph in ("unet_step-fp16", "fusion-fp16"):
        build_engine(bundle, graph, FP16, here, tmp_path / "engines", log=log)
    lines = log.read_text().splitlines()
    assert [line for line in lines if line.startswith("building")] == [
        "building unet_step-fp16",
        "building fusion-fp16",
    ]
    assert len([line for line in lines if re.fullmatch(r" *\d+ ms VERBOSE Autotuning format combination", line)]) == 2
    with pytest.raises(OutputError, match=r"missing/build\.log cannot be written: .*; give another file for the log"):
        build_engine(bundle, graph, FP16, here, tmp_path / "engines", log=tmp_path / "missing" / "build.log")


def test_timings_are_kept_for_this_release_alone(bundle: Bundle, tmp_path: Path, fake: Fake) -> None:
    first = build_engine(bundle, "unet_step-fp16", FP16, fake("10.3"), tmp_path)
    again = build_engine(bundle, "fusion-fp16", FP16, fake("10.3"), tmp_path)
    other = build_engine(bundle, "fusion-fp16", FP16, fake("11.4"), tmp_path)
    assert (first.timing_cache_bytes, other.timing_cache_bytes) == (0, 0)
    assert again.timing_cache_bytes > 0
    shared = FP16.model_copy(update={"timing_cache": tmp_path / "shared.cache"})
    (tmp_path / "shared.cache").write_bytes(b"of another release")
    build_engine(bundle, "fusion-fp16", shared, fake("11.4"), tmp_path)  # refused by TensorRT, so begun anew
    assert (tmp_path / "shared.cache").read_bytes() == b"timings of 11.4.0.106"
    quick = shared.model_copy(update={"optimization_level": 0})
    (tmp_path / "shared.cache").write_bytes(b"of hours")
    record = build_engine(bundle, "fusion-fp16", quick, fake("11.4"), tmp_path)  # heeds none, has none to give
    assert record.timing_cache_bytes == 0
    assert (tmp_path / "shared.cache").read_bytes() == b"of hours"


@pytest.mark.parametrize(
    ("fault", "names"),
    [("", ["conv ", "reformat"]), ("many_layers", ["conv " * 100_000, "reformat"] * 3), ("mute_inspector", None)],
)
@pytest.mark.parametrize("release", ["8.6", "11.4"])
def test_the_sidecar_keeps_the_layers(bundle, tmp_path, fake, release, fault, names) -> None:
    here = fake(release, fault)
    build_engine(bundle, "fusion-fp16", FP16, here, tmp_path)
    _, record = open_engine(bundle, "fusion-fp16", FP16, here, tmp_path)
    if names is None or fault == "many_layers":
        assert record.layers == (None if names is None else tuple(names))
    else:
        assert record.layers == ({"Name": "conv ", "LayerType": "CaskConvolution"}, "reformat")


def test_whoever_changes_what_the_builder_does_raises_its_recipe() -> None:
    """What it says changes no engine; the digest is of the names that cled_edge/build/plan.py uses, in their order."""

    def names(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.JoinedStr | ast.Raise | ast.arguments):
            return
        if isinstance(node, ast.Attribute | ast.Name):
            yield node.attr if isinstance(node, ast.Attribute) else node.id
        for child in ast.iter_child_nodes(node):
            yield from names(child)

    used = names(ast.parse(Path(builder.__file__).with_name("plan.py").read_text()))
    seen = RECIPE, hashlib.sha256(" ".join(used).encode()).hexdigest()[:16]
    assert seen == (1, "0a73a1f89377479d"), (
        "does it build other engines? Raise RECIPE then; write the new digest here in any case"
    )


def test_two_versions_in_one_environment_are_noticed(bundle: Bundle, tmp_path: Path, fake: Fake) -> None:
    fake("10.3")
    with pytest.raises(EngineError, match=r"child built with TensorRT 10.3.0, here it is 8.6.2"):
        build_engine(bundle, "unet_step-fp16", FP16, facts(tensorrt="8.6.2"), tmp_path)


def test_a_folder_that_cannot_be_written_is_said_before_the_build(bundle: Bundle, tmp_path: Path, fake: Fake) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        build_engine(bundle, "unet_step-fp16", FP16, fake("10.3"), tmp_path / "file" / "engines")


@pytest.fixture
def kept(bundle: Bundle, tmp_path: Path, fake: Fake) -> tuple[Path, Path]:
    """Build one engine; return its plan and its sidecar."""
    record = build_engine(bundle, "unet_step-fp16", FP16, fake("10.3"), tmp_path / "engines")
    return engine_paths(tmp_path / "engines", "unet_step-fp16", record.key)


def test_a_kept_engine_is_found_and_pure(kept: tuple[Path, Path], bundle: Bundle) -> None:
    plan, record = open_engine(bundle, "unet_step-fp16", FP16, facts(), kept[0].parent)
    assert plan == kept[0].read_bytes()
    assert plan.startswith(b"ftrt")
    assert record.facts == facts()
    same = BuildOptions(size=SIZE, optimization_level=3, timing_cache=Path("t"), opset=17)
    assert find_engine(bundle, "unet_step-fp16", same, facts(kernel_driver="541.0", driver="12.8"), kept[0].parent)
    if os.name == "posix":
        assert {path.stat().st_mode & 0o77 for path in (*kept, kept[0].parent)} == {0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tensorrt": "10.16.1.11"}, r"TensorRT 10.3.0, here it is 10.16.1.11"),
        ({"multiprocessors": 16}, r"number of SMs 8, here it is 16; build"),
        ({"memory_gib": 64, "cuda": "12.9"}, r"memory in GiB 8, here it is 64; CUDA 12.6, here it is 12.9; build"),
        ({"power_mode": "2"}, r"power mode not told, here it is 2; build"),
        ({"gpu": "RTX 4090", "sm": "89"}, r"GPU Orin, here it is RTX 4090; SM 87, here it is 89"),
        ({"driver": "13.2"}, r"CUDA driver 12, here it is 13"),
        ({"arch": "x86_64"}, r"CPU aarch64, here it is x86_64"),
        ({"os": "windows"}, r"OS linux, here it is windows"),
    ],
)
def test_an_engine_for_another_device_is_refused(
    change: dict[str, str], words: str, kept: tuple[Path, Path], bundle: Bundle
) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        find_engine(bundle, "unet_step-fp16", FP16, facts(**change), kept[0].parent)
    assert "build it: bundle" in str(caught.value)
    assert f"graphs unet_step-fp16, precision fp16, size 64x96, engines {kept[0].parent}" in str(caught.value)


def test_an_engine_of_other_options_or_bundle_is_refused(
    kept: tuple[Path, Path], bundle: Bundle, tmp_path: Path
) -> None:
    folder = kept[0].parent
    with pytest.raises(EngineError, match=r"size \[64, 96\], needed \[32, 32\].*, size 32x32"):
        find_engine(bundle, "unet_step-fp16", BuildOptions(size=(32, 32)), facts(), folder)
    with pytest.raises(EngineError, match=r"tf32 False, needed True.*, tf32 yes"):
        find_engine(bundle, "unet_step-fp16", BuildOptions(size=SIZE, tf32=True), facts(), folder)
    other = write_bundle(tmp_path / "other", name="other")
    with pytest.raises(EngineError, match=r"graph \w{12}... \(bundle tiny\), the bundle has \w{12}..."):
        find_engine(other, "unet_step-fp16", FP16, facts(), folder)
    with pytest.raises(EngineError, match=r"has no engine of fusion-fp16 for Orin, TensorRT 10.3.0; build it"):
        find_engine(bundle, "fusion-fp16", FP16, facts(), folder)
    with pytest.raises(EngineError, match=r"has no engine"):
        find_engine(bundle, "fusion-fp16", FP16, facts(), tmp_path / "nowhere")
    with pytest.raises(EngineError, match=r"has no graph 'x', only unet_step"):
        find_engine(bundle, "x", FP16, facts(), folder)


def test_a_damaged_engine_is_refused_before_it_is_deserialised(kept: tuple[Path, Path], bundle: Bundle) -> None:
    plan, record = kept
    whole, sidecar = plan.read_bytes(), record.read_text()

    def refused(words: str) -> None:
        with pytest.raises(EngineError, match=words) as caught:
            find_engine(bundle, "unet_step-fp16", FP16, facts(), plan.parent)
        assert "build it: bundle" in str(caught.value)
        plan.write_bytes(whole)
        record.write_text(sidecar)

    plan.write_bytes(whole[:-1])
    refused(r"has \d+ bytes, its build.json says \d+")
    plan.write_bytes(whole[:-1] + b"!")
    refused(r"has SHA-256 \w{12}..., its build.json says \w{12}...: altered")
    plan.unlink()
    refused(r"does not exist")
    record.write_text("{")
    refused(r"is not JSON")
    record.write_text(sidecar.replace('"record_version": 3', '"record_version": 2'))
    refused(r"record version 2, needed 3")
    record.write_text(sidecar.replace('"gpu"', '"gpus"'))
    refused(r"facts.gpu")
    record.write_text(sidecar.replace('"Orin"', '"Thor"'))  # a sidecar that lies of its own key
    refused(r"does not describe the engine that its name says")
    if os.name == "posix":
        plan.rename(plan.with_suffix(".moved"))
        plan.symlink_to(plan.with_suffix(".moved"))
        with pytest.raises(EngineError, match="is a symbolic link, needed a regular file"):
            find_engine(bundle, "unet_step-fp16", FP16, facts(), plan.parent)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_an_engine_that_anybody_may_write_is_refused(kept: tuple[Path, Path], bundle: Bundle) -> None:
    for path in (*kept, kept[0].parent):
        mode = path.stat().st_mode
        for others in (0o777, 0o770, 0o702):
            path.chmod(others)
            with pytest.raises(EngineError, match=r"may be written by others.*chmod go-w"):
                find_engine(bundle, "unet_step-fp16", FP16, facts(), kept[0].parent)
            link = kept[0].parent.with_name("link")
            link.unlink(missing_ok=True)
            link.symlink_to(kept[0].parent.name)
            with pytest.raises(EngineError, match=r"may be written by others"):
                find_engine(bundle, "unet_step-fp16", FP16, facts(), link)
        path.chmod(mode)
    assert find_engine(bundle, "unet_step-fp16", FP16, facts(), kept[0].parent)


def test_a_child_ends_with_its_parent(bundle: Bundle, tmp_path: Path, fake: Fake) -> None:
    fake("10.3", "sleep")
    options, folder = FP16.model_dump_json(), tmp_path / "engines"
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom cled_edge.bundle.reader import Bundle\n"
        "sys.path.insert(0, os.environ['FAKE_ROOT'])\nfrom cled_edge.build import builder\n"
        "from tests.build.test_builder import fake_trial\nbuilder.make_trial = fake_trial\n"
        "from cled_edge.build.builder import build_engine\n"
        "from cled_edge.backend.tensorrt.build_options import BuildOptions\n"
        "from cled_edge.backend.tensorrt.device import DeviceFacts\n"
        "options, facts = BuildOptions.model_validate_json(sys.argv[2]), DeviceFacts.model_validate_json(sys.argv[3])\n"
        "build_engine(Bundle.open(sys.argv[1]), 'unet_step-fp16', options, facts, Path(sys.argv[4]))"
    )
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ["PYTHONPATH"]])}
    words = [str(bundle.path), options, facts().model_dump_json(), str(folder)]
    parent = subprocess.Popen([sys.executable, "-c", program, *words], env=environment)
    try:
        children = wait_for(lambda: psutil.Process(parent.pid).children())
    finally:
        parent.kill()
        parent.wait()
    assert psutil.wait_procs(children, timeout=20)[1] == []


def wait_for(ask: Callable[[], list[Any]], seconds: float = 30) -> list[Any]:
    end = time.monotonic() + seconds
    while not (found := ask()) and time.monotonic() < end:
        time.sleep(0.05)
    assert found
    return found


def test_the_command_in_a_refusal_builds_what_was_missing(
    bundle: Bundle, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("10.3")
    profile = Profile(min=(32, 48), opt=SIZE, max=(128, 192))
    here = read_facts()
    for options in (BuildOptions(size=SIZE, tf32=True, max_aux_streams=1), BuildOptions(profile=profile, opset=17)):
        with pytest.raises(EngineError) as caught:
            find_engine(bundle, "fusion-fp16", options, here, tmp_path / "my engines")
        program, *words = shlex.split(advised(caught.value).split("build it: ")[1])
        assert program == "cled-edge"
        assert cli(monkeypatch, *words) == 0
        assert find_engine(bundle, "fusion-fp16", options, here, tmp_path / "my engines")


def test_the_runner_takes_the_engine_that_was_asked_for_last(
    bundle: Bundle, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here, name = fake("10.3"), "fusion-fp16"
    exact, profile = BuildOptions(size=SIZE, tf32=True), Profile(min=(32, 48), opt=SIZE, max=(128, 192))
    clock = itertools.count(10**18, 10**9)

    def built(options: BuildOptions) -> Path:
        record = build_engine(bundle, name, options, here, tmp_path)
        path = engine_paths(tmp_path, name, record.key)[1]
        os.utime(path, ns=(next(clock),) * 2)
        return path

    def taken(size: tuple[int, int]) -> BuildOptions:
        return pick_engine(bundle, name, size, here, tmp_path)[1].options

    usual, sidecar = FP16, built(FP16)
    built(exact)
    ranged = built(BuildOptions(profile=profile))
    assert taken(SIZE) == exact, "one of just this size goes before one of a range"
    assert taken((48, 64)).profile == taken((128, 192)).profile == profile
    with pytest.raises(EngineError, match=r"is for size 64x96, needed 256x256|is for size 32x48,64x96,128x192, needed"):
        taken((256, 256))
    assert current_record(bundle, name, usual, here, tmp_path)  # as `build` does for what is there
    assert taken(SIZE) == usual
    sidecar.write_text("{")
    assert taken(SIZE) == exact
    assert "left out: " in caplog.text
    assert "is not JSON" in caplog.text
    with pytest.raises(EngineError, match=r"has no engine of fusion for"):  # fusion-fp16 is another graph
        pick_engine(bundle, "fusion", SIZE, here, tmp_path)
    sidecar.unlink()
    with pytest.raises(EngineError, match=r"TensorRT 10.3.0, here it is 8.6.2"):
        pick_engine(bundle, name, SIZE, facts(tensorrt="8.6.2"), tmp_path)
    text = ranged.read_text()
    ranged.write_text(text.replace('"tf32": false', '"tf32": true'))
    with pytest.raises(EngineError, match="does not describe the engine that its name says: it was altered"):
        taken((48, 64))
    monkeypatch.setenv("CLED_EDGE_ENGINES", str(tmp_path))
    assert default_folder() == tmp_path
    assert pick_engine(bundle, name, SIZE, here)[1].options == exact


def test_a_size_that_is_padded_is_built_as_the_fuser_asks_for_it(bundle: Bundle, tmp_path: Path, fake: Fake) -> None:
    here, new = fake("10.3"), capabilities(fake_tensorrt.make("10.3"))
    size = (56, 90)
    chosen = {name: options.size for name, options in chosen_graphs(bundle, new, [BuildOptions(size=size)])}
    padded = {f"{role}-fp16-opset20-64x96": SIZE for role in ("unet_step", "fusion")}
    assert chosen == {**padded, "fused_loop-fp16-56x90": size}
    assert camera_modes(bundle.manifest, "fp16") == [(32, 32), size, SIZE]
    record = build_engine(bundle, "fused_loop-fp16-56x90", BuildOptions(size=size), here, tmp_path)
    assert record.trials[0].size == size
    for name, options in chosen_graphs(bundle, new, [BuildOptions(size=size)], ["fused_loop-fp16-56x90"]):
        assert pick_engine(bundle, name, size, here, tmp_path)[1].options == options
    # A graph of any size is given padded pictures.
    ((_, options),) = chosen_graphs(bundle, new, [BuildOptions(size=(40, 40))], ["unet_step-fp16"])
    assert options.size == (48, 48)


@pytest.mark.parametrize("size", [(64, 96), (50, 70)])
def test_a_trial_holds_what_the_graphs_compute(size: tuple[int, int]) -> None:
    """The shipped graphs, run by ONNX Runtime: what is expected of an engine is what they give for the inputs."""
    nano = Bundle.open()
    multiple = nano.manifest.size_multiple
    whole = tuple(side + -side % multiple for side in size)
    backend = open_backend("onnxruntime", nano)
    for name, spec in nano.manifest.graphs.items():
        if spec.size is not None:
            continue
        trial = make_trial(nano, name, whole)
        outputs = dict(zip(trial.expected, backend.run(name, trial.inputs), strict=True))
        assert trial.inputs.keys() == {tensor.name for tensor in spec.inputs}
        options = BuildOptions(size=whole, precision="fp32")
        record = judged(trial, outputs, options, whole, "")
        assert (record.verdict, record.needed_db) == ("OK", 60.0)
        outputs[next(iter(outputs))] = outputs[next(iter(outputs))][..., ::-1]
        assert judged(trial, outputs, options, whole, "").verdict == "TOLERANCE"
        assert judged(trial, outputs, options.model_copy(update={"tf32": True}), whole, "").needed_db == 50.0


def test_a_key_depends_on_each_of_its_parts(bundle: Bundle) -> None:
    from cled_edge.backend.tensorrt.build_record import engine_key

    options = [FP16, BuildOptions(size=(32, 32)), BuildOptions(size=SIZE, tf32=True)]
    options += [BuildOptions(size=SIZE, precision="fp32"), BuildOptions(size=SIZE, max_aux_streams=1)]
    options += [BuildOptions(size=SIZE, optimization_level=0), BuildOptions(size=SIZE, workspace_mib=64)]
    options += [BuildOptions(profile=Profile(min=SIZE, opt=SIZE, max=SIZE))]
    devices = [facts(), facts(tensorrt="10.3.1"), facts(sm="86"), facts(gpu="Orin Nano"), facts(driver="13.0")]
    devices += [facts(os="windows"), facts(arch="x86_64"), facts(multiprocessors=4), facts(memory_gib=4)]
    devices += [facts(power_mode="0"), facts(power_mode="2"), facts(cuda="12.9")]
    parts = list(itertools.product(("0" * 64, "1" * 64), options, devices, (1, 2)))
    assert len({engine_key(*part) for part in parts}) == len(parts)
    caches = {timings_path(FP16, one, Path()) for one in [*devices, facts(kernel_driver="541.0")]}
    assert len(caches) == len(devices) + 1


def test_options_refuse_what_makes_no_sense() -> None:
    assert parse_size("480x640") == (480, 640)
    for text in ("480", "480x", "0x5", "-1x5", "480X640", " 480x640", "480x640x3", "٤x٤"):
        with pytest.raises(OptionError, match="it must be HEIGHTxWIDTH in pixels, such as 480x640"):
            parse_size(text)
    for values in ({}, {"size": SIZE, "profile": Profile(min=SIZE, opt=SIZE, max=SIZE)}, {"size": SIZE, "x": 1}):
        with pytest.raises(ValueError, match=r"needed either|Extra inputs"):
            BuildOptions(**values)
    with pytest.raises(ValueError, match="not ordered"):
        Profile(min=(64, 64), opt=(32, 96), max=(128, 128))


def test_the_lane_follows_the_release(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert fitting_graph(manifest, "unet_step", FP16) == "unet_step-fp16-opset20-64x96"
    assert fitting_graph(manifest, "unet_step", FP16, newest_opset=17) == "unet_step-fp16"
    assert fitting_graph(manifest, "unet_step", BuildOptions(size=SIZE, opset=17)) == "unet_step-fp16"
    assert fitting_graph(manifest, "unet_step", BuildOptions(size=(32, 32))) == "unet_step-fp16"
    assert fitting_graph(manifest, "fusion", BuildOptions(size=SIZE, precision="int8")) is None
    new, old = (capabilities(fake_tensorrt.make(release)) for release in ("11.4", "8.6"))
    names = [name for name, _ in chosen_graphs(bundle, new, [FP16])]
    assert names == ["unet_step-fp16-opset20-64x96", "fusion-fp16-opset20-64x96", "fused_loop-fp16-opset20-64x96"]
    assert [name for name, _ in chosen_graphs(bundle, old, [FP16], ["fused_loop"])] == ["fused_loop-fp16-64x96"]
    assert len(chosen_graphs(bundle, new, [FP16], steps=3)) == 2  # no loop of 3 steps, and none was asked for
    with pytest.raises(EngineError, match=r"has no fused_loop of 3 steps in fp16 for 64x96"):
        chosen_graphs(bundle, new, [FP16], ["fused_loop"], steps=3)
    with pytest.raises(OptionError, match=r"takes 64x96 alone, not 32x32"):
        chosen_graphs(bundle, new, [BuildOptions(size=(32, 32))], ["fused_loop-fp16-64x96"])
    with pytest.raises(OptionError, match=r"not of multiples of 16"):
        builder.check_sizes(bundle, "unet_step-fp16", BuildOptions(size=(40, 40)))
    with pytest.raises(OptionError, match=r"graph fusion-fp16 is fp16, not fp32"):
        chosen_graphs(bundle, new, [BuildOptions(size=SIZE, precision="fp32")], ["unet_step", "fusion-fp16"])


def test_facts_are_read_and_what_is_missing_is_named(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("10.16")
    found = read_facts()
    assert (found.gpu, found.sm, found.driver, found.driver_major) == ("Orin", "87", "12.6", 12)
    assert (found.multiprocessors, found.memory_gib, found.tensorrt) == (8, 8, "10.16.1.11")
    fake("10.16", gpus=0)
    with pytest.raises(BackendError, match="needed an NVIDIA GPU; see nvidia-smi"):
        read_facts()
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\nGCC 11.4\n")
    assert kernel_driver(version) == "540.4.0"
    assert kernel_driver(tmp_path / "absent") is None
    status = tmp_path / "status"
    status.write_text("pmode:0002")
    assert (power_mode(status), power_mode(tmp_path / "absent")) == ("2", None)
    monkeypatch.setenv("PYTHONPATH", "")
    packages = tmp_path / "packages"
    (packages / "cuda/bindings/runtime.py").write_text("import no_such_library")
    sys.modules.pop("cuda.bindings.runtime", None)
    with pytest.raises(BackendError, match=r"no_such_library.*pip install 'cuda-bindings>=12'"):
        open_cuda()
    (packages / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    sys.modules.pop("tensorrt", None)
    with pytest.raises(BackendError, match=r"bindings are installed, but its library cannot be loaded .*so.10"):
        import_tensorrt()
    monkeypatch.setattr(device, "import_tensorrt", lambda: fake_tensorrt.make("8.6"))
    sys.modules.pop("tensorrt", None)
    (packages / "tensorrt.py").unlink()
    with pytest.raises(BackendError, match=r"TensorRT is not installed .*JetPack.*pip install 'cled-edge\[tensorrt\]'"):
        import_tensorrt()


def cli(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["cled-edge", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_builds_keeps_and_rebuilds(
    bundle: Bundle, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake("10.3")
    engines = tmp_path / "engines"
    words = ("build", bundle.path, "--size", "60x90", "--graphs", "unet_step", "--engines", engines)
    assert cli(monkeypatch, *words, "--json") == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert (row["state"], row["graph"]["name"]) == ("built", "unet_step-fp16-opset20-64x96")  # padded to 16
    assert Path(row["path"]).exists()
    assert cli(monkeypatch, *words, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "kept"
    assert cli(monkeypatch, *words, "--builds", 3, "--keep-fastest") == 0
    assert "built" in capsys.readouterr().out
    sidecar = json.loads(Path(row["path"]).with_suffix(".build.json").read_text())
    assert len(sidecar["medians_ms"]) == 3
    modes = ("--targets", "all-modes", "--graphs", "fused_loop", "--engines", engines, "--json")
    assert cli(monkeypatch, "build", bundle.path, *modes) == 0
    sizes = [row["options"]["size"] for row in json.loads(capsys.readouterr().out)]
    assert sizes == [[32, 32], [56, 90], [64, 96]]


@pytest.mark.parametrize("release", ["8.6", "10.3", "11.4"])
def test_the_shipped_bundle_builds_in_one_command(
    release: str, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In FP16, as nobody has to say: a loop of the one size, of which the engine is then found at that size."""
    fake(release)
    for size in ("480x640", "512x640"):
        assert cli(monkeypatch, "build", "--size", size, "--engines", tmp_path / "engines", "--json") == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["graph"]["name"], row["graph"]["precision"]) == (f"fused_loop-fp16-{size}", "fp16")
        assert row["options"]["size"] == list(parse_size(size))


def test_the_typed_loops_of_the_shipped_bundle_compute_what_its_others_do() -> None:
    nano, size = Bundle.open(), (480, 640)
    name = "fused_loop-fp16-480x640"
    assert [manifest.size for manifest in nano.manifest.graphs.values() if manifest.size] == [size, (512, 640)]
    trial = make_trial(nano, name, size)
    outputs = dict(zip(trial.expected, open_backend("onnxruntime", nano).run(name, trial.inputs), strict=True))
    assert judged(trial, outputs, BuildOptions(size=size), size, "").verdict == "OK"
    with pytest.raises(BackendError, match="has no fp16 graphs for every size, only fp32"):
        open_backend("onnxruntime:fp16", nano)


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (2, ["--size", "480"], "such as 480x640"),
        (2, [], "needed one of --size HxW, --targets all-modes and --profile"),
        (2, ["--size", "64x96", "--targets", "all-modes"], "needed one of"),
        (2, ["--targets", "some"], "targets 'some' is unknown; known: all-modes"),
        (2, ["--profile", "32x32,64x64"], "is not MIN,OPT,MAX"),
        (2, ["--profile", "64x64,32x32,64x64"], "not ordered"),
        (2, ["--size", "64x96", "--precision", "fp8"], "precision is 'fp8'"),
        (2, ["--size", "64x96", "--builds", "3"], "keep_fastest"),
        (2, ["--targets", "all-modes", "--precision", "int8"], "no graphs of one size in int8"),
        (19, ["--size", "64x96", "--require-signature", "none.pem"], "none.pem"),
        (20, ["--size", "64x96", "--graphs", "nothing"], "has no graph 'nothing'"),
        (20, ["--size", "64x96", "--precision", "int8"], "has no fusion in int8"),
    ],
)
def test_the_command_refuses(
    code: int,
    words: list[str],
    said: str,
    bundle: Bundle,
    fake: Fake,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    fake("10.3")
    assert cli(monkeypatch, "build", bundle.path, "--engines", tmp_path / "engines", *words) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


def test_without_tensorrt_the_command_says_how_to_install_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert cli(monkeypatch, "build", bundle.path, "--size", "64x96") == BackendError.exit_code
    assert "JetPack" in capsys.readouterr().err
