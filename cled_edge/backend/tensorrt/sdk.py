"""The one place that imports TensorRT and the CUDA runtime, and says how to install what is missing."""

from importlib import import_module
from typing import Any

from cled_edge.errors import BackendError

INSTALL_TENSORRT = (
    "on a Jetson it comes with JetPack (sudo apt install python3-libnvinfer, and a virtual environment made with "
    "--system-site-packages); elsewhere: pip install 'cled-edge[tensorrt]'"
)
INSTALL_CUDA = "pip install 'cuda-bindings>=12' of your CUDA's major version, such as 'cuda-bindings==12.*'"
_CUDA_MODULES = ("cuda.bindings.runtime", "cuda.cudart")  # since 12.6; before


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


def import_cuda() -> Any:
    """Return the CUDA runtime's Python module, under its new or old name; BackendError if it is not installed."""
    reasons = []
    for name in _CUDA_MODULES:
        try:
            return import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(_one_line(error))
    raise BackendError(f"the CUDA runtime's Python package cannot be imported ({reasons[0]}); {INSTALL_CUDA}")


def cuda_call(cuda: Any, name: str, *arguments: Any) -> Any:
    """Call the CUDA runtime; return what it returned beside its status, and raise BackendError if that is an error."""
    status, *values = getattr(cuda, name)(*arguments)
    if int(status) != 0:
        words = cuda.cudaGetErrorString(status)[1]
        text = words.decode() if isinstance(words, bytes) else str(words)
        raise BackendError(f"{name} failed: {text} (CUDA error {int(status)}); see: cled-edge doctor")
    return values[0] if len(values) == 1 else tuple(values)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
