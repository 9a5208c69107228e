"""TensorRT on an NVIDIA GPU: engines that `cled-edge build` made here, a whole frame as one CUDA graph."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.facts import BackendFacts, RunFacts
from cled_edge.backend.failures import one_line
from cled_edge.backend.protocol import Array
from cled_edge.backend.tensorrt.build_options import BuildOptions
from cled_edge.backend.tensorrt.capabilities import capabilities
from cled_edge.backend.tensorrt.cuda import CudaError, open_cuda
from cled_edge.backend.tensorrt.device import read_facts
from cled_edge.backend.tensorrt.engine import BoundEngine, TensorRt, allocated, picture_size
from cled_edge.backend.tensorrt.launch import DeviceTensor, Launch
from cled_edge.backend.tensorrt.run_options import CudaOptions
from cled_edge.backend.tensorrt.sdk import import_tensorrt
from cled_edge.backend.tensorrt.store import default_folder, engine_paths, pick_engine
from cled_edge.bundle.manifest import OPSETS, StepRows
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import KINDS, STEP_ROW, STEP_TO_FUSION, STEP_TO_STEP
from cled_edge.errors import BackendError, CledEdgeError, EngineError, OptionError
from cled_edge.size import Size, size_text

_LOG = logging.getLogger(__name__)
KEPT_LAUNCHES = 3  # each holds contexts, tensors and CUDA graphs for one picture size

EngineKey = tuple[str, Size]
Wire = Callable[["list[BoundEngine]", ExitStack, str], Launch]


@dataclass(frozen=True)
class _Kept:
    """A launch, the engines it runs, and what gives all it holds back."""

    launch: Launch
    engines: tuple[EngineKey, ...]
    stack: ExitStack


class TensorRtBackend:
    """Engines of one picture size each, opened on first use. See `Backend` and `FrameBackend`.

    `run` of any graph, a `fused_loop` above all, is one launch of one CUDA graph; so is `fused_frame`, which runs all
    steps and the fusion without coming back to the host between them. `runs.cuda_graph` says of each whether it
    is, and if not, why; `runs.engines` names the files, as several may fit, see `pick_engine`.
    """

    def __init__(
        self, bundle: Bundle, choice: BackendChoice, threads: int = 0, options: CudaOptions | None = None
    ) -> None:
        if threads:
            raise OptionError(f"threads is {threads}, but backend {choice.name} has none; give 0")
        self._options = options or CudaOptions()
        self._folder = self._options.engines or default_folder()
        module = import_tensorrt()
        self._cuda = open_cuda(self._options.binding)
        self._tensorrt = TensorRt(module, capabilities(module))
        self._device = read_facts(cuda=self._cuda)
        self._bundle = bundle
        self._stream = self._cuda.stream()  # not the default one: TensorRT would synchronise the device around it
        self._handle = self._cuda.handle(self._stream)
        self._arena = DeviceTensor((0,), "uint8", 0)
        self._engines: dict[EngineKey, Any] = {}
        self._launches: dict[tuple[object, ...], _Kept] = {}
        self._lock = threading.Lock()
        self.in_use = threading.Lock()
        self._closed = False
        newest = self._tensorrt.capable.newest_opset
        self.opsets = tuple(opset for opset in sorted(OPSETS, reverse=True) if newest is None or opset <= newest)
        self.choice = choice
        self.description = f"{self.sdk(choice.name)} {self._device.gpu} {choice.precision}"
        self.facts = BackendFacts(
            self.sdk(choice.name), f"GPU {self._device.gpu}", str(choice.precision), cuda=self._cuda.sdk
        )
        self.runs = RunFacts()

    @classmethod
    def precisions(cls, name: str) -> tuple[str, ...]:  # noqa: ARG003  one device
        """Return the precisions that it has; BackendError if there is no TensorRT or no GPU."""
        import_tensorrt()
        read_facts()
        return ("fp16", "fp32", "int8")

    @classmethod
    def sdk(cls, name: str) -> str:
        """Return the SDK and its version."""
        return f"{name} {import_tensorrt().__version__}"

    def run(self, graph: str, inputs: Mapping[str, Array]) -> list[Array]:
        """Return the graph's outputs in the manifest's order."""
        with self._running(graph):
            size = picture_size(self._bundle.manifest.graphs[graph], inputs)
            return self._told(self._graph_launch(graph, size), inputs)

    def pinned_inputs(self, graph: str, size: Size) -> dict[str, Array]:
        """Return page-locked arrays to write a graph's inputs into: `run` of these very arrays copies nothing first."""
        with self._running(graph):
            return self._graph_launch(graph, size).pinned_inputs

    def fused_frame(
        self, step: str, fusion: str, rows: StepRows, inputs: Mapping[str, Array]
    ) -> tuple[Array, Array, Array | None]:
        """Return the last residual, the fused picture and the kinds of a frame. See `FrameBackend`."""
        with self._running(f"{step} and {fusion}"):
            size = picture_size(self._bundle.manifest.graphs[step], inputs)
            # Times and coefficients are data, as the strengths are: a CUDA graph holds none of their values.
            table = np.column_stack([rows.time, rows.coef]).astype(np.float32)
            wire = partial(self._whole_frame, len(table))
            launch = self._launch((step, fusion, size, len(table)), ((step, size), (fusion, size)), wire)
            residual, fused, *kinds = self._told(launch, {**inputs, "table": table})
            return residual, fused, kinds[0] if kinds else None

    def close(self) -> None:
        """Give the GPU's memory back."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with suppress(CudaError):  # a GPU that is lost has nothing to give back
                self._drop_launches()
                self._engines.clear()
                self._drop_arena()
                self._cuda.destroy_stream(self._stream)
            self._stream = None  # pycuda destroys it when nothing refers to it

    @contextmanager
    def _running(self, what: str) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise BackendError(f"backend {self.choice} is closed; open another")
            try:
                yield
            except CledEdgeError:
                self._cuda.clear_error()  # TensorRT would take it for its own in the next run
                raise
            except Exception as error:  # TypeError and others of the bindings
                self._cuda.clear_error()
                raise BackendError(f"TensorRT failed in {what}: {one_line(error)}") from error

    def _graph_launch(self, graph: str, size: Size) -> Launch:
        return self._launch((graph, size), ((graph, size),), self._whole_graph)

    def _told(self, launch: Launch, inputs: Mapping[str, Array]) -> list[Array]:
        outputs = launch(inputs)
        self.runs.cuda_graph[launch.name] = launch.how or ""
        if launch.gpu_ms is not None:
            self.runs.gpu_ms = launch.gpu_ms
        return outputs

    def _launch(self, key: tuple[object, ...], engines: tuple[EngineKey, ...], wire: Wire) -> Launch:
        """Return what was made for a key, made anew if it is not among the last `KEPT_LAUNCHES` used."""
        kept = self._launches.pop(key, None) or self._make(engines, wire)
        self._launches[key] = kept  # the last used is last
        return kept.launch

    def _make(self, keys: tuple[EngineKey, ...], wire: Wire) -> _Kept:
        while len(self._launches) >= KEPT_LAUNCHES:
            self._launches.pop(next(iter(self._launches))).stack.close()
        used = {key for kept in self._launches.values() for key in kept.engines}
        self._engines = {key: engine for key, engine in self._engines.items() if key in used}
        engines = [self._engine(*key) for key in keys]
        self._reserve(max(self._tensorrt.arena_size(engine) for engine in engines))
        with ExitStack() as stack:
            bound = []
            for (graph, size), engine in zip(keys, engines, strict=True):
                spec = self._bundle.manifest.graphs[graph]
                bound.append(BoundEngine(self._tensorrt, self._cuda, engine, graph, spec, size, self._arena))
                stack.callback(bound[-1].close)
            launch = wire(bound, stack, "{}x{}".format(*keys[0][1]))
            stack.callback(launch.close)
            return _Kept(launch, keys, stack.pop_all())

    def _whole_graph(self, bound: list[BoundEngine], stack: ExitStack, size: str) -> Launch:  # noqa: ARG002  a `Wire`
        (engine,) = bound
        calls = [partial(engine.enqueue, self._handle)]
        name = f"{engine.name} {size}"
        return self._new_launch(name, engine.inputs, calls, list(engine.outputs.values()))

    def _whole_frame(self, steps: int, bound: list[BoundEngine], stack: ExitStack, size: str) -> Launch:
        """Wire all steps and the fusion. Each engine keeps its own tensors; what passes between is copied on the GPU.

        The first state is an input, written anew for every frame: nothing is left of the frame before.
        """
        step, fusion = bound
        floats = sum(prod(step.inputs[name].shape) for name in STEP_ROW)
        table = allocated(self._cuda, (steps, floats), "float32")
        stack.callback(self._cuda.free, table.address)
        calls: list[Callable[[], None]] = []
        for index in range(steps):
            calls += [partial(self._set_step, step, table, index), partial(step.enqueue, self._handle)]
        calls += [partial(self._set_fusion, step, fusion), partial(fusion.enqueue, self._handle)]
        wired = {wire.target for wire in STEP_TO_FUSION}
        inputs = {name: tensor for name, tensor in step.inputs.items() if name not in STEP_ROW}
        inputs |= {name: tensor for name, tensor in fusion.inputs.items() if name not in wired}
        inputs["table"] = table
        outputs = [step.outputs["residual"], fusion.outputs["fused"]]
        outputs += [step.outputs[KINDS]] if KINDS in step.outputs else []
        name = f"{steps} x {step.name}, {fusion.name} {size}"
        return self._new_launch(name, inputs, calls, outputs)

    def _new_launch(
        self,
        name: str,
        inputs: Mapping[str, DeviceTensor],
        calls: Sequence[Callable[[], None]],
        outputs: Sequence[DeviceTensor],
    ) -> Launch:
        no_graph = None if self._options.graphs else "as was asked for"
        return Launch(
            name, self._cuda, self._stream, inputs, calls, outputs, no_graph=no_graph, timed=self._options.timed
        )

    def _set_step(self, step: BoundEngine, table: DeviceTensor, index: int) -> None:
        """Give a step its row of the table, and the state that the step before it left."""
        place = table.address + index * table.size // table.shape[0]
        for name in STEP_ROW:
            self._copy(step.inputs[name].address, place, step.inputs[name].size)
            place += step.inputs[name].size
        for wire in STEP_TO_STEP if index else ():
            target = step.inputs[wire.target]
            self._copy(target.address, step.outputs[wire.source].address, target.size)

    def _set_fusion(self, step: BoundEngine, fusion: BoundEngine) -> None:
        """Give the fusion its inputs, each an image of a step's batch."""
        tensors = {**step.inputs, **step.outputs}
        for wire in STEP_TO_FUSION:
            target = fusion.inputs[wire.target]
            self._copy(target.address, tensors[wire.source].address + (wire.image or 0) * target.size, target.size)

    def _copy(self, target: int, source: int, size: int) -> None:
        self._cuda.copy(target, source, size, self._stream)

    def _reserve(self, size: int) -> None:
        """Let the one activation memory have so many bytes. Contexts hold its address: if it grows, they go first."""
        if self._arena.address and size <= self._arena.size:
            return
        self._drop_launches()
        self._drop_arena()
        self._arena = allocated(self._cuda, (max(size, 1),), "uint8")
        self.runs.arena_bytes = size

    def _drop_arena(self) -> None:
        if self._arena.address:
            address, self._arena = self._arena.address, DeviceTensor((0,), "uint8", 0)
            self._cuda.free(address)

    def _drop_launches(self) -> None:
        while self._launches:
            self._launches.popitem()[1].stack.close()

    def _engine(self, graph: str, size: Size) -> Any:
        if (graph, size) not in self._engines:
            self._engines[graph, size] = self._tensorrt.engine(self._plan(graph, size), graph)
        return self._engines[graph, size]

    def _plan(self, graph: str, size: Size) -> bytes:
        """Return an engine's verified bytes; EngineError says how to build it, unless that may be done here."""
        state, binding = "read", self._options.binding
        try:
            plan, record = pick_engine(self._bundle, graph, size, self._device, self._folder, binding)
        except EngineError:
            if self._options.build_missing is None:
                raise
            _LOG.warning("building the engine of %s for %dx%d, which takes minutes", graph, *size)
            self._options.build_missing(self._bundle, graph, size, self._device, self._folder, binding)
            plan, record = pick_engine(self._bundle, graph, size, self._device, self._folder, binding)
            state = "built"
        self.runs.cache[graph] = state
        file = engine_paths(self._folder, graph, record.key)[0].name
        self.runs.engines[f"{graph} {size_text(size)}"] = f"{file}{_unusual(record.options)}"
        return plan


def _unusual(options: BuildOptions) -> str:
    """Return how an engine was built apart from the usual, to follow on its name."""
    said = [f"for {options.profile}"] if options.profile else []
    said += ["TF32"] if options.tf32 else []
    said += [f"{options.max_aux_streams} auxiliary streams"] if options.max_aux_streams else []
    return f" ({', '.join(said)})" if said else ""
