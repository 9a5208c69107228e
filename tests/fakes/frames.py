"""Frames for tests: images with a place in a sequence, and no time; videos made of images."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import cv2  # noqa: F401 (before av)

# isort: split
import av
import numpy as np

from cled_edge.frame import ORDER, Frame, FramePair
from cled_edge.output.sink import output_address
from cled_edge.output.video_writer import VideoWriter


def frame_of(image: np.ndarray, index: int = 0, name: str = "", clock: str = ORDER, timestamp_ns: int = 0) -> Frame:
    return Frame(image, timestamp_ns, clock, index, "test", "RGB", name)


def pair_of(infrared: np.ndarray, visible: np.ndarray, index: int = 0, name: str = "") -> FramePair:
    return FramePair(frame_of(infrared, index, name), frame_of(visible, index, name))


def write_video(path: Path, images: Iterable[np.ndarray], rate_hz: float) -> None:
    with VideoWriter(output_address(str(path)), rate_hz=rate_hz) as video:
        for index, image in enumerate(images):
            video.append(image, str(index), "RGB")


def write_timed_video(
    path: Path,
    images: Sequence[np.ndarray],
    times_ms: Sequence[int] | None = None,
    *,
    codec: str = "ffv1",
    pixels: str = "gray",
    rate_hz: int = 25,
    fast_start: bool = False,
) -> None:
    """Write images, (H, W) or BGR, as `pixels` with their presentation times; by default at the rate."""
    base = Fraction(1, 1000 if times_ms else rate_hz)
    times = range(len(images)) if times_ms is None else times_ms
    with av.open(str(path), "w", options={"movflags": "faststart"} if fast_start else {}) as file:
        stream = file.add_stream(codec, rate=rate_hz)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base
        for image, time in zip(images, times, strict=True):
            stored = pixels if image.ndim == 2 and pixels.startswith("gray") else "gray" if image.ndim == 2 else "bgr24"
            frame = av.VideoFrame.from_ndarray(image, format=stored).reformat(format=pixels)
            frame.pts, frame.time_base = time, base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
