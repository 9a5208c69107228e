"""One picture file as an output."""

from pathlib import Path

import cv2

from cled_edge.address import Address
from cled_edge.errors import OptionError, OutputError
from cled_edge.files import make_folder, write_whole
from cled_edge.frame import FusedFrame
from cled_edge.image import swapped
from cled_edge.output.sink import PICTURE_SUFFIXES, Output, Shown


class PictureFile(Output):
    """One picture of one pair; its suffix says the format. A second pair is an OutputError. It appears whole."""

    holds = 1

    def __init__(self, address: Address, shows: Shown = "fused", rate_hz: float | None = None) -> None:
        super().__init__(address, shows, rate_hz)
        self.path = self.target = Path(address.place)
        self._is_written = False
        if self.path.suffix.lower() not in PICTURE_SUFFIXES:
            raise OptionError(
                f"{address.text} names no picture; give a name that ends in {', '.join(PICTURE_SUFFIXES)}"
            )

    def __enter__(self) -> "PictureFile":
        if self.path.is_dir():
            raise OutputError(f"{self.path} is a folder; give the name of a picture")
        make_folder(self.path.parent)
        return self

    def write(self, frame: FusedFrame) -> bool:
        """Write the picture."""
        if self._is_written:
            raise OutputError(f"{self.path} holds one picture, and a second pair came; give a folder, or a video")
        image = self.image(frame)
        bgr = swapped(image) if image.ndim == 3 and frame.color_order == "RGB" else image
        write_whole(self.path, cv2.imencode(self.path.suffix.lower(), bgr)[1].tobytes())
        self._is_written = True
        return True
