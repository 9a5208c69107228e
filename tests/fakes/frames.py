"""Frames for tests: images with a place in a sequence, and no time."""

import numpy as np

from cled_edge.frame import ORDER, Frame, FramePair


def frame_of(image: np.ndarray, index: int = 0, name: str = "", clock: str = ORDER, timestamp_ns: int = 0) -> Frame:
    return Frame(image, timestamp_ns, clock, index, "test", "RGB", name)


def pair_of(infrared: np.ndarray, visible: np.ndarray, index: int = 0, name: str = "") -> FramePair:
    return FramePair(frame_of(infrared, index, name), frame_of(visible, index, name))
