"""TensorRT plans from outside. Deserialising one runs its code, so only its first bytes are looked at."""

import hashlib
from pathlib import Path
from typing import Any

from cled_edge.errors import OptionError, SourceMissingError
from cled_edge.files import Reader

# As NVIDIA's trtexec --getPlanVersionOnly reads them (sampleEngines.cpp): a tag, a serialisation version, and,
# of version 0, four bytes of TensorRT's own version. They are a hint for a message, no proof of anything.
_TAG = b"ftrt"
_HEAD_BYTES = 28
_CHUNK_BYTES = 2**20
_PLANS = Reader(SourceMissingError, OptionError, "give a .plan or .engine file", follow_links=True)


def inspect_plan(path: Path) -> dict[str, Any]:
    """Return size, SHA-256, the first four bytes and, if they are TensorRT's, the version it may have been built by.

    SourceMissingError if it cannot be read, OptionError if it is no regular file.
    """
    digest = hashlib.sha256()
    with _PLANS.opened(path) as (file, size):
        head = b""
        while chunk := file.read(_CHUNK_BYTES):
            head = head or chunk[:_HEAD_BYTES]
            digest.update(chunk)
    tagged = head[:4] == _TAG
    versioned = tagged and len(head) == _HEAD_BYTES and head[4:8] == bytes(4)
    return {
        "kind": "TensorRT plan",
        "path": str(path),
        "bytes": size,
        "sha256": digest.hexdigest(),
        "magic": head[:4].hex(),
        "magic_is_tensorrt": tagged,
        "version_hint": ".".join(str(byte) for byte in head[24:28]) if versioned else None,
    }
