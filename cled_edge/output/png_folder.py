"""A folder of PNGs as an output: one file a frame, called by the frame's name."""

from pathlib import Path

from cled_edge.address import Address
from cled_edge.errors import OptionError
from cled_edge.files import make_folder
from cled_edge.frame import FusedFrame
from cled_edge.image import write_png
from cled_edge.output.sink import Output, Shown


class PngFolder(Output):
    """One PNG per frame, RGB or grey. Each file appears whole or not at all."""

    def __init__(self, address: Address, shows: Shown = "picture", rate_hz: float | None = None) -> None:
        super().__init__(address, shows, rate_hz)
        if not address.place:
            raise OptionError(f"{address.text} names no folder; give one, such as folder:fused")
        self.folder = self.target = Path(address.place)

    def __enter__(self) -> "PngFolder":
        make_folder(self.folder)
        return self

    def write(self, frame: FusedFrame) -> bool:
        """Write STEM.png."""
        write_png(self.folder / f"{self.stem(frame)}.png", self.image(frame), frame.color_order)
        return True
