"""The side of TensorRT that parses and builds: it builds nothing, and goes wrong as a test wants."""

import json
import os
import signal
import sys
import time
from types import ModuleType
from typing import Any

from tests.fakes.tensorrt.releases import MAGIC, VERSIONS, Enum, Member, Native, typed


def builder_classes(trt: ModuleType, release: str, fault: str) -> list[type]:
    """Return the classes of a release, from the logger to the builder; `fault` is what goes wrong in them.

    They are long as one function, because each refers to the release and to the others by name.
    """
    before_10, before_11 = release == "8.6", release != "11.4"

    class ILogger:
        Severity = Enum("ILogger", INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)
        INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING
        INFO, VERBOSE = Severity.INFO, Severity.VERBOSE

        def log(self, severity: Any, msg: str) -> None:
            raise NotImplementedError

    class ITensor(Native):
        name, shape, dtype = "", (), trt.DataType.FLOAT

        def __init__(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
            self.name, self.shape, self.dtype = name, shape, dtype

    class ILayer(Native):
        type, num_outputs, precision, _op = None, 1, None, None

        def __init__(self, kind: Any, op: Any, dtype: Any) -> None:
            self.type, self._op, self._dtype, self._types = kind, op, dtype, {}

        def get_output(self, index: int) -> ITensor:
            return ITensor("", (), self._dtype)

        def set_output_type(self, index: int, dtype: Any) -> None:
            self._types[index] = dtype

    class IUnaryLayer(ILayer):
        op = property(lambda self: self._op)

    class IElementWiseLayer(ILayer):
        op = property(lambda self: self._op)

    class IOptimizationProfile(Native):
        def __init__(self) -> None:
            self._shapes: dict[str, Any] = {}

        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
            typed(input, str)
            for shape in (min, opt, max):
                typed(shape, (tuple, list))
            self._shapes[input] = [list(min), list(opt), list(max)]

    class INetworkDefinition(Native):
        def __init__(self, flags: int) -> None:
            self._flags, self._inputs, self._layers, self._outputs = flags, [], [], []

        num_inputs = property(lambda self: len(self._inputs))
        num_layers = property(lambda self: len(self._layers))

        def get_input(self, index: int) -> ITensor:
            return self._inputs[index]

        def get_layer(self, index: int) -> ILayer:
            return self._layers[index]

    class ParserError(Native):
        def __init__(self, node: int, text: str) -> None:
            self._node, self._text = node, text

        def node(self) -> int:
            return self._node

        def desc(self) -> str:
            return self._text

        def code(self) -> str:
            return "ErrorCode.UNSUPPORTED_NODE"

        def node_name(self) -> str:
            return f"/net/node_{self._node}"

        def node_operator(self) -> str:
            return "GroupNormalization"

    class OnnxParser(Native):
        def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
            typed(network, INetworkDefinition)
            self._network, self._errors = network, []

        num_errors = property(lambda self: len(self._errors))

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

        def parse_from_file(self, model: str) -> bool:
            typed(model, str)
            import onnx

            if fault == "parser":
                self._errors = [ParserError(3, "no importer\nregistered"), ParserError(9, "unsupported type")]
                return False
            if before_10 and not self._network._flags & 1:
                self._errors = [ParserError(0, "network must have an explicit batch")]
                return False
            graph = onnx.load(model)
            opset = graph.opset_import[0].version
            if before_10 and opset > 17:
                self._errors = [ParserError(0, f"opset {opset} is newer than 17")]
                return False
            types = {1: trt.DataType.FLOAT, 2: trt.DataType.UINT8, 10: trt.DataType.HALF}
            for values, into in (
                (graph.graph.input, self._network._inputs),
                (graph.graph.output, self._network._outputs),
            ):
                for value in values:
                    kind = value.type.tensor_type
                    shape = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in kind.shape.dim)
                    into.append(ITensor(value.name, shape, types[kind.elem_type]))
            kinds = {
                "Softmax": (trt.LayerType.SOFTMAX, None),
                "ReduceMean": (trt.LayerType.REDUCE, None),
                "Exp": (trt.LayerType.UNARY, trt.UnaryOperation.EXP),
                "Sqrt": (trt.LayerType.UNARY, trt.UnaryOperation.SQRT),
                "Pow": (trt.LayerType.ELEMENTWISE, trt.ElementWiseOperation.POW),
                "Add": (trt.LayerType.ELEMENTWISE, trt.ElementWiseOperation.SUM),
            }
            for node in graph.graph.node:
                kind, op = kinds.get(node.op_type, (trt.LayerType.CONVOLUTION, None))
                self._network._layers.append(ILayer(kind, op, trt.DataType.FLOAT))
            # A sum of integers, as shapes are computed of.
            self._network._layers.append(ILayer(trt.LayerType.REDUCE, None, trt.DataType.INT32))
            return True

    class IHostMemory(Native):
        def __init__(self, content: bytes) -> None:
            self._content = content

        def __bytes__(self) -> bytes:  # the real one has the buffer protocol, which bytes() reads likewise
            return self._content

        nbytes = property(lambda self: len(self._content))

    class ITimingCache(Native):
        def __init__(self, content: bytes) -> None:
            self._content = content

        def serialize(self) -> IHostMemory:
            return IHostMemory(self._content or b"timings of " + VERSIONS[release].encode())

    class IBuilderConfig(Native):
        builder_optimization_level, max_aux_streams = 3, -1
        hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
        profiling_verbosity, progress_monitor = trt.ProfilingVerbosity.LAYER_NAMES_ONLY, None

        def __init__(self) -> None:
            self._flags, self._pools, self._profiles, self._cache = {trt.BuilderFlag.TF32}, {}, [], None

        def set_flag(self, flag: Any) -> None:
            typed(flag, Member)
            self._flags.add(flag)

        def clear_flag(self, flag: Any) -> None:
            typed(flag, Member)
            self._flags.discard(flag)

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            typed(pool_size, int)
            self._pools[pool.name] = pool_size

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            if fault == "profile":
                return -1
            self._profiles.append(profile)
            return len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
            typed(serialized_timing_cache, bytes)
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            ours = not cache._content or VERSIONS[release].encode() in cache._content
            self._cache = cache if ours or ignore_mismatch else None
            return self._cache is not None

        def get_timing_cache(self) -> ITimingCache | None:
            return self._cache

    class Builder(Native):
        def __init__(self, logger: ILogger) -> None:
            typed(logger, ILogger)
            if fault == "no_gpu":
                logger.log(ILogger.ERROR, "CUDA initialization failure with error: 100")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self._logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            typed(flags, int)
            return INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
            if fault in ("sigkill", "sigsegv", "sigabrt"):
                print("tactic 0x4711 begins", file=sys.stderr, flush=True)
                os.kill(os.getpid(), getattr(signal, fault.upper()))
            if fault == "sleep":
                time.sleep(60)
            if fault == "memory":
                hoard = bytearray(os.urandom(1)) * (400 * 2**20)
                time.sleep(60)
                del hoard
            if fault == "exception":
                raise RuntimeError("std::bad_alloc")
            print("noise of a library on standard output")
            self._logger.log(ILogger.INFO, "Graph construction completed")
            self._logger.log(ILogger.VERBOSE, "Autotuning format combination")
            strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
            typed = strong is not None and (not before_11 or bool(network._flags & 1 << int(strong)))
            if not before_11 and network._flags & ~1:
                self._logger.log(ILogger.ERROR, "PREFER_JIT_PYTHON_PLUGINS was set")
                return None
            names = {flag.name for flag in config._flags}
            if typed and names & {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"}:
                self._logger.log(ILogger.ERROR, "precision flags with a strongly typed network")
                return None
            if any(-1 in tensor.shape for tensor in network._inputs) and not config._profiles:
                self._logger.log(ILogger.ERROR, "dynamic inputs need a profile")
                return None
            if fault == "none":
                self._logger.log(ILogger.ERROR, "Error Code 10: could not find any\nimplementation for node")
                return None
            monitor = getattr(config, "progress_monitor", None)
            if monitor is not None:
                monitor.phase_start("Building Engine", None, 2)
                monitor.phase_start("Tactic timing", "Building Engine", 3)
                if not all(monitor.step_complete("Tactic timing", k) for k in range(3)):
                    return None
                monitor.phase_finish("Tactic timing")
                monitor.step_complete("Building Engine", 0)
                monitor.phase_finish("Building Engine")
            if fault == "slow":
                time.sleep(2.5)
            profile = config._profiles[0]._shapes if config._profiles else {}
            kept = {
                "inputs": [[t.name, list(t.shape), t.dtype.name] for t in network._inputs],
                "outputs": [[t.name, list(t.shape), t.dtype.name] for t in network._outputs],
                "profile": profile,
                "flags": sorted(names),
                "network_flags": network._flags,
                "pinned": [
                    [layer.type.name, layer._types[0].name]
                    for layer in network._layers
                    if getattr(layer, "precision", None) is not None
                ],
                "pools": config._pools,
                "level": config.builder_optimization_level,
                "aux": config.max_aux_streams,
            }
            return IHostMemory(MAGIC + json.dumps(kept).encode())

    class IProgressMonitor:
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            raise NotImplementedError

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase_name: str) -> None:
            raise NotImplementedError

    if before_10:
        del IBuilderConfig.progress_monitor, ParserError.node_name, ParserError.node_operator
    if not before_11:
        del ILayer.precision, ILayer.set_output_type
    classes = [ILogger, ITensor, ILayer, IUnaryLayer, IElementWiseLayer, IOptimizationProfile, INetworkDefinition]
    classes += [ParserError, OnnxParser, IHostMemory, ITimingCache, IBuilderConfig, Builder]
    return classes if before_10 else [*classes, IProgressMonitor]
