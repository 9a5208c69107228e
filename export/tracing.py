"""Writes a graph: traced, folded, checked, one self-contained ONNX file."""

import logging
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnxslim
import torch
from torch import Tensor, nn
from torch.onnx import symbolic_opset9

from cled_edge.bundle.manifest import REFERENCE_OPSET, GraphSpec
from cled_edge.contract import STRENGTH_MAP, TensorSpec
from cled_edge.files import write_whole
from export.graphs import Graph

_CHATTY = ("torch", "torch.onnx", "onnxscript", "onnx_ir")  # loggers that tell of every constant they fold
# Nodes that decide at run time what a graph does: a graph of one size has none.
_DECIDING = frozenset({"Shape", "Size", "If", "Loop", "Scan", "NonZero", "ConstantOfShape"})


def write_graph(graph: Graph, size_multiple: int, path: Path) -> GraphSpec:
    """Trace and write one self-contained file; return its entry in the manifest.

    At opset 17, the newest that TensorRT 8.6 parses, by the TorchScript exporter; newer by the dynamo exporter, which
    reasons about the windows' symbolic sizes for minutes and is therefore used at fixed sizes alone (torch 2.13).
    A graph of one size goes through torch.export first, where sizes are numbers: TorchScript alone would leave dozens
    of Shape nodes. RuntimeError if the exporter wrote other names or nodes than it should.
    """
    # Two images, and sides of two and three multiples: a size of one would be taken for a constant.
    example = tuple(_example(spec, 2 * size_multiple, 3 * size_multiple) for spec in graph.inputs)
    _export(graph, example, path)
    # Folds what is constant, a third to a half of the nodes; at any size there are no shapes to infer.
    model = onnxslim.slim(onnx.load(path), no_shape_infer=graph.size is None)
    write_whole(path, model.SerializeToString())
    _check(graph, model)
    return GraphSpec(
        role=graph.role,
        file=graph.file,
        precision=graph.precision,
        opset=graph.opset,
        size=graph.size,
        steps=graph.steps,
        strength_map=STRENGTH_MAP.name in graph.maps,
        nodes=node_counts(model),
        inputs=graph.inputs,
        outputs=graph.outputs,
    )


def _export(graph: Graph, example: tuple[Tensor, ...], path: Path) -> None:
    """Write what the exporter of the graph's opset makes of it."""
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.ERROR)
    names = {
        "input_names": [spec.name for spec in graph.inputs],
        "output_names": [spec.name for spec in graph.outputs],
        "opset_version": graph.opset,
    }
    module = graph.module.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecation of this exporter, and traced comparisons that verification covers
        if graph.opset == REFERENCE_OPSET:
            traced = _of_one_size(module, example) if graph.size else module
            torch.onnx.export(traced, example, path, dynamo=False, dynamic_axes=_dynamic_axes(graph), **names)  # type: ignore[arg-type]
        else:
            torch.onnx.export(module, example, path, dynamo=True, external_data=False, verbose=False, **names)  # type: ignore[arg-type]


def _check(graph: Graph, model: onnx.ModelProto) -> None:
    """Raise RuntimeError if the exporter wrote other names or nodes than it should."""
    onnx.checker.check_model(model, full_check=True)
    _require("inputs", [i.name for i in model.graph.input], [spec.name for spec in graph.inputs])
    _require("outputs", [o.name for o in model.graph.output], [spec.name for spec in graph.outputs])
    deciding = _DECIDING & node_counts(model).keys()
    if graph.size and deciding:
        raise RuntimeError(f"{graph.name} is of one size and yet has nodes {', '.join(sorted(deciding))}")


def node_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many nodes there are of each operator, sorted by name."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


def _of_one_size(module: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    program = torch.export.export(module, example).module()
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.conv2d.default:
            node.target = torch.ops.cled_edge.conv2d.default
            node.args += _CONVOLUTION[len(node.args) :]
    program.recompile()
    program.requires_grad_(False)
    program.train = lambda mode=True: program  # type: ignore[method-assign]  # noqa: ARG005  it refuses any
    return program


# TorchScript runs what it traces: a step of the lineage takes 20 s at 480x640, and 8 minutes in FP16 on a CPU without
# such instructions. A graph of one size does not depend on what comes out: its convolutions only say of what shape.
_CONVOLUTION = (None, None, None, [1, 1], [0, 0], [1, 1], 1)  # the arguments of conv2d, and what is not given


@torch.library.custom_op("cled_edge::conv2d", mutates_args=())
def _shape_of_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,  # noqa: ARG001
) -> Tensor:
    window = zip(map(int, x.shape[2:]), map(int, weight.shape[2:]), stride, padding, dilation, strict=True)
    sides = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in window]
    return x.new_zeros((int(x.shape[0]), int(weight.shape[0]), *sides))


torch.onnx.register_custom_op_symbolic("cled_edge::conv2d", symbolic_opset9.conv2d, 9)  # type: ignore[attr-defined]


def _dynamic_axes(graph: Graph) -> dict[str, dict[int, str]]:
    return {
        spec.name: {axis: name for axis, name in enumerate(spec.shape) if isinstance(name, str)}
        for spec in (*graph.inputs, *graph.outputs)
    }


def _require(what: str, seen: Iterable[str], needed: Iterable[str]) -> None:
    if list(seen) != list(needed):
        raise RuntimeError(f"the exporter wrote {what} {list(seen)}, needed {list(needed)}")


def _example(spec: TensorSpec, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(len(spec.name))
    numbers = {"batch": 2, "height": height, "width": width}
    shape = [numbers[n] if isinstance(n, str) else n for n in spec.shape]
    if spec.dtype == "uint8":
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return torch.rand(shape, generator=generator)
