"""What no graph of export holds is refused before a runtime sees it."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cled_edge.bundle.graph_limits import MAX_FIELDS, MAX_NODES, why_refused
from cled_edge.bundle.inspection import inspect_path
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.errors import BundleCorruptError

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT


def model(nodes: list, weights: list = (), functions: list = ()) -> "onnx.ModelProto":
    x, y = (helper.make_tensor_value_info(name, FLOAT, [1]) for name in "xy")
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], list(weights)), functions=list(functions))


def external() -> "onnx.ModelProto":
    weight = helper.make_tensor("w", FLOAT, [1], b"\0\0\0\0", raw=True)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="secret")
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [weight])


def external_in_a_node() -> "onnx.ModelProto":
    return model([helper.make_node("Constant", [], ["y"], value=external().graph.initializer[0])])


def loop() -> "onnx.ModelProto":
    body = helper.make_graph([], "body", [], [])
    return model([helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)])


def functions() -> "onnx.ModelProto":
    add = helper.make_function("d", "F", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], [])
    return model([helper.make_node("F", ["x"], ["y"], domain="d")], functions=[add])


def huge() -> "onnx.ModelProto":
    weight = helper.make_tensor("w", FLOAT, [1], b"\0\0\0\0", raw=True)
    weight.dims[:] = [2**31, 2**31]
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [weight])


def other_domain() -> "onnx.ModelProto":
    return model([helper.make_node("Add", ["x", "x"], ["y"], domain="com.stranger")])


def huge_in_few_bytes() -> "onnx.ModelProto":
    """2**28 elements, which a file may hold, in four bytes."""
    weight = helper.make_tensor("w", FLOAT, [1], b"\0\0\0\0", raw=True)
    weight.dims[:] = [2**28]
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [weight])


def weights_of(dtype: str, value: float) -> "onnx.ModelProto":
    weight = onnx.numpy_helper.from_array(np.array([1, value, 2], dtype), "w")
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [weight])


def nan_by_type() -> "onnx.ModelProto":
    weight = helper.make_tensor("w", FLOAT, [2], [1, float("nan")])
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [weight])


def nan_of_halves_by_type() -> "onnx.ModelProto":
    weight = helper.make_tensor("w", onnx.TensorProto.FLOAT16, [2], [1, float("nan")])
    return model([helper.make_node("Cast", ["w"], ["y"], to=FLOAT)], [weight])


def nan_attribute() -> "onnx.ModelProto":
    return model([helper.make_node("Constant", [], ["y"], value_float=float("nan"))])


def long_name() -> "onnx.ModelProto":
    return model([helper.make_node("Abs", ["x"], ["n" * 2000]), helper.make_node("Abs", ["n" * 2000], ["y"])])


def weight_of_a_long_name() -> "onnx.ModelProto":
    return model([helper.make_node("Abs", ["x"], ["y"])], [helper.make_tensor("w" * 2000, FLOAT, [1], [1.0])])


def many_inputs() -> "onnx.ModelProto":
    return model([helper.make_node("Sum", ["x"] * 2000, ["y"])])


REFUSED: list[tuple[Callable[[], "onnx.ModelProto"], str]] = [
    (external, "data outside"),
    (external_in_a_node, "data outside"),
    (loop, "Loop|graph inside"),
    (functions, "functions of its own|another domain"),
    (huge, "elements"),
    (huge_in_few_bytes, "elements"),
    (lambda: weights_of("float32", np.nan), "NaN or infinite"),
    (lambda: weights_of("float32", -np.inf), "NaN or infinite"),
    (lambda: weights_of("float16", np.nan), "NaN or infinite"),
    (lambda: weights_of("float64", np.inf), "NaN or infinite"),
    (nan_by_type, "NaN or infinite"),
    (nan_of_halves_by_type, "NaN or infinite"),
    (nan_attribute, "NaN or infinite"),
    (other_domain, "another domain"),
    (long_name, "name of over 1000 bytes"),
    (weight_of_a_long_name, "name of over 1000 bytes"),
    (many_inputs, "over 1000 inputs and outputs"),
]


@pytest.mark.parametrize(("build", "words"), REFUSED)
def test_a_graph_that_reaches_beyond_itself_is_refused(
    build: Callable[[], "onnx.ModelProto"], words: str, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(shipped_bundle(), tmp_path / "bundle"))
    content = build().SerializeToString()
    (bundle / "fusion.onnx").write_bytes(content)
    values = json.loads((bundle / "manifest.json").read_text())
    values["files"]["fusion.onnx"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(BundleCorruptError, match=words):
        Bundle.open(bundle).graph("fusion")
    assert "is refused" in str(inspect_path(bundle).failure)


def test_the_graphs_of_the_shipped_bundle_are_plain() -> None:
    for path in shipped_bundle().glob("*.onnx"):
        assert why_refused(path.read_bytes()) is None


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x3a\x05ab", b"not a graph"])
def test_what_is_no_message_is_refused(content: bytes) -> None:
    assert why_refused(content)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("value", [0, -0.0, 1e-7, 65504])
def test_finite_weights_of_any_kind_are_plain(dtype: str, value: float) -> None:
    assert why_refused(weights_of(dtype, value).SerializeToString()) is None


def test_more_nodes_than_any_export_has_are_refused() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])] * (MAX_NODES + 1)
    assert f"over {MAX_NODES} nodes" in (why_refused(model(nodes).SerializeToString()) or "")


def test_reading_a_file_of_small_fields_ends_soon() -> None:
    assert "fields" in (why_refused(b"\x08\x01" * (MAX_FIELDS + 1)) or "")
