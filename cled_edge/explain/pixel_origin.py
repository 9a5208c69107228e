"""Where the fused pixel came from: an exact sum of four parts, and what taking each restoration back would change.

With the restored lumas I' = I - s_i R_i and V' = V - s_v R_v and the fused luma F, in grey levels,

    w    = (F - V') / (I' - V'), cut to [0, 1]         the share of infrared; 1 - w is the share of visible
    F    = w I + (1 - w) V - (w s_i R_i + (1 - w) s_v R_v) + own

So `own` is what lies outside the range of both restored images: the network drew it. Where both are within
`ALIKE_LEVELS` of each other no share can be told: w is 1/2, and `is_alike` says so. Colour comes from the visible alone
(Eq. 18) and has no part here.

The second answer is by intervention: the pair is fused again with a strength of 0 for one modality, for the other, and
for both. What a modality's restoration adds to F is the mean over both orders of adding it (the Shapley value of two
players), so that both add up to the whole change.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cled_edge.contract import Controls
from cled_edge.image import Float32
from cled_edge.tensors import less

ALIKE_LEVELS = 4.0
LEVELS = 127.5  # grey levels of one unit of the network
LUMA = (0.299, 0.587, 0.114)  # BT.601


@dataclass(frozen=True, eq=False)
class PixelOrigin:
    """Maps of (H, W), float32 in grey levels unless said otherwise; see the module for their definitions.

    infrared_share: w, in [0, 1]. is_alike: bool. from_infrared, from_visible, from_restoring and own add up to `fused`,
    the fused luma. restoring: (2, H, W), what the restoration of the infrared and of the visible changes in it.
    """

    fused: Float32
    infrared_share: Float32
    is_alike: NDArray[np.bool_]
    from_infrared: Float32
    from_visible: Float32
    from_restoring: Float32
    own: Float32
    restoring: Float32

    @property
    def share_of_infrared(self) -> float:
        """Mean share of infrared where it can be told; NaN if both images are alike everywhere."""
        told = ~self.is_alike
        return float(self.infrared_share[told].mean()) if told.any() else float("nan")


def luma_levels(image: Float32) -> Float32:
    """Return the BT.601 luma, (..., H, W) in grey levels, of (..., 3, H, W) in [-1, 1]."""
    return (np.tensordot(np.array(LUMA, np.float32), image, (0, image.ndim - 3)) + np.float32(1)) * np.float32(LEVELS)


def difference_levels(difference: Float32) -> Float32:
    """Return a difference's luma, (..., H, W) in grey levels, of (..., 3, H, W) in the network's unit."""
    return np.tensordot(np.array(LUMA, np.float32), difference, (0, difference.ndim - 3)) * np.float32(LEVELS)


def origin_of(x_in: Float32, residual: Float32, controls: Controls, fuse: Callable[[Controls], Float32]) -> PixelOrigin:
    """Return where the fused luma came from.

    x_in, residual: (2, 3, H, W), infrared first. fuse: returns the fused image, (3, H, W) in [-1, 1], at controls.
    """
    inputs, restored = luma_levels(x_in), luma_levels(less(x_in, residual, controls))
    removed = inputs - restored
    without = replace(controls, strength_infrared=0.0), replace(controls, strength_visible=0.0)
    both, infrared_off, visible_off = (luma_levels(fuse(each)) for each in (controls, *without))
    neither = luma_levels(fuse(replace(without[0], strength_visible=0.0)))
    apart = restored[0] - restored[1]
    is_alike = np.abs(apart) < ALIKE_LEVELS
    share = np.clip((both - restored[1]) / np.where(is_alike, 1, apart), 0, 1).astype(np.float32)
    share[is_alike] = 0.5
    from_restoring = -(share * removed[0] + (1 - share) * removed[1])
    from_infrared, from_visible = share * inputs[0], (1 - share) * inputs[1]
    return PixelOrigin(
        fused=both,
        infrared_share=share,
        is_alike=is_alike,
        from_infrared=from_infrared,
        from_visible=from_visible,
        from_restoring=from_restoring,
        own=both - from_infrared - from_visible - from_restoring,
        restoring=np.stack(
            [
                (both - infrared_off + visible_off - neither) / 2,
                (both - visible_off + infrared_off - neither) / 2,
            ]
        ),
    )
