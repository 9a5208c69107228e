"""Attention: where the fused image leans on one of the restored images, pixel by pixel."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import OptionError
from cled_edge.frame import FusedFrame
from cled_edge.image import Float32


def check_attention(attention: NDArray[Any] | None, size: tuple[int, int]) -> None:
    """Raise OptionError unless it is None or float32 (H, W) of that size, each number between -1 and 1."""
    if attention is None:
        return
    if not isinstance(attention, np.ndarray) or attention.dtype != np.float32 or attention.shape != size:
        seen = f"{getattr(attention, 'dtype', type(attention).__name__)} {getattr(attention, 'shape', '')}".strip()
        raise OptionError(f"attention is {seen}, needed an array float32 {size}: height and width; give it so")
    lowest, highest = float(attention.min()), float(attention.max())
    if not -1 <= lowest <= highest <= 1:  # a NaN is not between either
        raise OptionError(
            f"attention goes from {lowest:g} to {highest:g}; each number must lie between -1 (the visible) and 1 (the "
            "infrared); scale it"
        )


def attending(fused: FusedFrame, attention: Float32) -> FusedFrame:
    """Return the fused frame, mixed with the restored image that each pixel's attention asks for.

    attention: (H, W), -1 to 1. p is the fused image, v the restored visible one, y its luma (BT.601), i the infrared:

        p + a (v + i - y - p)   where the attention a is above 0: at 1 the infrared, in the visible's colours
        p - a (v - p)           where it is below 0: at -1 the restored visible

    These ends are those of `balance`, and 0 leaves what the balance gave. The picture is written to.
    """
    leans = np.flatnonzero(attention.any(axis=1))
    if not len(leans):
        return fused
    rows = slice(int(leans[0]), int(leans[-1]) + 1)
    asked, visible = attention[rows], fused.visible[rows]
    luma = cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY if fused.color_order == "RGB" else cv2.COLOR_BGR2GRAY)
    above = cv2.subtract(fused.infrared[rows], luma, dtype=cv2.CV_16S)
    above[asked <= 0] = 0
    aim = cv2.add(visible, cv2.merge([above] * 3), dtype=cv2.CV_8U)
    share = np.abs(asked)
    fused.picture[rows] = cv2.blendLinear(fused.picture[rows], aim, 1 - share, share)
    return fused
