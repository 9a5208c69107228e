"""A frame in PyTorch on CUDA, launch by launch or as one CUDA graph, for `benchmarks.gpu`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cled_edge.bundle.reader import Bundle
from cled_edge.errors import BackendError, CheckpointError
from cled_edge.network.checkpoint import load_checkpoint
from cled_edge.network.precision import at_precision
from cled_edge.network.sampler import FusedLoop, InOrder
from cled_edge.size import Size

VERSION = f"torch {torch.__version__}"
_WARM_UPS = 5


class TorchFrame:
    """A module on the GPU with page-locked arrays on both sides, on a stream of its own.

    cuda_graph: its calls are captured, as one graph; the copies are not part of that.
    """

    def __init__(
        self, run: Callable[..., Sequence[Tensor]], inputs: Mapping[str, NDArray[Any]], *, cuda_graph: bool
    ) -> None:
        self._run = run
        self._stream = torch.cuda.Stream()
        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._host = [torch.from_numpy(np.ascontiguousarray(value)).pin_memory() for value in inputs.values()]
        self._device = [value.cuda() for value in self._host]
        with torch.no_grad(), torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):  # picks algorithms
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


def torch_frame(
    bundle: Bundle, size: Size, steps: int, inputs: Mapping[str, NDArray[Any]], checkpoints: Path, cuda_graph: bool
) -> TorchFrame:
    """Return a bundle's frame in FP16, typed as its graphs are.

    BackendError without a GPU, CheckpointError if the checkpoint is not the bundle's.
    """
    path = checkpoints / f"{bundle.manifest.name}.safetensors"
    model, training = load_checkpoint(path)
    if training != bundle.manifest.training:
        raise CheckpointError(f"{path} was trained otherwise than {bundle.path} says; give the one that was exported")
    if not torch.cuda.is_available():
        raise BackendError(f"{VERSION} sees no GPU, needed CUDA and a driver that fits; see nvidia-smi")
    module = InOrder(FusedLoop(at_precision(model, "fp16"), steps, size), list(inputs)).eval().cuda()
    return TorchFrame(module, inputs, cuda_graph=cuda_graph)
