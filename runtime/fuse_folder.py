"""Fuse a folder of pairs with the Python API, spelled out.

python -m runtime.fuse_folder pairs/infrared pairs/visible fused
"""

import typer

from cled_edge import Controls, Fuser
from cled_edge.errors import one_line_errors
from cled_edge.output.sink import open_output
from cled_edge.pairing import open_pair


def main(infrared: str, visible: str, out: str) -> None:
    """Fuse every pair at half the removal strength on the visible image."""
    controls = Controls(strength_visible=0.5)
    with open_pair(infrared, visible) as pairs, Fuser.load(color_order="BGR") as fuser, open_output(out) as output:
        for pair in pairs:
            output.write(fuser(pair.infrared, pair.visible, controls))
            print(f"fused {pair.name}")
    print(f"wrote {out}")


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
