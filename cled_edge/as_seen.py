"""What the network sees of a visible image: that of the camera, a night one brightened, a grey one tinted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.contract import Controls
from cled_edge.frame import FusedFrame
from cled_edge.image import ColorOrder, is_flat
from cled_edge.light import LIT, Steady, brightened
from cled_edge.monochrome import TINTED, greyed, is_grey, tinted


@dataclass(frozen=True)
class Seen:
    """A visible image as the network sees it.

    finish: makes the network's result that of the camera again. notes: what was done to the image, in words.
    """

    image: NDArray[Any]
    finish: Callable[[FusedFrame], FusedFrame]
    notes: tuple[str, ...] = ()


def as_seen(
    visible: NDArray[Any],
    controls: Controls,
    color_order: ColorOrder,
    tints_grey: bool,
    steady: Steady | None = None,
) -> Seen:
    """Return what the network sees of an image; one that is no 8-bit image stays as it is, for others to refuse.

    tints_grey: whether the network needs a tint of grey images, see `monochrome.py`. steady: see `SteadyLight`.
    """
    if visible.dtype != np.uint8 or visible.shape[2:] not in ((), (1,), (3,)):
        return Seen(visible, _unchanged)
    image = visible if controls.light == 0 or is_flat(visible) else brightened(visible, controls.light, steady)
    notes = () if image is visible else (LIT.format(light=controls.light),)
    if tints_grey and controls.strength_visible > 0 and is_grey(image):
        return Seen(tinted(image, color_order), greyed, (*notes, TINTED))
    return Seen(image, _unchanged, notes)


def _unchanged(fused: FusedFrame) -> FusedFrame:
    return fused
