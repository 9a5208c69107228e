"""pycuda over the same GPU in host memory."""

import ctypes
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.fakes.tensorrt.cuda import TOTAL_BYTES, Gpu, Status, Stream


class PyCudaError(Exception):
    pass


class PyCudaMemoryError(PyCudaError):
    pass


def fake_pycuda(gpu: Gpu, devices: int = 1, has_context: bool = True) -> dict[str, ModuleType | None]:
    """Return the modules of pycuda 2026.1, which has no stream capture."""
    driver, package = ModuleType("pycuda.driver"), ModuleType("pycuda")

    def check(name: str) -> None:
        gpu.calls[name] += 1
        if name in gpu.failing:
            is_memory = gpu.failing[name] == Status.cudaErrorMemoryAllocation
            words = "out of memory" if is_memory else "an illegal memory access was encountered"
            raise (PyCudaMemoryError if is_memory else PyCudaError)(f"{name} failed: {words}")

    class Allocation:
        def __init__(self, size: int) -> None:
            self.address = gpu.allocate(size)

        def __int__(self) -> int:
            return self.address

        def free(self) -> None:
            gpu.free(self.address)

    class PyStream:
        def __init__(self, flags: int) -> None:
            assert flags == 1
            self.stream = Stream(gpu)
            self.handle = int(self.stream)

        def __del__(self) -> None:
            with suppress(KeyError):
                del gpu.streams[self.handle]

        def synchronize(self) -> None:
            self.stream.drain()

    class Event:
        def __init__(self, flags: int) -> None:
            assert flags in (1, 3)
            self.timed = flags == 1
            gpu.events.add(id(self))

        def __del__(self) -> None:
            gpu.events.discard(id(self))

        def record(self, stream: PyStream) -> None:
            self.stream, self.mark = stream.stream, lambda: None
            self.stream.put(self.mark)

        def synchronize(self) -> None:
            check("cuEventSynchronize")
            self.stream.drain(self.mark)

        def time_till(self, other: "Event") -> float:
            assert self.timed
            assert other.timed
            return 0.5

    class Device:
        @staticmethod
        def count() -> int:
            return devices

        def name(self) -> str:
            return "Fake Orin"

        def compute_capability(self) -> tuple[int, int]:
            return 8, 7

        def get_attribute(self, attribute: str) -> int:
            return {"multiprocessors": 8}[attribute]

        def total_memory(self) -> int:
            return 7_990_000_000

    class Context:
        @staticmethod
        def get_device() -> Device:
            if not has_context:
                raise PyCudaError("cuCtxGetDevice failed: invalid device context")
            return Device()

    def mem_alloc(size: int) -> Allocation:
        check("cuMemAlloc")
        if gpu.used + size > TOTAL_BYTES:
            raise PyCudaMemoryError("cuMemAlloc failed: out of memory")
        return Allocation(size)

    def pagelocked_empty(size: int, dtype: Any) -> np.ndarray:
        buffer = gpu.allocate_pinned(size)
        address = ctypes.addressof(buffer)
        owner = (ctypes.c_uint8 * size).from_address(address)
        import weakref

        weakref.finalize(owner, gpu.pinned.pop, address).atexit = False
        return np.frombuffer(owner, dtype)

    def memcpy_htod_async(target: int, source: np.ndarray, stream: PyStream) -> None:
        check("cuMemcpyHtoDAsync")
        gpu.copy(stream.stream, (gpu.view, target), (gpu.host, source.ctypes.data), source.nbytes)

    def memcpy_dtoh_async(target: np.ndarray, source: int, stream: PyStream) -> None:
        gpu.copy(stream.stream, (gpu.host, target.ctypes.data), (gpu.view, source), target.nbytes)

    def memcpy_dtod_async(target: int, source: int, size: int, stream: PyStream) -> None:
        gpu.copy(stream.stream, (gpu.view, target), (gpu.view, source), size)

    package.VERSION_TEXT = "2026.1"
    driver.__dict__.update(
        Error=PyCudaError,
        MemoryError=PyCudaMemoryError,
        init=lambda: None,
        Device=Device,
        device_attribute=SimpleNamespace(MULTIPROCESSOR_COUNT="multiprocessors"),
        Context=Context,
        Stream=PyStream,
        Event=Event,
        event_flags=SimpleNamespace(BLOCKING_SYNC=1, DISABLE_TIMING=2),
        mem_alloc=mem_alloc,
        mem_get_info=lambda: (TOTAL_BYTES - gpu.used, TOTAL_BYTES),
        pagelocked_empty=pagelocked_empty,
        memcpy_htod_async=memcpy_htod_async,
        memcpy_dtoh_async=memcpy_dtoh_async,
        memcpy_dtod_async=memcpy_dtod_async,
        get_driver_version=lambda: 12060,
        get_version=lambda: (12, 6, 0),
    )
    return {"pycuda": package, "pycuda.driver": driver, "pycuda.autoprimaryctx": None}
