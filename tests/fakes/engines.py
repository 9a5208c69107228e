"""TensorRT's runtime side as four releases have it, engines that compute with NumPy, and a bundle to run them for."""

import hashlib
import json
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.facts import BackendFacts, RunFacts
from cled_edge.backend.tensorrt.build_options import BuildOptions, tensor_shape
from cled_edge.backend.tensorrt.build_record import BuildRecord, GraphFacts, PlanSpec, ReadBack, TrialRecord, engine_key
from cled_edge.backend.tensorrt.device import DeviceFacts
from cled_edge.backend.tensorrt.store import default_folder, graph_sha256, write_engine
from cled_edge.bundle.manifest import OPSETS, GraphSpec
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import TensorSpec
from tests.fakes.gpu import Gpu, Status
from tests.fakes.small_bundle import written

RELEASES = {"8.6": "8.6.2", "10.3": "10.3.0", "10.16": "10.16.1.11", "11.4": "11.4.0.106"}
MULTIPLE = 8
ARENA_BYTES = {"unet_step": 700, "fusion": 1500, "fused_loop": 2000}
F = np.float32


def unet_step(x_t, x_in, t, coef):
    residual = (x_in - F(0.5) * x_t) * (F(1) + t[0] / F(1000)) * F(0.1)
    x_prev = coef[0] * x_t + coef[1] * (x_in - residual) + coef[2] * residual + coef[3] * x_in
    return {"x_prev": x_prev, "residual": residual}


def fusion(infrared, infrared_residual, visible, visible_residual, strength, balance):
    one, other = infrared - strength[0] * infrared_residual, visible - strength[1] * visible_residual
    return {"fused": balance[0] * one + (F(1) - balance[0]) * other}


def fused_loop(steps, infrared, visible, strength, balance, strength_map=None):
    shares = np.full((*infrared.shape[:3], 2), 255, np.uint8) if strength_map is None else strength_map
    one = infrared * (F(1) - F(0.05) * steps * strength[0] * shares[..., :1] / F(255))
    other = visible * (F(1) - F(0.07) * steps * strength[1] * shares[..., 1:] / F(255))
    fused = balance[0] * one + (F(1) - balance[0]) * other
    return {
        "fused": fused.astype(np.uint8),
        "infrared_restored": one.astype(np.uint8),
        "visible_restored": other.astype(np.uint8),
    }


def compute(spec: GraphSpec, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if spec.role == "fused_loop":
        return fused_loop(F(spec.steps), **inputs)
    return (unet_step if spec.role == "unet_step" else fusion)(**inputs)


class NumpyBackend:
    """What the engines compute, on the host."""

    opsets = OPSETS
    description = "numpy"

    def __init__(self, bundle: Bundle, choice: str = "tensorrt:fp16") -> None:
        self.bundle, self.choice = bundle, BackendChoice.parse(choice)
        self.facts, self.runs = BackendFacts("numpy", "CPU", "fp32"), RunFacts()

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return list(compute(self.bundle.manifest.graphs[graph], inputs).values())

    def close(self) -> None:
        pass


def _tensor(name: str, shape: tuple[int | str, ...], dtype: str = "float32") -> TensorSpec:
    layout = "vector" if len(shape) == 1 else "NHWC" if dtype == "uint8" else "NCHW"
    return TensorSpec(name=name, dtype=dtype, shape=shape, range=(-3, 3), layout=layout, color_order=None, meaning=name)


def _spec(role: str, name: str, precision: str, opset: int, steps: int | None, has_map: bool, size) -> GraphSpec:
    picture = ("batch", 3, "height", "width")
    controls = (_tensor("strength", (2,)), _tensor("balance", (1,)))
    if role == "unet_step":
        inputs = (_tensor("x_t", picture), _tensor("x_in", picture), _tensor("t", (1,)), _tensor("coef", (4,)))
        outputs = (_tensor("x_prev", picture), _tensor("residual", picture))
    elif role == "fusion":
        names = ("infrared", "infrared_residual", "visible", "visible_residual")
        inputs, outputs = (*(_tensor(n, picture) for n in names), *controls), (_tensor("fused", picture),)
    else:

        def frame(tensor: str, channels: int) -> TensorSpec:
            return _tensor(tensor, ("batch", "height", "width", channels), "uint8")

        inputs = (
            frame("infrared", 1),
            frame("visible", 3),
            *controls,
            *([frame("strength_map", 2)] if has_map else []),
        )
        outputs = (frame("fused", 3), frame("infrared_restored", 1), frame("visible_restored", 3))
    return GraphSpec(
        role=role,
        file=f"{name}.onnx",
        precision=precision,
        opset=opset,
        size=size,
        steps=steps,
        strength_map=has_map,
        nodes={},
        inputs=inputs,
        outputs=outputs,
    )


def small_bundle(folder: Path, *, opset_20_size: tuple[int, int] | None = None) -> Bundle:
    """Return a bundle that is written to `folder`: both reference graphs and loops of two steps, in FP32 and FP16."""
    wanted = []
    for precision in ("fp32", "fp16"):
        wanted += [(role, precision, 17, None, False, None) for role in ("unet_step", "fusion")]
        wanted += [("fused_loop", precision, 17, 2, has_map, None) for has_map in (False, True)]
        if opset_20_size:
            wanted += [(role, precision, 20, None, False, opset_20_size) for role in ("unet_step", "fusion")]
    graphs, contents = {}, {}
    for role, precision, opset, steps, has_map, size in wanted:
        parts = [role, *["map"] * has_map, *[precision] * (precision != "fp32"), *[f"opset{opset}"] * (opset != 17)]
        name = "-".join(parts)
        graphs[name] = _spec(role, name, precision, opset, steps, has_map, size)
        contents[f"{name}.onnx"] = f"onnx of {name}".encode()
    return written(folder, "small", MULTIPLE, graphs, contents)


def facts_of(release: str) -> DeviceFacts:
    import platform

    from cled_edge.backend.tensorrt.device import kernel_driver

    return DeviceFacts(
        gpu="Fake Orin",
        sm="87",
        driver="12.6",
        cuda="12.6",
        kernel_driver=kernel_driver(),
        tensorrt=RELEASES[release],
        os=platform.system().lower(),
        arch=platform.machine().lower(),
    )


def write_plan(
    bundle: Bundle,
    graph: str,
    size: tuple[int, int],
    release: str,
    options: BuildOptions | None = None,
    folder: Path | None = None,
    **behaviour: Any,
) -> Path:
    """Put an engine where `cled-edge build` does, and return its file.

    options: it was built with; None are the usual ones for `size`.

    behaviour, of a broken one: refuse ("always", "captured"), stale (repeats what it computed when captured), drift
    (a replay computes something else), dynamic (sizes are chosen at run time), memory (bytes of activations),
    rename (of a tensor), shape (of its first input), missing (what infer_shapes returns).
    """
    spec = bundle.manifest.graphs[graph]
    plan = (
        b"plan"
        + json.dumps(
            {"major": release.partition(".")[0], "spec": spec.model_dump(mode="json"), "size": size, **behaviour}
        ).encode()
    )
    options = options or BuildOptions(precision=spec.precision, size=size)
    facts, sha256 = facts_of(release), graph_sha256(bundle, graph)
    record = BuildRecord(
        record_version=2,
        created_by="a test",
        key=engine_key(sha256, options, facts),
        graph=GraphFacts(
            name=graph, bundle="small", role=spec.role, precision=spec.precision, opset=spec.opset, sha256=sha256
        ),
        facts=facts,
        options=options,
        plan=PlanSpec(bytes=len(plan), sha256=hashlib.sha256(plan).hexdigest()),
        read_back=ReadBack(tensors=(), profiles=1, device_memory_bytes=1, aux_streams=0, hardware_compatibility=None),
        trials=(
            TrialRecord(size=size, tensor="x", psnr_db=99.0, needed_db=50.0, verdict="OK", launched="one CUDA graph"),
        ),
        strongly_typed=release != "8.6",
        build_s=1.0,
        timing_cache_bytes=0,
    )
    return write_engine(folder or default_folder(), plan, record)


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
        __version__=RELEASES[release],
        ILogger=ILogger,
        DataType=IntEnum("DataType", {"FLOAT": 0, "HALF": 1, "UINT8": 5}),
        TensorIOMode=IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"], start=0),
        NetworkDefinitionCreationFlag=SimpleNamespace(**flags),
        ICudaEngine=ICudaEngine,
        IExecutionContext=IExecutionContext,
        Runtime=Runtime,
    )
    return module
