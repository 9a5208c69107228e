"""The engine of the fake builder: read back, and run in trials, where each output repeats its first input."""

import json
import sys
from types import ModuleType
from typing import Any

from tests.fakes.tensorrt.releases import MAGIC, Enum, Member, Native, typed


def engine_classes(trt: ModuleType, release: str, fault: str) -> list[type]:
    """Return the classes that read and run an engine; `fault` is what is wrong with it."""
    before_10, before_11, ILogger = release == "8.6", release != "11.4", trt.ILogger  # noqa: N806  as the real one is named

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
            typed(memory, int)
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            typed(stream_handle, int)
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

    class EngineInspector(Native):
        def get_engine_information(self, format: Any) -> str:  # noqa: A002
            typed(format, Member)
            name = "conv " * (100_000 if fault == "many_layers" else 1)
            layers = [{"Name": name, "LayerType": "CaskConvolution"}, "reformat"] * (3 if fault == "many_layers" else 1)
            if fault == "mute_inspector":
                return "{"
            return json.dumps({"Layers": layers, "I/O Tensors" if release == "11.4" else "Bindings": []})

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

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector()

        def create_execution_context(self, strategy: Any = None) -> IExecutionContext:
            return IExecutionContext(self)

        def create_execution_context_without_device_memory(self) -> IExecutionContext:
            return IExecutionContext(self)

    class Runtime(Native):
        engine_host_code_allowed = False

        def __init__(self, logger: Any) -> None:
            typed(logger, ILogger)

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            if not serialized_engine.startswith(MAGIC) or fault == "load":
                return None
            return ICudaEngine(json.loads(serialized_engine[4:]))

    if before_10:
        del ICudaEngine.device_memory_size_v2, IExecutionContext.set_device_memory
    else:
        trt.ExecutionContextAllocationStrategy = Enum(
            "ExecutionContextAllocationStrategy", STATIC=0, ON_PROFILE_CHANGE=1, USER_MANAGED=2
        )
    if not before_11:
        del ICudaEngine.device_memory_size, ICudaEngine.create_execution_context_without_device_memory
    return [IExecutionContext, EngineInspector, ICudaEngine, Runtime]
