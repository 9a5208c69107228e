"""The side of TensorRT that runs, as four releases have it: engines of tests/fakes/engines.py, computed with NumPy."""

import json
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

from cled_edge.backend.tensorrt.build_options import tensor_shape
from cled_edge.bundle.manifest import GraphSpec
from tests.fakes.engines import ARENA_BYTES, F, compute
from tests.fakes.tensorrt.cuda import Gpu, Status
from tests.fakes.tensorrt.releases import VERSIONS


class _Engine:
    """What every release has."""

    def __init__(self, module: Any, logger: Any, plan: dict[str, Any]) -> None:
        self._module, self._logger, self._plan = module, logger, plan
        self._spec = GraphSpec.model_validate(plan["spec"])
        self._tensors = {t.name: t for t in (*self._spec.inputs, *self._spec.outputs)}
        self._memory = plan.get("memory", ARENA_BYTES[self._spec.role])
        rename = plan.get("rename", "")
        self._names = [f"{name}_2" if name == rename else name for name in self._tensors]

    @property
    def num_io_tensors(self):
        return len(self._names)

    def get_tensor_name(self, index):
        return self._names[index]

    def get_tensor_mode(self, name):
        mode = self._module.TensorIOMode
        return mode.OUTPUT if name in {t.name for t in self._spec.outputs} else mode.INPUT

    def get_tensor_dtype(self, name):
        types = {"float32": self._module.DataType.FLOAT, "uint8": self._module.DataType.UINT8}
        return types[self._tensors[name.removesuffix("_2")].dtype]

    def _shape(self, name):
        shape = tensor_shape(self._spec, self._tensors[name].shape, tuple(self._plan["size"]))
        return tuple(self._plan["shape"]) if "shape" in self._plan and name == self._spec.inputs[0].name else shape

    def get_tensor_shape(self, name):
        if self._plan.get("dynamic"):
            return tuple(-1 if isinstance(side, str) else side for side in self._tensors[name].shape)
        return self._shape(name)


class _Context:
    def __init__(self, engine: _Engine, gpu: Gpu) -> None:
        self._engine, self._gpu = engine, gpu
        self._addresses: dict[str, int] = {}
        self._arena: tuple[int, int] | None = None
        self._shapes: set[str] = set()
        self._changes, self._ran = 0, False

    def set_input_shape(self, name, shape):
        self._changes += 1
        self._shapes.add(name)
        return tuple(shape) == self._engine._shape(name)

    def get_tensor_shape(self, name):
        return self._engine._shape(name)

    def set_tensor_address(self, name, memory):
        assert type(memory) is int
        self._changes += 1
        self._addresses[name] = memory
        return memory % 256 == 0

    def infer_shapes(self):
        engine = self._engine
        dynamic = {t.name for t in engine._spec.inputs} - self._shapes if engine._plan.get("dynamic") else set()
        names = {n for n in dynamic if -1 in engine.get_tensor_shape(n)}
        return [*names, *engine._plan.get("missing", ())]

    def _take(self, memory, size):
        assert memory % 256 == 0
        self._changes += 1
        self._arena = memory, size

    def _refuse(self, words):
        severity = self._engine._module.ILogger.Severity
        self._engine._logger.log(severity.WARNING, "something else")
        self._engine._logger.log(severity.ERROR, f"Error Code 1:\n  {words}")
        return False

    def execute_async_v3(self, stream_handle):
        engine, gpu, plan = self._engine, self._gpu, self._engine._plan
        stream = gpu.streams[stream_handle]
        captured = stream.recorded is not None
        if plan.get("refuse") == "always" or (plan.get("refuse") == "captured" and captured):
            return self._refuse("myelin says no")
        if gpu.last_error:
            return self._refuse(f"an earlier error: {gpu.last_error.name}")
        if self._arena is None or self._arena[1] < engine._memory:
            return self._refuse("activation memory is not set")
        if set(engine._tensors) - set(self._addresses):
            return self._refuse("a tensor has no address")
        if captured and not self._ran:  # it would load modules and allocate
            stream.invalid = True
            gpu.last_error = Status.cudaErrorStreamCaptureUnsupported
            return self._refuse("not initialised")
        self._ran = True
        addresses, arena, changes = dict(self._addresses), self._arena[0], self._changes
        frozen = self._compute(addresses) if captured and plan.get("stale") else None

        def work() -> None:
            assert self._changes == changes, "the context was changed after it was put on the stream"
            outputs = self._compute(addresses) if frozen is None else frozen
            gpu.view(arena, engine._memory)[:] = 0x5A  # as activations would
            for name, value in outputs.items():
                drift = F(1) if plan.get("drift") and gpu.replaying else F(0)
                target = gpu.array(addresses[name], value.shape, value.dtype)
                target[:] = (value + drift).astype(value.dtype)

        stream.put(work)
        return True

    def _compute(self, addresses):
        engine = self._engine
        inputs = {
            t.name: self._gpu.array(addresses[t.name], engine._shape(t.name), t.dtype) for t in engine._spec.inputs
        }
        return compute(engine._spec, inputs)


def fake_tensorrt(gpu: Gpu, release: str) -> ModuleType:
    """Return the module as a release has it; what that release lacks is an AttributeError."""
    module = ModuleType("tensorrt")
    is_8, is_11 = release == "8.6", release == "11.4"

    class ILogger:
        Severity = IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    class IExecutionContext(_Context):
        def _set(self, memory):
            self._take(memory, self._engine._memory)

        device_memory = property(None, _set)

    if not is_8:
        IExecutionContext.set_device_memory = _Context._take

    class ICudaEngine(_Engine):
        pass

    class Strategy(IntEnum):
        STATIC = 0
        ON_PROFILE_CHANGE = 1
        USER_MANAGED = 2

    def create(self, strategy=Strategy.STATIC):
        assert strategy == Strategy.USER_MANAGED, "TensorRT would allocate memory of its own"
        return None if self._plan.get("no_context") else IExecutionContext(self, gpu)

    memory = property(lambda self: self._memory)
    if is_8:
        ICudaEngine.create_execution_context_without_device_memory = lambda self: IExecutionContext(self, gpu)
    else:
        ICudaEngine.create_execution_context = create
        ICudaEngine.device_memory_size_v2 = memory
        module.ExecutionContextAllocationStrategy = Strategy
    if not is_11:
        ICudaEngine.device_memory_size = memory

    class Runtime:
        engine_host_code_allowed = True  # the default is False; here it must be said

        def __init__(self, logger):
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine):
            assert self.engine_host_code_allowed is False
            plan = json.loads(serialized_engine[4:]) if serialized_engine.startswith(b"plan") else {"major": "0"}
            if plan["major"] != release.partition(".")[0]:
                self._logger.log(ILogger.Severity.ERROR, "the engine is of another version")
                return None
            return ICudaEngine(module, self._logger, plan)

    flags = (
        {"EXPLICIT_BATCH": 0}
        if is_8
        else {"STRONGLY_TYPED": 0}
        if is_11
        else {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    )
    module.__dict__.update(
        __version__=VERSIONS[release],
        ILogger=ILogger,
        DataType=IntEnum("DataType", {"FLOAT": 0, "HALF": 1, "UINT8": 5}),
        TensorIOMode=IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"], start=0),
        NetworkDefinitionCreationFlag=SimpleNamespace(**flags),
        ICudaEngine=ICudaEngine,
        IExecutionContext=IExecutionContext,
        Runtime=Runtime,
    )
    return module
