"""Images on their way into a network: cut, scaled, mirrored, and made tensors."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from cled_edge.image import Uint8
from cled_edge.monochrome import tint
from cled_edge.network.blocks import LUMA


def random_crop(images: Sequence[Uint8], side: int, rng: np.random.Generator) -> list[Uint8]:
    """Cut the same square of 1 to 2.5 times `side` from each, scale it to (side, side, C), mirror half of them.

    images: uint8 (H, W, C) of one size. A smaller image is scaled up.
    """
    height, width = images[0].shape[:2]
    largest = min(height, width, int(2.5 * side))
    size = int(rng.integers(min(side, largest), largest + 1)) if rng.random() < 0.5 else min(side, largest)
    top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    mirror = rng.random() < 0.5
    crops = []
    for image in images:
        crop = _scaled(image[top : top + size, left : left + size], side)
        # cv2.flip takes a tenth of the 0.1 ms of a copy with a negative stride.
        crops.append(np.asarray(cv2.flip(crop, 1), np.uint8).reshape(crop.shape) if mirror else crop)
    return crops


def _scaled(crop: Uint8, side: int) -> Uint8:
    """Scale a square to (side, side, C), by linear interpolation after halving it where a pixel would be left out.

    OpenCV's INTER_AREA takes six times as long at factors that are no integers, for the same to 45 dB (0.4 ms, 4.13).
    """
    size, channels = crop.shape[0], crop.shape[2]
    if size == side:
        return crop
    if size >= 2 * side:
        even = crop[: size // 2 * 2, : size // 2 * 2]
        crop = np.asarray(cv2.resize(even, (size // 2, size // 2), interpolation=cv2.INTER_AREA), np.uint8)
    scaled = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(scaled, np.uint8).reshape(side, side, channels)


def unit_images(images: Sequence[Uint8]) -> Tensor:
    """Return (N, C, H, W) float32 in [0, 1] of N uint8 (H, W, C)."""
    return torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in images])).float().div_(255)


def network_images(x: Tensor) -> Tensor:
    """Return (N, 3, H, W) in [-1, 1] of (N, 1 or 3, H, W) in [0, 1]; one channel is repeated."""
    return 2 * x.expand(-1, 3, -1, -1) - 1


def monochrome(x: Tensor) -> Tensor:
    """Return the BT.601 luma of (N, 3, H, W) in all three channels: what a monochrome camera gives."""
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True).expand(-1, 3, -1, -1)


def tinted(degraded: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Return both, (1, 3, H, W) in [0, 1] and grey, with the tint that suits the degraded one's noise.

    So a network that tells the modalities by colour is shown a grey visible image.
    """
    grey = (degraded[0, 0] * 255).round_().byte().numpy()
    gains = torch.from_numpy(tint(grey)).to(degraded.dtype)[:, None, None]
    return (degraded * gains).clamp_max(1), (clean * gains).clamp_max(1)


def within_border(side: int, rng: np.random.Generator) -> Tensor:
    """Return (1, 1, side, side), 1 and around it, on some sides, a border of 0 up to a third of the side wide.

    So images look that were warped, or whose camera sends black beside its own.
    """
    top, left, bottom, right = (int(rng.uniform(0, side / 3)) if rng.random() < 0.4 else 0 for _ in range(4))
    seen = torch.zeros(1, 1, side, side)
    seen[:, :, top : side - bottom, left : side - right] = 1
    return seen
