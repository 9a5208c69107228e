"""The forms in PyTorch on CUDA, the GPU's peaks as PyTorch reaches them, and the arithmetic that a frame holds."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_frame import Form, Frame
from cled_edge.errors import BackendError, CheckpointError
from cled_edge.network.checkpoint import load_checkpoint
from cled_edge.network.precision import at_precision
from cled_edge.network.presets import preset
from cled_edge.network.sampler import CledFusion, FusedLoop

_WARM_UPS = 5
_HALF_BYTES = 2
_GEMM_SIDE, _COPY_BYTES, _PEAK_RUNS = 8192, 1 << 30, 20
_DENSE = ("convolution", "mm", "addmm", "bmm", "baddbmm")  # of ATen: what no fusing spares from memory


def module_of(frame: Frame, checkpoints: Path) -> nn.Module:
    """Return a frame in FP16, typed as its graphs are; CheckpointError if the checkpoint is not the bundle's."""
    name = frame.bundle.manifest.name
    model, training = load_checkpoint(checkpoints / f"{name}.safetensors")
    if training != frame.bundle.manifest.training:
        raise CheckpointError(
            f"{checkpoints / name}.safetensors was trained otherwise than {frame.bundle.path} says; give the one that "
            "was exported"
        )
    typed = at_precision(model, "fp16")
    return FusedLoop(typed, frame.steps, frame.size).eval()


class TorchFrame:
    """A module on the GPU with page-locked arrays on both sides, on a stream of its own.

    cuda_graph: its calls are captured, as one graph; the copies are not part of that.
    """

    def __init__(self, run: Callable[..., Sequence[Tensor]], inputs: dict[str, NDArray[Any]], *, cuda_graph: bool):
        self._run = run
        self._stream = torch.cuda.Stream()
        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._host = [torch.from_numpy(np.ascontiguousarray(value)).pin_memory() for value in inputs.values()]
        self._device = [value.cuda() for value in self._host]
        with torch.no_grad(), torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):  # compiles, and picks algorithms
                outputs = run(*self._device)
            self._stream.synchronize()
            self._outputs = [torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for value in outputs]
        self._graph, self._captured = None, outputs
        if cuda_graph:
            self._graph = torch.cuda.CUDAGraph()
            with torch.no_grad(), torch.cuda.graph(self._graph, stream=self._stream):
                self._captured = run(*self._device)

    def __call__(self) -> list[NDArray[Any]]:
        """Upload, compute, download; return the outputs, which the next call overwrites."""
        with torch.no_grad(), torch.cuda.stream(self._stream):
            self._begin.record(self._stream)
            for device, host in zip(self._device, self._host, strict=True):
                device.copy_(host, non_blocking=True)
            if self._graph is None:
                outputs = self._run(*self._device)
            else:
                self._graph.replay()
                outputs = self._captured
            for host, value in zip(self._outputs, outputs, strict=True):
                host.copy_(value, non_blocking=True)
            self._end.record(self._stream)
        self._end.synchronize()
        return [value.numpy() for value in self._outputs]

    def gpu_ms(self) -> float:
        """Return what the last call took on the GPU."""
        return float(self._begin.elapsed_time(self._end))


def open_torch(frame: Frame, form: str, checkpoints: Path) -> Form:
    """Return torch-eager, torch-compile (max-autotune) or torch-graph of a frame."""
    torch.cuda.reset_peak_memory_stats()
    module = module_of(frame, checkpoints).cuda()
    run: Any = module
    if form == "torch-compile":
        torch.compiler.reset()
        run = torch.compile(module, mode="max-autotune")
    call = TorchFrame(run, frame.inputs, cuda_graph=form == "torch-graph")
    call()
    facts = {"device_mb": round(torch.cuda.max_memory_allocated() / 1e6, 1)}
    how = {"torch-eager": "stream launches", "torch-compile": "max-autotune", "torch-graph": "one CUDA graph"}[form]
    return Form(call, call.gpu_ms, lambda: how, f"torch {torch.__version__}", facts, torch.cuda.empty_cache)


def check_gpu() -> None:
    """Raise BackendError unless PyTorch reaches a GPU."""
    if not torch.cuda.is_available():
        raise BackendError(f"torch {torch.__version__} sees no GPU, needed CUDA and a driver that fits; see nvidia-smi")


class _Traffic(TorchDispatchMode):
    """Counts the numbers that convolutions and matrix products read and write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = function(*arguments, **(options or {}))
        if function.overloadpacket.__name__ in _DENSE:
            tensors = [value for value in (*arguments, result) if isinstance(value, Tensor)]
            self.numbers += sum(math.prod(tensor.shape) for tensor in tensors)
        return result


def work(name: str, size: tuple[int, int], steps: int) -> dict[str, float]:
    """Return GFLOP of a preset's frame (a product and its sum are 2) and the MB that it must move at least in FP16.

    The MB are what convolutions and matrix products read and write; whatever is fused, these pass through memory.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter, _Traffic() as traffic:
        model, picture = CledFusion(preset(name)).eval(), torch.empty(1, 3, *size)
        model(picture, picture, torch.empty(2), torch.empty(1), steps)
    return {
        "gflop": round(counter.get_total_flops() / 1e9, 2),
        "mb": round(traffic.numbers * _HALF_BYTES / 1e6, 1),
    }


def peaks() -> dict[str, float]:
    """Return the GPU's FP16 matrix rate in TFLOP/s, and its rate of copying in GB/s, bytes read plus bytes written."""
    a, b = (torch.randn(_GEMM_SIDE, _GEMM_SIDE, device="cuda", dtype=torch.float16) for _ in range(2))
    source = torch.empty(_COPY_BYTES, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    product_ms = _least_ms(lambda: torch.mm(a, b))
    copy_ms = _least_ms(lambda: target.copy_(source))
    return {
        "fp16_tflop_s": round(2 * _GEMM_SIDE**3 / product_ms / 1e9, 1),
        "copy_gb_s": round(2 * _COPY_BYTES / copy_ms / 1e6, 1),
    }


def _least_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(_PEAK_RUNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(float(begin.elapsed_time(end)))
    return min(times)
