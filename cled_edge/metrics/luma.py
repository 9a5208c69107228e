"""What the metrics look at: the 8-bit luma of a picture, and pictures of one size."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import OptionError, SizeMismatchError
from cled_edge.image import Uint8

Float64 = NDArray[np.float64]


def luma(picture: NDArray[Any], name: str = "picture") -> Uint8:
    """Return the BT.601 luma (H, W) of uint8 grey (H, W), (H, W, 1) or RGB (H, W, 3), in 16-bit fixed point.

    Rounds as Pillow's mode "L", which published scores were made with; OpenCV's grey differs by 1 in some pixels.
    OptionError for other types and shapes.
    """
    check_picture(picture, name)
    if picture.ndim == 2:
        return np.asarray(picture, np.uint8)
    if picture.shape[2] == 1:
        return np.asarray(picture[:, :, 0], np.uint8)
    weighted = picture[:, :, 0] * np.uint32(19595)
    weighted += picture[:, :, 1] * np.uint32(38470)
    weighted += picture[:, :, 2] * np.uint32(7471)
    weighted += np.uint32(1 << 15)
    return (weighted >> np.uint32(16)).astype(np.uint8)


def check_picture(picture: NDArray[Any], name: str) -> None:
    """Raise OptionError unless `picture` is uint8, grey or RGB, and not empty."""
    shaped = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (1, 3))
    if picture.dtype != np.uint8 or not shaped or not picture.size:
        raise OptionError(
            f"{name} is {picture.dtype} of shape {picture.shape}; "
            "scores need uint8 of (height, width) or (height, width, 3); convert it first"
        )


def check_sizes(**pictures: NDArray[Any]) -> None:
    """Raise SizeMismatchError unless all have the same height and width; the keywords name them."""
    sizes = {name: picture.shape[:2] for name, picture in pictures.items()}
    if len(set(sizes.values())) > 1:
        seen = ", ".join(f"{name} is {size[0]}x{size[1]}" for name, size in sizes.items())
        raise SizeMismatchError(f"{seen}; scores need one size; resize or crop them to the same pixels")


def check_smallest(picture: NDArray[Any], smallest: int, what: str) -> None:
    """Raise OptionError if a side is under `smallest` pixels."""
    height, width = picture.shape[:2]
    if min(height, width) < smallest:
        raise OptionError(
            f"the picture is {height}x{width}; {what} needs {smallest} pixels a side; score larger pictures"
        )
