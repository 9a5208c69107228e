"""The facts of a GPU and its software that an engine depends on."""

import platform
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cled_edge.backend.tensorrt.cuda import Cuda, open_cuda
from cled_edge.backend.tensorrt.sdk import import_tensorrt

_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_POWER_FILE = Path("/var/lib/nvpmodel/status")  # nvpmodel writes "pmode:0002" there, as root, for anybody to read


class DeviceFacts(BaseModel):
    """What an engine was built for, or what is here.

    sm: compute capability without its point, "87" is every Orin. multiprocessors: how many it has: an Orin has 4 to 16.
    memory_gib: in steps of 4, as sold. power_mode: a Jetson's, which sets its clocks. driver: the newest CUDA that the
    kernel driver runs, "12.6". cuda: the CUDA runtime that Python uses. kernel_driver: the driver's own version, None
    where it does not tell. tensorrt: the full version, "10.3.0". arch: "aarch64" or "x86_64".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu: str
    sm: str
    multiprocessors: int
    memory_gib: int
    power_mode: str | None
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
        """Return what an engine's key depends on: all, but of the driver only its major version."""
        return {"driver_major": self.driver_major, **self.model_dump(exclude={"driver", "kernel_driver"})}


def read_facts(binding: str = "cuda", cuda: Cuda | None = None) -> DeviceFacts:
    """Return the facts of the first GPU by a binding to CUDA, or by one that is open.

    BackendError if a package, the driver or the GPU is missing.
    """
    tensorrt = import_tensorrt()
    return DeviceFacts(
        **(cuda or open_cuda(binding)).device(),
        power_mode=power_mode(),
        kernel_driver=kernel_driver(),
        tensorrt=str(tensorrt.__version__),
        os=platform.system().lower(),
        arch=platform.machine().lower(),
    )


def device_name() -> str:
    """Return what the GPU calls itself; BackendError as `read_facts`, which needs TensorRT too."""
    return str(open_cuda().device()["gpu"])


def kernel_driver(path: Path = _DRIVER_FILE) -> str | None:
    """Return the NVIDIA kernel driver's version, "540.4.0", or None where its file is not."""
    return _found(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", path)


def power_mode(path: Path = _POWER_FILE) -> str | None:
    """Return the number of a Jetson's power mode (`nvpmodel -q`), or None where there is none, or it does not tell."""
    return _found(r"pmode:0*(\d+)", path)


def _found(pattern: str, path: Path) -> str | None:
    """Return the group of a pattern's first match in a file, None without either."""
    try:
        found = re.search(pattern, path.read_text())
    except OSError:
        return None
    return found[1] if found else None
