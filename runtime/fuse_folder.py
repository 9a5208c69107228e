"""Fuse a folder of pairs with the Python API, spelled out.

python -m runtime.fuse_folder pairs/infrared pairs/visible fused
"""

import sys
from pathlib import Path

from cled_edge import CledEdgeError, Fuser
from cled_edge.camera.source import open_pair
from cled_edge.sink import FolderSink


def main(infrared: str, visible: str, out: str) -> None:
    """Fuse every pair at half the removal strength on the visible side."""
    with open_pair(infrared, visible) as source, Fuser.load() as fuser, FolderSink(Path(out)) as sink:
        for pair in source:
            fused = fuser(pair.infrared, pair.visible, strength_visible=0.5)
            sink.write(fused.picture, pair.stem)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4])
    except CledEdgeError as error:
        sys.exit(f"error: {error}")
