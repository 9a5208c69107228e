"""A `tensorrt` module that builds nothing, shaped as the real ones of 8.6, 10.3, 10.16 and 11.4, and a CUDA runtime.

What a release lacks raises AttributeError here as there; calls with other parameters raise TypeError. Faults that a
test wants are named by FAKE_TENSORRT_FAULT. `SEEN` holds the names that were used, as "Class.name".
"""

import json
import os
import signal
import sys
import time
from types import ModuleType
from typing import Any

from tests.fakes.gpu import CudaRuntime, Gpu

VERSIONS = {"8.6": "8.6.2", "10.3": "10.3.0", "10.16": "10.16.1.11", "11.4": "11.4.0.106"}
SEEN: set[str] = set()
_MAGIC = b"ftrt"


class Member(int):
    """A value of an enum, as pybind has them: a number with a name."""

    name: str
    owner: str

    def __new__(cls, owner: str, name: str, value: int) -> "Member":
        member = super().__new__(cls, value)
        member.owner, member.name = owner, name
        return member

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and (self.owner, self.name) == (other.owner, other.name)

    def __hash__(self) -> int:
        return hash((self.owner, self.name))


class Enum:
    def __init__(self, owner: str, **members: int) -> None:
        self.__dict__["_members"] = {name: Member(owner, name, value) for name, value in members.items()}
        self.__dict__["_owner"] = owner

    def __getattr__(self, name: str) -> Member:
        if name not in self.__dict__["_members"]:
            raise AttributeError(f"type object {self._owner!r} has no attribute {name!r}")
        _note(f"{self._owner}.{name}")
        return self.__dict__["_members"][name]


class Native:
    """An object of C++: its attributes are those of its class, and each that is used is noted."""

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        _note(f"{_owner(type(self), name)}.{name}")
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        _note(f"{_owner(type(self), name)}.{name}")
        object.__setattr__(self, name, value)


def _owner(kind: type, name: str) -> str:
    return next((one.__name__ for one in kind.__mro__ if name in vars(one)), kind.__name__)


def _note(name: str) -> None:
    """Remember a public name that the engine package used; the fakes use each other too."""
    if "._" not in name and sys._getframe(2).f_globals["__name__"].startswith("cled_edge."):
        SEEN.add(name)


def _typed(value: object, kind: type | tuple[type, ...]) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"incompatible function arguments: {value!r} is no {kind}")


def make(release: str, fault: str = "") -> ModuleType:
    """Return the module of a release; `fault` is what goes wrong in it."""
    before_10, before_11 = release == "8.6", release != "11.4"
    trt = ModuleType("tensorrt")
    trt.__version__ = VERSIONS[release]

    creation = {"EXPLICIT_BATCH": 0} if before_11 else {}
    if not before_10:
        creation["STRONGLY_TYPED"] = 1 if before_11 else 0
    trt.NetworkDefinitionCreationFlag = Enum("NetworkDefinitionCreationFlag", **creation)
    weak = {"FP16": 0, "INT8": 1, "OBEY_PRECISION_CONSTRAINTS": 9} if before_11 else {}
    trt.BuilderFlag = Enum("BuilderFlag", TF32=6, **weak)
    trt.MemoryPoolType = Enum("MemoryPoolType", WORKSPACE=0)
    trt.ProfilingVerbosity = Enum("ProfilingVerbosity", LAYER_NAMES_ONLY=0, NONE=1, DETAILED=2)
    trt.HardwareCompatibilityLevel = Enum("HardwareCompatibilityLevel", NONE=0, AMPERE_PLUS=1)
    layers = {"CONVOLUTION": 0, "SOFTMAX": 6, "ELEMENTWISE": 9, "UNARY": 11, "REDUCE": 14, "NORMALIZATION": 45}
    trt.LayerType = Enum("LayerType", **layers)
    trt.DataType = Enum("DataType", FLOAT=0, HALF=1, INT8=2, INT32=3, BOOL=4, UINT8=5)
    trt.TensorIOMode = Enum("TensorIOMode", NONE=0, INPUT=1, OUTPUT=2)
    trt.UnaryOperation = Enum("UnaryOperation", EXP=0, SQRT=2)
    trt.ElementWiseOperation = Enum("ElementWiseOperation", SUM=0, POW=6)

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
            _typed(input, str)
            for shape in (min, opt, max):
                _typed(shape, (tuple, list))
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
            _typed(network, INetworkDefinition)
            self._network, self._errors = network, []

        num_errors = property(lambda self: len(self._errors))

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

        def parse_from_file(self, model: str) -> bool:
            _typed(model, str)
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
            _typed(flag, Member)
            self._flags.add(flag)

        def clear_flag(self, flag: Any) -> None:
            _typed(flag, Member)
            self._flags.discard(flag)

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            _typed(pool_size, int)
            self._pools[pool.name] = pool_size

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            if fault == "profile":
                return -1
            self._profiles.append(profile)
            return len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
            _typed(serialized_timing_cache, bytes)
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            ours = not cache._content or VERSIONS[release].encode() in cache._content
            self._cache = cache if ours or ignore_mismatch else None
            return self._cache is not None

        def get_timing_cache(self) -> ITimingCache | None:
            return self._cache

    class Builder(Native):
        def __init__(self, logger: ILogger) -> None:
            _typed(logger, ILogger)
            if fault == "no_gpu":
                logger.log(ILogger.ERROR, "CUDA initialization failure with error: 100")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self._logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            _typed(flags, int)
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
            return IHostMemory(_MAGIC + json.dumps(kept).encode())

    class IExecutionContext(Native):
        device_memory = 0

        def __init__(self, engine: "ICudaEngine") -> None:
            self._engine, self._addresses, self._given = engine, {}, {}

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self._given[name] = tuple(shape)
            low, _, high = self._engine.get_tensor_profile_shape(name, 0)
            return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            """A side that is open is that of the pictures that were given."""
            picture = next((shape for shape in self._given.values() if len(shape) == 4), ())
            sides = enumerate(self._engine.get_tensor_shape(name))
            return tuple(picture[axis] if side == -1 else side for axis, side in sides)

        def infer_shapes(self) -> list[str]:
            return []

        def set_tensor_address(self, name: str, memory: int) -> bool:
            _typed(memory, int)
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            _typed(stream_handle, int)
            gpu = sys.modules["cuda.bindings.runtime"].gpu
            gpu.streams[stream_handle].put(lambda: self._compute(gpu))
            return fault != "run" and len(self._addresses) == self._engine.num_io_tensors

        def _compute(self, gpu: Any) -> None:
            """Fill each output with the first byte or number of the first input."""
            tensors = self._engine._tensors
            arrays = {
                name: gpu.array(
                    address,
                    self._given.get(name) or self.get_tensor_shape(name),
                    "uint8" if tensors[name][1] == "UINT8" else "float32",
                )
                for name, address in self._addresses.items()
            }
            seen = next(array for name, array in arrays.items() if name in ("infrared", "x_t")).flat[0]
            wrong = {"numbers": seen * 1.5, "nan": float("nan")}.get(fault, seen)
            for name, array in arrays.items():
                if tensors[name][2] == trt.TensorIOMode.OUTPUT:
                    array[...] = wrong

        def set_device_memory(self, memory: int, size: int) -> None:
            pass

    class ICudaEngine(Native):
        num_aux_streams, num_optimization_profiles = 0, 1
        device_memory_size = device_memory_size_v2 = 12_345_678
        hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE

        def __init__(self, kept: dict[str, Any]) -> None:
            self._kept = kept
            modes = ("inputs", trt.TensorIOMode.INPUT), ("outputs", trt.TensorIOMode.OUTPUT)
            self._tensors = {row[0]: (*row[1:], mode) for side, mode in modes for row in kept[side]}
            if fault == "dtype":
                name = kept["outputs"][0][0]
                self._tensors[name] = (self._tensors[name][0], "HALF", self._tensors[name][2])
            if fault == "name":
                self._tensors["other"] = self._tensors.pop(kept["outputs"][0][0])
            if fault == "hungry":
                self.device_memory_size = self.device_memory_size_v2 = 10**9
            if fault == "compatibility":
                self.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS

        num_io_tensors = property(lambda self: len(self._tensors))

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_mode(self, name: str) -> Any:
            return self._tensors[name][2]

        def get_tensor_dtype(self, name: str) -> Any:
            return getattr(trt.DataType, self._tensors[name][1])

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(self._tensors[name][0])

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            shape = self._tensors[name][0]
            return [tuple(side) for side in self._kept["profile"].get(name, [shape] * 3)]

        def create_execution_context(self, strategy: Any = None) -> IExecutionContext:
            return IExecutionContext(self)

        def create_execution_context_without_device_memory(self) -> IExecutionContext:
            return IExecutionContext(self)

    class Runtime(Native):
        engine_host_code_allowed = False

        def __init__(self, logger: ILogger) -> None:
            _typed(logger, ILogger)

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            if not serialized_engine.startswith(_MAGIC) or fault == "load":
                return None
            return ICudaEngine(json.loads(serialized_engine[4:]))

    class IProgressMonitor:
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            raise NotImplementedError

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase_name: str) -> None:
            raise NotImplementedError

    classes = [ILogger, ITensor, ILayer, IUnaryLayer, IElementWiseLayer, IOptimizationProfile, INetworkDefinition]
    classes += [ParserError, OnnxParser, IHostMemory, ITimingCache, IBuilderConfig, Builder, ICudaEngine, Runtime]
    classes += [IExecutionContext]
    if before_10:
        del IBuilderConfig.progress_monitor, ParserError.node_name, ParserError.node_operator
        del ICudaEngine.device_memory_size_v2, IExecutionContext.set_device_memory
    else:
        trt.ExecutionContextAllocationStrategy = Enum(
            "ExecutionContextAllocationStrategy", STATIC=0, ON_PROFILE_CHANGE=1, USER_MANAGED=2
        )
        classes.append(IProgressMonitor)
    if not before_11:
        del ILayer.precision, ILayer.set_output_type, ICudaEngine.device_memory_size
        del ICudaEngine.create_execution_context_without_device_memory
    for one in classes:
        setattr(trt, one.__name__, one)
    return trt


def make_cuda(devices: int = 1) -> CudaRuntime:
    """Return the CUDA runtime as cuda-bindings has it, over a GPU in host memory."""
    runtime = CudaRuntime("cuda.bindings.runtime", Gpu(), devices)
    runtime.device_name = b"Orin"
    return runtime
