"""Pictures on disk and in the network: reading, writing, ranges, padding to a multiple and cropping back."""

from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.files import write_whole

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
ColorOrder = Literal["RGB", "BGR"]
_BAND_ROWS = 256


def check_color_order(color_order: str) -> None:
    """Raise OptionError unless it is RGB or BGR."""
    known = get_args(ColorOrder)
    if color_order not in known:
        raise OptionError(f"color_order {color_order!r} is unknown; known: {', '.join(known)}")


def read_image(path: Path, color: bool) -> Uint8:
    """Return a picture as 8-bit RGB (H, W, 3) if `color`, else grey (H, W)."""
    picture = read_any_depth(path)
    if color:
        return rgb_from_any(picture, "BGR")
    return grey_from_any(picture, "BGR")


def read_any_depth(path: Path) -> NDArray[Any]:
    """Return a picture as stored: 8 or 16 bit, (H, W) or BGR (H, W, 3); an alpha channel is dropped."""
    if not path.is_file():
        raise SourceMissingError(f"{path} does not exist; give the path of a picture")
    picture = _decoded(path)
    if picture is None:
        raise SourceUnreadableError(f"{path} is not a whole picture that OpenCV can decode; convert it to PNG or JPEG")
    if picture.ndim == 3:
        picture = np.ascontiguousarray(picture[:, :, :3])
    return picture


def _decoded(path: Path) -> NDArray[Any] | None:
    try:
        content = path.read_bytes()
        # OpenCV fills the rest of a truncated JPEG with grey and says nothing.
        if content[:2] == b"\xff\xd8" and b"\xff\xd9" not in content[-1024:]:
            return None
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except OSError as error:
        raise SourceUnreadableError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except cv2.error:
        return None


def rgb_from_any(picture: NDArray[Any], color_order: ColorOrder = "RGB") -> Uint8:
    """Return 8-bit RGB (H, W, 3) of an 8-bit picture, grey or in `color_order`; 16 bit is an OptionError."""
    if picture.dtype != np.uint8:
        raise OptionError(f"visible pictures must be 8 bit, this one is {picture.dtype}; convert it first")
    if _channels(picture, "visible") == 1:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), np.uint8)
    return swapped(picture) if color_order == "BGR" else np.ascontiguousarray(picture, dtype=np.uint8)


def grey_from_any(picture: NDArray[Any], color_order: ColorOrder = "RGB") -> Uint8:
    """Return 8-bit grey (H, W) of an 8 or 16 bit infrared picture of one or three channels (their BT.601 luma).

    16 bit is stretched from its 0.1 to its 99.9 percentile, per picture: raw thermal counts use a narrow band.
    """
    if picture.dtype not in (np.uint8, np.uint16):
        raise OptionError(
            f"infrared pictures must be 8 or 16 bit unsigned, this one is {picture.dtype}; convert it first"
        )
    if _channels(picture, "infrared") == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY if color_order == "BGR" else cv2.COLOR_RGB2GRAY)
    picture = picture.reshape(picture.shape[:2])
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture, dtype=np.uint8)
    low, high = _stretch_band(picture)
    grey = np.empty(picture.shape, np.uint8)
    # In bands of rows, so that a large picture is not held in float32 as well.
    for top in range(0, len(picture), _BAND_ROWS):
        stretched = picture[top : top + _BAND_ROWS].astype(np.float32) - low
        stretched *= np.float32(255 / max(high - low, 1))
        grey[top : top + _BAND_ROWS] = np.rint(np.clip(stretched, 0, 255))
    return grey


def _stretch_band(picture: NDArray[np.uint16]) -> Float32:
    """Return the counts at the 0.1 and the 99.9 percentile, taken from a histogram: a sort takes six times as long."""
    counts = np.zeros(1 << 16, np.int64)
    for top in range(0, len(picture), _BAND_ROWS):
        counts += np.bincount(picture[top : top + _BAND_ROWS].ravel(), minlength=len(counts))
    up_to = np.cumsum(counts)
    ranks = np.array((0.001, 0.999)) * (picture.size - 1)
    return np.searchsorted(up_to, ranks, side="right").astype(np.float32)


def swapped(color: NDArray[Any]) -> Uint8:
    """Return RGB of BGR and BGR of RGB, (H, W, 3) uint8, as an array of its own.

    At 480x640 OpenCV takes 0.02 ms for it, np.ascontiguousarray(color[:, :, ::-1]) 1.2.
    """
    return np.asarray(cv2.cvtColor(color, cv2.COLOR_BGR2RGB), np.uint8)


def network_from_bytes(picture: Uint8) -> Float32:
    """Return x = byte / 127.5 - 1, float32 in [-1, 1], same shape."""
    return picture * np.float32(1 / 127.5) - np.float32(1)


def bytes_from_network(x: Float32) -> Uint8:
    """Return (H, W, C) uint8 of (C, H, W) in [-1, 1], rounded and clamped; undoes `network_from_bytes` exactly."""
    scaled = (x + np.float32(1)) * np.float32(127.5)
    planes = np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)
    # At 3x480x640 a copy of planes.transpose(1, 2, 0) takes 1.1 ms, this 0.1.
    return np.asarray(cv2.merge(list(planes)), np.uint8).reshape(*planes.shape[1:], len(planes))


def write_png(path: Path, picture: Uint8, color_order: ColorOrder = "RGB") -> None:
    """Write 8-bit grey (H, W) or (H, W, 3) in `color_order`; whole or not at all. OutputError if it cannot."""
    pixels = swapped(picture) if picture.ndim == 3 and color_order == "RGB" else np.ascontiguousarray(picture)
    write_whole(path, cv2.imencode(".png", pixels)[1].tobytes())


def _channels(picture: NDArray[Any], what: str) -> int:
    channels = 1 if picture.ndim == 2 else picture.shape[2] if picture.ndim == 3 else 0
    if channels not in (1, 3) or not picture.size:
        raise OptionError(f"{what} has shape {picture.shape}; needed (height, width) or (height, width, 1 or 3)")
    return channels
