"""The facts of a GPU and its software that an engine depends on."""

import platform
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cled_edge.backend.tensorrt.sdk import cuda_call, import_cuda, import_tensorrt
from cled_edge.errors import BackendError

_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_NO_DEVICE, _NO_DRIVER = 100, 35  # cudaErrorNoDevice, cudaErrorInsufficientDriver


class DeviceFacts(BaseModel):
    """What an engine was built for, or what is here.

    sm: compute capability without its point, "87" is Orin. driver: the newest CUDA that the kernel driver runs, "12.6".
    cuda: the CUDA runtime that Python uses. kernel_driver: the driver's own version, None where it does not tell.
    tensorrt: the full version, "10.3.0". arch: "aarch64" or "x86_64".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu: str
    sm: str
    driver: str
    cuda: str
    kernel_driver: str | None
    tensorrt: str
    os: str
    arch: str

    @property
    def driver_major(self) -> int:
        """The major version of `driver`."""
        return int(self.driver.split(".")[0])

    def key_values(self) -> dict[str, object]:
        """Return what an engine's key depends on: of the driver only its major version."""
        names = {"gpu", "sm", "tensorrt", "os", "arch"}
        return {"driver_major": self.driver_major, **self.model_dump(include=names)}


def read_facts(device: int = 0) -> DeviceFacts:
    """Return the facts of a GPU, by its CUDA number; BackendError if a package, the driver or the GPU is missing."""
    tensorrt = import_tensorrt()
    cuda = import_cuda()
    properties = _properties(cuda, device)
    return DeviceFacts(
        gpu=_name(properties),
        sm=f"{properties.major}{properties.minor}",
        driver=_cuda_version(cuda_call(cuda, "cudaDriverGetVersion")),
        cuda=_cuda_version(cuda_call(cuda, "cudaRuntimeGetVersion")),
        kernel_driver=kernel_driver(),
        tensorrt=str(tensorrt.__version__),
        os=platform.system().lower(),
        arch=platform.machine().lower(),
    )


def device_name(device: int = 0) -> str:
    """Return what a GPU calls itself; BackendError as `read_facts`, which needs TensorRT too."""
    return _name(_properties(import_cuda(), device))


def kernel_driver(path: Path = _DRIVER_FILE) -> str | None:
    """Return the NVIDIA kernel driver's version, "540.4.0", or None where its file is not."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", path.read_text())
    except OSError:
        return None
    return found[1] if found else None


def _name(properties: Any) -> str:
    name = properties.name
    return (name.decode() if isinstance(name, bytes) else str(name)).rstrip("\0 ")


def _properties(cuda: Any, device: int) -> Any:
    status, count = cuda.cudaGetDeviceCount()
    if int(status) == _NO_DRIVER:
        raise BackendError("the NVIDIA driver is missing or older than the CUDA runtime; update it, see: nvidia-smi")
    if int(status) == _NO_DEVICE or (int(status) == 0 and count == 0):
        raise BackendError("no NVIDIA GPU is visible here, needed one; check nvidia-smi and CUDA_VISIBLE_DEVICES")
    if int(status) == 0 and not 0 <= device < count:
        raise BackendError(f"GPU {device} was asked for, there are {count}; give a number from 0 to {count - 1}")
    return cuda_call(cuda, "cudaGetDeviceProperties", device)


def _cuda_version(number: int) -> str:
    """Return "12.6" for 12060."""
    return f"{number // 1000}.{number % 1000 // 10}"
