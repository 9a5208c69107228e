"""What is shown where one camera sees nothing: the other one's restored image, softly joined to the fused one."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.frame import FusedFrame
from cled_edge.image import Float32, Uint8

_PIXEL = np.dtype("V3")  # three bytes at once: to pick pixels by index takes half the time


def bordered(fused: FusedFrame, validity: Uint8) -> FusedFrame:
    """Return the fused frame with the restored visible where the infrared is not valid, and the other way round.

    validity: see `FramePair`; it must not be changed between two calls. The picture is written to: a copy takes as long
    as the rest. The restored images stay as they are.
    """
    picture = fused.picture
    for index, border in enumerate(_borders(validity)):
        if border is None:
            continue
        other = fused.visible if index == 0 else cv2.cvtColor(fused.infrared, cv2.COLOR_GRAY2BGR)
        cv2.copyTo(other, border.outside, picture)
        fused_pixels, others = (image.reshape(-1, 3).view(_PIXEL)[:, 0] for image in (picture, other))
        if len(border.ramp):
            near, far = (pixels[border.ramp].view(np.uint8).reshape(-1, 1, 3) for pixels in (fused_pixels, others))
            blended = cv2.blendLinear(near, far, border.share, 1 - border.share)
            fused_pixels[border.ramp] = blended.reshape(-1, 3).view(_PIXEL)[:, 0]
    return replace(fused, validity=validity)


@dataclass(frozen=True, eq=False)
class _Border:
    """Where a camera sees nothing, (H, W), 255 there; which pixels are on the ramp, and its share of them, (N, 1)."""

    outside: Uint8
    ramp: NDArray[np.intp]
    share: Float32

    @classmethod
    def of(cls, mask: Uint8) -> "_Border | None":
        """Return that of a mask, (H, W); None if the camera sees all."""
        if mask.min() == 255:
            return None
        ramp = np.flatnonzero(cv2.inRange(mask, 1, 254))
        share = mask.reshape(-1)[ramp, None].astype(np.float32) * np.float32(1 / 255)
        return cls(np.asarray(cv2.inRange(mask, 0, 0), np.uint8), ramp, share)


_known: list[tuple[Uint8, list[_Border | None]]] = []  # the last: to find them takes longer than to join the images


def _borders(validity: Uint8) -> list[_Border | None]:
    for known, borders in _known:
        if known is validity:
            return borders
    found = [_Border.of(np.ascontiguousarray(validity[:, :, index])) for index in (0, 1)]
    _known[:] = [(validity, found)]
    return found
