"""The graphs of a bundle: which there are, how each is traced, and what its inputs and outputs are."""

import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxslim
import torch
from torch import Tensor, nn
from torch.onnx import symbolic_opset9

from cled_edge.bundle.manifest import (
    OPSETS,
    REFERENCE_OPSET,
    GraphPrecision,
    GraphRole,
    GraphSpec,
    TensorSpec,
    dimensions,
)
from cled_edge.errors import OptionError
from cled_edge.network.precision import at_precision
from cled_edge.network.presets import ModelConfig
from cled_edge.network.sampler import CledFusion, FusedLoop
from cled_edge.size import Size, padded, size_text

DYNAMO_OPSET = 20
PICTURE = (-1.0, 1.0)
RESIDUAL = (-2.0, 2.0)
_CHATTY = ("torch", "torch.onnx", "onnxscript", "onnx_ir")  # loggers that tell of every constant they fold
# Nodes that decide at run time what a graph does: a graph of one size has none.
_DECIDING = frozenset({"Shape", "Size", "If", "Loop", "Scan", "NonZero", "ConstantOfShape"})
Tensors = tuple[TensorSpec, ...]
Variant = tuple[GraphPrecision, int, Size | None]  # precision, opset, size


@dataclass(frozen=True)
class Plan:
    """Which graphs a bundle gets, apart from the reference form, which is always there.

    precisions, opsets, sizes: every combination is written, the reference form at any size too. steps: of each
    `fused_loop`; none leaves it out. strength_map: a second `fused_loop` that takes a map.
    """

    precisions: tuple[GraphPrecision, ...] = ("fp32",)
    opsets: tuple[int, ...] = (REFERENCE_OPSET,)
    sizes: tuple[Size, ...] = ()
    steps: tuple[int, ...] = ()
    strength_map: bool = False

    def __post_init__(self) -> None:
        """OptionError for a combination that cannot be had."""
        if "int8" in self.precisions and self.opsets != (REFERENCE_OPSET,):
            raise OptionError(f"INT8 is written at opset {REFERENCE_OPSET} alone; leave the other out, or int8")
        unknown = set(self.opsets) - set(OPSETS)
        if unknown:
            raise OptionError(f"opset {unknown.pop()} is none of {', '.join(map(str, OPSETS))}")
        if DYNAMO_OPSET in self.opsets and not self.sizes:
            raise OptionError(
                f"opset {DYNAMO_OPSET} is written for fixed sizes alone; give --size HEIGHTxWIDTH, or --opset "
                f"{REFERENCE_OPSET}"
            )
        for height, width in self.sizes:
            if min(height, width) < 32:
                raise OptionError(f"size {height}x{width} has a side under 32; give HEIGHTxWIDTH in pixels")

    def variants(self) -> Iterator[Variant]:
        """Yield precision, opset and size of each combination, the reference form first."""
        precisions = dict.fromkeys(("fp32", *self.precisions))
        for precision in precisions:
            for opset in dict.fromkeys((REFERENCE_OPSET, *self.opsets)):
                if precision not in self.precisions and opset != REFERENCE_OPSET:
                    continue
                if opset == REFERENCE_OPSET:
                    yield precision, opset, None
                for size in self.sizes if precision in self.precisions and opset in self.opsets else ():
                    yield precision, opset, size


@dataclass(frozen=True)
class Graph:
    """A module to trace and the names of its tensors, in order. name: in the manifest, see `graph_name`."""

    name: str
    role: GraphRole
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: GraphPrecision
    opset: int
    size: Size | None
    steps: int | None = None
    strength_map: bool = False

    @property
    def file(self) -> str:
        """Name of its ONNX file."""
        return f"{self.name}.onnx"


def graph_name(
    role: GraphRole,
    precision: GraphPrecision,
    opset: int,
    size: Size | None,
    steps: int | None,
    strength_map: bool,
    default_steps: int,
) -> str:
    """Return a graph's name in the manifest: its role, and how it differs from the reference form."""
    parts: list[str] = [role]
    parts += [f"{steps}steps"] * (steps not in (None, default_steps)) + ["map"] * strength_map
    parts += [precision] * (precision != "fp32") + [f"opset{opset}"] * (opset != REFERENCE_OPSET)
    parts += [size_text(size)] if size else []
    return "-".join(parts)


def graphs_of(model: CledFusion, plan: Plan) -> Iterator[Graph]:
    """Yield the step graph (one evaluation and state update), the fusion graph and the loops, in every variant.

    But none in INT8: export/int8.py makes those of the FP32 ones.
    """
    config = model.config
    variants = [variant for variant in plan.variants() if variant[0] != "int8"]
    models = {precision: at_precision(model, precision) for precision in dict.fromkeys(v[0] for v in variants)}
    for precision, opset, size in variants:
        typed = models[precision]
        whole = padded(size, config.size_multiple) if size else None

        for role, module, tensors in _reference_graphs(typed):
            yield _graph(config, role, module, tensors, (precision, opset, whole))
        for steps in plan.steps:
            for has_map in (False, True) if plan.strength_map else (False,):
                loop = FusedLoop(typed, steps, size)
                yield _graph(
                    config, "fused_loop", loop, _loop_tensors(has_map), (precision, opset, size), steps, has_map
                )


def _graph(
    config: ModelConfig,
    role: GraphRole,
    module: nn.Module,
    tensors: tuple[Tensors, Tensors],
    variant: Variant,
    steps: int | None = None,
    has_map: bool = False,
) -> Graph:
    name = graph_name(role, *variant, steps, has_map, config.default_steps)
    inputs, outputs = (_sized(side, role, variant[2]) for side in tensors)
    return Graph(name, role, module, inputs, outputs, *variant, steps, has_map)


def _reference_graphs(model: CledFusion) -> Iterator[tuple[GraphRole, nn.Module, tuple[Tensors, Tensors]]]:
    yield (
        "unet_step",
        model.sampler.step,
        (
            (
                _picture("x_t", (-3.0, 3.0), "state, I_t of Eq. 12"),
                _picture("x_in", PICTURE, "degraded input"),
                _vector("t", 1, (0.0, 1000.0), "time input, A_t * 1000, from the schedule table"),
                _vector(
                    "coef", 4, (-3.0, 3.0), "weights of x_t, x0, residual and x_in in x_prev, from the schedule table"
                ),
            ),
            (
                _picture("x_prev", (-3.0, 3.0), "next state"),
                _picture("residual", RESIDUAL, "estimated I_res; x_in - residual is the clean estimate"),
            ),
        ),
    )
    yield (
        "fusion",
        model.fusion,
        (
            (
                _picture("infrared", PICTURE, "degraded infrared, one channel repeated three times"),
                _picture("infrared_residual", RESIDUAL, "its last residual"),
                _picture("visible", PICTURE, "degraded visible"),
                _picture("visible_residual", RESIDUAL, "its last residual"),
                *_controls(),
            ),
            (_picture("fused", PICTURE, "fused picture"),),
        ),
    )


def _loop_tensors(has_map: bool) -> tuple[Tensors, Tensors]:
    inputs = (_frame("infrared", 1, "degraded infrared"), _frame("visible", 3, "degraded visible"), *_controls())
    shares = _frame("strength_map", 2, "share of strength at a pixel, infrared then visible; 255 is all")
    outputs = (
        _frame("fused", 3, "fused picture"),
        _frame("infrared_restored", 1, "infrared less its degradation"),
        _frame("visible_restored", 3, "visible less its degradation"),
    )
    return (*inputs, shares) if has_map else inputs, outputs


def _controls() -> Tensors:
    return (
        _vector("strength", 2, (0.0, 1.0), "share of the residual to remove, infrared then visible"),
        _vector("balance", 1, (0.0, 1.0), "0 is the visible, 1 the infrared, 0.5 the paper's loss"),
    )


def _sized(specs: Tensors, role: GraphRole, size: Size | None) -> Tensors:
    """Put numbers for the names of dimensions, if the graph is of one size."""
    if size is None:
        return specs
    known = dimensions(role, size)
    return tuple(
        spec.model_copy(update={"shape": tuple(known[d] if isinstance(d, str) else d for d in spec.shape)})
        for spec in specs
    )


def write_graph(graph: Graph, size_multiple: int, path: Path) -> GraphSpec:
    """Trace and write one self-contained file; return its entry in the manifest.

    At opset 17, the newest that TensorRT 8.6 parses, by the TorchScript exporter; newer by the dynamo exporter, which
    reasons about the windows' symbolic sizes for minutes and is therefore used at fixed sizes alone (torch 2.13).
    A graph of one size goes through torch.export first, where sizes are numbers: TorchScript alone would leave dozens
    of Shape nodes. RuntimeError if the exporter wrote other names or nodes than it should.
    """
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # Two and three multiples: a size of one would be taken for a constant.
    example = tuple(_example(spec, 2 * size_multiple, 3 * size_multiple) for spec in graph.inputs)
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
    # Folds what is constant, a third to a half of the nodes; at any size there are no shapes to infer.
    model = onnxslim.slim(onnx.load(path), no_shape_infer=graph.size is None)
    onnx.save(model, path)
    onnx.checker.check_model(model, full_check=True)
    _require("inputs", [i.name for i in model.graph.input], [spec.name for spec in graph.inputs])
    _require("outputs", [o.name for o in model.graph.output], [spec.name for spec in graph.outputs])
    nodes = node_counts(model)
    deciding = _DECIDING & nodes.keys()
    if graph.size and deciding:
        raise RuntimeError(f"{graph.name} is of one size and yet has nodes {', '.join(sorted(deciding))}")
    return GraphSpec(
        role=graph.role,
        file=graph.file,
        precision=graph.precision,
        opset=graph.opset,
        size=graph.size,
        steps=graph.steps,
        strength_map=graph.strength_map,
        nodes=nodes,
        inputs=graph.inputs,
        outputs=graph.outputs,
    )


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
    sizes = {"batch": 2, "height": height, "width": width}
    shape = [sizes[n] if isinstance(n, str) else n for n in spec.shape]
    if spec.dtype == "uint8":
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return torch.rand(shape, generator=generator)


def _frame(name: str, channels: int, meaning: str) -> TensorSpec:
    return TensorSpec(
        name=name,
        dtype="uint8",
        shape=(1, "height", "width", channels),
        range=(0, 255),
        layout="NHWC",
        color_order="RGB" if channels == 3 else None,
        meaning=meaning,
    )


def _picture(name: str, bounds: tuple[float, float], meaning: str) -> TensorSpec:
    return TensorSpec(
        name=name,
        dtype="float32",
        shape=("batch", 3, "height", "width"),
        range=bounds,
        layout="NCHW",
        color_order="RGB",
        meaning=meaning,
    )


def _vector(name: str, length: int, bounds: tuple[float, float], meaning: str) -> TensorSpec:
    return TensorSpec(
        name=name, dtype="float32", shape=(length,), range=bounds, layout="vector", color_order=None, meaning=meaning
    )
