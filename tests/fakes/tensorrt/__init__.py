"""A `tensorrt` module in pieces, and a CUDA runtime over a GPU in host memory.

releases: versions and enums. builder, built_engine: what a build needs, with faults that a test names. runtime: engines
that compute with NumPy, for the runner. cuda, pycuda: the GPU.
"""

from types import ModuleType

from tests.fakes.tensorrt.builder import builder_classes
from tests.fakes.tensorrt.built_engine import engine_classes
from tests.fakes.tensorrt.cuda import CudaRuntime, Gpu
from tests.fakes.tensorrt.releases import SEEN, VERSIONS, Enum, Member, module_of

__all__ = ["SEEN", "VERSIONS", "Enum", "Member", "make", "make_cuda"]


def make(release: str, fault: str = "") -> ModuleType:
    """Return the module of a release, to build with; `fault` is what goes wrong in it."""
    trt = module_of(release)
    for classes in (builder_classes, engine_classes):
        for one in classes(trt, release, fault):
            setattr(trt, one.__name__, one)
    return trt


def make_cuda(devices: int = 1) -> CudaRuntime:
    """Return the CUDA runtime as cuda-bindings has it, over a GPU in host memory."""
    runtime = CudaRuntime("cuda.bindings.runtime", Gpu(), devices)
    runtime.device_name = b"Orin"
    return runtime
