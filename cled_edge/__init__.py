"""Infrared and visible camera fusion with a few-step residual diffusion model, for the edge.

Names are imported on first use, so that `import cled_edge` costs nothing but itself.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cled_edge.bundle.reader import Bundle
    from cled_edge.camera.source import open_camera
    from cled_edge.contract import Controls
    from cled_edge.errors import (
        BackendError,
        BundleCorruptError,
        BundleMissingError,
        BundleVersionError,
        CalibrationError,
        CheckpointError,
        CledEdgeError,
        DataError,
        DivergedError,
        EngineError,
        NoPairsError,
        OptionError,
        OutOfMemoryError,
        OutputError,
        ParityError,
        ResultError,
        SignatureError,
        SizeMismatchError,
        SlowerError,
        SourceMissingError,
        SourceUnreadableError,
        UnmatchedStemsError,
    )
    from cled_edge.frame import Frame, FramePair, FusedFrame
    from cled_edge.fuser import Fuser

__all__ = [
    "BackendError",
    "Bundle",
    "BundleCorruptError",
    "BundleMissingError",
    "BundleVersionError",
    "CalibrationError",
    "CheckpointError",
    "CledEdgeError",
    "Controls",
    "DataError",
    "DivergedError",
    "EngineError",
    "Frame",
    "FramePair",
    "FusedFrame",
    "Fuser",
    "NoPairsError",
    "OptionError",
    "OutOfMemoryError",
    "OutputError",
    "ParityError",
    "ResultError",
    "SignatureError",
    "SizeMismatchError",
    "SlowerError",
    "SourceMissingError",
    "SourceUnreadableError",
    "UnmatchedStemsError",
    "open_camera",
]
__version__ = "0.1.0"
# ONNX Runtime reads it when it is loaded, by whichever module. Without it, it writes an identifier of the machine into
# the user's home and may send events (1.32). Who sets it to 0 wants that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOME = {  # where each name lies; an error's is cled_edge.errors
    "Bundle": "cled_edge.bundle.reader",
    "Controls": "cled_edge.contract",
    "Frame": "cled_edge.frame",
    "FramePair": "cled_edge.frame",
    "FusedFrame": "cled_edge.frame",
    "Fuser": "cled_edge.fuser",
    "open_camera": "cled_edge.camera.source",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_HOME.get(name, "cled_edge.errors")), name)
    raise AttributeError(f"module 'cled_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
