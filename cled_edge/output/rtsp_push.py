"""A stream to an RTSP server as an output: H.264, pushed as a publisher does."""

import time
from collections.abc import Callable
from fractions import Fraction
from types import TracebackType
from typing import Any

import cv2  # noqa: F401 (before av, see cled_edge.output.encoder)

# isort: split
import av

from cled_edge.address import Address
from cled_edge.errors import OutputError, without_credentials
from cled_edge.frame import FusedFrame
from cled_edge.image import Uint8
from cled_edge.output.encoder import H264, MJPEG, chosen_encoder
from cled_edge.output.sink import Output, Shown
from cled_edge.output.video_writer import FALLBACK_RATE_HZ, Timeline, even_bgr

OPEN_WITHIN_S, WRITE_WITHIN_S = 5.0, 2.0
AGAIN_AFTER_S = 2.0
_TICKS_HZ = 90_000


class RtspPush(Output):
    """Publishes at `rtsp://HOST:PORT/NAME`, over TCP. A server such as MediaMTX hands it to any number of viewers.

    It drops what the line does not take. OutputError if the server cannot be reached at the first frame, or PyAV has
    no encoder of H.264. A server that goes away later is tried again every two seconds, and a note counts it: the run
    goes on.
    """

    drops = True

    def __init__(self, address: Address, shows: Shown = "fused", rate_hz: float | None = None) -> None:
        super().__init__(address, shows, rate_hz)
        self._url = f"{address.scheme}:{address.place}"
        self._rate = Fraction(rate_hz or FALLBACK_RATE_HZ).limit_denominator(1001)
        self.now_s: Callable[[], float] = time.monotonic
        self._container: Any = None
        self._stream: Any = None
        self._times = Timeline(round(1e9 / self._rate))
        self._due_s = 0.0
        self._lost = 0
        self._has_been_open = False

    def write(self, frame: FusedFrame) -> bool:
        """Push a frame, or leave it out while the server is away."""
        image = even_bgr(self.image(frame), frame.color_order)
        if self._container is None and self.now_s() < self._due_s:
            return True
        try:
            if self._container is not None and image.shape[:2] != (self._stream.height, self._stream.width):
                self._close()  # a stream has one size: the server gets another
            if self._container is None:
                self._open(image)
            picture = av.VideoFrame.from_ndarray(image, format="bgr24")
            time_ns = self._times.of(frame.timestamp_ns, frame.clock)
            picture.pts, picture.time_base = time_ns * _TICKS_HZ // 10**9, Fraction(1, _TICKS_HZ)
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._give_up(error)
        return True

    def _open(self, image: Uint8) -> None:
        name, codec, pixels, settings = chosen_encoder(".mp4")
        if codec == MJPEG:
            raise OutputError(f"a stream needs {H264}, of which this PyAV has no encoder; install a PyAV that has one")
        options = {"rtsp_transport": "tcp"}
        self._container = av.open(
            self._url, "w", format="rtsp", options=options, timeout=(OPEN_WITHIN_S, WRITE_WITHIN_S)
        )
        stream: Any = self._container.add_stream(name, rate=self._rate)
        stream.height, stream.width, stream.pix_fmt = image.shape[0], image.shape[1], pixels
        stream.codec_context.options = settings
        stream.codec_context.gop_size = max(1, round(self._rate))  # a viewer waits a second for a picture at most
        stream.codec_context.time_base = Fraction(1, _TICKS_HZ)
        self._stream = stream
        self._times = Timeline(round(1e9 / self._rate))
        self._container.start_encoding()
        self._has_been_open = True

    def _give_up(self, error: Exception) -> None:
        """Let go of a server that does not answer; raise OutputError if it never did."""
        self._close()
        self._due_s = self.now_s() + AGAIN_AFTER_S
        if not self._has_been_open:
            reason = without_credentials(getattr(error, "strerror", None) or str(error))
            raise OutputError(
                f"{self.address.shown} takes no stream: {reason}; needed an RTSP server that accepts publishers; "
                "start it, or correct the address"
            ) from error
        self._lost += 1
        times = "once" if self._lost == 1 else f"{self._lost} times"
        self.notes[:] = [f"{self.address.shown} went away {times}, and was tried again every {AGAIN_AFTER_S:g} s"]

    def _close(self) -> None:
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            try:
                container.close()
            except (av.FFmpegError, OSError, ValueError):  # its end cannot be told to a server that is away
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()
