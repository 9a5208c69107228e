"""Images of ROS 2 as they lie in a bag: sensor_msgs Image and CompressedImage in CDR, without ROS."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import SourceUnreadableError
from cled_edge.image import ColorOrder

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_ENCODINGS: dict[str, tuple[str, int, ColorOrder]] = {  # of sensor_msgs/image_encodings.hpp: type, channels, order
    "mono8": ("u1", 1, "BGR"),
    "8UC1": ("u1", 1, "BGR"),
    "mono16": ("u2", 1, "BGR"),
    "16UC1": ("u2", 1, "BGR"),
    "rgb8": ("u1", 3, "RGB"),
    "bgr8": ("u1", 3, "BGR"),
    "8UC3": ("u1", 3, "BGR"),
    "rgba8": ("u1", 4, "RGB"),
    "bgra8": ("u1", 4, "BGR"),
    "yuv422_yuy2": ("u1", 2, "BGR"),
    "yuyv": ("u1", 2, "BGR"),
}


def stamp_ns(data: bytes, kind: str, name: str) -> int:
    """Return the stamp in a message, in ns; errors as `decode_image`."""
    with _named(kind, name):
        message = _Cdr(data)
        return message.number("i") * 10**9 + message.number("I")


def decode_image(data: bytes, kind: str, name: str) -> tuple[NDArray[Any], ColorOrder]:
    """Return a message's image, (H, W) uint8 or uint16 or (H, W, 3) uint8, and its colour order.

    kind: RAW or COMPRESSED. name: of what, for messages. SourceUnreadableError if it is damaged or of another encoding.
    """
    with _named(kind, name):
        message = _Cdr(data)
        message.number("i"), message.number("I")
        message.text()  # the frame of coordinates
        return _raw(message, name) if kind == RAW else (_compressed(message, name), "BGR")


@contextmanager
def _named(kind: str, name: str) -> Iterator[None]:
    try:
        yield
    except SourceUnreadableError:
        raise
    except (struct.error, IndexError, TypeError, ValueError, OverflowError, cv2.error) as error:
        raise SourceUnreadableError(f"{name}: a message is no {kind} in CDR; the bag is damaged") from error


def _raw(message: "_Cdr", name: str) -> tuple[NDArray[Any], ColorOrder]:
    height, width, encoding = message.number("I"), message.number("I"), message.text()
    is_big_endian, step = bool(message.number("B")), message.number("I")
    return raw_image(height, width, encoding, is_big_endian, step, message.octets(), name)


def raw_image(
    height: int, width: int, encoding: str, is_big_endian: bool, step: int, data: Any, name: str
) -> tuple[NDArray[Any], ColorOrder]:
    """Return the image of the fields of a sensor_msgs Image, as `decode_image` does, of an array of its own.

    data: bytes, or anything that has them as a buffer. SourceUnreadableError for another encoding; ValueError if there
    are fewer bytes than height and step say, or no pixel at all.
    """
    if encoding not in _ENCODINGS:
        raise SourceUnreadableError(
            f"{name} has images of encoding {encoding!r}; needed one of {', '.join(_ENCODINGS)}; republish the topic"
        )
    if not height or not width:
        raise ValueError("it has no pixel")
    kind, channels, order = _ENCODINGS[encoding]
    stored = np.dtype(kind).newbyteorder(">" if is_big_endian else "<")
    rows = np.frombuffer(data, np.uint8).reshape(height, step)[:, : width * channels * stored.itemsize]
    image = np.ascontiguousarray(rows).view(stored).astype(stored.newbyteorder("=")).reshape(height, width, channels)
    if channels == 2:
        return cv2.cvtColor(image, cv2.COLOR_YUV2BGR_YUYV), order
    return (image[:, :, 0] if channels == 1 else np.ascontiguousarray(image[:, :, :3])), order


def _compressed(message: "_Cdr", name: str) -> NDArray[Any]:
    message.text()  # the format, which the data tell too
    image = cv2.imdecode(np.frombuffer(message.octets(), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SourceUnreadableError(f"{name}: an image cannot be decoded; needed JPEG or PNG; the bag is damaged")
    if image.dtype not in (np.uint8, np.uint16):
        raise SourceUnreadableError(
            f"{name} has compressed images of {image.dtype}; needed 8 or 16 bit; republish the topic"
        )
    return image[:, :, :3] if image.ndim == 3 else image


class _Cdr:
    """Reads plain CDR from its front: numbers stand at multiples of their size, behind a head of four bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = memoryview(data), 4
        self._order = "<" if data[1] & 1 else ">"

    def number(self, kind: str) -> int:
        size = struct.calcsize(kind)
        self._at += -(self._at - 4) % size
        (value,) = struct.unpack_from(self._order + kind, self._data, self._at)
        self._at += size
        return int(value)

    def octets(self) -> memoryview:
        length = self.number("I")
        part = self._data[self._at : self._at + length]
        if len(part) != length:
            raise ValueError("it ends early")
        self._at += length
        return part

    def text(self) -> str:
        return bytes(self.octets()).rstrip(b"\0").decode()
