"""Infrared and visible camera fusion with a few-step residual diffusion model, for the edge.

Names are imported on first use, so that `import cled_edge` costs nothing but itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cled_edge.bundle.reader import Bundle
    from cled_edge.contract import Controls
    from cled_edge.errors import CledEdgeError
    from cled_edge.frame import Frame, FusedFrame
    from cled_edge.fuser import Fuser
    from cled_edge.schedule import Schedule

_HOME = {
    "Bundle": "cled_edge.bundle.reader",
    "CledEdgeError": "cled_edge.errors",
    "Controls": "cled_edge.contract",
    "Frame": "cled_edge.frame",
    "FusedFrame": "cled_edge.frame",
    "Fuser": "cled_edge.fuser",
    "Schedule": "cled_edge.schedule",
}

__all__ = ["Bundle", "CledEdgeError", "Controls", "Frame", "FusedFrame", "Fuser", "Schedule"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'cled_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
