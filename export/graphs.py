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

from cled_edge.errors import OptionError
from cled_edge.manifest import OPSETS, REFERENCE_OPSET, GraphPrecision, GraphRole, GraphSpec, TensorSpec
from cled_edge.network.sampler import CledFusion, FusedLoop
from cled_edge.network.unet import ResidualUNet
from export.precision import at_precision

DYNAMO_OPSET = 20
PICTURE = (-1.0, 1.0)
RESIDUAL = (-2.0, 2.0)
# Nodes that decide at run time what a graph does: a graph of one size has none.
_CHATTY = ("torch", "torch.onnx", "onnxscript", "onnx_ir")  # loggers that tell of every constant they fold
_DECIDING = frozenset({"Shape", "Size", "If", "Loop", "Scan", "NonZero", "ConstantOfShape"})
Size = tuple[int, int]


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

    def variants(self) -> Iterator[tuple[GraphPrecision, int, Size | None]]:
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
    """A module to trace and the names of its tensors, in order."""

    role: GraphRole
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: GraphPrecision
    opset: int
    size: Size | None
    steps: int | None = None
    strength_map: bool = False
    is_default: bool = True

    @property
    def name(self) -> str:
        """Its name in the manifest: the role, and how it differs from the reference form."""
        parts: list[str] = [self.role]
        if not self.is_default:
            parts.append(f"{self.steps}steps")
        parts += ["map"] * self.strength_map + [self.precision] * (self.precision != "fp32")
        parts += [f"opset{self.opset}"] * (self.opset != REFERENCE_OPSET)
        parts += ["x".join(map(str, self.size))] if self.size else []
        return "-".join(parts)

    @property
    def file(self) -> str:
        """Name of its ONNX file."""
        return f"{self.name}.onnx"

    def spec(self, path: Path) -> GraphSpec:
        """Return its entry in the manifest, for the graph that was written to `path`."""
        nodes = node_counts(onnx.load(path))
        return GraphSpec(
            role=self.role,
            file=self.file,
            precision=self.precision,
            opset=self.opset,
            size=self.size,
            steps=self.steps,
            strength_map=self.strength_map,
            nodes=nodes,
            inputs=self.inputs,
            outputs=self.outputs,
        )


def graphs_of(model: CledFusion, plan: Plan) -> Iterator[Graph]:
    """Yield the step graph (one evaluation and state update), the fusion graph and the loops, in every variant.

    INT8 variants are FP32 graphs yet: export/int8.py quantises what was written.
    """
    if plan.steps and not isinstance(model.unet, ResidualUNet):
        raise OptionError(f"preset {model.config.name} is of the lineage, which has no patches; leave --unrolled out")
    models = {precision: at_precision(model, precision) for precision in dict.fromkeys(("fp32", *plan.precisions))}
    multiple = model.config.size_multiple
    for precision, opset, size in plan.variants():
        typed = models[precision]
        padded = (size[0] + -size[0] % multiple, size[1] + -size[1] % multiple) if size else None
        for role, module, inputs, outputs in _reference_graphs(typed):
            yield Graph(role, module, _sized(inputs, padded), _sized(outputs, padded), precision, opset, padded)
        for steps in plan.steps:
            for has_map in (False, True) if plan.strength_map else (False,):
                inputs, outputs = _loop_tensors(has_map)
                yield Graph(
                    "fused_loop",
                    FusedLoop(typed, steps, size),
                    _sized(inputs, size),
                    _sized(outputs, size),
                    precision,
                    opset,
                    size,
                    steps,
                    has_map,
                    is_default=steps == model.config.default_steps,
                )


Tensors = tuple[TensorSpec, ...]


def _reference_graphs(model: CledFusion) -> Iterator[tuple[GraphRole, nn.Module, Tensors, Tensors]]:
    yield (
        "unet_step",
        model.sampler.step,
        (
            _picture("x_t", (-3.0, 3.0), "state, I_t of Eq. 12"),
            _picture("x_in", PICTURE, "degraded input"),
            _vector("t", 1, (0.0, 1000.0), "time input, A_t * 1000, from the schedule table"),
            _vector("coef", 4, (-3.0, 3.0), "weights of x_t, x0, residual and x_in in x_prev, from the schedule table"),
        ),
        (
            _picture("x_prev", (-3.0, 3.0), "next state"),
            _picture("residual", RESIDUAL, "estimated I_res; x_in - residual is the clean estimate"),
        ),
    )
    yield (
        "fusion",
        model.fusion,
        (
            _picture("infrared", PICTURE, "degraded infrared, one channel repeated three times"),
            _picture("infrared_residual", RESIDUAL, "its last residual"),
            _picture("visible", PICTURE, "degraded visible"),
            _picture("visible_residual", RESIDUAL, "its last residual"),
            *_controls(),
        ),
        (_picture("fused", PICTURE, "fused picture"),),
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


def _sized(specs: Tensors, size: Size | None) -> Tensors:
    """Put numbers for the names of dimensions, if the graph is of one size; its batch is then what the loop runs."""
    if size is None:
        return specs
    batch = 2 if specs[0].name in ("x_t", "x_prev") else 1
    known: dict[int | str, int] = {"batch": batch, "height": size[0], "width": size[1]}
    return tuple(spec.model_copy(update={"shape": tuple(known.get(d, d) for d in spec.shape)}) for spec in specs)


def write_graph(graph: Graph, size_multiple: int, path: Path) -> None:
    """Trace and write one self-contained file.

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
    deciding = _DECIDING & node_counts(model).keys()
    if graph.size and deciding:
        raise RuntimeError(f"{graph.name} is of one size and yet has nodes {', '.join(sorted(deciding))}")


def node_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many nodes there are of each operator, sorted by name."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


def _of_one_size(module: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    program = torch.export.export(module, example).module()
    program.requires_grad_(False)
    program.train = lambda mode=True: program  # type: ignore[method-assign]  # noqa: ARG005  it refuses any
    return program


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
