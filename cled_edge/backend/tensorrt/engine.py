"""A TensorRT engine as it runs: read from verified bytes, with a context of its own, its tensors bound once."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cled_edge.backend.protocol import Array
from cled_edge.backend.tensorrt.build_options import tensor_shape
from cled_edge.backend.tensorrt.capabilities import Capabilities
from cled_edge.backend.tensorrt.cuda import Cuda
from cled_edge.backend.tensorrt.launch import DeviceTensor
from cled_edge.backend.tensorrt.log import logger_of
from cled_edge.bundle.manifest import GraphSpec
from cled_edge.contract import TensorSpec
from cled_edge.errors import BackendError
from cled_edge.size import Size

ALIGNMENT = 256  # of tensors and of activation memory, as TensorRT demands
_NEEDED = (("ICudaEngine", "num_io_tensors"), ("IExecutionContext", "execute_async_v3"))
_REBUILD = "build it again: cled-edge build"


class TensorRt:
    """The installed TensorRT, to read engines with."""

    def __init__(self, tensorrt: Any, capable: Capabilities) -> None:
        for owner, name in _NEEDED:
            if not hasattr(getattr(tensorrt, owner), name):
                raise BackendError(
                    f"TensorRT {capable.version} has no {owner}.{name}, needed 8.6, 10 or 11; upgrade TensorRT "
                    "(JetPack 6 or newer on a Jetson)"
                )
        self.module, self.capable = tensorrt, capable
        self._logger = logger_of(tensorrt)
        self._runtime = tensorrt.Runtime(self._logger)
        # An engine may bring host code of its own, which would run when it is read.
        self._runtime.engine_host_code_allowed = False

    def engine(self, plan: bytes, name: str) -> Any:
        """Return the engine in verified bytes; BackendError if TensorRT refuses them."""
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BackendError(
                f"TensorRT {self.capable.version} cannot read the engine of {name}{self.said}; {_REBUILD}"
            )
        return engine

    def arena_size(self, engine: Any) -> int:
        """Return how many bytes of activation memory a context of the engine needs."""
        return int(getattr(engine, self.capable.device_memory_size))

    def context(self, engine: Any, name: str) -> Any:
        """Return a context without activation memory; BackendError if TensorRT makes none."""
        if self.capable.own_device_memory == "strategy":
            context = engine.create_execution_context(self.module.ExecutionContextAllocationStrategy.USER_MANAGED)
        else:
            context = engine.create_execution_context_without_device_memory()
        if context is None:
            raise BackendError(
                f"TensorRT made no context for {name}{self.said}; free GPU memory: close what else uses it, or take a "
                "smaller size"
            )
        return context

    @property
    def said(self) -> str:
        """Return what TensorRT last complained of, to follow on a message; it is then forgotten."""
        errors = self._logger.last_errors()
        return f" ({errors[-1][:300]})" if errors else ""


class BoundEngine:
    """One context of an engine, its inputs and outputs in device memory of their own, under the manifest's names.

    Nothing is set after it is made: a CUDA graph that was captured of a context would not learn of it.
    """

    def __init__(
        self,
        tensorrt: TensorRt,
        cuda: Cuda,
        engine: Any,
        name: str,
        spec: GraphSpec,
        size: Size,
        arena: DeviceTensor,
    ) -> None:
        self.name = name
        self._tensorrt, self._cuda = tensorrt, cuda
        self._addresses: list[int] = []
        _check_names(tensorrt.module, engine, name, spec)
        self._context = tensorrt.context(engine, name)
        try:
            self._take(arena)
            self.inputs = {tensor.name: self._input(engine, tensor, spec, size) for tensor in spec.inputs}
            self.outputs = {tensor.name: self._output(tensor, spec, size) for tensor in spec.outputs}
            missing = self._context.infer_shapes()
            if missing:
                raise BackendError(f"the engine of {name} lacks shapes of {', '.join(missing)}; {_REBUILD}")
        except BaseException:
            self.close()
            raise

    def enqueue(self, handle: int) -> None:
        """Put one run on a stream; BackendError if TensorRT refuses."""
        # It says no by what it returns and raises nothing; outputs then stay as they were.
        if not self._context.execute_async_v3(handle):
            raise BackendError(f"TensorRT refused to run {self.name}{self._tensorrt.said}; {_REBUILD}")

    def close(self) -> None:
        """Give the memory of its tensors back."""
        self._context = None
        while self._addresses:
            self._cuda.free(self._addresses.pop())

    def _take(self, arena: DeviceTensor) -> None:
        if self._tensorrt.capable.set_device_memory:
            self._context.set_device_memory(arena.address, arena.size)
        else:
            self._context.device_memory = arena.address

    def _input(self, engine: Any, tensor: TensorSpec, spec: GraphSpec, size: Size) -> DeviceTensor:
        shape = tensor_shape(spec, tensor.shape, size)
        built = tuple(engine.get_tensor_shape(tensor.name))
        if -1 in built:
            self._accepted(self._context.set_input_shape(tensor.name, shape), f"shape {shape} of {tensor.name}")
        elif built != shape:
            raise BackendError(f"the engine of {self.name} takes {tensor.name} as {built}, needed {shape}; {_REBUILD}")
        return self._bind(tensor, shape)

    def _output(self, tensor: TensorSpec, spec: GraphSpec, size: Size) -> DeviceTensor:
        shape = tensor_shape(spec, tensor.shape, size)
        seen = tuple(self._context.get_tensor_shape(tensor.name))
        if seen != shape:
            raise BackendError(f"the engine of {self.name} gives {tensor.name} as {seen}, needed {shape}; {_REBUILD}")
        return self._bind(tensor, shape)

    def _bind(self, tensor: TensorSpec, shape: tuple[int, ...]) -> DeviceTensor:
        bound = allocated(self._cuda, shape, tensor.dtype)
        self._addresses.append(bound.address)
        self._accepted(self._context.set_tensor_address(tensor.name, bound.address), f"the address of {tensor.name}")
        return bound

    def _accepted(self, answer: bool, what: str) -> None:
        if not answer:
            raise BackendError(f"TensorRT refused {what} in {self.name}{self._tensorrt.said}; {_REBUILD}")


def allocated(cuda: Cuda, shape: tuple[int, ...], dtype: str) -> DeviceTensor:
    """Return new device memory for an array."""
    size = DeviceTensor(shape, dtype, 0).size
    address = cuda.allocate(size)
    if address % ALIGNMENT:
        cuda.free(address)
        raise BackendError(f"device memory came at {address:#x}, needed a multiple of {ALIGNMENT}; update the driver")
    return DeviceTensor(shape, dtype, address)


def picture_size(spec: GraphSpec, inputs: Mapping[str, Array]) -> Size:
    """Return (height, width) of the pictures among a graph's inputs; BackendError if the first is none."""
    first = spec.inputs[0]
    shape = np.shape(inputs[first.name]) if first.name in inputs else ()
    if len(shape) != 4:
        raise BackendError(
            f"TensorRT refused {spec.file}: {first.name} has shape {shape}, needed {first.shape}; give it"
        )
    return shape[1:3] if first.layout == "NHWC" else shape[2:4]


def _check_names(tensorrt: Any, engine: Any, name: str, spec: GraphSpec) -> None:
    """Refuse an engine whose tensors are not those of the manifest, by name, direction and type."""
    types = {"float32": tensorrt.DataType.FLOAT, "uint8": tensorrt.DataType.UINT8}
    needed = {t.name: (tensorrt.TensorIOMode.INPUT, types[t.dtype]) for t in spec.inputs}
    needed |= {t.name: (tensorrt.TensorIOMode.OUTPUT, types[t.dtype]) for t in spec.outputs}
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    seen = {tensor: (engine.get_tensor_mode(tensor), engine.get_tensor_dtype(tensor)) for tensor in names}
    if seen != needed:
        unlike = sorted(key for key in seen.keys() | needed.keys() if seen.get(key) != needed.get(key))
        raise BackendError(
            f"the engine of {name} differs from the manifest in tensor {', '.join(unlike)}: it is another's; {_REBUILD}"
        )
