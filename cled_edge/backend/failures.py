"""How a backend says what went wrong in its SDK."""

from cled_edge.backend.choice import REGISTRY
from cled_edge.errors import BackendError


def missing_package(name: str, error: ImportError) -> BackendError:
    """Return the error for an SDK that cannot be imported, with the line that installs it."""
    return BackendError(f"backend {name} needs a package that cannot be imported ({error}); {REGISTRY[name].install}")


def one_line(error: Exception) -> str:
    """Return the first 300 characters of what an SDK says, which often spans lines."""
    return " ".join(str(error).split())[:300]
