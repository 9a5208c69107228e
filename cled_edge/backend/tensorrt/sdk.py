"""The one place that imports TensorRT, and how to install it and the CUDA runtime's bindings."""

from importlib import import_module
from typing import Any

from cled_edge.errors import BackendError

INSTALL_TENSORRT = (
    "on a Jetson it comes with JetPack (sudo apt install python3-libnvinfer, and a virtual environment made with "
    "--system-site-packages); elsewhere: pip install 'cled-edge[tensorrt]'"
)
INSTALL_CUDA = "pip install 'cuda-bindings>=12' of your CUDA's major version, such as 'cuda-bindings==12.*'"


def import_tensorrt() -> Any:
    """Return the `tensorrt` module; BackendError says whether the package or the library behind it is missing."""
    try:
        return import_module("tensorrt")
    except ModuleNotFoundError as error:
        raise BackendError(f"TensorRT is not installed ({error}); {INSTALL_TENSORRT}") from error
    except (ImportError, OSError, RuntimeError) as error:  # the bindings dlopen libnvinfer when they are imported
        reason = _one_line(error)
        raise BackendError(
            f"TensorRT's bindings are installed, but its library cannot be loaded ({reason}); {INSTALL_TENSORRT}"
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
