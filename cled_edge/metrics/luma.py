"""What the metrics look at: the 8-bit luma of an image, and images of one size."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import OptionError, SizeMismatchError
from cled_edge.image import Uint8

Float64 = NDArray[np.float64]


def luma(image: NDArray[Any], name: str = "image") -> Uint8:
    """Return the BT.601 luma (H, W) of uint8 grey (H, W), (H, W, 1) or RGB (H, W, 3), in 16-bit fixed point.

    Rounds as Pillow's mode "L", which published scores were made with; OpenCV's grey differs by 1 in some pixels.
    OptionError for other types and shapes.
    """
    check_image(image, name)
    if image.ndim == 2:
        return np.asarray(image, np.uint8)
    if image.shape[2] == 1:
        return np.asarray(image[:, :, 0], np.uint8)
    wide = image.astype(np.uint32)  # NumPy 1 keeps the bytes of an array times a number, and loses what overflows
    weighted = wide[:, :, 0] * 19595 + wide[:, :, 1] * 38470 + wide[:, :, 2] * 7471
    weighted += np.uint32(1 << 15)
    return (weighted >> np.uint32(16)).astype(np.uint8)


def check_image(image: NDArray[Any], name: str) -> None:
    """Raise OptionError unless `image` is uint8, grey or RGB, and not empty."""
    shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))
    if image.dtype != np.uint8 or not shaped or not image.size:
        raise OptionError(
            f"{name} is {image.dtype} of shape {image.shape}; "
            "scores need uint8 of (height, width) or (height, width, 3); convert it first"
        )


def check_sizes(**images: NDArray[Any]) -> None:
    """Raise SizeMismatchError unless all have the same height and width; the keywords name them."""
    sizes = {name: image.shape[:2] for name, image in images.items()}
    if len(set(sizes.values())) > 1:
        seen = ", ".join(f"{name} is {size[0]}x{size[1]}" for name, size in sizes.items())
        raise SizeMismatchError(f"{seen}; scores need one size; resize or crop them to the same pixels")


def check_smallest(image: NDArray[Any], smallest: int, what: str) -> None:
    """Raise OptionError if a side is under `smallest` pixels."""
    height, width = image.shape[:2]
    if min(height, width) < smallest:
        raise OptionError(f"the image is {height}x{width}; {what} needs {smallest} pixels a side; score larger images")
