"""Graphs that are small and ask for much are refused within 5 s of processor time and 1 GB, their trial included.

Each stands for a kind: what folds into a huge constant, what doubles, what computes without end, what has many nodes,
inputs or letters. They run in one process, which says what each took.
"""

import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from cled_edge.backend.opener import open_backend
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.contract import Controls
from cled_edge.errors import BundleCorruptError
from cled_edge.fuser import Fuser
from cled_edge.scene.night_street import night_street
from tests.fakes.limited_runs import run_case, told_by

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
helper, FLOAT, INT64 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
node = helper.make_node
PICTURE = ["batch", 3, "height", "width"]
INPUTS = ("infrared", "infrared_residual", "visible", "visible_residual")

# The bombs: nodes that give the tensor `y`, of any shape --------------------------------------------------------------


def constant(name: str, **value: object) -> "onnx.NodeProto":
    return node("Constant", [], [name], **value)


def ones_of(name: str, *shape: int) -> list:
    return [constant(f"{name}_shape", value_ints=shape), node("ConstantOfShape", [f"{name}_shape"], [name])]


def chain(operator: str, first: str, count: int, **attributes: object) -> list:
    names = [first, *(f"x{k}" for k in range(count - 1)), "y"]
    return [node(operator, [a], [b], **attributes) for a, b in pairwise(names)]


def huge_constant() -> list:
    return ones_of("y", 2**20, 2**15)


def constant_of_2_gb() -> list:
    return ones_of("y", 2**14, 2**15)


def doubled() -> list:
    return [node("Concat", [a, a], [b], axis=0) for a, b in pairwise(["infrared", *"abcdefghijklmn", "y"])]


def doubled_text() -> list:
    names = ["t", *(f"x{k}" for k in range(34))]
    joined = [node("StringConcat", [a, a], [b]) for a, b in pairwise(names)]
    return [constant("t", value_string="a" * 100), *joined, node("Identity", ["infrared"], ["y"])]


def products_of_constants() -> list:
    names = ["w", *(f"x{k}" for k in range(1000)), "y"]
    return [*ones_of("w", 700, 700), *[node("MatMul", [a, a], [b]) for a, b in pairwise(names)]]


def products() -> list:
    names = ["v", *(f"x{k}" for k in range(1000)), "y"]
    live = [node("ReduceSum", ["infrared"], ["sum"], keepdims=0), node("Add", ["w", "sum"], ["v"])]
    return [*ones_of("w", 700, 700), *live, *[node("MatMul", [a, a], [b]) for a, b in pairwise(names)]]


def wide_pool() -> list:
    return [node("AveragePool", ["infrared"], ["y"], kernel_shape=[1001, 1001], pads=[500] * 4)]


def huge_padding() -> list:
    return [*ones_of("w", 1, 3, 1, 1), node("Conv", ["infrared", "w"], ["y"], pads=[2**15] * 4)]


def enlarged() -> list:
    return [constant("s", value_floats=[1.0, 1.0, 1e3, 1e3]), node("Resize", ["infrared", "", "s"], ["y"])]


def long_range() -> list:
    ends = [constant(name, value_int=value) for name, value in (("a", 0), ("b", 2**38), ("c", 1))]
    return [*ends, node("Range", ["a", "b", "c"], ["y"])]


def outer_product() -> list:
    return [*ones_of("w", 300, 300), node("Einsum", ["w", "w", "w"], ["y"], equation="ab,cd,ef->abcdef")]


def all_pairs_of_pixels() -> list:
    line, column = constant("l", value_ints=[1, -1, 1]), constant("c", value_ints=[1, 1, -1])
    both = [node("Reshape", ["infrared", "l"], ["a"]), node("Reshape", ["infrared", "c"], ["b"])]
    return [line, column, *both, node("MatMul", ["a", "b"], ["y"])]


def noise() -> list:
    return [node("RandomNormal", [], ["y"], shape=[2**15, 2**15])]


def long_chain() -> list:
    return chain("Abs", "infrared", 39_000)


def long_chain_of_constants() -> list:
    return [*ones_of("w", 100, 100), *chain("Softmax", "w", 20_000)]


def many_outputs() -> list:
    return [node("Split", ["infrared"], ["y", *(f"o{k}" for k in range(99_999))], axis=3)]


def long_names() -> list:
    names = ["infrared", *(f"{'n' * 2000}{k}" for k in range(3000)), "y"]
    return [node("Abs", [a], [b], name=b) for a, b in pairwise(names)]


BOMBS: list[Callable[[], list]] = [
    huge_constant, constant_of_2_gb, doubled, doubled_text, products_of_constants, products, wide_pool, huge_padding,
    enlarged, long_range, outer_product, all_pairs_of_pixels, noise, long_chain, long_chain_of_constants,
    many_outputs, long_names,
]  # fmt: skip

# Running them ---------------------------------------------------------------------------------------------------------


def write_bomb(folder: Path, nodes: list) -> None:
    """Write the shipped reference graphs, with a fusion that adds the sum of `y`, times nothing, to the infrared."""
    floats = [node("Cast", ["y"], ["y.f"], to=FLOAT), node("ReduceSum", ["y.f"], ["y.s"], keepdims=0)]
    last = [constant("zero", value_float=0.0), node("Mul", ["y.s", "zero"], ["m"])]
    inputs = [helper.make_tensor_value_info(name, FLOAT, PICTURE) for name in INPUTS]
    inputs += [helper.make_tensor_value_info(name, FLOAT, [n]) for name, n in (("strength", 2), ("balance", 1))]
    outputs = [helper.make_tensor_value_info("fused", FLOAT, None)]
    nodes = [*nodes, *floats, *last, node("Add", ["infrared", "m"], ["fused"])]
    graph = helper.make_graph(nodes, "fusion", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    contents = {"fusion.onnx": model.SerializeToString()}
    contents["unet_step.onnx"] = (shipped_bundle() / "unet_step.onnx").read_bytes()
    values = json.loads((shipped_bundle() / "manifest.json").read_text())
    values["graphs"] = {name: spec for name, spec in values["graphs"].items() if spec["file"] in contents}
    values["files"] = {}
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        values["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(values))


def run_bombs(folder: Path) -> None:
    """Entry point of the process: write and fuse with each; one that is not refused is an AssertionError."""
    pair = next(iter(night_street(1, (96, 128))))

    def fuse(bundle: Path) -> None:
        with Fuser(Bundle.open(bundle), open_backend("onnxruntime", Bundle.open(bundle), 1)) as fuser:
            try:
                fuser(pair.infrared, pair.visible, Controls(1))
            except BundleCorruptError:
                return
        raise AssertionError("a bomb was taken")

    for bomb in BOMBS:
        write_bomb(folder / bomb.__name__, bomb())
        if not run_case(bomb.__name__, lambda bundle=folder / bomb.__name__: fuse(bundle)):
            return


def test_bombs_are_refused_in_bounds_of_time_and_memory(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.bundle import test_bombs as t; t.run_bombs(Path(sys.argv[1]))"
    )
    told = told_by(code, tmp_path)
    assert sum(line.startswith("case") for line in told) == len(BOMBS)
