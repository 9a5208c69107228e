"""What two kinds of light share: the directions of edges, without regard to which side of an edge is the brighter one.

The features are channels of oriented gradients (CFOG: Ye et al., "Fast and robust matching for multimodal remote
sensing image registration", 2019): absolute derivatives along four directions, blurred, normalised at each pixel.
Four, because `cv2.matchTemplate` takes no more channels.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.image import Float32

DIRECTIONS = 4
_BLUR_PX, _SMOOTH_PX = 1.5, 0.8


def structure(grey: NDArray[Any]) -> Float32:
    """Return (H, W, DIRECTIONS) float32 of a grey image (H, W) of any depth: of length up to 1 where there is an edge.

    The mean of each channel is 0.
    """
    image = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _SMOOTH_PX)
    x, y = cv2.Scharr(image, cv2.CV_32F, 1, 0), cv2.Scharr(image, cv2.CV_32F, 0, 1)
    channels = np.empty((*image.shape, DIRECTIONS), np.float32)
    for index in range(DIRECTIONS):
        angle = np.pi * index / DIRECTIONS
        along = np.abs(np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y)
        channels[:, :, index] = cv2.GaussianBlur(along, (0, 0), _BLUR_PX)
    length = np.sqrt(np.einsum("hwc,hwc->hw", channels, channels))
    # Half of an image is flat, more or less: what is shorter than the median is as much noise as edge.
    floor = max(float(np.median(length)), 1e-6)
    channels /= (length + np.float32(floor))[:, :, None]
    channels -= channels.mean(axis=(0, 1))
    return channels
