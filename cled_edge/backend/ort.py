"""ONNX Runtime: on the CPU, where it is always there, or on an NVIDIA GPU by CUDA or by TensorRT."""

import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cled_edge.backend.choice import REGISTRY, BackendChoice
from cled_edge.backend.facts import BackendFacts, RunFacts
from cled_edge.backend.failures import missing_package, one_line, run_failure
from cled_edge.backend.graph_cache import cache_name, read_cached, write_cached
from cled_edge.backend.graph_trial import check_trial
from cled_edge.backend.protocol import Array
from cled_edge.bundle.manifest import OPSETS
from cled_edge.bundle.reader import Bundle
from cled_edge.cpu import instruction_sets, usable_cores
from cled_edge.errors import BackendError, CledEdgeError, OptionError

NAME = "onnxruntime"
CPU = "CPUExecutionProvider"
_GPU_ADVICE = "install the CUDA and cuDNN that this onnxruntime-gpu names, or choose backend tensorrt"
# In ONNX Runtime's order of preference. What TensorRT cannot take, CUDA does; the CPU gets nothing.
PROVIDERS = {
    NAME: (CPU,),
    "onnxruntime-cuda": ("CUDAExecutionProvider",),
    "onnxruntime-tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}


class OnnxRuntimeBackend:
    """One session per graph. See `Backend`; here outputs are the caller's to keep.

    On a GPU nothing falls back: a node that only the CPU could run, or a provider that does not load, is an error.
    `runs.providers` says of each graph what its session really runs on.
    """

    in_use: "threading.Lock | None" = None  # each run gives arrays of its own

    def __init__(self, bundle: Bundle, choice: BackendChoice, threads: int = 0) -> None:
        self._ort = _import_sdk(choice.name)
        self._providers = PROVIDERS[choice.name]
        self._is_cpu = self._providers == (CPU,)
        if threads and not self._is_cpu:
            raise OptionError(f"threads is {threads}, but backend {choice.name} has none; give 0")
        self.precisions(choice.name)
        self._bundle = bundle
        # ONNX Runtime's own choice pins its threads to cores. On a busy machine (two of two cores taken) the fusion
        # graph then takes 164 ms instead of 113, as a pinned thread cannot move away.
        self._threads = threads or usable_cores()
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._closed = False
        device = "CPU" if self._is_cpu else "GPU"
        self.opsets = OPSETS
        self.choice = choice
        self.description = f"{self.sdk(choice.name)} {device.lower()} {choice.precision}"
        used = self._threads if self._is_cpu else None
        self.facts = BackendFacts(self.sdk(choice.name), device, str(choice.precision), used)
        self.runs = RunFacts()

    @classmethod
    def precisions(cls, name: str) -> tuple[str, ...]:
        """Return the precisions that this machine has: ONNX Runtime computes in FP32 what it has no kernel for.

        BackendError if this build of it lacks the provider. One that it has may still not load: see `_session`.
        """
        built = _import_sdk(name).get_available_providers()
        missing = [provider for provider in PROVIDERS[name] if provider not in built]
        if missing:
            raise BackendError(
                f"backend {name}: the installed ONNX Runtime has no {missing[0]}, only {', '.join(built)}; "
                f"{REGISTRY[name].install}"
            )
        return ("fp32", "fp16", "int8") if name == NAME else ("fp32", "fp16")

    @classmethod
    def sdk(cls, name: str) -> str:
        """Return the SDK and its version."""
        return f"{name} {_import_sdk(name).__version__}"

    def run(self, graph: str, inputs: Mapping[str, Array]) -> list[Array]:
        """Return the graph's outputs in the manifest's order."""
        with self._lock:
            if self._closed:
                raise BackendError(f"backend {self.choice} is closed; open another")
            if graph not in self._sessions:
                self._sessions[graph] = self._open(graph)
            try:
                # Binding preallocated outputs saves nothing measurable here (121 and 119 ms) and costs 20 MB.
                outputs: list[Array] = self._sessions[graph].run(None, dict(inputs))
            except Exception as error:  # InvalidArgument, RuntimeException and others, none of them a RuntimeError
                raise run_failure("ONNX Runtime", graph, error) from error
        return outputs

    def close(self) -> None:
        """Drop the sessions."""
        with self._lock:
            self._closed = True
            self._sessions.clear()

    def _open(self, graph: str) -> Any:
        """Return a session on the optimised graph, from the cache if it is there: 44 ms for both instead of 257."""
        if not self._is_cpu:
            return self._open_on_gpu(graph)
        try:
            name = self._cache_name(graph)
            optimised = read_cached(name)
            if optimised is None:
                check_trial(self._bundle, graph)
                return self._optimise(graph, name)
            self.runs.cache[graph] = "read"
            options = self._options()
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            return self._session(optimised, options)
        except CledEdgeError:
            raise
        except Exception as error:  # ONNX Runtime has no common base for what a bad graph raises
            raise BackendError(
                f"{self._bundle.path}: ONNX Runtime refused {graph}: {one_line(error)}; get the bundle "
                "again from its source"
            ) from error

    def _open_on_gpu(self, graph: str) -> Any:
        """Return a session that runs on the GPU alone; BackendError if ONNX Runtime would have used the CPU.

        Its own cache of engines is left off: it has given an engine to another shape (onnxruntime#32254), so with
        TensorRT every start builds them.
        """
        options = self._options()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # Halves in a graph need the flag; FP32 nodes stay FP32 only as far as TensorRT keeps them so.
        fp16 = {"trt_fp16_enable": "1"} if self.choice.precision == "fp16" else {}
        providers = [(name, fp16 if name.startswith("Tensorrt") else {}) for name in self._providers]
        content = self._bundle.graph(graph)
        try:
            session = self._ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime has no common base for what it raises
            raise BackendError(
                f"ONNX Runtime cannot run {graph} on the GPU alone: {one_line(error)}; {_GPU_ADVICE}"
            ) from error
        # A provider whose libraries do not load is only warned of, and the session is then on the CPU.
        used = [name for name in session.get_providers() if name != CPU]
        if used != list(self._providers):
            raise BackendError(
                f"ONNX Runtime runs {graph} on {', '.join(session.get_providers())}, needed "
                f"{', '.join(self._providers)}; {_GPU_ADVICE}"
            )
        self.runs.providers[graph] = ", ".join(used)
        return session

    def _optimise(self, graph: str, name: str) -> Any:
        """Return a session on the bundle's graph, whose form optimised for this CPU is cached if that can be.

        ONNX Runtime gives that form as a file alone. Where none can be written (a read-only disk, a full one), the
        session is made without, and only the next start is slower. A graph that is bad fails here too.
        """
        content = self._bundle.graph(graph)
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "optimised.onnx"
                options = self._options()
                options.optimized_model_filepath = str(path)
                session = self._session(content, options)
                optimised = path.read_bytes()
        except Exception as error:  # OSError, or ONNX Runtime's own, which has no common base
            session = self._session(content, self._options())
            self.runs.cache[graph] = f"not written: {one_line(error)}"
            return session
        self.runs.cache[graph] = write_cached(name, optimised)
        return session

    def _session(self, content: bytes, options: Any) -> Any:
        return self._ort.InferenceSession(content, options, providers=[CPU])

    def _options(self) -> Any:
        """Return the settings that pay: measured with nano at 480x640 on two cores of an EPYC, ONNX Runtime 1.32.

        Left as they are: the arena (without it 10 to 40 % slower) and dynamic shapes (fixed ones gain nothing and
        take 170 MB more).
        """
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._threads
        # Idle threads otherwise burn the cores that the cameras need: fusion costs 201 ms of CPU time, without 133,
        # and its latency falls from 101 to 83 ms.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_mem_pattern = False  # 311 MB with, 221 MB without, the same latency
        return options

    def _cache_name(self, graph: str) -> str:
        """Name the optimised graph by its source, by what optimised it and for which CPU.

        The last optimisation level blocks channels by the width of the vector registers, so a graph saved on an
        AVX-512 machine is a wrong one for AVX2.
        """
        file = self._bundle.manifest.graphs[graph].file
        source = self._bundle.manifest.files[file].sha256
        return cache_name("onnx", (source, self.sdk(NAME), instruction_sets()))


def _import_sdk(name: str) -> Any:
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(name, error) from error
    return onnxruntime
