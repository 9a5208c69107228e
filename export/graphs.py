"""The graphs of a bundle: which there are, and the module and the tensors of each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from cled_edge.bundle.manifest import OPSETS, REFERENCE_OPSET, GraphPrecision
from cled_edge.contract import GRAPHS, STRENGTH_MAP, WARM_MAPS, WARM_STEPS, GraphRole, TensorSpec, dimensions
from cled_edge.errors import OptionError
from cled_edge.network.lineage import LineageUNet
from cled_edge.network.precision import at_precision
from cled_edge.network.presets import ModelConfig
from cled_edge.network.sampler import CledFusion, FusedLoop, InOrder, TellingStep
from cled_edge.size import Size, padded, size_text

DYNAMO_OPSET = 20
Tensors = tuple[TensorSpec, ...]
Maps = tuple[str, ...]  # names of the maps that a loop takes
Variant = tuple[GraphPrecision, int, Size | None]  # precision, opset, size
_REFERENCE: Variant = "fp32", REFERENCE_OPSET, None
_SHORT = {STRENGTH_MAP.name: "map"}  # in the names of graphs


@dataclass(frozen=True)
class GraphSet:
    """Which graphs a bundle gets, apart from the reference form, which is always there.

    precisions, opsets, sizes: every combination is written, the reference form at any size too. steps: of each
    `fused_loop`; none leaves it out. maps: a second `fused_loop`, of the first number of steps, takes
    these. warm: another one, in FP32 for any size, starts from the last frame's estimate. robot_sizes: those at which a
    robot without an exporter builds TensorRT engines: an FP16 loop of the first number of steps.
    """

    precisions: tuple[GraphPrecision, ...] = ("fp32",)
    opsets: tuple[int, ...] = (REFERENCE_OPSET,)
    sizes: tuple[Size, ...] = ()
    steps: tuple[int, ...] = ()
    maps: Maps = ()
    robot_sizes: tuple[Size, ...] = ()
    warm: bool = False

    def __post_init__(self) -> None:
        """OptionError for a combination that cannot be had."""
        if "int8" in self.precisions and self.opsets != (REFERENCE_OPSET,):
            raise OptionError(f"INT8 is written at opset {REFERENCE_OPSET} alone; leave the other out, or int8")
        unknown = set(self.opsets) - set(OPSETS)
        if unknown:
            raise OptionError(f"opset {unknown.pop()} is none of {', '.join(map(str, OPSETS))}")
        if DYNAMO_OPSET in self.opsets and not self.sizes:
            raise OptionError(
                f"opset {DYNAMO_OPSET} is written for fixed sizes alone; give a size, or opset {REFERENCE_OPSET}"
            )
        for height, width in (*self.sizes, *self.robot_sizes):
            if min(height, width) < 32:
                raise OptionError(f"size {height}x{width} has a side under 32; give HEIGHTxWIDTH in pixels")

    def loops(self) -> Iterator[tuple[int, Maps]]:
        """Yield the steps and the maps of each `fused_loop`."""
        for steps in self.steps:
            yield steps, ()
            if self.maps and steps == self.steps[0]:
                yield steps, self.maps

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

    def first_steps(self, config: ModelConfig) -> int:
        """Return the steps of what only one loop has; the model's own if the set has no loop."""
        return (*self.steps, config.default_steps)[0]

    def lone_sizes(self) -> list[Size]:
        """Return the robot's sizes whose FP16 loop no variant brings."""
        known = set(self.variants())
        return [size for size in self.robot_sizes if ("fp16", REFERENCE_OPSET, size) not in known]


@dataclass(frozen=True)
class Graph:
    """A module to trace and the names of its tensors, in order. name: in the manifest, see `manifest_name`."""

    name: str
    role: GraphRole
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: GraphPrecision
    opset: int
    size: Size | None
    steps: int | None = None
    maps: Maps = ()

    @property
    def file(self) -> str:
        """Name of its ONNX file."""
        return f"{self.name}.onnx"


def manifest_name(
    role: GraphRole,
    precision: GraphPrecision,
    opset: int,
    size: Size | None,
    steps: int | None,
    maps: Maps,
    default_steps: int,
) -> str:
    """Return what a graph is called in the manifest: its role, and how it differs from the reference form."""
    if maps == WARM_MAPS:  # of one step always
        steps, maps = None, ("warm",)
    parts: list[str] = [role]
    parts += [f"{steps}steps"] * (steps not in (None, default_steps)) + [_SHORT.get(name, name) for name in maps]
    parts += [precision] * (precision != "fp32") + [f"opset{opset}"] * (opset != REFERENCE_OPSET)
    parts += [size_text(size)] if size else []
    return "-".join(parts)


def graphs_of(model: CledFusion, graph_set: GraphSet) -> Iterator[Graph]:
    """Yield the step graph (one evaluation and state update), the fusion graph and the loops, in every variant.

    But none in INT8: export/int8.py makes those of the FP32 ones. The doubt of a model that has it comes in the
    reference form alone.
    """
    config = model.config
    variants = [variant for variant in graph_set.variants() if variant[0] != "int8"]
    robots: list[Variant] = [("fp16", REFERENCE_OPSET, size) for size in graph_set.lone_sizes()]
    tells = config.unet.form != "lineage"
    names = dict.fromkeys(variant[0] for variant in (*variants, *robots))
    models = {precision: at_precision(model, precision) for precision in names}
    for precision, opset, size in variants:
        typed = models[precision]
        whole = padded(size, config.size_multiple) if size else None
        step = typed.sampler.step if isinstance(typed.unet, LineageUNet) else TellingStep(typed.unet)
        yield _graph(config, "unet_step", step, (precision, opset, whole))
        yield _graph(config, "fusion", typed.fusion, (precision, opset, whole))
        for steps, maps in graph_set.loops():
            loop = FusedLoop(typed, steps, size, tells=tells)
            yield _graph(config, "fused_loop", loop, (precision, opset, size), steps, maps)
    if model.doubt is not None:
        yield _graph(config, "doubt", model.doubt, _REFERENCE)
    if graph_set.warm:
        require_warm(config)
        loop = FusedLoop(models["fp32"], WARM_STEPS, tells=True)
        yield _graph(config, "fused_loop", loop, _REFERENCE, WARM_STEPS, WARM_MAPS)
    for variant in robots:
        steps = graph_set.first_steps(config)
        loop = FusedLoop(models[variant[0]], steps, variant[2], tells=tells)
        yield _graph(config, "fused_loop", loop, variant, steps)


def require_warm(config: ModelConfig) -> None:
    """Raise OptionError unless the network has a step that corrects what an earlier frame told."""
    if config.unet.form != "experts" or not config.unet.inner:
        raise OptionError(
            f"a warm loop is asked for, but {config.name} is of the form {config.unet.form}; needed one of experts; "
            "leave the warm loop out, or take such a checkpoint"
        )


def _graph(
    config: ModelConfig,
    role: GraphRole,
    network: nn.Module,
    variant: Variant,
    steps: int | None = None,
    maps: Maps = (),
) -> Graph:
    name = manifest_name(role, *variant, steps, maps, config.default_steps)
    inputs = _sized(GRAPHS[role].inputs_with(maps), role, variant[2])
    module = InOrder(network, [spec.name for spec in inputs])
    kinds = 0 if config.unet.form == "lineage" else len(config.kinds)
    outputs = _sized(GRAPHS[role].outputs_with(kinds), role, variant[2])
    return Graph(name, role, module, inputs, outputs, *variant, steps, maps)


def _sized(specs: Tensors, role: GraphRole, size: Size | None) -> Tensors:
    """Put numbers for the names of dimensions, if the graph is of one size."""
    if size is None:
        return specs
    known = dimensions(role, size)
    return tuple(
        replace(spec, shape=tuple(known[d] if isinstance(d, str) else d for d in spec.shape)) for spec in specs
    )
