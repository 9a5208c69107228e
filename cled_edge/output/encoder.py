"""Frames into a video container by FFmpeg (PyAV): every frame is in the file as soon as it is added."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import Any

import cv2  # noqa: F401 (before av: once PyAV has loaded its libxcb, windows of OpenCV hang for ever, opencv#29195)

# isort: split
import av

from cled_edge.image import Uint8
from cled_edge.output.growing_file import GrowingFile

H264, MJPEG = "H.264", "Motion JPEG"
# Fragments of one frame: what is cut off at any byte plays up to there. A proper end makes an ordinary file of them.
_MOVFLAGS = "empty_moov+default_base_moof+frag_every_frame+hybrid_fragmented"
_CONTAINERS: dict[str, tuple[str, dict[str, str]]] = {
    ".avi": ("avi", {}),
    ".mkv": ("matroska", {"cluster_time_limit": "1"}),  # ms: a frame is written when the next one comes
    ".mov": ("mov", {"movflags": _MOVFLAGS}),
    ".mp4": ("mp4", {"movflags": _MOVFLAGS}),
}
# zerolatency: no frame waits in the encoder for later ones. ultrafast takes 4 ms of one core at 480x640, veryfast 11.
_X264 = {"preset": "ultrafast", "tune": "zerolatency", "crf": "21"}
_Choice = tuple[str, str, str, dict[str, str]]  # the encoder's name in FFmpeg, codec, pixel format, settings
_ENCODERS: tuple[_Choice, ...] = (
    ("libx264", H264, "yuv420p", _X264),
    ("libopenh264", H264, "yuv420p", {}),
)
_JPEG: _Choice = ("mjpeg", MJPEG, "yuvj420p", {"qmin": "2", "qmax": "4"})
_TICKS_HZ = 90_000  # holds 1/25, 1/30, 1001/30000 s exactly


class Encoder:
    """Writes frames of one size, (height, width) of even sides, with their times into a file; errors are OSError.

    codec: H264 where this PyAV has an encoder of it and the container takes it, else MJPEG.
    An AVI has no times but its rate: there, frames that come later leave gaps of whole periods.
    """

    def __init__(self, file: GrowingFile, size: tuple[int, int], rate_hz: float) -> None:
        suffix = file.path.suffix.lower()
        container, options = _CONTAINERS[suffix]
        name, self.codec, pixels, settings = chosen_encoder(suffix)
        rate = Fraction(rate_hz).limit_denominator(1001)
        self._ticks = rate if suffix == ".avi" else Fraction(_TICKS_HZ)
        self._period = max(1, round(self._ticks / rate))
        self._last = -1
        self._file = file
        with _as_os_error(file):
            self._container: Any = av.open(file, "w", format=container, options={**options, "flush_packets": "1"})
            stream: Any = self._container.add_stream(name, rate=rate)
            self._stream = stream
            self._stream.height, self._stream.width = size
            self._stream.pix_fmt = pixels
            context = self._stream.codec_context
            context.options = settings
            context.gop_size = max(1, math.ceil(rate))  # a key frame every second, to seek to
            context.time_base = 1 / self._ticks

    def add(self, bgr: Uint8, time_ns: int) -> None:
        """Add a BGR frame (H, W, 3) that is shown from `time_ns` after the video's begin, which must grow."""
        with _as_os_error(self._file):
            frame = av.VideoFrame.from_ndarray(bgr, format="bgr24")
            self._last = max(self._last + 1, round(time_ns * self._ticks / 10**9))
            frame.pts, frame.time_base = self._last, 1 / self._ticks
            self._mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what a finished file of this kind has at its end."""
        with _as_os_error(self._file):
            self._mux(self._stream.encode(None))
            self._container.close()

    def abandon(self) -> None:
        """Let go of a file that takes no more; nothing is written. Left to the end of Python, PyAV 14.0 crashes."""
        with suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._period
            self._container.mux(packet)


def chosen_encoder(suffix: str) -> _Choice:
    """Return the first encoder that is there for a container, by its suffix."""
    if suffix != ".avi":  # H.264 in AVI has no defined form
        for encoder in _ENCODERS:
            if _is_there(encoder[0]):
                return encoder
    return _JPEG


def _is_there(name: str) -> bool:
    try:
        av.codec.Codec(name, "w")
    except ValueError:  # UnknownCodecError is one
        return False
    return True


@contextmanager
def _as_os_error(file: GrowingFile) -> Iterator[None]:
    """Raise what went wrong in the file, else what FFmpeg says, as an OSError: FFmpeg may also say nothing."""
    try:
        yield
    except (av.FFmpegError, OSError, ValueError) as error:
        raise file.failure or OSError(getattr(error, "errno", None), str(error)) from error
    if file.failure:
        raise file.failure
