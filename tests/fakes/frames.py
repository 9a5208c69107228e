"""Frames for tests: images with a place in a sequence, and no time; videos made of images."""

from collections.abc import Iterable
from pathlib import Path

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
