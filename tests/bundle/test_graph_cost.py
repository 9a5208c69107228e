"""What a graph costs, on graphs so small that every number can be counted by hand, and on the shipped ones."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from cled_edge.bundle.cost import cost_of_path  # noqa: E402
from cled_edge.bundle.device_limits import DEVICES, Device  # noqa: E402
from cled_edge.bundle.graph_cost import Cost, cost_of  # noqa: E402
from cled_edge.bundle.graph_shapes import live_graph  # noqa: E402
from cled_edge.bundle.reader import shipped_bundle  # noqa: E402
from cled_edge.errors import BundleCorruptError, BundleMissingError, OptionError  # noqa: E402

FLOAT = TensorProto.FLOAT
PICTURE = (1, 4, 8, 8)  # 256 elements, 1,024 bytes
# The present numbers of the shipped graph at 480x640, two steps: to be tightened as the networks are. Issue bars are
# 450 nodes and 300 MB for three steps, 1,000 MB for the preset of a Jetson.
TARGETS = {"nano": {"nodes_folded": 1163, "kernels": 607, "traffic_mb": 680, "unfused_traffic_mb": 1319}}


def node(op: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), output.split(), **attributes)


def model_of(
    *nodes: Any,
    shape: Sequence[int | str | None] = PICTURE,
    dtype: int = FLOAT,
    constants: dict[str, np.ndarray] | None = None,
    outputs: str = "y",
) -> Any:
    """Return a graph of one input x."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs.split()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def counted(*nodes: Any, size: tuple[int, int] | None = None, batch: int = 1, **of_model: Any) -> Cost:
    return cost_of(model_of(*nodes, **of_model), size, batch)


WEIGHTS = {"w": np.zeros((4, 4, 3, 3), np.float32), "b": np.zeros(4, np.float32)}  # 576 and 16 bytes
CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


# --- Fusion -----------------------------------------------------------------------------------------------------------


def test_a_convolution_with_bias_and_activation_is_one_kernel() -> None:
    cost = counted(node("Conv", "x w b", "t", **CONV), node("Relu", "t", "y"), constants=WEIGHTS)
    assert (cost.nodes, cost.kernels, cost.chain, cost.layout, cost.views) == (2, 1, 1, 0, 0)
    assert cost.flop == 2 * 256 * 4 * 9 + 256
    assert (cost.read_bytes, cost.written_bytes) == (1024 + 576 + 16, 1024)
    assert cost.unfused_bytes == (1024 + 576 + 16 + 1024) + (1024 + 1024)
    assert cost.weights == {"float": 592}


def test_an_activation_that_reads_a_tensor_twice_joins_its_convolution() -> None:
    silu = node("Sigmoid", "t", "s"), node("Mul", "t s", "y")
    cost = counted(node("Conv", "x w b", "t", **CONV), *silu, constants=WEIGHTS)
    assert (cost.kernels, cost.written_bytes) == (1, 1024)


def test_a_residual_sum_joins_the_later_convolution() -> None:
    cost = counted(
        node("Conv", "x w b", "t", **CONV),
        node("Relu", "t", "r"),
        node("Conv", "r w b", "u", **CONV),
        node("Add", "u r", "y"),
        constants=WEIGHTS,
    )
    assert (cost.kernels, cost.chain) == (2, 2)
    assert cost.read_bytes == 2 * (1024 + 592)  # r once by the second, though two of its operators read it


def test_the_sum_of_two_parallel_convolutions_joins_one_of_them() -> None:
    cost = counted(
        node("Conv", "x w b", "t", **CONV),
        node("Conv", "x w b", "u", **CONV),
        node("Add", "t u", "y"),
        constants=WEIGHTS,
    )
    assert (cost.kernels, cost.chain) == (2, 2)


def test_an_activation_does_not_join_a_convolution_that_another_kernel_reads_bare() -> None:
    cost = counted(
        node("Conv", "x w b", "t", **CONV),
        node("Conv", "t w b", "u", **CONV),
        node("Relu", "t", "v"),
        node("Concat", "u v", "y", axis=1),
        constants=WEIGHTS,
    )
    assert (cost.kernels, cost.layout, cost.chain) == (4, 1, 3)


def test_an_output_of_the_graph_is_written_and_not_fused_away() -> None:
    cost = counted(node("Conv", "x w b", "t", **CONV), node("Relu", "t", "y"), constants=WEIGHTS, outputs="t y")
    assert (cost.kernels, cost.written_bytes) == (2, 2048)


def test_no_kernel_waits_for_itself() -> None:
    """The product reads r, and the convolution of a later operator of r's kernel: it can only join the convolution."""
    cost = counted(
        node("Relu", "x", "r"),
        node("Sigmoid", "r", "s"),
        node("Conv", "s w b", "c", **CONV),
        node("Mul", "r c", "y"),
        constants=WEIGHTS,
    )
    assert (cost.kernels, cost.chain) == (2, 2)
    assert cost.written_bytes == 3 * 1024  # r and s, then y


def test_operators_of_other_shapes_do_not_join() -> None:
    cost = counted(node("GlobalAveragePool", "x", "m"), node("Sigmoid", "m", "s"), node("Mul", "x s", "y"))
    assert (cost.kernels, cost.chain, cost.flop) == (3, 3, 256 + 4 + 256)


def test_an_elementwise_chain_is_one_kernel() -> None:
    cost = counted(node("Abs", "x", "a"), node("Sqrt", "a", "b"), node("Cast", "b", "y", to=TensorProto.FLOAT16))
    assert (cost.kernels, cost.read_bytes, cost.written_bytes) == (1, 1024, 512)


def test_the_longest_chain_is_that_of_the_longer_branch() -> None:
    pools = [node("MaxPool", f"p{i}", f"p{i + 1}", kernel_shape=[1, 1]) for i in range(3)]
    cost = counted(node("Transpose", "x", "p0", perm=[0, 1, 3, 2]), *pools, node("Concat", "x p3", "y", axis=1))
    assert (cost.kernels, cost.chain) == (5, 5)


# --- Layout, views, traffic -------------------------------------------------------------------------------------------


def test_a_reshape_is_a_view_and_a_transpose_a_layout_kernel() -> None:
    cost = counted(
        node("Reshape", "x shape", "r"),
        node("Transpose", "r", "y", perm=[1, 0]),
        constants={"shape": np.array([4, 64])},
    )
    assert (cost.kernels, cost.layout, cost.views, cost.flop) == (1, 1, 1, 0)
    assert (cost.read_bytes, cost.written_bytes) == (1024, 1024)
    assert cost.weights == {"int64": 16}


def test_a_transpose_that_moves_only_a_side_of_one_is_a_view() -> None:
    cost = counted(node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Relu", "t", "y"), shape=(1, 1, 8, 8))
    assert (cost.kernels, cost.views) == (1, 1)


def test_a_slice_reads_as_much_as_it_writes() -> None:
    ends = {"from": np.array([0]), "to": np.array([2]), "axis": np.array([2])}
    cost = counted(node("Slice", "x from to axis", "y"), constants=ends)
    assert (cost.read_bytes, cost.written_bytes, cost.layout) == (256 + 3 * 8, 256, 1)


def test_quantised_values_are_read_as_they_are_stored() -> None:
    constants = {"s": np.float32(0.1), "z": np.int8(0), "w8": np.zeros((4, 4, 3, 3), np.int8)}
    cost = counted(
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", "w8 s z", "w"),
        node("Conv", "d w", "y", **CONV),
        constants=constants,
    )
    assert cost.kernels == 2
    assert cost.weights == {"float": 4, "int8": 145}
    assert cost.read_bytes == (1024 + 4 + 1) + (256 + 144)
    assert cost.written_bytes == 256 + 1024


# --- Arithmetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "constants", "flop"),
    [
        ([node("Conv", "x w", "y", group=4)], {"w": np.zeros((4, 1, 1, 1), np.float32)}, 2 * 256),
        ([node("ConvTranspose", "x w", "y", strides=[2, 2])], {"w": np.zeros((4, 3, 2, 2), np.float32)}, 2 * 256 * 12),
        ([node("MatMul", "x w", "y")], {"w": np.zeros((8, 5), np.float32)}, 2 * 160 * 8),
        ([node("AveragePool", "x", "y", kernel_shape=[2, 2], strides=[2, 2])], {}, 64 * 4),
        ([node("Softmax", "x", "y")], {}, 5 * 256),
        (
            [node("Flatten", "x", "f"), node("Gemm", "f w", "y", transB=1)],
            {"w": np.zeros((3, 256), np.float32)},
            2 * 3 * 256,
        ),
    ],
)
def test_arithmetic_is_what_one_counts_by_hand(nodes: list[Any], constants: dict[str, Any], flop: int) -> None:
    assert counted(*nodes, constants=constants).flop == flop


# --- Sizes and constants ----------------------------------------------------------------------------------------------

OPEN = ("batch", 3, "height", "width")
FLAT = (
    node("Shape", "x", "s"),
    node("Gather", "s last", "w"),
    node("Mul", "w three", "n"),
    node("Concat", "minus n", "shape", axis=0),
    node("Reshape", "x shape", "r"),
    node("Relu", "r", "y"),
)
FLAT_CONSTANTS = {"last": np.array([3]), "three": np.array([3]), "minus": np.array([-1])}


def test_shapes_are_folded_at_a_size() -> None:
    model = model_of(*FLAT, shape=OPEN, constants=FLAT_CONSTANTS)
    cost = cost_of(model, (4, 6), batch=2)
    assert (cost.nodes, cost.nodes_folded, cost.views, cost.kernels, cost.takes_size) == (6, 2, 1, 1, True)
    assert cost.flop == 2 * 3 * 4 * 6
    assert live_graph(model, (4, 6), batch=2).tensors["r"].shape == (8, 18)


def test_a_size_is_height_then_width_whatever_the_layout() -> None:
    for shape, expected in (
        ((1, "height", "width", 1), (1, 4, 6, 1)),
        ((1, 3, "H", "W"), (1, 3, 4, 6)),
        ((None, 3, None, None), (1, 3, 4, 6)),
    ):
        graph = live_graph(model_of(node("Relu", "x", "y"), shape=shape), (4, 6))
        assert graph.tensors["y"].shape == expected


def test_what_no_output_needs_costs_nothing() -> None:
    cost = counted(node("Relu", "x", "y"), node("Conv", "x w b", "lost", **CONV), constants=WEIGHTS)
    assert (cost.nodes, cost.nodes_folded, cost.kernels) == (2, 1, 1)


def test_a_folded_constant_is_read_and_not_computed() -> None:
    cost = counted(node("Exp", "c", "e"), node("Mul", "x e", "y"), constants={"c": np.zeros(8, np.float32)})
    assert (cost.kernels, cost.flop, cost.read_bytes) == (1, 256, 1024 + 32)


def test_weights_kept_in_another_file_are_counted_and_not_opened() -> None:
    model = model_of(node("Conv", "x w b", "y", **CONV), constants=WEIGHTS)
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../secret")
    assert cost_of(model, None).weights == {"float": 592}


# --- What cannot be counted -------------------------------------------------------------------------------------------


def test_an_open_size_must_be_given() -> None:
    with pytest.raises(OptionError, match="its height and width are open; give a size"):
        counted(node("Relu", "x", "y"), shape=OPEN)


def test_a_dimension_of_an_unknown_name_is_named() -> None:
    with pytest.raises(OptionError, match="dimension 1 of its input 'x' is open and called 'sequence'"):
        counted(node("Relu", "x", "y"), shape=(1, "sequence"), size=(4, 6))


def test_a_size_that_does_not_fit_is_refused() -> None:
    halves = {"shape": np.array([1, 3, 2, 2, 6])}
    with pytest.raises(OptionError, match=r"the shapes of its node Reshape 'y' do not fit .*; give another size"):
        counted(node("Reshape", "x shape", "y"), shape=OPEN, constants=halves, size=(5, 6))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (node("NonZero", "x", "y"), "has no size before it runs"),
        (node("Det", "x", "y"), "of an operator whose cost is not known here"),
        (node("Gelu", "x", "y", domain="com.microsoft"), "is of com.microsoft"),
        (node("Relu", "other", "y"), "reads 'other', which nothing before it gives"),
        (node("Relu", "x", "z"), "nothing gives its output 'y'"),
    ],
)
def test_what_cannot_be_counted_is_named(wrong: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        counted(wrong)


def test_a_graph_inside_a_node_is_refused() -> None:
    body = model_of(node("Relu", "x", "y")).graph
    with pytest.raises(OptionError, match="If 'y' holds a graph"):
        counted(node("If", "c", "y", then_branch=body, else_branch=body), constants={"c": np.array(True)})


# --- Files, bundles, devices ------------------------------------------------------------------------------------------


def saved(path: Path, *nodes: Any, **of_model: Any) -> Path:
    path.write_bytes(model_of(*nodes, **of_model).SerializeToString())
    return path


def test_a_limit_is_the_largest_of_three() -> None:
    cost = counted(node("Relu", "x", "y"))  # 2,048 bytes, 256 FLOP, 1 kernel
    for numbers, by, ms in (
        ((2.048e-6, 1, 0.5), "memory", 1000),
        ((1, 2.56e-10, 0.5), "arithmetic", 1000),
        ((1, 1, 500), "launches", 0.5),
    ):
        found = Device("any", *numbers, "a test").limits(cost)
        assert (found["by"], found["limit_ms"]) == (by, pytest.approx(ms))
        assert found["limit_ms"] == max(found["memory_ms"], found["arithmetic_ms"], found["launches_ms"])


def test_devices_are_named_with_their_sources() -> None:
    assert [d.name for d in DEVICES] == ["Orin Nano 8 GB", "Orin NX 16 GB", "AGX Orin 64 GB", "L4", "H100 SXM"]
    assert all("NVIDIA" in device.source and "kernel time is assumed" in device.source for device in DEVICES)


def test_a_file_is_counted_at_its_own_size(tmp_path: Path) -> None:
    path = saved(tmp_path / "small.onnx", node("Relu", "x", "y"))
    (graph,) = cost_of_path(path, None)["graphs"]
    assert (graph["name"], graph["size"], graph["kernels"]) == ("small", None, 1)
    with pytest.raises(OptionError, match=r"size is 4x6, but each graph of .* has its own; leave the size out"):
        cost_of_path(path, (4, 6))


def test_a_bundle_is_counted_at_the_padded_size_with_the_batch_of_a_frame() -> None:
    graphs = {graph["name"]: graph for graph in cost_of_path(shipped_bundle(), (40, 50))["graphs"]}
    assert graphs.keys() > {"unet_step", "fusion", "fused_loop"}
    sizes = {name: tuple(graph["size"]) for name, graph in graphs.items()}
    assert {sizes[name] for name in ("unet_step", "fusion", "fused_loop")} == {(64, 64)}
    assert sizes["fused_loop-fp16-480x640"] == (480, 640)
    alone = cost_of_path(shipped_bundle() / "unet_step.onnx", (64, 64))["graphs"][0]
    assert graphs["unet_step"]["gflop"] == pytest.approx(2 * alone["gflop"], rel=1e-3)


def test_what_is_no_graph_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleMissingError):
        cost_of_path(tmp_path / "none.onnx", None)
    with pytest.raises(OptionError, match="is no graph whose cost can be counted"):
        cost_of_path(tmp_path / "model.safetensors", None)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff" * 100)
    with pytest.raises(BundleCorruptError, match="is not an ONNX graph"):
        cost_of_path(broken, None)
    model = model_of(node("Add", "x c", "y"), constants={"c": np.zeros(8, np.float32)})
    model.graph.initializer[0].raw_data = b"cut"
    broken.write_bytes(model.SerializeToString())
    with pytest.raises(BundleCorruptError, match="is not a whole ONNX graph"):
        cost_of_path(broken, None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(OptionError, match=r"a package that is missing .*cled-edge\[export\]"):
        cost_of_path(broken, None)


def test_the_loop_of_each_shipped_preset_keeps_to_its_target() -> None:
    (loop,) = (g for g in cost_of_path(shipped_bundle(), (480, 640))["graphs"] if g["name"] == "fused_loop")
    assert {key: loop[key] for key, most in TARGETS["nano"].items() if loop[key] > most} == {}


def test_as_many_large_operators_are_left_as_onnx_runtime_leaves(tmp_path: Path) -> None:
    """Of its basic optimisations, which fold constants and fuse no operators of these kinds."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    for name, value in (("batch", 1), ("height", 64), ("width", 96)):
        options.add_free_dimension_override_by_name(name, value)
    path = shipped_bundle() / "fusion.onnx"
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    theirs = [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]
    ours = [n.op for n in live_graph(onnx.load(path), (64, 96)).nodes]
    for op in ("Conv", "ConvTranspose", "MatMul", "Softmax", "LayerNormalization", "ReduceSum", "Slice", "Concat"):
        assert ours.count(op) == theirs.count(op), op
