"""The viewer Rerun as an output: images, ages and latencies on one time line, into a file or a running viewer."""

from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from cled_edge.address import Address
from cled_edge.errors import OptionError, OutputError
from cled_edge.frame import FusedFrame
from cled_edge.image import swapped
from cled_edge.output.frame_facts import facts_of
from cled_edge.output.sink import Output, Shown
from cled_edge.output.view import shown_image

INSTALL = "pip install 'cled-edge[rerun]'"
JPEG_QUALITY = 85
_VIEWS = {"infrared": "infrared-input", "visible": "visible-input"}


class RerunLog(Output):
    """`rerun:FILE.rrd` writes a file, `rerun:HOST:PORT` sends to a viewer that runs there (`rerun --port 9876`).

    It gets the view that the output shows, both inputs, ages, skew, latencies and events. Images go as JPEG: raw ones
    fill a viewer's memory within minutes. OutputError if rerun-sdk is missing.
    """

    drops = True

    def __init__(self, address: Address, shows: Shown = "fused", rate_hz: float | None = None) -> None:
        super().__init__(address, shows, rate_hz)
        host, colon, port = address.place.rpartition(":")
        self._remote = f"rerun+http://{host}:{port}/proxy" if colon and port.isdecimal() and host else None
        if not self._remote and Path(address.place).suffix != ".rrd":
            raise OptionError(f"{address.text} is no place of Rerun; needed rerun:FILE.rrd or rerun:HOST:PORT")
        self.target = None if self._remote else Path(address.place)
        self._rerun: Any = None
        self._stream: Any = None
        self._written = 0

    def __enter__(self) -> "RerunLog":
        try:
            self._rerun = import_module("rerun")
        except ImportError as error:
            raise OutputError(
                f"{self.address.text} needs the package rerun-sdk, which is not installed; {INSTALL}"
            ) from error
        self._stream = self._rerun.RecordingStream("cled-edge")
        if self._remote:
            self._stream.connect_grpc(self._remote)
        else:
            self._stream.save(str(self.target))
        return self

    def write(self, frame: FusedFrame) -> bool:
        """Log a frame."""
        if frame.timestamp_ns is not None:
            self._stream.set_time("taken", duration=frame.timestamp_ns / 1e9)
        self._stream.set_time("frame", sequence=self._written)
        views = {"fused": self.shows, **(_VIEWS if frame.pair is not None else {})}
        for name, view in views.items():
            self._stream.log(name, self._image(frame, view))
        facts = facts_of(frame)
        numbers = {key: facts[key] for key in ("infrared_age_ms", "visible_age_ms", "skew_ms", "total_ms")}
        numbers |= {f"latency_ms/{stage}": value for stage, value in facts["latency_ms"].items()}
        numbers |= {f"controls/{name}": value for name, value in facts["controls"].items()}
        for name, value in numbers.items():
            if value is not None:
                self._stream.log(name, self._rerun.Scalars(float(value)))
        if frame.degraded:
            self._stream.log("log", self._rerun.TextLog(frame.degraded, level="WARN"))
        self._written += 1
        return True

    def _image(self, frame: FusedFrame, view: str) -> Any:
        image = shown_image(frame, view)
        bgr = swapped(image) if image.ndim == 3 and frame.color_order == "RGB" else np.ascontiguousarray(image)
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        return self._rerun.EncodedImage(contents=jpeg, media_type="image/jpeg")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.flush()
            self._stream.disconnect()
