"""What a built engine says of itself, and in what that is not what the manifest and the options say."""

import json
import logging
from typing import Any

from cled_edge.backend.tensorrt.build_options import BuildOptions, tensor_shape
from cled_edge.backend.tensorrt.build_record import MAX_LAYERS_BYTES, Layers, ReadBack, TensorReadBack
from cled_edge.backend.tensorrt.capabilities import Capabilities
from cled_edge.backend.tensorrt.log import logger_of
from cled_edge.bundle.manifest import GraphSpec
from cled_edge.contract import TensorSpec
from cled_edge.errors import EngineError

_LOG = logging.getLogger(__name__)
_DTYPES = {"FLOAT": "float32", "HALF": "float16"}  # the others are called as in NumPy


def deserialised(tensorrt: Any, has: Capabilities, plan: bytes) -> tuple[Any, Any]:
    """Return the runtime, to be kept as long as the engine, and the engine of a plan that is our own.

    Deserialising runs what is in a plan, so its origin must be known by now. EngineError if TensorRT refuses it.
    """
    logger = logger_of(tensorrt)
    runtime = tensorrt.Runtime(logger)
    if has.host_code_flag:
        runtime.engine_host_code_allowed = False
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        said = "; ".join(logger.last_errors()) or "it does not say why"
        raise EngineError(f"TensorRT {has.version} does not load the engine: {said}; build it again")
    return runtime, engine


def read_back(tensorrt: Any, has: Capabilities, engine: Any) -> ReadBack:
    """Ask an engine for its tensors, memory and compatibility."""
    tensors = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
        dtype = engine.get_tensor_dtype(name).name
        shape = tuple(engine.get_tensor_shape(name))
        profile = None
        if is_input and -1 in shape:
            profile = tuple(tuple(side) for side in engine.get_tensor_profile_shape(name, 0))
        tensors.append(
            TensorReadBack(
                name=name,
                mode="input" if is_input else "output",
                dtype=_DTYPES.get(dtype, dtype.lower()),
                shape=shape,
                profile=profile,  # type: ignore[arg-type]  # pydantic counts the three
            )
        )
    return ReadBack(
        tensors=tuple(tensors),
        profiles=engine.num_optimization_profiles,
        device_memory_bytes=getattr(engine, has.device_memory_size),
        aux_streams=engine.num_aux_streams if has.max_aux_streams else None,
        hardware_compatibility=engine.hardware_compatibility_level.name if has.hardware_compatibility else None,
    )


def inspected_layers(tensorrt: Any, engine: Any) -> Layers | None:
    """Return what TensorRT's EngineInspector tells of each layer, or None, with a warning, if it cannot be read.

    Their names alone where the whole takes over MAX_LAYERS_BYTES.
    """
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON)
    try:
        layers = tuple(json.loads(text)["Layers"])
        if len(json.dumps(layers)) <= MAX_LAYERS_BYTES:
            return layers
        return tuple(layer if isinstance(layer, str) else str(layer["Name"]) for layer in layers)
    except (ValueError, KeyError, TypeError) as error:
        _LOG.warning("the layers are not kept: EngineInspector's answer cannot be read (%s)", error)
        return None


def mismatches(spec: GraphSpec, options: BuildOptions, found: ReadBack) -> list[str]:
    """Return in what an engine is not the graph of the manifest at the options' sizes; nothing if it is."""
    wrong = []
    for mode, expected in (("input", spec.inputs), ("output", spec.outputs)):
        here = {tensor.name: tensor for tensor in found.tensors if tensor.mode == mode}
        names = [tensor.name for tensor in expected]
        if sorted(here) != sorted(names):
            wrong.append(f"{mode}s {', '.join(sorted(here))}, needed {', '.join(sorted(names))}")
            continue
        for tensor in expected:
            wrong += _tensor_mismatches(spec, options, tensor, here[tensor.name])
    if found.hardware_compatibility not in (None, "NONE"):
        wrong.append(f"hardware compatibility {found.hardware_compatibility}, needed NONE")
    if found.aux_streams is not None and found.aux_streams > options.max_aux_streams:
        wrong.append(f"{found.aux_streams} auxiliary streams, needed {options.max_aux_streams} at most")
    return wrong


def _tensor_mismatches(spec: GraphSpec, options: BuildOptions, expected: TensorSpec, here: TensorReadBack) -> list[str]:
    wrong = []
    if here.dtype != expected.dtype:
        wrong.append(f"{here.name} of type {here.dtype}, needed {expected.dtype}")
    sizes = options.sizes
    low, best, high = (tensor_shape(spec, expected.shape, size) for size in (sizes.min, sizes.opt, sizes.max))
    fits = len(here.shape) == len(best) and all(
        side == number or (side == -1 and isinstance(named, str))
        for side, number, named in zip(here.shape, best, expected.shape, strict=True)
    )
    if not fits:
        wrong.append(f"{here.name} of shape {list(here.shape)}, needed {list(best)}")
    elif here.mode == "input" and low != high and -1 not in here.shape:
        wrong.append(f"{here.name} of the one shape {list(here.shape)}, needed {list(low)} to {list(high)}")
    elif here.profile is not None and here.profile != (low, best, high):
        wrong.append(f"{here.name} with profile {here.profile}, needed {(low, best, high)}")
    return wrong
