"""The few CUDA calls that a backend needs, behind one interface, by NVIDIA's own bindings or by pycuda.

Neither package is imported before it is chosen. Every call's return code is checked; a failure is a `CudaError`.
The file is long because both bindings lie side by side: each call is compared with its twin.
"""

import ctypes
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from cled_edge.backend.failures import one_line
from cled_edge.backend.tensorrt.sdk import INSTALL_CUDA
from cled_edge.errors import BackendError, OptionError

CudaBinding = Literal["cuda", "pycuda"]
Bytes = NDArray[np.uint8]

_RUNTIMES = ("cuda.bindings.runtime", "cuda.cudart")  # since cuda-python 12.6; before
_OUT_OF_MEMORY = "close what else uses the GPU (nvidia-smi, on a Jetson tegrastats), or fuse in tiles"
_AGAIN = "run again; if it comes back, build the engines again: cled-edge build"
_NO_DRIVER = 35  # cudaErrorInsufficientDriver: too old, or none at all
_MEMORY_STEP_GIB = 4
NO_CAPTURE = "pycuda has no stream capture; take binding cuda for CUDA graphs"  # none in 2026.1, its newest


class CudaError(BackendError):
    """A CUDA call returned an error; `call` names it."""

    def __init__(self, call: str, code: str, advice: str = _AGAIN) -> None:
        super().__init__(f"{call} returned {code}; {advice}")
        self.call = call


class Cuda(Protocol):
    """The GPU, as far as a backend needs it. Addresses are numbers; streams, events and graphs are the binding's own.

    sdk: the package and its version. no_capture: why streams cannot be captured into graphs, None if they can.
    Copies and launches are asynchronous: they happen in the order of their stream.
    """

    sdk: str
    no_capture: str | None

    def allocate(self, size: int) -> int:
        """Return the address of so many bytes of device memory; a CudaError tells how much was free."""
        ...

    def free(self, address: int) -> None:
        """Give device memory back, after all that is under way."""
        ...

    def pinned(self, size: int) -> Bytes:
        """Return so many bytes of page-locked host memory, given back once no array refers to it."""
        ...

    def device(self) -> dict[str, Any]:
        """Return the facts of the GPU and of CUDA, as `DeviceFacts` calls them."""
        ...

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes of device memory."""
        ...

    def stream(self) -> Any:
        """Return a new stream, which does not wait for the default one."""
        ...

    def handle(self, stream: Any) -> int:
        """Return what other libraries call the stream."""
        ...

    def destroy_stream(self, stream: Any) -> None:
        """Give a stream back."""
        ...

    def event(self, timed: bool = False) -> Any:
        """Return a new event that can be waited for without a busy core; `timed`, it also keeps its time."""
        ...

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Return the time between two timed events that have happened."""
        ...

    def record(self, event: Any, stream: Any) -> None:
        """Let the event happen after what the stream has to do now."""
        ...

    def wait(self, event: Any) -> None:
        """Wait for an event, and raise what went wrong on the device before it."""
        ...

    def destroy_event(self, event: Any) -> None:
        """Give an event back."""
        ...

    def synchronise(self, stream: Any) -> None:
        """Wait for all that the stream has to do."""
        ...

    def upload(self, address: int, source: NDArray[Any], stream: Any) -> None:
        """Copy pinned host memory to the device."""
        ...

    def download(self, target: NDArray[Any], address: int, stream: Any) -> None:
        """Copy device memory to pinned host memory."""
        ...

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy within the device."""
        ...

    def begin_capture(self, stream: Any) -> None:
        """Record what this thread gives the stream, instead of doing it."""
        ...

    def end_capture(self, stream: Any) -> Any:
        """Return what was recorded; CudaError if something in it cannot be. The stream works again either way."""
        ...

    def instantiate(self, graph: Any) -> Any:
        """Return an executable of what was recorded."""
        ...

    def upload_graph(self, executable: Any, stream: Any) -> None:
        """Prepare an executable on the device, which its first launch would otherwise do."""
        ...

    def launch(self, executable: Any, stream: Any) -> None:
        """Do what was recorded."""
        ...

    def destroy_graph(self, graph: Any) -> None:
        """Give what was recorded back; its executables stay."""
        ...

    def destroy_executable(self, executable: Any) -> None:
        """Give an executable back."""
        ...

    def clear_error(self) -> None:
        """Forget an error that was dealt with, so that no later call reports it."""
        ...


def open_cuda(binding: str = "cuda") -> Cuda:
    """Return the CUDA of a binding, `cuda` or `pycuda`; BackendError if the package or the GPU is missing."""
    if binding not in get_args(CudaBinding):
        raise OptionError(f"CUDA binding {binding!r} is unknown; known: {', '.join(get_args(CudaBinding))}")
    return PyCuda() if binding == "pycuda" else CudaBindings()


class CudaBindings:
    """NVIDIA's cuda-python: the runtime API, in the device's primary context, which any thread may use."""

    no_capture: str | None = None

    def __init__(self) -> None:
        self._runtime = _import_runtime()
        version = self._call("cudaRuntimeGetVersion")
        self._version = _version(version)
        self.sdk = f"cuda-python, CUDA {self._version}"
        if self._call("cudaGetDeviceCount") == 0:
            raise BackendError("no NVIDIA GPU is visible, needed one; see nvidia-smi and CUDA_VISIBLE_DEVICES")

    def _call(self, name: str, *arguments: Any) -> Any:
        """Return what a function of the runtime returns beside its status."""
        try:
            status, *values = getattr(self._runtime, name)(*arguments)
        except RuntimeError as error:  # cuda-bindings load the driver's library in the first call; it is not there
            raise CudaError(name, one_line(error), _advice(_NO_DRIVER)) from error
        if int(status) != 0:
            raise CudaError(name, f"{status.name} ({int(status)})", _advice(int(status)))
        return values[0] if len(values) == 1 else tuple(values)

    def device(self) -> dict[str, Any]:  # noqa: D102
        properties = self._call("cudaGetDeviceProperties", 0)
        name = properties.name
        return {
            "gpu": (name.decode() if isinstance(name, bytes) else str(name)).rstrip("\0 "),
            "sm": f"{properties.major}{properties.minor}",
            "multiprocessors": int(properties.multiProcessorCount),
            "memory_gib": _memory_gib(properties.totalGlobalMem),
            "driver": _version(self._call("cudaDriverGetVersion")),
            "cuda": self._version,
        }

    def allocate(self, size: int) -> int:  # noqa: D102  the protocol's docstrings hold from here on
        return _allocated(lambda: int(self._call("cudaMalloc", size)), size, self)

    def free(self, address: int) -> None:  # noqa: D102
        self._call("cudaFree", address)

    def pinned(self, size: int) -> Bytes:  # noqa: D102
        address = int(self._call("cudaHostAlloc", size, self._runtime.cudaHostAllocDefault))
        owner = (ctypes.c_uint8 * size).from_address(address)
        # Callers may hold an output after the backend is closed. At the process's end the driver gives it back.
        weakref.finalize(owner, self._runtime.cudaFreeHost, address).atexit = False
        return np.frombuffer(memoryview(owner), np.uint8)

    def memory(self) -> tuple[int, int]:  # noqa: D102
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def stream(self) -> Any:  # noqa: D102
        return self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)

    def handle(self, stream: Any) -> int:  # noqa: D102
        return int(stream)

    def destroy_stream(self, stream: Any) -> None:  # noqa: D102
        self._call("cudaStreamDestroy", stream)

    def event(self, timed: bool = False) -> Any:  # noqa: D102
        flags = self._runtime.cudaEventBlockingSync | (0 if timed else self._runtime.cudaEventDisableTiming)
        return self._call("cudaEventCreateWithFlags", flags)

    def elapsed_ms(self, begin: Any, end: Any) -> float:  # noqa: D102
        return float(self._call("cudaEventElapsedTime", begin, end))

    def record(self, event: Any, stream: Any) -> None:  # noqa: D102
        self._call("cudaEventRecord", event, stream)

    def wait(self, event: Any) -> None:  # noqa: D102
        self._call("cudaEventSynchronize", event)

    def destroy_event(self, event: Any) -> None:  # noqa: D102
        self._call("cudaEventDestroy", event)

    def synchronise(self, stream: Any) -> None:  # noqa: D102
        self._call("cudaStreamSynchronize", stream)

    def upload(self, address: int, source: NDArray[Any], stream: Any) -> None:  # noqa: D102
        self._copy(address, source.ctypes.data, source.nbytes, "cudaMemcpyHostToDevice", stream)

    def download(self, target: NDArray[Any], address: int, stream: Any) -> None:  # noqa: D102
        self._copy(target.ctypes.data, address, target.nbytes, "cudaMemcpyDeviceToHost", stream)

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:  # noqa: D102
        self._copy(target, source, size, "cudaMemcpyDeviceToDevice", stream)

    def _copy(self, target: int, source: int, size: int, kind: str, stream: Any) -> None:
        self._call("cudaMemcpyAsync", target, source, size, getattr(self._runtime.cudaMemcpyKind, kind), stream)

    def begin_capture(self, stream: Any) -> None:  # noqa: D102
        # Not global: it would make unsafe calls of any other thread fail, a camera's decoder for one.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:  # noqa: D102
        return self._call("cudaStreamEndCapture", stream)

    def instantiate(self, graph: Any) -> Any:  # noqa: D102
        return self._call("cudaGraphInstantiate", graph, 0)

    def upload_graph(self, executable: Any, stream: Any) -> None:  # noqa: D102
        self._call("cudaGraphUpload", executable, stream)

    def launch(self, executable: Any, stream: Any) -> None:  # noqa: D102
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_graph(self, graph: Any) -> None:  # noqa: D102
        self._call("cudaGraphDestroy", graph)

    def destroy_executable(self, executable: Any) -> None:  # noqa: D102
        self._call("cudaGraphExecDestroy", executable)

    def clear_error(self) -> None:  # noqa: D102
        self._runtime.cudaGetLastError()  # it returns the error that it clears


class PyCuda:
    """pycuda, in the context that the program has made current, or else in the device's primary one.

    A context belongs to the thread that made it current: open and run the backend there.
    """

    no_capture: str | None = NO_CAPTURE

    def __init__(self) -> None:
        pycuda = _import_pycuda("pycuda")
        self._driver = _import_pycuda("pycuda.driver")
        self.sdk = f"pycuda {pycuda.VERSION_TEXT}"
        self._allocations: dict[int, Any] = {}  # pycuda frees what nothing refers to
        self._call("cuInit", self._driver.init)
        if self._call("cuDeviceGetCount", self._driver.Device.count) == 0:
            raise BackendError("no NVIDIA GPU is visible, needed one; see nvidia-smi and CUDA_VISIBLE_DEVICES")
        try:
            self._driver.Context.get_device()
        except self._driver.Error:  # no context is current; this one stays so until the process ends
            _import_pycuda("pycuda.autoprimaryctx")

    def _call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what pycuda returns; it raises for every return code, and tells it in words alone."""
        try:
            return function(*arguments)
        except self._driver.Error as error:
            is_memory = isinstance(error, self._driver.MemoryError)
            raise CudaError(name, one_line(error), _OUT_OF_MEMORY if is_memory else _AGAIN) from error

    def device(self) -> dict[str, Any]:  # noqa: D102
        current = self._call("cuCtxGetDevice", self._driver.Context.get_device)
        number = self._call("cuDriverGetVersion", self._driver.get_driver_version)
        return {
            "gpu": current.name(),
            "sm": "".join(map(str, current.compute_capability())),
            "multiprocessors": int(current.get_attribute(self._driver.device_attribute.MULTIPROCESSOR_COUNT)),
            "memory_gib": _memory_gib(current.total_memory()),
            "driver": _version(number),
            "cuda": ".".join(map(str, self._driver.get_version()[:2])),
        }

    def allocate(self, size: int) -> int:  # noqa: D102
        def allocated() -> int:
            allocation = self._call("cuMemAlloc", self._driver.mem_alloc, size)
            self._allocations[int(allocation)] = allocation
            return int(allocation)

        return _allocated(allocated, size, self)

    def free(self, address: int) -> None:  # noqa: D102
        self._call("cuMemFree", self._allocations.pop(address).free)

    def pinned(self, size: int) -> Bytes:  # noqa: D102
        return cast("Bytes", self._call("cuMemHostAlloc", self._driver.pagelocked_empty, size, np.uint8))

    def memory(self) -> tuple[int, int]:  # noqa: D102
        free, total = self._call("cuMemGetInfo", self._driver.mem_get_info)
        return int(free), int(total)

    def stream(self) -> Any:  # noqa: D102
        non_blocking = 1  # CU_STREAM_NON_BLOCKING, which pycuda has no name for
        return self._call("cuStreamCreate", self._driver.Stream, non_blocking)

    def handle(self, stream: Any) -> int:  # noqa: D102
        return int(stream.handle)

    def destroy_stream(self, stream: Any) -> None:  # noqa: D102
        self.synchronise(stream)  # pycuda destroys what nothing refers to

    def event(self, timed: bool = False) -> Any:  # noqa: D102
        flags = self._driver.event_flags
        wanted = int(flags.BLOCKING_SYNC) | (0 if timed else int(flags.DISABLE_TIMING))
        return self._call("cuEventCreate", self._driver.Event, wanted)

    def elapsed_ms(self, begin: Any, end: Any) -> float:  # noqa: D102
        return float(self._call("cuEventElapsedTime", begin.time_till, end))

    def record(self, event: Any, stream: Any) -> None:  # noqa: D102
        self._call("cuEventRecord", event.record, stream)

    def wait(self, event: Any) -> None:  # noqa: D102
        self._call("cuEventSynchronize", event.synchronize)

    def destroy_event(self, event: Any) -> None:  # noqa: D102
        pass  # pycuda destroys what nothing refers to

    def synchronise(self, stream: Any) -> None:  # noqa: D102
        self._call("cuStreamSynchronize", stream.synchronize)

    def upload(self, address: int, source: NDArray[Any], stream: Any) -> None:  # noqa: D102
        self._call("cuMemcpyHtoDAsync", self._driver.memcpy_htod_async, address, source, stream)

    def download(self, target: NDArray[Any], address: int, stream: Any) -> None:  # noqa: D102
        self._call("cuMemcpyDtoHAsync", self._driver.memcpy_dtoh_async, target, address, stream)

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:  # noqa: D102
        self._call("cuMemcpyDtoDAsync", self._driver.memcpy_dtod_async, target, source, size, stream)

    def begin_capture(self, stream: Any) -> None:  # noqa: ARG002, D102
        raise CudaError("cuStreamBeginCapture", "nothing", NO_CAPTURE)

    def end_capture(self, stream: Any) -> Any:  # noqa: ARG002, D102
        raise CudaError("cuStreamEndCapture", "nothing", NO_CAPTURE)

    def instantiate(self, graph: Any) -> Any:  # noqa: ARG002, D102
        raise CudaError("cuGraphInstantiate", "nothing", NO_CAPTURE)

    def upload_graph(self, executable: Any, stream: Any) -> None:  # noqa: ARG002, D102
        raise CudaError("cuGraphUpload", "nothing", NO_CAPTURE)

    def launch(self, executable: Any, stream: Any) -> None:  # noqa: ARG002, D102
        raise CudaError("cuGraphLaunch", "nothing", NO_CAPTURE)

    def destroy_graph(self, graph: Any) -> None:  # noqa: D102
        pass  # there is none

    def destroy_executable(self, executable: Any) -> None:  # noqa: D102
        pass  # there is none

    def clear_error(self) -> None:  # noqa: D102
        pass  # the driver API keeps no last error


def _allocated(allocate: Callable[[], int], size: int, cuda: Cuda) -> int:
    try:
        return allocate()
    except CudaError as error:
        if not str(error).endswith(_OUT_OF_MEMORY):
            raise
        free, total = (bytes_ / 1e6 for bytes_ in cuda.memory())
        raise CudaError(
            error.call,
            f"out of memory for {size / 1e6:.1f} MB: {free:.0f} of {total:.0f} MB are free",
            _OUT_OF_MEMORY,
        ) from error


def _memory_gib(memory_bytes: int) -> int:
    """Return what a GPU is sold as having: what it has is less, by what its kernel and firmware keep."""
    return -(-memory_bytes // (_MEMORY_STEP_GIB * 2**30)) * _MEMORY_STEP_GIB


def _version(number: int) -> str:
    """Return "12.6" for 12060."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _advice(status: int) -> str:
    """Return what to do about a cudaError_t."""
    known = {
        2: _OUT_OF_MEMORY,  # cudaErrorMemoryAllocation
        _NO_DRIVER: "install or update the NVIDIA driver, or take cuda-python of its CUDA version; see nvidia-smi",
        100: "needed an NVIDIA GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES",  # cudaErrorNoDevice
    }
    return known.get(status, _AGAIN)


def _import_runtime() -> Any:
    reasons = []
    for name in _RUNTIMES:
        try:
            return import_module(name)
        except (ImportError, OSError, RuntimeError) as error:  # it loads the driver's library when imported
            reasons.append(one_line(error))
    raise BackendError(f"the CUDA runtime's Python package cannot be imported ({reasons[0]}); {INSTALL_CUDA}")


def _import_pycuda(name: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError) as error:
        raise BackendError(f"pycuda cannot be imported ({one_line(error)}); pip install pycuda") from error
