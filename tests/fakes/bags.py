"""Bags of ROS 2 as its recorder writes them, made without ROS."""

import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mcap.writer import Writer

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
Message = tuple[str, str, int, bytes]  # topic, kind, recorded at, CDR


class Cdr:
    """Writes plain CDR: numbers at multiples of their size."""

    def __init__(self, order: str = "<") -> None:
        self.order, self.data = order, bytearray()

    def number(self, kind: str, value: int) -> "Cdr":
        self.data += bytes(-len(self.data) % struct.calcsize(kind)) + struct.pack(self.order + kind, value)
        return self

    def octets(self, octets: bytes) -> "Cdr":
        self.number("I", len(octets))
        self.data += octets
        return self

    def text(self, text: str) -> "Cdr":
        return self.octets(text.encode() + b"\0")

    def head(self, stamp_ns: int, frame: str = "camera") -> "Cdr":
        return self.number("i", stamp_ns // 10**9).number("I", stamp_ns % 10**9).text(frame)

    def whole(self) -> bytes:
        return (b"\0\1\0\0" if self.order == "<" else b"\0\0\0\0") + bytes(self.data)


def raw(
    image: np.ndarray, encoding: str, stamp_ns: int, order: str = "<", padding: int = 0, frame: str = "cam"
) -> bytes:
    """Return sensor_msgs/msg/Image: a stored image (H, W) or (H, W, C), with so many bytes behind each row."""
    big = order == ">"
    rows = image.astype(image.dtype.newbyteorder(order)).reshape(len(image), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    cdr = Cdr(order).head(stamp_ns, frame).number("I", image.shape[0]).number("I", image.shape[1]).text(encoding)
    return cdr.number("B", big).number("I", rows.shape[1]).octets(rows.tobytes()).whole()


def compressed(image: np.ndarray, stamp_ns: int, suffix: str = ".png") -> bytes:
    """Return sensor_msgs/msg/CompressedImage of an image in OpenCV's order."""
    return Cdr().head(stamp_ns).text(suffix[1:]).octets(cv2.imencode(suffix, image)[1].tobytes()).whole()


def write_mcap(path: Path, messages: Sequence[Message]) -> Path:
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("ros2")
        channels: dict[str, int] = {}
        for topic, kind, at_ns, data in messages:
            if topic not in channels:
                schema = writer.register_schema(kind, "ros2msg", b"")
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            writer.add_message(channels[topic], at_ns, data, at_ns)
        writer.finish()
    return path


def write_db3(path: Path, messages: Sequence[Message]) -> Path:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name, type, serialization_format)")
        database.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp INTEGER, data BLOB)")
        ids: dict[str, int] = {}
        for topic, kind, at_ns, data in messages:
            if topic not in ids:
                ids[topic] = len(ids) + 1
                database.execute("INSERT INTO topics VALUES(?, ?, ?, 'cdr')", (ids[topic], topic, kind))
            row = (ids[topic], at_ns, data)
            database.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)", row)
    database.close()
    return path
