"""A folder of NPZ files as an output: within how many grey levels each restored pixel is right, `uncertainty:DIR`."""

import io
from pathlib import Path

import numpy as np

from cled_edge.address import Address
from cled_edge.errors import OptionError, OutputError
from cled_edge.files import make_folder, write_whole
from cled_edge.frame import FusedFrame
from cled_edge.output.sink import Output, Shown


class UncertaintyFolder(Output):
    """One STEM.npz per frame with `infrared` and `visible`, (H, W) float32 in grey levels, see `FusedFrame`."""

    def __init__(self, address: Address, shows: Shown = "fused", rate_hz: float | None = None) -> None:
        super().__init__(address, shows, rate_hz)
        if not address.place:
            raise OptionError(f"{address.text} names no folder; give one, such as uncertainty:levels")
        self.folder = self.target = Path(address.place)

    def __enter__(self) -> "UncertaintyFolder":
        make_folder(self.folder)
        return self

    def write(self, frame: FusedFrame) -> bool:
        """Write STEM.npz; OutputError for a frame without uncertainty, as of two lost cameras it has none."""
        if frame.uncertainty is None:
            raise OutputError("a frame has no uncertainty to write, as it was not asked for; load the fuser with it")
        infrared, visible = frame.uncertainty
        np.savez(content := io.BytesIO(), infrared=infrared, visible=visible)
        write_whole(self.folder / f"{self.stem(frame)}.npz", content.getvalue())
        return True
