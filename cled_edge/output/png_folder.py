"""A folder of PNGs as an output: one file a frame, called by the frame's name."""

import os
from pathlib import Path
from types import TracebackType

from cled_edge.address import Address
from cled_edge.errors import OptionError, OutputError
from cled_edge.files import make_folder
from cled_edge.frame import FusedFrame
from cled_edge.image import write_png
from cled_edge.output.claim import lock
from cled_edge.output.sink import Output, Shown


class PngFolder(Output):
    """One PNG per frame, RGB or grey. Each file appears whole or not at all.

    OutputError if another run is writing into the folder. PNGs of earlier runs stay, and a note says how many.
    """

    def __init__(self, address: Address, shows: Shown = "fused", rate_hz: float | None = None) -> None:
        super().__init__(address, shows, rate_hz)
        if not address.place:
            raise OptionError(f"{address.text} names no folder; give one, such as folder:fused")
        self.folder = self.target = Path(address.place)
        self._older: set[str] = set()
        self._descriptor: int | None = None

    def __enter__(self) -> "PngFolder":
        make_folder(self.folder)
        if os.name == "posix":  # elsewhere a folder cannot be opened, nor locked
            self._descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
            if not lock(self._descriptor):
                self._unlock()
                raise OutputError(
                    f"another run is writing into {self.folder}; wait for its end, or choose another folder"
                )
        self._older = {path.name for path in self.folder.glob("[!.]*.png")}
        return self

    def write(self, frame: FusedFrame) -> bool:
        """Write STEM.png."""
        name = f"{self.stem(frame)}.png"
        write_png(self.folder / name, self.image(frame), frame.color_order)
        self._older.discard(name)
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._older:
            self.notes.append(
                f"{self.folder} also holds {len(self._older)} PNGs of earlier runs, such as {min(self._older)}; "
                "remove them, or choose an empty folder"
            )
        self._unlock()

    def _unlock(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
