"""A GPU in host memory: what is put on a stream happens when somebody waits for it, and reads real bytes.

Wrong use is an AssertionError or shows in the bytes: memory is filled with 0xA5 before anybody wrote it, freed memory
is gone, and a graph repeats what was captured at the addresses that it was captured with.
"""

# ruff: noqa: N802, N815  the names are CUDA's

import ctypes
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

POISON = 0xA5
TOTAL_BYTES = 1 << 26


class Status(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class Stream:
    def __init__(self, gpu: "Gpu") -> None:
        self.gpu, self.queue, self.recorded, self.invalid = gpu, [], None, False
        self.number = gpu.new_number()
        gpu.streams[self.number] = self

    def __int__(self) -> int:
        return self.number

    def put(self, work: Callable[[], None]) -> None:
        (self.queue if self.recorded is None else self.recorded).append(work)

    def drain(self, until: object = None) -> None:
        while self.queue:
            work = self.queue.pop(0)
            if work is until:
                return
            work()


class Graph:
    def __init__(self, gpu: "Gpu", work: list[Callable[[], None]]) -> None:
        self.work, self.uploaded = tuple(work), False
        gpu.graphs.add(self)


class Gpu:
    """failing: status that a call of the runtime returns from now on, by name."""

    def __init__(self) -> None:
        self.blocks: dict[int, np.ndarray] = {}
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: set[Graph] = set()
        self.events: set[Any] = set()
        self.calls: Counter[str] = Counter()
        self.failing: dict[str, Status] = {}
        self.last_error = Status.cudaSuccess
        self.replaying = False
        self._number = 0x1000

    def new_number(self, size: int = 1) -> int:
        number, self._number = self._number, self._number + 256 * (size // 256 + 2)
        return number

    @property
    def used(self) -> int:
        return sum(block.size for block in self.blocks.values())

    def allocate(self, size: int) -> int:
        address = self.new_number(size)
        self.blocks[address] = np.full(size, POISON, np.uint8)
        for stream in self.streams.values():
            stream.invalid = stream.invalid or stream.recorded is not None
        return address

    def free(self, address: int) -> None:
        for stream in self.streams.values():
            stream.drain()
        assert address in self.blocks, f"{address:#x} was freed before, or never allocated"
        del self.blocks[address]

    def view(self, address: int, size: int) -> np.ndarray:
        for start, block in self.blocks.items():
            if start <= address and address + size <= start + block.size:
                return block[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address:#x} are not allocated")

    def array(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.view(address, size).view(dtype).reshape(shape)

    def allocate_pinned(self, size: int) -> Any:
        buffer = (ctypes.c_uint8 * size)()
        ctypes.memset(buffer, POISON, size)
        self.pinned[ctypes.addressof(buffer)] = buffer
        return buffer

    def host(self, address: int, size: int) -> np.ndarray:
        for start, buffer in self.pinned.items():
            if start <= address and address + size <= start + len(buffer):
                return np.frombuffer(buffer, np.uint8)[address - start : address - start + size]
        raise AssertionError("an asynchronous copy of host memory that is not page-locked")

    def copy(self, stream: Stream, target: tuple[Any, int], source: tuple[Any, int], size: int) -> None:
        """Copy when the stream gets there; a place is a lookup, `view` or `host`, and an address."""

        def work() -> None:
            target[0](target[1], size)[:] = source[0](source[1], size).copy()

        stream.put(work)


class CudaRuntime(ModuleType):
    """cuda-python's runtime module. Every function returns its status first."""

    cudaError_t = Status
    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1
    device_name = b"Fake Orin"
    multiprocessors, memory_bytes = 8, 7_990_000_000  # of a Jetson sold with 8 GB
    cudaEventBlockingSync = 1
    cudaEventDisableTiming = 2
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3)
    cudaStreamCaptureMode = SimpleNamespace(
        cudaStreamCaptureModeGlobal="global",
        cudaStreamCaptureModeThreadLocal="thread",
        cudaStreamCaptureModeRelaxed="no",
    )

    def __init__(self, name: str, gpu: Gpu, devices: int = 1) -> None:
        super().__init__(name)
        self.gpu, self.devices = gpu, devices

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not (name.startswith("cuda") and callable(found)) or name == "cudaError_t":
            return found
        gpu = super().__getattribute__("gpu")

        def called(*arguments: Any) -> tuple[Any, ...]:
            gpu.calls[name] += 1
            if name == "cudaStreamEndCapture":  # the capture ends in any case
                arguments[0].invalid = arguments[0].invalid or name in gpu.failing
                status, *values = found(*arguments)
            else:
                status, *values = (gpu.failing[name], None) if name in gpu.failing else found(*arguments)
            if status and name != "cudaGetLastError":
                gpu.last_error = status
            return (status, *values)

        return called

    def cudaRuntimeGetVersion(self):
        return Status.cudaSuccess, 12060

    def cudaDriverGetVersion(self):
        return Status.cudaSuccess, 12060

    def cudaGetDeviceCount(self):
        return (Status.cudaSuccess, self.devices) if self.devices else (Status.cudaErrorNoDevice, 0)

    def cudaGetDeviceProperties(self, device):
        return Status.cudaSuccess, SimpleNamespace(
            name=self.device_name,
            major=8,
            minor=7,
            multiProcessorCount=self.multiprocessors,
            totalGlobalMem=self.memory_bytes,
        )

    def cudaGetErrorString(self, status):
        return Status.cudaSuccess, status.name.encode()

    def cudaGetLastError(self):
        status, self.gpu.last_error = self.gpu.last_error, Status.cudaSuccess
        return (status,)

    def cudaMemGetInfo(self):
        return Status.cudaSuccess, TOTAL_BYTES - self.gpu.used, TOTAL_BYTES

    def cudaMalloc(self, size):
        if self.gpu.used + size > TOTAL_BYTES:
            return Status.cudaErrorMemoryAllocation, None
        return Status.cudaSuccess, self.gpu.allocate(size)

    def cudaFree(self, address):
        self.gpu.free(address)
        return (Status.cudaSuccess,)

    def cudaHostAlloc(self, size, flags):
        return Status.cudaSuccess, ctypes.addressof(self.gpu.allocate_pinned(size))

    def cudaFreeHost(self, address):
        del self.gpu.pinned[address]
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        assert isinstance(stream, Stream)
        gpu, kinds = self.gpu, self.cudaMemcpyKind
        if kind == kinds.cudaMemcpyHostToDevice:
            gpu.host(source, size)
            gpu.copy(stream, (gpu.view, target), (gpu.host, source), size)
        elif kind == kinds.cudaMemcpyDeviceToHost:
            gpu.host(target, size)
            gpu.copy(stream, (gpu.host, target), (gpu.view, source), size)
        else:
            gpu.copy(stream, (gpu.view, target), (gpu.view, source), size)
        return (Status.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == self.cudaStreamNonBlocking
        return Status.cudaSuccess, Stream(self.gpu)

    def cudaStreamCreate(self):
        return Status.cudaSuccess, Stream(self.gpu)

    def cudaMemset(self, address, value, size):
        self.gpu.view(address, size)[:] = value
        return (Status.cudaSuccess,)

    def cudaStreamDestroy(self, stream):
        del self.gpu.streams[stream.number]
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream):
        if stream.recorded is not None:
            stream.invalid = True
            return (Status.cudaErrorStreamCaptureUnsupported,)
        stream.drain()
        return (Status.cudaSuccess,)

    def cudaEventCreateWithFlags(self, flags):
        assert flags in (1, 3)
        event = SimpleNamespace(stream=None, mark=None, timed=flags == 1)
        self.gpu.events.add(id(event))
        return Status.cudaSuccess, event

    def cudaEventRecord(self, event, stream):
        event.stream, event.mark = stream, lambda: None
        stream.put(event.mark)
        return (Status.cudaSuccess,)

    def cudaEventSynchronize(self, event):
        event.stream.drain(event.mark)
        return (Status.cudaSuccess,)

    def cudaEventElapsedTime(self, begin, end):
        assert begin.timed
        assert end.timed
        return Status.cudaSuccess, 0.5

    def cudaEventDestroy(self, event):
        self.gpu.events.remove(id(event))
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream, mode):
        assert mode == "thread", "another mode lets calls of other threads fail"
        assert not stream.queue, "captured before what went ahead was done"
        assert stream.recorded is None
        stream.recorded, stream.invalid = [], False
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        if stream.recorded is None:
            return Status.cudaErrorInvalidValue, None
        recorded, stream.recorded = stream.recorded, None
        if stream.invalid:
            return Status.cudaErrorStreamCaptureInvalidated, None
        return Status.cudaSuccess, Graph(self.gpu, recorded)

    def cudaGraphInstantiate(self, graph, flags):
        assert graph in self.gpu.graphs
        return Status.cudaSuccess, Graph(self.gpu, graph.work)

    def cudaGraphUpload(self, graph, stream):
        graph.uploaded = True
        return (Status.cudaSuccess,)

    def cudaGraphLaunch(self, graph, stream):
        assert graph in self.gpu.graphs, "launched after it was destroyed"
        assert graph.uploaded

        def replayed(work: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                self.gpu.replaying = True
                try:
                    work()
                finally:
                    self.gpu.replaying = False

            return run

        for work in graph.work:
            stream.put(replayed(work))
        return (Status.cudaSuccess,)

    def cudaGraphDestroy(self, graph):
        self.gpu.graphs.remove(graph)
        return (Status.cudaSuccess,)

    cudaGraphExecDestroy = cudaGraphDestroy
