"""The programs of benchmarks/: what they count, in which order they time, what they refuse; small runs of each."""

import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import operators, peaks, scaling
from benchmarks.child import in_child
from benchmarks.flops import count_gflop
from benchmarks.timing import random_inputs, summary_ms, timed_rounds, whole_numbers, write_result
from cled_edge.backend.choice import BackendChoice
from cled_edge.bundle.manifest import GraphSpec
from cled_edge.bundle.reader import Bundle
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


def test_a_summary_is_of_the_samples() -> None:
    assert summary_ms([4.0, 1.0, 2.0, 3.0, 5.0]) == {"min": 1.0, "p50": 3.0, "p90": 4.6}


@pytest.mark.parametrize("text", ["", "0", "1,,2", "1,-2", "a", "1.5"])
def test_lists_that_are_no_whole_numbers_are_refused(text: str) -> None:
    assert whole_numbers("--steps", "3,1") == (3, 1)
    with pytest.raises(OptionError, match=re.escape(f"--steps is {text!r}; it must list whole numbers above 0")):
        whole_numbers("--steps", text)


def test_random_inputs_have_the_shape_range_and_type_that_the_manifest_says() -> None:
    graph = Bundle.open().manifest.graphs["fusion"]
    inputs = random_inputs(graph, {"batch": 2, "height": 8, "width": 16})
    assert list(inputs) == [tensor.name for tensor in graph.inputs]
    assert inputs["infrared"].shape == (2, 3, 8, 16)
    assert inputs["infrared"].dtype == np.float32
    assert -1 <= inputs["infrared"].min() < -0.9 < 0.9 < inputs["infrared"].max() <= 1
    assert inputs["strength"].shape == (2,)
    with pytest.raises(OptionError, match=r"fusion.onnx: input infrared has dimension 'width'; known: batch, height"):
        random_inputs(graph, {"batch": 2, "height": 8})


def test_a_result_says_its_machine_and_versions(tmp_path: Path) -> None:
    path = write_result("kind", {"rows": [1]}, tmp_path / "results")
    result = json.loads(path.read_text())
    assert path.name.startswith("kind-")
    assert result["rows"] == [1]
    assert result["machine"]["usable_cores"] >= 1
    assert result["versions"]["numpy"] == np.__version__


def onnx_graph(node, shapes: dict[str, tuple[int, ...]], weights: np.ndarray) -> bytes:
    onnx = pytest.importorskip("onnx", reason="needs onnx: make test installs it")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()]
    constants = [onnx.numpy_helper.from_array(weights.astype(np.float32), "w")]
    graph = helper.make_graph([helper.make_node(**node)], "g", infos[:1], infos[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_flop_are_those_of_the_closed_forms() -> None:
    pytest.importorskip("openvino", reason="needs openvino: make test installs it")
    conv = {"op_type": "Conv", "inputs": ["x", "w"], "outputs": ["y"], "pads": [1, 1, 1, 1]}
    free = {"x": (None, 4, None, None), "y": (None, None, None, None)}
    model = onnx_graph(conv, free, np.zeros((8, 4, 3, 3)))
    assert count_gflop(model, {"x": (2, 4, 10, 12)}) == pytest.approx(2 * (2 * 8 * 10 * 12) * (4 * 9) / 1e9)
    model = onnx_graph({**conv, "group": 4}, free, np.zeros((8, 1, 3, 3)))
    assert count_gflop(model, {"x": (2, 4, 10, 12)}) == pytest.approx(2 * (2 * 8 * 10 * 12) * 9 / 1e9)
    product = {"op_type": "MatMul", "inputs": ["x", "w"], "outputs": ["y"]}
    model = onnx_graph(product, {"x": (None, 5, 7), "y": (None, 5, 3)}, np.zeros((7, 3)))
    assert count_gflop(model, {"x": (2, 5, 7)}) == pytest.approx(2 * (2 * 5 * 3) * 7 / 1e9)


def test_peaks_are_the_best_of_what_is_installed() -> None:
    rows = peaks.measure_gemm((64,), 0.01, ("fp32", "int8"))
    assert {"numpy", "onnxruntime"} <= {row["library"] for row in rows if row["precision"] == "fp32"}
    best = peaks.best(rows)
    assert best["fp32_gflop_s"] == max(row["gflop_s"] for row in rows if row["precision"] == "fp32") > 0
    assert best["bf16_gflop_s"] is None
    assert peaks.measure_copy(0.01, bytes_copied=1 << 20) > 0


def test_cases_change_one_thing_and_come_once() -> None:
    base = scaling.Case("", (480, 640), 2, 3)
    sweeps = {"size": ((480, 640), (256, 320)), "threads": (1, 2), "steps": (3,), "batch": (1,)}
    points = scaling.cases(base, ["x", "y"], sweeps)
    assert len(points) == len(set(points)) == 2 * 4
    for point in points:
        changed = [name for name in sweeps if getattr(point, name) != getattr(base, name)]
        assert len(changed) <= 1
    assert {point.backend for point in points} == {"x", "y"}


def test_scaling_measures_calls_and_batches() -> None:
    base = scaling.Case("", (64, 96), 1, 1)
    points = scaling.cases(base, ["onnxruntime"], {"steps": (1,), "batch": (2,)})
    whole, batch = scaling.measure(Bundle.open(), points, 2, 60)
    assert (whole["batch"], batch["batch"]) == (None, 2)
    assert len(whole["samples_ms"]) == 2
    assert whole["ms_per_megapixel"] == pytest.approx(whole["latency_ms"]["p50"] / (64 * 96 / 1e6), rel=0.01)
    assert batch["ms_per_megapixel"] == pytest.approx(batch["latency_ms"]["p50"] / (2 * 64 * 96 / 1e6), rel=0.01)


def test_a_size_that_is_none_is_refused() -> None:
    app = typer.Typer()
    app.command()(scaling.main)
    done = CliRunner().invoke(app, ["--sizes", "480x640,640"])
    assert done.exit_code == 2
    assert "of --sizes, one is '640'; it must be HEIGHTxWIDTH in pixels" in done.output


@pytest.mark.parametrize("backend", ["openvino:fp32", "onnxruntime"])
def test_a_profile_names_the_operators_and_their_shares(backend: str) -> None:
    pytest.importorskip("openvino", reason="needs openvino: make test installs it")
    found = operators.profile(Bundle.open(), "fusion", backend, (64, 64), calls=2, top=5)
    assert {"Convolution", "Conv"} & {entry["type"] for entry in found["types"]}
    assert sum(entry["share"] for entry in found["types"]) == pytest.approx(1, abs=0.01)
    assert [node["ms"] for node in found["top"]] == sorted((node["ms"] for node in found["top"]), reverse=True)
    assert len(found["top"]) == 5
    assert found["gflop"] > 0


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("openvino-gpu", "backend 'openvino-gpu' has no profile here; known: openvino, onnxruntime"),
        ("openvino:int3", "precision 'int3' is not one of backend openvino"),
        ("onnxruntime:bf16", "precision 'bf16' is not one of backend onnxruntime"),
    ],
)
def test_backends_without_a_profile_are_refused(backend: str, words: str) -> None:
    with pytest.raises(OptionError, match=re.escape(words)):
        operators.profile(Bundle.open(), "fusion", backend, (64, 64), calls=1, top=1)


def test_a_precision_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "available_backends", lambda: [BackendChoice("onnxruntime", "fp32")])
    words = "backend openvino:bf16 does not run here; choose among onnxruntime:fp32"
    with pytest.raises(OptionError, match=re.escape(words)):
        operators.profile(Bundle.open(), "fusion", "openvino:bf16", (64, 64), calls=1, top=1)


def test_unknown_dimensions_are_named() -> None:
    graph = Bundle.open().manifest.graphs["fusion"].model_dump()
    graph["inputs"][0]["shape"] = ("pictures", 3)
    with pytest.raises(OptionError, match="has dimension 'pictures'"):
        random_inputs(GraphSpec.model_validate(graph), {"batch": 1, "height": 8, "width": 8})


def test_a_child_returns_fails_dies_or_is_ended() -> None:
    assert in_child(dict, 60, [("latency_ms", 3)]) == {"latency_ms": 3}
    assert in_child(int, 60, "x")["failed"].startswith("ValueError: invalid literal")  # type: ignore[arg-type]
    assert in_child(os._exit, 60, 3) == {"failed": "its process ended with code 3"}
    assert in_child(time.sleep, 0.5, 60) == {"failed": "not done within 0.5 s"}  # type: ignore[arg-type]
