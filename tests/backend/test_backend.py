"""Backends: the grammar of a choice, what is refused and how, and that OpenVINO computes what ONNX Runtime does."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cled_edge.backend.choice import REGISTRY, BackendChoice
from cled_edge.backend.graph_cache import FOLDER_VARIABLE, KEPT_FILES, cache_name, read_cached, write_cached
from cled_edge.backend.opener import available_backends, open_backend
from cled_edge.backend.openvino import OpenVinoBackend
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import BackendError, OptionError
from cled_edge.fuser import Fuser
from cled_edge.select import worst_psnr_db

FIRST, SECOND = "onnxruntime", "openvino"
BOTH = pytest.mark.parametrize("name", [FIRST, SECOND])


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open()


@pytest.fixture
def pair(rng) -> tuple[np.ndarray, np.ndarray]:
    """A pair whose sides are no multiple of the bundle's, smooth as a scene is."""
    rows, columns = np.mgrid[:70, :101]
    infrared = 120 + 100 * np.sin(rows / 9) * np.cos(columns / 13)
    visible = np.stack([infrared, 255 - infrared, rows + columns], axis=2) * 0.7 + rng.normal(0, 4, (70, 101, 3))
    return infrared.astype(np.uint8), np.clip(visible, 0, 255).astype(np.uint8)


def step_inputs(seed: int, side: int = 128) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x_in = rng.uniform(-1, 1, (2, 3, side, side)).astype(np.float32)
    return {"x_t": x_in / 2, "x_in": x_in, "t": np.float32([500]), "coef": np.float32([0.2, 0.3, 0.1, 0.4])}


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("onnxruntime", BackendChoice("onnxruntime", "fp32")),
        ("openvino", BackendChoice("openvino", "fp32")),
        ("openvino:bf16", BackendChoice("openvino", "bf16")),
        ("openvino-gpu", BackendChoice("openvino-gpu", "fp16")),
        (" openvino-npu:fp16 ", BackendChoice("openvino-npu", "fp16")),
        ("auto", BackendChoice("auto", None)),
    ],
)
def test_a_choice_reads_and_writes_its_grammar(text: str, choice: BackendChoice) -> None:
    assert BackendChoice.parse(text) == choice
    assert BackendChoice.parse(str(choice)) == choice


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "abacus",
            "backend 'abacus' is unknown; known: onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt, "
            "openvino, ",
        ),
        ("", "backend '' is unknown"),
        ("OpenVINO", "backend 'OpenVINO' is unknown"),
        (
            "onnxruntime:bf16",
            "precision 'bf16' is not one of backend onnxruntime; it has fp32, fp16, int8; write onnxruntime:fp32",
        ),
        ("openvino:", "precision '' is not one of backend openvino; it has fp32, bf16, fp16"),
        ("openvino:f32", "precision 'f32' is not one of"),
        ("auto:fp32", "auto takes no precision"),
    ],
)
def test_what_is_no_choice_is_refused(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        BackendChoice.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threads", [-1, 10_000, 1.5, True])
def test_threads_outside_their_range_are_refused(bundle: Bundle, threads) -> None:
    with pytest.raises(OptionError, match=f"threads is {threads}; it must be a whole number from 0 to the"):
        open_backend(FIRST, bundle, threads)


@pytest.mark.parametrize(
    ("name", "line"), [(FIRST, "pip install onnxruntime"), (SECOND, r"pip install 'cled-edge\[openvino\]'")]
)
def test_a_missing_package_is_refused_with_the_line_that_installs_it(bundle, monkeypatch, name, line) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=f"backend {name} needs a package that cannot be imported .*; {line}$"):
        open_backend(name, bundle)
    assert name not in {choice.name for choice in available_backends()}


class FakeCore:
    """A machine with a CPU of two precisions and nothing else."""

    available_devices = ("CPU",)

    def get_property(self, device: str, name: str) -> object:
        return {"OPTIMIZATION_CAPABILITIES": ["FP32", "BF16", "INT8"], "FULL_DEVICE_NAME": "fake"}[name]


def test_a_missing_device_or_precision_names_those_present(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("cled_edge.backend.openvino._shared_core", lambda openvino: FakeCore())
    with pytest.raises(BackendError, match="backend openvino-npu: OpenVINO finds no NPU here, only CPU; install"):
        open_backend("openvino-npu", bundle)
    with pytest.raises(BackendError, match="this CPU has no fp16; it has fp32, bf16, int8; choose openvino:fp32"):
        open_backend("openvino:fp16", bundle)
    assert [str(c) for c in available_backends()] == [
        *("onnxruntime:fp32", "onnxruntime:fp16", "onnxruntime:int8"),
        *("openvino:fp32", "openvino:bf16", "openvino:int8"),
    ]
    monkeypatch.setattr(FakeCore, "available_devices", ("CPU", "GPU.0", "GPU.1"))
    assert OpenVinoBackend.precisions("openvino-gpu") == ("fp32", "bf16", "int8")


def test_an_interrupt_after_backends_that_closed_in_the_order_they_opened(tmp_path: Path) -> None:
    """With a Core of its own in each, the process crashed."""
    code = """
import os, signal, time
import numpy as np
from cled_edge import Fuser
pair = np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.uint8)
fusers = [Fuser.load(backend="openvino") for _ in range(3)]
for fuser in fusers:
    fuser(*pair)
while fusers:
    fusers.pop(0).close()
    fuser = None
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted")
"""
    environment = {**os.environ, FOLDER_VARIABLE: str(tmp_path)}
    command = [sys.executable, "-c", "import signal; signal.signal(2, signal.default_int_handler)\n" + code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "interrupted"), done.stderr


def test_threads_are_refused_where_there_are_none(bundle: Bundle) -> None:
    with pytest.raises(OptionError, match="threads is 1, but backend openvino-npu has none; give 0"):
        open_backend("openvino-npu", bundle, threads=1)


def test_a_graph_compiled_for_another_precision_is_refused(bundle: Bundle, monkeypatch) -> None:
    """Asked for f16, OpenVINO compiles for bf16 or f32 on most CPUs and says nothing."""
    monkeypatch.setattr(OpenVinoBackend, "precisions", lambda self, name: ("fp32", "bf16", "fp16"))
    backend = open_backend("openvino:fp16", bundle)
    if "FP16" in backend._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has fp16")
    with pytest.raises(BackendError, match="asked for f16, OpenVINO compiled for"):
        backend.run("unet_step", step_inputs(0))


def test_openvino_in_fp32_agrees_with_onnxruntime(bundle: Bundle, pair) -> None:
    with Fuser.load(backend=FIRST) as one, Fuser.load(backend=SECOND) as other:
        assert worst_psnr_db(one(*pair), other(*pair)) > 60
        direct = [fuser.backend.run("unet_step", step_inputs(0)) for fuser in (one, other)]
    for expected, found in zip(*direct, strict=True):
        assert np.sqrt(np.mean((expected - found) ** 2)) < 1e-3 * np.ptp(expected)


@BOTH
def test_outputs_outlive_the_next_run_and_frames_differ(bundle: Bundle, name: str) -> None:
    backend = open_backend(name, bundle)
    first = backend.run("unet_step", step_inputs(1))
    kept = [value.copy() for value in first]
    second = backend.run("unet_step", step_inputs(2))
    assert all(np.array_equal(value, copy) for value, copy in zip(first, kept, strict=True))
    assert not any(np.array_equal(one, two) for one, two in zip(first, second, strict=True))
    again = backend.run("unet_step", {**step_inputs(1), "x_in": np.asfortranarray(step_inputs(1)["x_in"])})
    assert all(np.array_equal(value, copy) for value, copy in zip(again, kept, strict=True))
    backend.close()
    assert all(np.array_equal(value, copy) for value, copy in zip(again, kept, strict=True)), "memory was given back"


@BOTH
def test_an_output_may_be_the_next_input(bundle: Bundle, name: str) -> None:
    backend, inputs = open_backend(name, bundle), step_inputs(3)
    chained = inputs["x_t"]
    for _ in range(4):
        chained = backend.run("unet_step", {**inputs, "x_t": chained})[0]
    copied = inputs["x_t"]
    for _ in range(4):
        copied = backend.run("unet_step", {**inputs, "x_t": copied})[0].copy()
    assert np.array_equal(chained, copied)


@BOTH
def test_a_second_start_reads_what_the_first_wrote(bundle: Bundle, name: str, cache: Path) -> None:
    inputs = step_inputs(4)
    states, outputs = [], []
    for spoil in (lambda path: None, lambda path: None, lambda path: path.write_bytes(path.read_bytes()[:-1])):
        for path in cache.iterdir():
            spoil(path)
        backend = open_backend(name, bundle)
        outputs.append(backend.run("unet_step", inputs)[0].copy())
        states.append(backend.runs.cache["unet_step"])
        assert backend.facts.threads >= 1
    assert states == ["written", "read", "written"]
    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])


def test_a_cache_that_cannot_be_written_only_says_so(bundle: Bundle, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file"))
    backend = open_backend(FIRST, bundle)
    backend.run("unet_step", step_inputs(5))
    assert backend.runs.cache["unet_step"].startswith("not written: ")


def _no_folder(*arguments: object, **options: object) -> None:
    raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp', '/usr/tmp', '/']")


@contextmanager
def _no_room(folder: Path) -> Iterator[str]:
    """A folder in which ONNX Runtime cannot write its file."""
    (folder / "room" / "optimised.onnx").mkdir(parents=True)
    yield str(folder / "room")


@pytest.mark.parametrize("is_there", [False, True])
def test_without_room_for_temporary_files_a_start_is_only_slower(
    bundle: Bundle, tmp_path: Path, monkeypatch, is_there: bool
) -> None:
    expected = open_backend(FIRST, bundle).run("unet_step", step_inputs(5))[0]
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    room = (lambda: _no_room(tmp_path)) if is_there else _no_folder
    monkeypatch.setattr("cled_edge.backend.ort.tempfile.TemporaryDirectory", room)
    backend = open_backend(FIRST, bundle)
    assert np.array_equal(backend.run("unet_step", step_inputs(5))[0], expected)
    assert backend.runs.cache["unet_step"].startswith("not written: ")
    assert not (tmp_path / "cache").exists()


def test_the_cache_keeps_the_files_used_last(cache: Path) -> None:
    names = [cache_name("onnx", [k]) for k in range(KEPT_FILES + 1)]
    for name in names[:-1]:
        write_cached(name, b"x")
    assert read_cached(names[0]) == b"x"
    (cache / "notes.txt").write_text("of somebody else, and older than all")
    os.utime(cache / "notes.txt", (0, 0))
    write_cached(names[-1], b"y")
    assert read_cached(names[0]) == b"x"
    assert read_cached(names[1]) is None
    assert len(list(cache.iterdir())) == KEPT_FILES + 1, "a cache deletes names of its own form alone"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_cache_that_others_may_write_is_neither_read_nor_written(cache: Path, mode: int) -> None:
    name = cache_name("onnx", ["a graph"])
    write_cached(name, b"x")
    cache.chmod(mode)
    assert read_cached(name) is None
    assert write_cached(name, b"y").startswith("not written: ")
    cache.chmod(0o700)
    assert read_cached(name) == b"x"
    (cache / name).chmod(0o666)
    assert read_cached(name) is None


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_cache_behind_a_link_must_be_private_where_the_link_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("open")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "link"))
    assert write_cached(cache_name("onnx", ["a graph"]), b"x").startswith("not written: ")
    assert list((tmp_path / "open").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes of POSIX")
def test_a_pipe_in_the_cache_is_not_waited_for(cache: Path) -> None:
    name = cache_name("onnx", ["a graph"])
    write_cached(name, b"x")
    (cache / name).unlink()
    os.mkfifo(cache / name, 0o600)
    assert read_cached(name) is None


@BOTH
def test_what_a_graph_refuses_is_one_line(bundle: Bundle, name: str) -> None:
    backend = open_backend(name, bundle)
    for inputs in ({}, {**step_inputs(0), "x_t": np.zeros((2, 3, 7, 7), np.float32)}, {**step_inputs(0), "more": 0}):
        with pytest.raises(BackendError, match=r"(failed in|refused) unet_step: ") as caught:
            backend.run("unet_step", inputs)
        assert "\n" not in str(caught.value)


@BOTH
def test_closed_is_closed_from_any_thread(bundle: Bundle, name: str) -> None:
    backend = open_backend(name, bundle)
    backend.run("unet_step", step_inputs(0))
    closing = threading.Thread(target=backend.close)
    closing.start()
    closing.join()
    backend.close()
    with pytest.raises(BackendError, match=f"backend {name}:fp32 is closed; open another"):
        backend.run("unet_step", step_inputs(0))


@BOTH
def test_description_ends_with_the_precision_and_details_are_plain(bundle: Bundle, name: str) -> None:
    backend = open_backend(name, bundle, threads=1)
    backend.run("unet_step", step_inputs(0))
    assert str(backend.choice) == f"{name}:fp32"
    assert backend.description.startswith(f"{name} ")
    assert backend.description.endswith(" cpu fp32")
    assert (backend.facts.precision, backend.facts.threads) == ("fp32", 1)
    assert backend.facts.device.startswith("CPU")


def test_every_registered_backend_has_the_class_and_install_line_it_names() -> None:
    for name, entry in REGISTRY.items():
        assert BackendChoice.parse(name).precision == next(iter(entry.precisions))
        assert "pip install" in entry.install


@BOTH
def test_who_gives_outputs_of_its_own_may_be_shared_by_threads(bundle: Bundle, name: str) -> None:
    assert (open_backend(name, bundle).in_use is None) == name.startswith("onnxruntime")
