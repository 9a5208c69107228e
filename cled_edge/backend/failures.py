"""How a backend says what went wrong in its SDK."""

from cled_edge.backend.choice import REGISTRY
from cled_edge.errors import BackendError, OutOfMemoryError

# As ONNX Runtime's arena, C++, CUDA and OpenVINO say it.
_NO_MEMORY = ("bad_alloc", "bfc_arena", "failed to allocate memory", "out of memory", "cannot allocate memory")


def missing_package(name: str, error: ImportError) -> BackendError:
    """Return the error for an SDK that cannot be imported, with the line that installs it."""
    return BackendError(f"backend {name} needs a package that cannot be imported ({error}); {REGISTRY[name].install}")


def one_line(error: Exception) -> str:
    """Return the first 300 characters of what an SDK says, which often spans lines."""
    return " ".join(str(error).split())[:300]


def run_failure(sdk: str, graph: str, error: Exception) -> BackendError:
    """Return the error for a graph that an SDK could not run: OutOfMemoryError if it says that memory was missing."""
    said = str(error).lower()
    if isinstance(error, MemoryError) or any(words in said for words in _NO_MEMORY):
        return OutOfMemoryError(
            f"{sdk} found too little memory for {graph} at this size; needed more free memory, or smaller images; "
            "fuse them in tiles"
        )
    return BackendError(f"{sdk} failed in {graph}: {one_line(error)}")
