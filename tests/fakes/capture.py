"""A fake of OpenCV's VideoCapture."""

import cv2
import numpy as np


class Capture:
    """An OpenCV capture of 4x6 frames with the stamps that a driver gives, in ms.

    sizes, rates_hz: (height, width) and rates that it can give, beside its own. formats: pixel formats that it can
    give, the first unless another is asked for. Grey formats of 16 bit give counts if the conversion is off, and as one
    row of bytes if `is_flattened`; OpenCV cuts them to 8 bit if it is on.
    """

    def __init__(
        self,
        stamps_ms: list[float],
        rate_hz: float = 0.0,
        undecodable: int = -1,
        formats: tuple[str, ...] = ("YUYV",),
        is_flattened: bool = False,
        sizes: tuple[tuple[int, int], ...] = (),
        rates_hz: tuple[float, ...] = (),
    ) -> None:
        self.stamps_ms, self.rate_hz, self.undecodable, self.at = stamps_ms, rate_hz, undecodable, -1
        self.formats, self.format, self.is_flattened, self.converts = formats, formats[0], is_flattened, True
        self.sizes, self.rates_hz = sizes, rates_hz
        self.sides = {cv2.CAP_PROP_FRAME_HEIGHT: 4.0, cv2.CAP_PROP_FRAME_WIDTH: 6.0}
        self.released = 0
        self.counts = np.arange(7000, 7024, dtype=np.uint16).reshape(4, 6)

    def set(self, what: int, value: float) -> bool:
        if what == cv2.CAP_PROP_CONVERT_RGB:
            self.converts = bool(value)
        elif what == cv2.CAP_PROP_FOURCC:
            wanted = int(value).to_bytes(4, "little", signed=True).decode("latin1")
            self.format = wanted if wanted in self.formats else self.format
        elif what == cv2.CAP_PROP_FPS:
            self.rate_hz = value if value in self.rates_hz else self.rate_hz
        elif what in self.sides:
            order = (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
            for size in self.sizes:
                if size[order.index(what)] == value:
                    self.sides = {side: float(length) for side, length in zip(order, size, strict=True)}
        return True

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, what: int) -> float:
        known = {
            cv2.CAP_PROP_FPS: self.rate_hz,
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*self.format),
            **self.sides,
        }
        return known[what] if what in known else self.stamps_ms[self.at]

    def grab(self) -> bool:
        self.at += 1
        return self.at < len(self.stamps_ms)

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        if self.at == self.undecodable:
            return False, None
        if not self.format.startswith("Y1"):
            return True, np.zeros((4, 6), np.uint8)
        if self.converts:
            return True, (self.counts >> 8).astype(np.uint8)
        return True, self.counts.view(np.uint8).reshape(1, -1) if self.is_flattened else self.counts

    def release(self) -> None:
        self.released += 1
