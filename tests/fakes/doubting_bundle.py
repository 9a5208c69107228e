"""The shipped bundle with a doubt graph of a few nodes: what tests of samples need where whole programs run."""

import hashlib
import shutil
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from cled_edge.bundle.manifest import FileSpec, GraphSpec
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.contract import GRAPHS

LEVELS, BY_NOISE = 8.0, 0.05


def doubting_bundle(folder: Path) -> Bundle:
    """Write it. Of a sample the residual is less by BY_NOISE noise; the uncertainty is LEVELS (1 + x_in / 2)."""
    shutil.copytree(shipped_bundle(), folder)
    bundle = Bundle.open(folder)
    content, role = _graph().SerializeToString(), GRAPHS["doubt"]
    (folder / "doubt.onnx").write_bytes(content)
    graph = GraphSpec(
        role="doubt", file="doubt.onnx", precision="fp32", opset=17, nodes={}, inputs=role.inputs, outputs=role.outputs
    )
    added = FileSpec(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest = bundle.manifest.model_copy(
        update={
            "graphs": {**bundle.manifest.graphs, "doubt": graph},
            "files": {**bundle.manifest.files, "doubt.onnx": added},
        }
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return Bundle.open(folder, trusted=True)


def doubtless_bundle(folder: Path) -> Bundle:
    """Write the shipped bundle without a doubt graph, if it has one."""
    shutil.copytree(shipped_bundle(), folder)
    manifest = Bundle.open(folder).manifest
    graphs = {name: graph for name, graph in manifest.graphs.items() if graph.role != "doubt"}
    (folder / "manifest.json").write_text(manifest.model_copy(update={"graphs": graphs}).model_dump_json())
    return Bundle.open(folder, trusted=True)


def _graph() -> onnx.ModelProto:
    role = GRAPHS["doubt"]
    sides = [
        [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, spec.shape) for spec in specs]
        for specs in (role.inputs, role.outputs)
    ]
    constants = {"by_noise": BY_NOISE, "levels": LEVELS, "half": LEVELS / 2}
    nodes = [
        helper.make_node("Mul", ["noise", "by_noise"], ["shift"]),
        helper.make_node("Sub", ["residual", "shift"], ["drawn"]),
        helper.make_node("ReduceMean", ["x_in"], ["mean"], axes=[1]),
        helper.make_node("Mul", ["mean", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "levels"], ["uncertainty"]),
    ]
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "doubt", *sides, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
