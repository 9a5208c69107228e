"""Both CUDA bindings do the same over a GPU in host memory, check what every call returns, and give all back."""

import gc
import sys

import numpy as np
import pytest

from cled_edge.backend.tensorrt.cuda import CudaError, open_cuda
from cled_edge.errors import BackendError, OptionError
from tests.fakes.tensorrt.cuda import CudaRuntime, Gpu, Status
from tests.fakes.tensorrt.pycuda import fake_pycuda

CUDA = ("cuda.bindings.runtime", "cuda.cudart")


def install(monkeypatch, gpu: Gpu, binding: str, devices: int = 1, has_context: bool = True) -> str:
    """Let one binding be installed and no other; "cudart" is the older name of the first. Return what to open."""
    name = {"cuda": CUDA[0], "cudart": CUDA[1]}.get(binding)
    modules = dict.fromkeys((*CUDA, "pycuda", "pycuda.driver"))
    modules |= {name: CudaRuntime(name, gpu, devices)} if name else fake_pycuda(gpu, devices, has_context)
    for key, module in modules.items():
        monkeypatch.setitem(sys.modules, key, module)
    return "cuda" if name else "pycuda"


@pytest.fixture
def gpu() -> Gpu:
    return Gpu()


@pytest.fixture(params=["cuda", "cudart", "pycuda"])
def cuda(request, gpu, monkeypatch):
    return open_cuda(install(monkeypatch, gpu, request.param))


def test_copies_happen_in_the_order_of_their_stream_and_are_waited_for(cuda, gpu) -> None:
    stream, event = cuda.stream(), cuda.event()
    first, second = cuda.allocate(64), cuda.allocate(64)
    source, target = cuda.pinned(64), cuda.pinned(64)
    source[:], target[:] = np.arange(64), 0
    cuda.upload(first, source, stream)
    cuda.copy(second + 32, first, 32, stream)
    cuda.download(target, second, stream)
    assert not target.any()
    cuda.record(event, stream)
    cuda.wait(event)
    assert np.array_equal(target[32:], np.arange(32))
    source[:] = 7
    cuda.upload(first, source, stream)
    cuda.synchronise(stream)
    assert (gpu.view(first, 64) == 7).all()
    assert cuda.handle(stream) in gpu.streams
    assert cuda.memory()[0] < cuda.memory()[1]


def test_all_is_given_back_and_pinned_memory_when_nobody_holds_it(cuda, gpu) -> None:
    stream, event, address = cuda.stream(), cuda.event(), cuda.allocate(64)
    kept = cuda.pinned(64).view(np.float32)[2:4]
    kept[:] = 3
    cuda.free(address)
    cuda.destroy_event(event)
    cuda.destroy_stream(stream)
    del stream, event
    gc.collect()
    assert (gpu.used, gpu.streams, gpu.events, len(gpu.pinned)) == (0, {}, set(), 1)
    assert kept.tolist() == [3, 3]
    del kept
    gc.collect()
    assert not gpu.pinned


def test_an_error_names_the_call_the_code_and_what_to_do(cuda, gpu) -> None:
    stream, event = cuda.stream(), cuda.event()
    cuda.record(event, stream)
    is_runtime = cuda.no_capture is None
    gpu.failing = dict.fromkeys(("cudaEventSynchronize", "cuEventSynchronize"), Status.cudaErrorIllegalAddress)
    words = r"cudaErrorIllegalAddress \(700\)" if is_runtime else "an illegal memory access was encountered"
    with pytest.raises(CudaError, match=f"EventSynchronize returned .*{words}; run again") as caught:
        cuda.wait(event)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 12


def test_out_of_memory_tells_how_much_was_free(cuda, gpu) -> None:
    with pytest.raises(
        CudaError, match=r"out of memory for 1000.0 MB: 67 of 67 MB are free; close .* or fuse in tiles"
    ):
        cuda.allocate(10**9)
    cuda.clear_error()
    assert not gpu.last_error


@pytest.mark.parametrize("binding", ["cuda", "cudart"])
def test_a_graph_repeats_what_was_captured_at_its_addresses(gpu, monkeypatch, binding) -> None:
    cuda = open_cuda(install(monkeypatch, gpu, binding))
    stream, address = cuda.stream(), cuda.allocate(8)
    source, target = cuda.pinned(8), cuda.pinned(8)
    cuda.begin_capture(stream)
    cuda.upload(address, source, stream)
    cuda.download(target, address, stream)
    graph = cuda.end_capture(stream)
    executable = cuda.instantiate(graph)
    cuda.destroy_graph(graph)
    cuda.upload_graph(executable, stream)
    for value in (3, 5):
        source[:] = value
        cuda.launch(executable, stream)
        cuda.synchronise(stream)
        assert target.tolist() == [value] * 8
    cuda.destroy_executable(executable)
    assert not gpu.graphs


def test_every_call_of_the_runtime_is_checked(gpu, monkeypatch) -> None:
    """Each function that it calls fails once; none may go by."""
    cuda = open_cuda(install(monkeypatch, gpu, "cuda"))
    stream, event, address, host = cuda.stream(), cuda.event(), cuda.allocate(8), cuda.pinned(8)
    cuda.record(event, stream)
    cuda.wait(event)
    calls = {
        "cudaMalloc": lambda: cuda.allocate(8),
        "cudaFree": lambda: cuda.free(address),
        "cudaHostAlloc": lambda: cuda.pinned(8),
        "cudaStreamCreateWithFlags": cuda.stream,
        "cudaStreamDestroy": lambda: cuda.destroy_stream(stream),
        "cudaEventCreateWithFlags": cuda.event,
        "cudaEventRecord": lambda: cuda.record(event, stream),
        "cudaEventSynchronize": lambda: cuda.wait(event),
        "cudaEventDestroy": lambda: cuda.destroy_event(event),
        "cudaStreamSynchronize": lambda: cuda.synchronise(stream),
        "cudaMemcpyAsync": lambda: cuda.upload(address, host, stream),
        "cudaStreamBeginCapture": lambda: cuda.begin_capture(stream),
        "cudaStreamEndCapture": lambda: cuda.end_capture(stream),
        "cudaGraphInstantiate": lambda: cuda.instantiate(None),
        "cudaGraphUpload": lambda: cuda.upload_graph(None, stream),
        "cudaGraphLaunch": lambda: cuda.launch(None, stream),
        "cudaGraphDestroy": lambda: cuda.destroy_graph(None),
        "cudaGraphExecDestroy": lambda: cuda.destroy_executable(None),
    }
    for name, call in calls.items():
        gpu.failing = {name: Status.cudaErrorInvalidValue}
        with pytest.raises(CudaError, match=rf"{name} returned cudaErrorInvalidValue \(1\)"):
            call()
    used = {name for name in dir(CudaRuntime) if name.startswith("cuda") and name in gpu.calls}
    told = {"cudaRuntimeGetVersion", "cudaGetDeviceCount", "cudaMemGetInfo"}
    assert used - told == set(calls)


@pytest.mark.parametrize("binding", ["cuda", "pycuda"])
def test_no_package_and_no_gpu_say_what_to_do(gpu, monkeypatch, binding) -> None:
    name = install(monkeypatch, gpu, binding, devices=0)
    with pytest.raises(BackendError, match=r"needed (one|an NVIDIA GPU); see nvidia-smi"):
        open_cuda(name)
    for module in (*CUDA, "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=r"cannot be imported \(.*\); pip install"):
        open_cuda(name)
    with pytest.raises(OptionError, match="CUDA binding 'cupy' is unknown; known: cuda, pycuda"):
        open_cuda("cupy")


def test_pycuda_takes_the_primary_context_only_where_none_is_current(gpu, monkeypatch) -> None:
    install(monkeypatch, gpu, "pycuda", has_context=False)
    with pytest.raises(BackendError, match=r"pycuda cannot be imported .*autoprimaryctx"):  # the fake has it not
        open_cuda("pycuda")


def test_pycuda_captures_nothing_and_says_so(gpu, monkeypatch) -> None:
    cuda = open_cuda(install(monkeypatch, gpu, "pycuda"))
    assert cuda.no_capture == "pycuda has no stream capture; take binding cuda for CUDA graphs"
    with pytest.raises(CudaError, match="no stream capture"):
        cuda.begin_capture(cuda.stream())
    facts = {"gpu": "Fake Orin", "sm": "87", "multiprocessors": 8, "memory_gib": 8, "driver": "12.6", "cuda": "12.6"}
    assert cuda.device() == facts == open_cuda(install(monkeypatch, gpu, "cuda")).device()
