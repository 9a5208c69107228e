"""Bundles whose graphs were spoiled with care are fused with: the result is images or an error of ours, in bounds.

FUZZ_CASES=20000 FUZZ_FIRST=100000 python -m pytest tests/bundle/test_fuzz_runs.py

The graphs are the shipped ones, so that a runtime takes them; each case changes some of their fields, and the manifest
agrees. Each case may take 5 s of processor time and 1 GB, its children included. A hundredth of FUZZ_CASES are run, in
a process of its own, whose death names the case.
"""

import hashlib
import json
import os
import random
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cled_edge.backend.opener import open_backend
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.contract import Controls
from cled_edge.fuser import Fuser
from tests.fakes.limited_runs import run_case, told_by

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")

RUNS = int(os.environ.get("FUZZ_CASES", "2000")) // 100
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
NUMBERS = (-(2**40), -1, 0, 1, 2, 3, 7, 2**20, 2**31, 2**40, 2**62)
Rng = random.Random

# Changes of a graph ---------------------------------------------------------------------------------------------------


def attribute(graph: Any, rng: Rng) -> None:
    """Give a number of a node's attribute another value."""
    found = [a for node in graph.node for a in node.attribute if a.ints or a.HasField("i") or a.HasField("f")]
    one = rng.choice(found)
    if one.ints:
        one.ints[rng.randrange(len(one.ints))] = rng.choice(NUMBERS)
    elif one.HasField("i"):
        one.i = rng.choice(NUMBERS)
    else:
        one.f = rng.choice((0.0, -1.0, 1e30, 1e-30))


def wire(graph: Any, rng: Rng) -> None:
    """Let a node read another tensor."""
    node = rng.choice([node for node in graph.node if node.input])
    names = [name for other in graph.node for name in other.output] + [weight.name for weight in graph.initializer]
    node.input[rng.randrange(len(node.input))] = rng.choice([*names, "", "nothing"])


def operator(graph: Any, rng: Rng) -> None:
    """Make a node another operator."""
    kinds = [*sorted({node.op_type for node in graph.node}), "Tile", "Pad", "Resize", "NonZero", "Einsum", "Nothing"]
    rng.choice(graph.node).op_type = rng.choice(kinds)


def without(graph: Any, rng: Rng) -> None:
    """Take a node or a weight away."""
    some = rng.choice((graph.node, graph.initializer))
    del some[rng.randrange(len(some))]


def turned(graph: Any, rng: Rng) -> None:
    """Give a weight another shape of as many elements, or another type of as many bytes."""
    weight = rng.choice([weight for weight in graph.initializer if len(weight.dims) > 1])
    if rng.random() < 0.5:
        dims = list(weight.dims)
        rng.shuffle(dims)
        weight.dims[:] = dims
    else:
        weight.data_type = rng.choice((onnx.TensorProto.INT32, onnx.TensorProto.UINT32, 16, 99))


def integers(graph: Any, rng: Rng) -> None:
    """Change a number that sizes are made of."""
    weight = rng.choice([w for w in graph.initializer if w.data_type == onnx.TensorProto.INT64 and w.raw_data])
    values = [rng.choice(NUMBERS) for _ in range(len(weight.raw_data) // 8)]
    weight.raw_data = b"".join(value.to_bytes(8, "little", signed=True) for value in values)


def bomb(graph: Any, rng: Rng) -> None:
    """Put in front what makes much of little: of constants, which are folded, or of the image."""
    kind, side = rng.randrange(5), rng.choice((2**10, 2**14, 2**20, 2**40))
    image = graph.input[0].name
    add = [("Constant", [], ["b.shape"], {"value_ints": [side, 2**10]}), ("Cast", [image], ["b.x"], {"to": 1})]
    if kind == 0:
        add += [("ConstantOfShape", ["b.shape"], ["b.y"], {})]
    elif kind == 1:
        numbers = [("Constant", [], [f"b.{k}"], {"value_int": value}) for k, value in enumerate((0, side * 2**10, 1))]
        add += [*numbers, ("Range", ["b.0", "b.1", "b.2"], ["b.z"], {}), ("Cast", ["b.z"], ["b.y"], {"to": 1})]
    elif kind == 2:
        names = ["b.x", *(f"b.d{k}" for k in range(rng.choice((3, 8, 40)))), "b.y"]
        add += [("Concat", [a, a], [b], {"axis": 0}) for a, b in pairwise(names)]
    elif kind == 3:
        add += [("Constant", [], ["b.n"], {"value_ints": [rng.choice((2, 64, 2**14)), 1, 1, 1]})]
        add += [("Tile", ["b.x", "b.n"], ["b.y"], {})]
    else:
        add += [("ConstantOfShape", ["b.shape"], ["b.w"], {}), ("Transpose", ["b.w"], ["b.t"], {})]
        add += [("MatMul", ["b.w", "b.t"], ["b.y"], {})]
    add += [("ReduceSum", ["b.y"], ["b.s"], {"keepdims": 0}), ("Constant", [], ["b.zero"], {"value_float": 0.0})]
    last = graph.node[-1]
    kept, last.output[0] = last.output[0], "b.last"
    after = [("Mul", ["b.s", "b.zero"], ["b.m"], {}), ("CastLike", ["b.m", "b.last"], ["b.c"], {})]
    after += [("Add", ["b.last", "b.c"], [kept], {})]
    nodes = [onnx.helper.make_node(op, i, o, **values) for op, i, o, values in add], list(graph.node)
    added = [onnx.helper.make_node(op, i, o, **values) for op, i, o, values in after]
    del graph.node[:]
    graph.node.extend([*nodes[0], *nodes[1], *added])


CHANGES = [attribute, bomb, wire, integers, operator, attribute, turned, bomb, without, integers]


def write_spoiled(folder: Path, seed: int) -> None:
    """Write the shipped bundle with its loop, or its step and its fusion, changed once or a few times."""
    rng = Rng(seed)
    folder.mkdir()
    values = json.loads((shipped_bundle() / "manifest.json").read_text())
    values["graphs"] = {name: graph for name, graph in values["graphs"].items() if graph["size"] is None}
    names = rng.choice((["fused_loop"], ["unet_step", "fusion"]))
    for name in ["unet_step", "fusion", *names]:
        content = (shipped_bundle() / f"{name}.onnx").read_bytes()
        if name in names:
            model = onnx.load_model_from_string(content)
            change = CHANGES[seed % len(CHANGES)]
            for _ in range(1 if change is bomb else rng.choice((1, 1, 1, 3))):
                change(model.graph, rng)
            content = model.SerializeToString()
        (folder / f"{name}.onnx").write_bytes(content)
        values["files"][f"{name}.onnx"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    graphs = {f"{name}.onnx" for name in ("unet_step", "fusion", *names)}
    values["files"] = {name: spec for name, spec in values["files"].items() if name in graphs}
    values["graphs"] = {name: graph for name, graph in values["graphs"].items() if graph["file"] in graphs}
    (folder / "manifest.json").write_text(json.dumps(values))


# Running them ---------------------------------------------------------------------------------------------------------


def run_cases(folder: Path, seeds: range) -> None:
    """Fuse with each case."""
    pair = _pair()

    def fuse(bundle: Path) -> None:
        with Fuser(Bundle.open(bundle), open_backend("onnxruntime", Bundle.open(bundle), 1)) as fuser:
            fuser(*pair, Controls(1))

    for seed in seeds:
        write_spoiled(folder / str(seed), seed)
        if not run_case(f"{seed} {CHANGES[seed % len(CHANGES)].__name__}", partial(fuse, folder / str(seed))):
            return


def _pair() -> Any:
    from cled_edge.scene.night_street import night_street

    one = next(iter(night_street(1, (96, 128))))
    return one.infrared, one.visible


def test_a_bundle_of_spoiled_graphs_fuses_or_is_refused_in_bounds(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.bundle import test_fuzz_runs as t; "
        f"t.run_cases(Path(sys.argv[1]), range({FIRST}, {FIRST + RUNS}))"
    )
    told = told_by(code, tmp_path)
    assert sum(line.startswith("case") for line in told) == RUNS
