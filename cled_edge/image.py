"""Pictures on disk and in the network: reading, writing, ranges, padding to a multiple and cropping back."""

from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.decoder import read_page
from cled_edge.errors import OptionError
from cled_edge.files import write_whole
from cled_edge.thermal import FLAT_LEVELS, WHITE_HOT, Thermal

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
ColorOrder = Literal["RGB", "BGR"]


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
    """Return a picture as stored, its first page: 8 or 16 bit, (H, W) or BGR (H, W, 3).

    Black where it is transparent. Raises the errors of `cled_edge.decoder.read_page`.
    """
    return read_page(path).image


def rgb_from_any(picture: NDArray[Any], color_order: ColorOrder = "RGB") -> Uint8:
    """Return 8-bit RGB (H, W, 3) of an 8-bit picture, grey or in `color_order`; 16 bit is an OptionError."""
    if picture.dtype != np.uint8:
        raise OptionError(f"visible pictures must be 8 bit, this one is {picture.dtype}; convert it first")
    if _channels(picture, "visible") == 1:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), np.uint8)
    return swapped(picture) if color_order == "BGR" else np.ascontiguousarray(picture, dtype=np.uint8)


def grey_from_any(picture: NDArray[Any], color_order: ColorOrder = "RGB", thermal: Thermal = WHITE_HOT) -> Uint8:
    """Return 8-bit grey (H, W) of an 8 or 16 bit infrared picture of one or three channels (their BT.601 luma).

    thermal: how its values become grey; see there.
    """
    if picture.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise OptionError(
            f"infrared pictures must be 8 or 16 bit unsigned, this one is {picture.dtype}; convert it first"
        )
    picture = picture.astype(picture.dtype.newbyteorder("="), copy=False)
    if _channels(picture, "infrared") == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY if color_order == "BGR" else cv2.COLOR_RGB2GRAY)
    return thermal.grey(picture.reshape(picture.shape[:2]))


def is_flat(picture: NDArray[Any]) -> bool:
    """Say whether no channel of an image has more than `FLAT_LEVELS` between its darkest and its brightest pixel."""
    if picture.dtype.kind != "u" or not picture.size:
        return False
    planes = picture.reshape(*picture.shape[:2], -1)
    for part in (planes[::16, ::16], planes):  # most images show on a few pixels that they are not flat
        channels = np.ascontiguousarray(part.reshape(-1, part.shape[2]).T)  # side by side it takes five times as long
        if (channels.max(axis=1).astype(np.int32) - channels.min(axis=1) > FLAT_LEVELS).any():
            return False
    return True


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
