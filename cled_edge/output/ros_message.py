"""Messages of ROS 2 as bytes, without ROS: CDR, little endian, of the few types that a bag of this project holds."""

import struct

from cled_edge.image import Uint8

_LINE = "=" * 80
_HEADER = f"""{_LINE}
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
{_LINE}
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
SCHEMAS = {  # type -> its definition, as rosbag2 stores it
    "sensor_msgs/msg/Image": "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\n"
    f"uint8 is_bigendian\nuint32 step\nuint8[] data\n{_HEADER}",
    "sensor_msgs/msg/CompressedImage": f"std_msgs/Header header\nstring format\nuint8[] data\n{_HEADER}",
    "std_msgs/msg/String": "string data\n",
}


class _Cdr:
    """Bytes that grow; each number stands at a multiple of its size, counted behind the four bytes of the kind."""

    def __init__(self) -> None:
        self._bytes = bytearray(b"\x00\x01\x00\x00")

    def number(self, form: str, value: int) -> "_Cdr":
        size = struct.calcsize(form)
        self._bytes += b"\x00" * (-(len(self._bytes) - 4) % size)
        self._bytes += struct.pack(f"<{form}", value)
        return self

    def text(self, value: str) -> "_Cdr":
        encoded = value.encode() + b"\x00"
        self.number("I", len(encoded))
        self._bytes += encoded
        return self

    def content(self, value: bytes) -> "_Cdr":
        self.number("I", len(value))
        self._bytes += value
        return self

    def header(self, stamp_ns: int, frame_id: str) -> "_Cdr":
        seconds, rest = divmod(stamp_ns, 10**9)
        return self.number("i", seconds).number("I", rest).text(frame_id)

    def done(self) -> bytes:
        return bytes(self._bytes)


def image_message(image: Uint8, encoding: str, stamp_ns: int, frame_id: str) -> bytes:
    """Return a sensor_msgs/msg/Image of an image (H, W) or (H, W, 3), 8 or 16 bit; encoding: mono8, mono16 or bgr8."""
    height, width = image.shape[:2]
    little = image.astype(image.dtype.newbyteorder("<"), copy=False)
    start = _Cdr().header(stamp_ns, frame_id).number("I", height).number("I", width).text(encoding).number("B", 0)
    return start.number("I", image.nbytes // height).content(little.tobytes()).done()


def compressed_message(jpeg: bytes, stamp_ns: int, frame_id: str) -> bytes:
    """Return a sensor_msgs/msg/CompressedImage of a JPEG."""
    return _Cdr().header(stamp_ns, frame_id).text("jpeg").content(jpeg).done()


def text_message(text: str) -> bytes:
    """Return a std_msgs/msg/String."""
    return _Cdr().text(text).done()
