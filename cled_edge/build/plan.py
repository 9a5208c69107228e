"""A plan out of an ONNX graph, by the builder of any TensorRT from 8.6 to 11: what the child process runs."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cled_edge.backend.tensorrt.build_options import BuildOptions, tensor_shape
from cled_edge.backend.tensorrt.capabilities import Capabilities
from cled_edge.backend.tensorrt.log import logger_of
from cled_edge.bundle.manifest import GraphSpec
from cled_edge.errors import EngineError

_LOG = logging.getLogger(__name__)
_MIB = 2**20
_MOST_ERRORS = 8  # of the parser, in one message
_MOST_LETTERS = 1500
# They overflow or lose too much in half: sums of squares, exponentials and powers.
_ALWAYS_FP32 = ("NORMALIZATION", "SOFTMAX", "REDUCE")
_FP32_OPERATIONS = {
    "UNARY": ("IUnaryLayer", "UnaryOperation", "EXP"),
    "ELEMENTWISE": ("IElementWiseLayer", "ElementWiseOperation", "POW"),
}

OnStep = Callable[[str, int, int], None]  # phase, steps done, steps in all


def build_plan(
    tensorrt: Any,
    has: Capabilities,
    graph: Path,
    spec: GraphSpec,
    options: BuildOptions,
    timings: bytes = b"",
    on_step: OnStep | None = None,
) -> tuple[bytes, bytes]:
    """Return the plan of the ONNX file `graph`, and the timing cache afterwards, both as TensorRT serialises them.

    timings: an earlier timing cache of this release and device; one that does not fit is left out, with a warning.
    EngineError says what the parser or the builder refused.
    """
    logger = logger_of(tensorrt)
    logger.last_errors()
    try:
        builder = tensorrt.Builder(logger)
    except TypeError as error:  # a factory that returned null: no usable GPU
        raise EngineError(f"TensorRT made no builder: {_said(logger, error)}; see: cled-edge doctor") from error
    network = builder.create_network(has.strongly_typed or has.explicit_batch)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        raise EngineError(_refused(parser, logger, has, spec))
    config = builder.create_builder_config()
    _set_limits(tensorrt, config, has, options)
    if not has.strongly_typed:
        _allow_precision(tensorrt, config, network, options)
    _set_sizes(builder, config, network, spec, options)
    _begin_with(config, timings)
    if has.progress_monitor and on_step is not None:
        config.progress_monitor = _monitor(tensorrt, on_step)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"TensorRT {has.version} built no engine of {spec.file}: {_said(logger, 'it does not say why')}; raise "
            "workspace_mib, or try another optimization_level"
        )
    cache = config.get_timing_cache()
    return bytes(plan), b"" if cache is None else bytes(cache.serialize())


def _set_limits(tensorrt: Any, config: Any, has: Capabilities, options: BuildOptions) -> None:
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
    if options.optimization_level is not None:
        _needed(has, has.optimization_level, "optimization_level")
        config.builder_optimization_level = options.optimization_level
    _needed(has, has.max_aux_streams, "max_aux_streams")
    config.max_aux_streams = options.max_aux_streams
    if not options.tf32:  # it is on unless cleared: an "FP32" engine then rounds to 10 bits from Ampere on
        config.clear_flag(tensorrt.BuilderFlag.TF32)
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED


def _needed(has: Capabilities, there: bool, what: str) -> None:
    if not there:
        raise EngineError(f"TensorRT {has.version} has no {what}, needed 8.6 or newer; upgrade TensorRT or JetPack")


def _allow_precision(tensorrt: Any, config: Any, network: Any, options: BuildOptions) -> None:
    """Weak typing: permit the graphs' precision, and pin what breaks in half. TensorRT 8.6 alone needs it."""
    if options.precision == "int8":
        config.set_flag(tensorrt.BuilderFlag.INT8)  # of explicit Q/DQ nodes
    if options.precision != "fp16":
        return
    config.set_flag(tensorrt.BuilderFlag.FP16)
    config.set_flag(tensorrt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if _is_fragile(tensorrt, layer):
            layer.precision = tensorrt.DataType.FLOAT
            for output in range(layer.num_outputs):
                layer.set_output_type(output, tensorrt.DataType.FLOAT)


def _is_fragile(tensorrt: Any, layer: Any) -> bool:
    """Say whether a layer computes what half does not hold; integers, which shapes are made of, never are."""
    floats = tensorrt.DataType.FLOAT, tensorrt.DataType.HALF
    if not all(layer.get_output(index).dtype in floats for index in range(layer.num_outputs)):
        return False
    if layer.type in [getattr(tensorrt.LayerType, name) for name in _ALWAYS_FP32]:
        return True
    for kind, (layer_type, operations, operation) in _FP32_OPERATIONS.items():
        if layer.type == getattr(tensorrt.LayerType, kind):
            layer.__class__ = getattr(tensorrt, layer_type)  # networks hand out the base class, which has no `op`
            return bool(layer.op == getattr(getattr(tensorrt, operations), operation))
    return False


def _set_sizes(builder: Any, config: Any, network: Any, spec: GraphSpec, options: BuildOptions) -> None:
    """Add a profile for the inputs whose shape the graph leaves open; refuse a graph that has other inputs."""
    inputs = {tensor.name: tensor for tensor in (network.get_input(k) for k in range(network.num_inputs))}
    expected = {tensor.name: tensor.shape for tensor in spec.inputs}
    if inputs.keys() != expected.keys():
        seen = ", ".join(sorted(inputs))
        raise EngineError(
            f"{spec.file} has inputs {seen}, its manifest says "
            f"{', '.join(sorted(expected))}; get the bundle again from its source"
        )
    open_inputs = [name for name, tensor in inputs.items() if -1 in tuple(tensor.shape)]
    if not open_inputs:
        return
    profile = builder.create_optimization_profile()
    sizes = options.sizes
    for name in open_inputs:
        profile.set_shape(
            name, *(tensor_shape(spec, expected[name], size) for size in (sizes.min, sizes.opt, sizes.max))
        )
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT refused the profile {sizes} of {spec.file}; give another size or profile")


def _begin_with(config: Any, timings: bytes) -> None:
    for content in (timings, b"") if timings else (b"",):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return
        _LOG.warning("TensorRT refused the timing cache of %d bytes; tactics are timed anew", len(content))


def _monitor(tensorrt: Any, on_step: OnStep) -> Any:
    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]  # the class exists at run time only
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self._totals: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self._totals[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self._totals.pop(phase_name, None)

        def _tell(self, phase: str, done: int) -> None:
            with suppress(OSError, ValueError):  # called out of C++, which no exception may reach
                on_step(phase, done, self._totals.get(phase, 0))

    return Monitor()


def _refused(parser: Any, logger: Any, has: Capabilities, spec: GraphSpec) -> str:
    """Return one message of all that the parser found wrong."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    words = []
    for error in errors[:_MOST_ERRORS]:
        node = f"node {error.node()}"
        if has.parser_names_nodes and (error.node_name() or error.node_operator()):
            node += f" {error.node_operator()} {error.node_name()}".rstrip()
        words.append(f"{node}: {' '.join(str(error.desc()).split())} ({error.code()})")
    if len(errors) > _MOST_ERRORS:
        words.append(f"and {len(errors) - _MOST_ERRORS} more")
    found = "; ".join(words) or _said(logger, "it does not say why")
    lane = f", up to opset {has.newest_opset}" if has.newest_opset else ""
    return (
        f"TensorRT {has.version} does not parse {spec.file} of opset {spec.opset}: {found[:_MOST_LETTERS]}; "
        f"needed a graph of what this release knows{lane}; try another opset, or take a bundle with one"
    )


def _said(logger: Any, otherwise: object) -> str:
    """Return the last errors of the log, in one line, or `otherwise`."""
    return "; ".join(logger.last_errors())[-_MOST_LETTERS:] or " ".join(str(otherwise).split())
