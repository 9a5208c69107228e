"""What a stream remembers of its last frame, and where it still holds: so that a frame starts warm, and flickers less.

    share = steadiness exp(-(d / D)^2)

d is by how much the light of the inputs changed around a pixel, in a range of 0 to 2, blurred so that noise counts for
little; D is `STILL`. Where something moves the share is 0, and nothing of the last frame is left.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.contract import Controls
from cled_edge.frame import ORDER
from cled_edge.image import Float32, Uint8
from cled_edge.light import Moment, SteadyLight

STILL = 0.03  # of the light's range of 2
LONGEST_GAP_S = 0.5
LEAST_STRENGTH = 0.25  # under it rounding hides too much of the estimate
CUT = 0.5  # of the pixels of either modality: where more have changed, it is another scene
_REDUCTION, _SIGMA_PX = 4, 3.0  # changes are looked for at a quarter of the size; the blur is of full-size pixels


class Told(NamedTuple):
    """What a warm loop takes. image: the last estimate, uint8 (H, W, 4), infrared and RGB. share: uint8 (H, W, 2)."""

    image: Uint8
    share: Uint8


class _Last(NamedTuple):
    moment: Moment
    size: tuple[int, int]
    small: Float32  # the inputs, (h, w, 4)
    estimate: Uint8


class Memory:
    """The last frame of one stream: one for each, and one thread at a time.

    A frame starts cold, and the memory tells nothing, if the last one is of another size or clock, younger, or older
    than LONGEST_GAP_S (of recordings without times: not the one before), or if most of the scene has changed.
    light: how far the last frames were brightened, which a cold start leaves as it is.
    """

    def __init__(self) -> None:
        self.light = SteadyLight()
        self._last: _Last | None = None

    def forget(self) -> None:
        """Let the next frame start cold."""
        self._last = None

    def told(self, infrared: Uint8, visible: Uint8, steadiness: float, moment: Moment) -> Told | None:
        """Return what the last frame tells of this one, infrared (H, W) and visible (H, W, 3), RGB; None is nothing."""
        last = self._last
        if last is None or last.size != infrared.shape or not _follows(last.moment, moment):
            return None
        changed = _changed(_reduced(infrared, visible) - last.small)
        still = np.exp(-np.square(changed / np.float32(STILL)))
        if float((still < 0.5).mean()) > CUT:
            return None
        height, width = infrared.shape
        share = np.rint(still * np.float32(255 * steadiness)).astype(np.uint8)
        return Told(last.estimate, np.asarray(cv2.resize(share, (width, height)), np.uint8))

    def keep(
        self, inputs: tuple[Uint8, Uint8], restored: tuple[Uint8, Uint8], controls: Controls, moment: Moment
    ) -> None:
        """Remember a frame: its inputs and both restored images, grey (H, W) and RGB (H, W, 3), and the strengths.

        It keeps none, and the next frame starts cold, where so little was removed that the estimate cannot be told.
        """
        strengths = controls.strength_infrared, controls.strength_visible
        if min(strengths) < LEAST_STRENGTH:
            self.forget()
            return
        estimates = [_estimate(*each) for each in zip(inputs, restored, strengths, strict=True)]
        size = inputs[0].shape[0], inputs[0].shape[1]
        self._last = _Last(moment, size, _reduced(*inputs), _stacked(estimates))


def _follows(last: Moment, this: Moment) -> bool:
    gap = this[0] - last[0]
    return last[1] == this[1] and 0 <= gap <= (1 if this[1] == ORDER else LONGEST_GAP_S * 1e9)


def _reduced(infrared: Uint8, visible: Uint8) -> Float32:
    """Return both as one image of a quarter of the size, (h, w, 4), light of 0 to 2."""
    height, width = infrared.shape
    size = max(1, width // _REDUCTION), max(1, height // _REDUCTION)
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (infrared, visible)]
    return _stacked(small).astype(np.float32) * np.float32(1 / 127.5)


def _changed(difference: Float32) -> Float32:
    """Return by how much the light changed in infrared and visible, (h, w, 2), of the signed difference (h, w, 4).

    The visible's is that of its mean or, so that no change of colour is missed, half of that of one channel.
    """
    spread = cv2.GaussianBlur(difference, (0, 0), _SIGMA_PX / _REDUCTION)
    infrared, red, green, blue = cv2.split(spread)
    mean = np.abs((red + green + blue) / np.float32(3))
    one = np.maximum(np.maximum(np.abs(red), np.abs(green)), np.abs(blue))
    return np.asarray(cv2.merge([np.abs(infrared), np.maximum(mean, one / 2)]), np.float32)


def _estimate(degraded: Uint8, restored: Uint8, strength: float) -> Uint8:
    """Return what was restored at strength 1."""
    if strength == 1:
        return restored
    # x + (restored - x) / strength; OpenCV clamps and rounds.
    return np.asarray(cv2.addWeighted(restored, 1 / strength, degraded, 1 - 1 / strength, 0), np.uint8)


def _stacked(images: "list[NDArray[Any]]") -> NDArray[Any]:
    infrared, visible = images
    return np.asarray(cv2.merge([infrared, *cv2.split(visible)]))
