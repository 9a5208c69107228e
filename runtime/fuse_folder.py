"""Fuse a folder of pairs with the Python API, spelled out.

python -m runtime.fuse_folder pairs/infrared pairs/visible fused
"""

from pathlib import Path

import typer

from cled_edge import Controls, Fuser
from cled_edge.camera.source import open_pair
from cled_edge.errors import one_line_errors
from cled_edge.output.sink import FolderSink


def main(infrared: str, visible: str, out: str) -> None:
    """Fuse every pair at half the removal strength on the visible side."""
    with open_pair(infrared, visible) as source, Fuser.load() as fuser, FolderSink(Path(out)) as sink:
        for pair in source:
            fused = fuser(pair.infrared, pair.visible, Controls(strength_visible=0.5))
            sink.write(fused.picture, fused.name)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
