"""What the installed TensorRT has, found by asking its module and never by its version."""

from dataclasses import dataclass
from typing import Any, Literal

RELEASES = ("8.6", "10.3", "10.16", "11.4")  # those whose Python API the tests know
_TO_10 = RELEASES[:3]
_FROM_10 = RELEASES[1:]
_ONLY_8 = RELEASES[:1]
_SIZE_V2: Literal["device_memory_size_v2"] = "device_memory_size_v2"
NEWEST_OPSET_OF_WEAK_TYPING = 17  # a release without strong typing is 8.6, whose parser ends there


@dataclass(frozen=True)
class Use:
    """A name that this package uses. parameters: of a call, without self; None of an attribute or enum member."""

    parameters: tuple[str, ...] | None = None
    releases: tuple[str, ...] = RELEASES


USED: dict[str, Use] = {
    "ILogger": Use(),
    "ILogger.log": Use(("severity", "msg")),
    **{f"ILogger.{name}": Use() for name in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")},
    "Builder": Use(("logger",)),
    "Builder.create_network": Use(("flags",)),
    "Builder.create_builder_config": Use(()),
    "Builder.create_optimization_profile": Use(()),
    "Builder.build_serialized_network": Use(("network", "config")),
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": Use(releases=_TO_10),
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": Use(releases=_FROM_10),
    "BuilderFlag.FP16": Use(releases=_TO_10),
    "BuilderFlag.INT8": Use(releases=_TO_10),
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": Use(releases=_TO_10),
    "BuilderFlag.TF32": Use(),
    "MemoryPoolType.WORKSPACE": Use(),
    "ProfilingVerbosity.DETAILED": Use(),
    "HardwareCompatibilityLevel.NONE": Use(),
    "IBuilderConfig.set_flag": Use(("flag",)),
    "IBuilderConfig.clear_flag": Use(("flag",)),
    "IBuilderConfig.set_memory_pool_limit": Use(("pool", "pool_size")),
    "IBuilderConfig.add_optimization_profile": Use(("profile",)),
    "IBuilderConfig.create_timing_cache": Use(("serialized_timing_cache",)),
    "IBuilderConfig.set_timing_cache": Use(("cache", "ignore_mismatch")),
    "IBuilderConfig.get_timing_cache": Use(()),
    "IBuilderConfig.builder_optimization_level": Use(),
    "IBuilderConfig.max_aux_streams": Use(),
    "IBuilderConfig.hardware_compatibility_level": Use(),
    "IBuilderConfig.profiling_verbosity": Use(),
    "IBuilderConfig.progress_monitor": Use(releases=_FROM_10),
    "IProgressMonitor": Use((), _FROM_10),
    "IProgressMonitor.phase_start": Use(("phase_name", "parent_phase", "num_steps"), _FROM_10),
    "IProgressMonitor.step_complete": Use(("phase_name", "step"), _FROM_10),
    "IProgressMonitor.phase_finish": Use(("phase_name",), _FROM_10),
    "ITimingCache.serialize": Use(()),
    "IOptimizationProfile.set_shape": Use(("input", "min", "opt", "max")),
    "OnnxParser": Use(("network", "logger")),
    "OnnxParser.parse_from_file": Use(("model",)),
    "OnnxParser.num_errors": Use(),
    "OnnxParser.get_error": Use(("index",)),
    "ParserError.desc": Use(()),
    "ParserError.code": Use(()),
    "ParserError.node": Use(()),
    "ParserError.node_name": Use((), _FROM_10),
    "ParserError.node_operator": Use((), _FROM_10),
    "INetworkDefinition.num_inputs": Use(),
    "INetworkDefinition.get_input": Use(("index",)),
    "INetworkDefinition.num_layers": Use(),
    "INetworkDefinition.get_layer": Use(("index",)),
    "ITensor.name": Use(),
    "ITensor.shape": Use(),
    "ITensor.dtype": Use(),
    "DataType.FLOAT": Use(),
    "DataType.HALF": Use(),
    "DataType.UINT8": Use(),
    "ILayer.type": Use(),
    "ILayer.num_outputs": Use(),
    "ILayer.get_output": Use(("index",)),
    "ILayer.precision": Use(releases=_TO_10),
    "ILayer.set_output_type": Use(("index", "dtype"), _TO_10),
    **{f"LayerType.{name}": Use() for name in ("NORMALIZATION", "SOFTMAX", "REDUCE", "UNARY", "ELEMENTWISE")},
    "IUnaryLayer.op": Use(),
    "UnaryOperation.EXP": Use(),
    "IElementWiseLayer.op": Use(),
    "ElementWiseOperation.POW": Use(),
    "Runtime": Use(("logger",)),
    "Runtime.engine_host_code_allowed": Use(),
    "Runtime.deserialize_cuda_engine": Use(("serialized_engine",)),
    "ICudaEngine.num_io_tensors": Use(),
    "ICudaEngine.get_tensor_name": Use(("index",)),
    "ICudaEngine.get_tensor_mode": Use(("name",)),
    "ICudaEngine.get_tensor_dtype": Use(("name",)),
    "ICudaEngine.get_tensor_shape": Use(("name",)),
    "ICudaEngine.get_tensor_profile_shape": Use(("name", "profile_index")),
    "ICudaEngine.num_optimization_profiles": Use(),
    "ICudaEngine.hardware_compatibility_level": Use(),
    "ICudaEngine.num_aux_streams": Use(),
    "ICudaEngine.create_engine_inspector": Use(()),
    "EngineInspector.get_engine_information": Use(("format",)),
    "LayerInformationFormat.JSON": Use(),
    "ICudaEngine.device_memory_size": Use(releases=_TO_10),
    "ICudaEngine.device_memory_size_v2": Use(releases=_FROM_10),
    "ICudaEngine.create_execution_context": Use(()),
    "TensorIOMode.INPUT": Use(),
    "TensorIOMode.OUTPUT": Use(),
    "IExecutionContext.set_input_shape": Use(("name", "shape")),
    "IExecutionContext.get_tensor_shape": Use(("name",)),
    "IExecutionContext.infer_shapes": Use(()),
    "IExecutionContext.set_tensor_address": Use(("name", "memory")),
    "IExecutionContext.execute_async_v3": Use(("stream_handle",)),
    "IExecutionContext.set_device_memory": Use(("memory", "size"), _FROM_10),
    "IExecutionContext.device_memory": Use(),
    "ICudaEngine.create_execution_context_without_device_memory": Use((), _TO_10),
    "ExecutionContextAllocationStrategy.USER_MANAGED": Use(releases=_FROM_10),
}


@dataclass(frozen=True)
class Capabilities:
    """What one release has.

    strongly_typed, explicit_batch: the bit for `create_network`, 0 where there is none. Enum values move between
    releases: STRONGLY_TYPED is 1 in TensorRT 10 and 0 in 11. newest_opset: the newest that it parses, None if it parses
    all of a bundle. device_memory_size: the engine's property that says how much it needs. own_device_memory: how a
    context takes the caller's memory, by a strategy of `create_execution_context` or by a call of its own.
    """

    version: str
    strongly_typed: int
    explicit_batch: int
    weak_fp16: bool
    progress_monitor: bool
    max_aux_streams: bool
    optimization_level: bool
    workspace_pool: bool
    hardware_compatibility: bool
    host_code_flag: bool
    parser_names_nodes: bool
    device_memory_size: Literal["device_memory_size_v2", "device_memory_size"]
    own_device_memory: Literal["strategy", "call"]
    set_device_memory: bool
    newest_opset: int | None


def capabilities(tensorrt: Any) -> Capabilities:
    """Ask the `tensorrt` module what it has."""

    def has(owner: str, name: str) -> bool:
        return hasattr(getattr(tensorrt, owner, None), name)

    strongly_typed = _flag_bit(tensorrt, "STRONGLY_TYPED")
    return Capabilities(
        version=str(tensorrt.__version__),
        strongly_typed=strongly_typed,
        explicit_batch=_flag_bit(tensorrt, "EXPLICIT_BATCH"),
        weak_fp16=has("BuilderFlag", "FP16"),
        progress_monitor=hasattr(tensorrt, "IProgressMonitor") and has("IBuilderConfig", "progress_monitor"),
        max_aux_streams=has("IBuilderConfig", "max_aux_streams"),
        optimization_level=has("IBuilderConfig", "builder_optimization_level"),
        workspace_pool=has("MemoryPoolType", "WORKSPACE"),
        hardware_compatibility=has("ICudaEngine", "hardware_compatibility_level"),
        host_code_flag=has("Runtime", "engine_host_code_allowed"),
        parser_names_nodes=has("ParserError", "node_name"),
        device_memory_size="device_memory_size_v2"
        if has("ICudaEngine", "device_memory_size_v2")
        else "device_memory_size",
        own_device_memory="strategy" if has("ExecutionContextAllocationStrategy", "USER_MANAGED") else "call",
        set_device_memory=has("IExecutionContext", "set_device_memory"),
        newest_opset=None if strongly_typed else NEWEST_OPSET_OF_WEAK_TYPING,
    )


def _flag_bit(tensorrt: Any, name: str) -> int:
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, name, None)
    return 0 if flag is None else 1 << int(flag)
