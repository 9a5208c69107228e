"""What running on TensorRT takes beside the bundle and the precision."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cled_edge.backend.tensorrt.device import DeviceFacts
from cled_edge.bundle.reader import Bundle
from cled_edge.size import Size

# Builds a missing engine: of a bundle, a graph's name, a size, for this device, into a folder, by a binding to CUDA.
BuildMissing = Callable[[Bundle, str, Size, DeviceFacts, Path, str], None]


@dataclass(frozen=True)
class CudaOptions:
    """What `tensorrt` alone takes.

    binding: `cuda`, NVIDIA's cuda-python, or `pycuda`, for programs that live in a pycuda context; that has no graphs.
    build_missing: builds an engine that is missing, which takes minutes; None raises an EngineError instead. It is
    `cled_edge.build.builder.build_missing`, which lies above the backends and so is handed in.
    engines: the folder they are in; None is CLED_EDGE_ENGINES or, without it, in the user's cache folder.
    graphs: False launches call by call, to measure what CUDA graphs gain. timed: keep each frame's time on the GPU, by
    events, as `runs.gpu_ms`.
    """

    binding: str = "cuda"
    build_missing: BuildMissing | None = None
    engines: Path | None = None
    graphs: bool = True
    timed: bool = False
