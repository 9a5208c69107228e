"""A stranger's graph is tried in a child of few means before it is loaded; nobody waits for that twice."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cled_edge.backend import graph_trial
from cled_edge.backend.graph_cache import FOLDER_VARIABLE
from cled_edge.backend.graph_trial import check_trial
from cled_edge.backend.opener import open_backend
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.errors import BackendError, BundleCorruptError

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
helper, FLOAT, INT64 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
PICTURE = ["batch", 3, "height", "width"]
INPUTS = ("infrared", "infrared_residual", "visible", "visible_residual")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(graph_trial, "_passed", set())
    return tmp_path / "cache"


def plain() -> list:
    return [helper.make_node("Sum", list(INPUTS), ["fused"])]


def ones_of(name: str, *shape: int) -> list:
    return [
        helper.make_node("Constant", [], [f"{name}_shape"], value_ints=list(shape)),
        helper.make_node("ConstantOfShape", [f"{name}_shape"], [name]),
    ]


def huge_constant() -> list:
    return [*ones_of("w", 2**20, 2**15), helper.make_node("Add", ["infrared", "w"], ["fused"])]


def doubling() -> list:
    """Doubles the image, 16 MB in a trial, seven times."""
    names = ["infrared", *(f"x{k}" for k in range(10)), "fused"]
    return [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names)]


def endless() -> list:
    names = ["w", *(f"x{k}" for k in range(1000))]
    products = [helper.make_node("MatMul", [a, a], [b]) for a, b in pairwise(names)]
    return [*ones_of("w", 1000, 1000), *products, helper.make_node("Add", ["infrared", names[-1]], ["fused"])]


def bundle_of(folder: Path, nodes: list, *, trusted: bool = False) -> Bundle:
    """Return the shipped bundle with another fusion graph."""
    inputs = [helper.make_tensor_value_info(name, FLOAT, PICTURE) for name in INPUTS]
    inputs += [helper.make_tensor_value_info(name, FLOAT, [n]) for name, n in (("strength", 2), ("balance", 1))]
    outputs = [helper.make_tensor_value_info("fused", FLOAT, None)]
    graph = helper.make_graph(nodes, "fusion", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    shutil.copytree(shipped_bundle(), folder)
    content = model.SerializeToString()
    (folder / "fusion.onnx").write_bytes(content)
    values = json.loads((folder / "manifest.json").read_text())
    values["files"]["fusion.onnx"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(values))
    return Bundle.open(folder, trusted=trusted)


@pytest.fixture
def no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise AssertionError("a trial was made")

    monkeypatch.setattr(graph_trial, "_tried", refuse)


@pytest.mark.parametrize("nodes", [huge_constant, doubling])
def test_a_graph_that_takes_all_memory_is_refused(nodes: Callable[[], list], tmp_path: Path) -> None:
    with pytest.raises(BundleCorruptError, match=r"fusion took over 291 MB of memory; .* sign it"):
        check_trial(bundle_of(tmp_path / "bundle", nodes()), "fusion")


def test_a_graph_that_takes_for_ever_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_trial, "CPU_S", 0.2)
    with pytest.raises(BundleCorruptError, match=r"fusion took over 0.3 s of processor time"):
        check_trial(bundle_of(tmp_path / "bundle", endless()), "fusion")


def test_a_graph_that_does_not_run_is_refused_in_its_runtimes_words(tmp_path: Path) -> None:
    """At this size ONNX Runtime refuses to make so much; at a smaller one it would not."""
    nodes = [
        helper.make_node("Constant", [], ["counts"], value_ints=[2**14, 1, 1, 1]),
        helper.make_node("Tile", ["infrared", "counts"], ["fused"]),
    ]
    with pytest.raises(BundleCorruptError, match=r"a trial of fusion (failed: .*Tile|took over 291 MB)"):
        check_trial(bundle_of(tmp_path / "bundle", nodes), "fusion")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_cpu_backend_asks_first(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(backend, reason=f"needs {backend}: pip install {backend}")
    monkeypatch.setattr(graph_trial, "_tried", lambda *_: "crashed")
    picture = np.zeros((1, 3, 32, 32), np.float32)
    inputs = {**dict.fromkeys(INPUTS, picture), "strength": np.ones(2, np.float32), "balance": np.ones(1, np.float32)}
    opened = open_backend(backend, bundle_of(tmp_path / "bundle", plain()))
    with pytest.raises(BundleCorruptError, match="a trial of fusion crashed"):
        opened.run("fusion", inputs)


def test_a_plain_graph_of_a_stranger_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []
    real = graph_trial._tried
    monkeypatch.setattr(graph_trial, "_tried", lambda *given: tried.append(given[0]) or real(*given))
    bundle = bundle_of(tmp_path / "bundle", plain())
    check_trial(bundle, "fusion")
    graph_trial._passed.clear()  # as in another process
    check_trial(bundle, "fusion")
    assert tried == [bundle.graph("fusion")]


@pytest.mark.usefixtures("no_trial")
def test_no_trial_is_made_of_what_is_shipped_or_trusted(tmp_path: Path) -> None:
    check_trial(Bundle.open(), "fused_loop")
    shutil.copytree(shipped_bundle(), tmp_path / "copy")
    check_trial(Bundle.open(tmp_path / "copy"), "fused_loop")
    check_trial(bundle_of(tmp_path / "mine", doubling(), trusted=True), "fusion")


@pytest.mark.usefixtures("no_trial")
def test_no_trial_is_made_where_the_required_signature_holds(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="needs cryptography: pip install 'cled-edge[sign]'")
    from cled_edge.bundle.signature import write_key_pair, write_signature

    write_key_pair(tmp_path / "keys")
    signed = bundle_of(tmp_path / "bundle", doubling())
    write_signature(signed.path, signed.manifest_bytes, tmp_path / "keys" / "private.pem")
    check_trial(Bundle.open(signed.path, public_key=tmp_path / "keys" / "public.pem"), "fusion")


def test_a_crash_is_told_and_a_child_that_fails_is_not_taken_for_a_bad_graph() -> None:
    assert graph_trial._ending(-11, b"", 1, 1) == "crashed ONNX Runtime (signal 11)"
    assert graph_trial._ending(0, b"", 1, 1) is None
    with pytest.raises(BackendError, match="exit code 1"):
        graph_trial._ending(1, b"", 1, 1)


def limits_of(content: bytes, size: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Return what a trial of a graph would tell its child."""
    told: list[dict] = []

    def ran(command: list[str], **_: object) -> subprocess.CompletedProcess:
        told.append(json.loads(command[-1]))
        return subprocess.CompletedProcess(command, 0, b"")

    spec = Bundle.open().manifest.graphs["fusion"].model_copy(update={"size": size})
    monkeypatch.setattr(subprocess, "run", ran)
    assert graph_trial._tried(content, spec, 32) is None
    return told[0]


def test_a_larger_graph_may_take_more_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the networks of the paper took is in the module's first words."""
    usual, paper = (limits_of(bytes(n), None, monkeypatch) for n in (4_000_000, 73_000_000))
    assert (round(usual["cpu_s"], 2), usual["memory_bytes"] // 10**6) == (1.88, 314)
    assert (round(paper["cpu_s"], 2), paper["memory_bytes"] // 10**6) == (8.78, 728)
    camera, most = (limits_of(b"", size, monkeypatch) for size in ((480, 640), (8192, 8192)))
    assert (round(camera["cpu_s"], 2), camera["memory_bytes"] // 10**6) == (2.63, 864)
    assert (most["cpu_s"], most["memory_bytes"] // 10**6) == (30, 4000)
