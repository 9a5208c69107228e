"""A fake of OpenCV's VideoCapture."""

import cv2
import numpy as np


class Capture:
    """An OpenCV capture of grey frames with the stamps that a driver gives, in ms."""

    def __init__(self, stamps_ms: list[float], rate_hz: float = 0.0, undecodable: int = -1) -> None:
        self.stamps_ms, self.rate_hz, self.undecodable, self.at = stamps_ms, rate_hz, undecodable, -1
        self.released = 0

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FPS: self.rate_hz, cv2.CAP_PROP_FRAME_COUNT: -1e15}.get(what) or self.stamps_ms[self.at]

    def grab(self) -> bool:
        self.at += 1
        return self.at < len(self.stamps_ms)

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return (False, None) if self.at == self.undecodable else (True, np.zeros((4, 6), np.uint8))

    def release(self) -> None:
        self.released += 1
