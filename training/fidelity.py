"""How much of two lumas a fused one keeps, to be trained on: Q^AB/F and VIF, differentiable.

All lumas are (N, 1, H, W) in [0, 1]. `cled_edge.metrics` has the measures themselves; these differ where a gradient
needs it. What is trained on a measure can no longer be judged by it alone: look at people and images beside.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_FAINT = 1e-4  # of a luma's range: an edge of this strength is none
_WINDOWS = 17, 9, 5, 3  # pixels, of the four scales of VIF
_EYE = 2.0 / 255**2  # variance of the eye's noise, 2 grey levels squared
NARROWEST_PX = 41  # the coarsest scale of VIF has one window left


def edge_preservation(infrared: Tensor, visible: Tensor, fused: Tensor) -> Tensor:
    """Return Q^AB/F (Xydeas and Petrovic 2000) of each image, (N,), 0 to 1; 1 keeps every edge of both.

    Differs in three points: borders are replicated, the turn of an edge is at most a right angle (the measure counts a
    steep edge on the other side of upright as turned by almost pi), and where source and fused edge are equally strong
    their ratio is 1.
    """
    fused_x, fused_y = sobel(fused)
    fused_strength = _length(fused_x, fused_y)
    kept, weights = torch.zeros((), device=fused.device), torch.zeros((), device=fused.device)
    for source_x, source_y in (sobel(infrared), sobel(visible)):
        strength = _length(source_x, source_y)
        ratio = torch.minimum(strength, fused_strength) / torch.maximum(strength, fused_strength)
        across, along = source_x * fused_y - source_y * fused_x, source_x * fused_x + source_y * fused_y
        turn = 1 - torch.atan2(across.abs(), along.abs() + _FAINT**2) * (2 / math.pi)
        quality = 0.9994 * torch.sigmoid(15 * (ratio - 0.5)) * 0.9879 * torch.sigmoid(22 * (turn - 0.8))
        kept = kept + (quality * strength).sum(dim=(1, 2, 3))
        weights = weights + strength.sum(dim=(1, 2, 3))
    return kept / weights


def information_fidelity(infrared: Tensor, visible: Tensor, fused: Tensor) -> Tensor:
    """Return the sum over both sources of VIF in the pixel domain (Sheikh and Bovik 2006) of each image, (N,).

    Differs in two points: contrast beyond the source's counts no more than the source's own, so that a copy has 1 and
    nothing has more; and of the windows of the finest scale, where neighbours say nearly the same, one in four is
    taken, for four. Sides are 41 pixels at least.
    """
    if min(fused.shape[-2:]) < NARROWEST_PX:
        raise ValueError(f"images are {tuple(fused.shape[-2:])}; VIF needs {NARROWEST_PX} pixels a side")
    n = len(fused)
    x = torch.cat([infrared, visible, fused]).float()
    kept, held = torch.zeros(2, n, device=x.device), torch.zeros(2, n, device=x.device)
    for scale, size in enumerate(_WINDOWS):
        window, stride = _gaussian(size, x), 1 if scale else 2
        if scale:
            x = _smoothed(x, window)[..., ::2, ::2]
        a, b, f = x.unflatten(0, (3, n))
        moments = _smoothed(torch.cat([a, b, f, a * a, b * b, f * f, a * f, b * f]), window, stride)
        mean_a, mean_b, mean_f, aa, bb, ff, af, bf = moments.unflatten(0, (8, n))
        mean, square, product = (torch.stack(s) for s in ((mean_a, mean_b), (aa, bb), (af, bf)))
        variance = (square - mean.square()).clamp_min(0)
        covariance = product - mean * mean_f
        gain = (covariance / (variance + _EYE / 1e3)).clamp_min(0)
        residue = ((ff - mean_f.square()) - gain * covariance).clamp_min(0)
        signal = gain.clamp(max=1).square() * variance
        kept = kept + stride**2 * torch.log1p(signal / (residue + _EYE)).sum(dim=(2, 3, 4))
        held = held + stride**2 * torch.log1p(variance / _EYE).sum(dim=(2, 3, 4))
    return ((kept + 1e-6) / (held + 1e-6)).sum(dim=0)


def sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Sobel responses along x and y of (N, 1, H, W), borders replicated."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across, down = padded[..., 2:] - padded[..., :-2], padded[..., 2:, :] - padded[..., :-2, :]
    along_x = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    return along_x, down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]


def _length(x: Tensor, y: Tensor) -> Tensor:
    return (x.square() + y.square() + _FAINT**2).sqrt()


def _gaussian(size: int, like: Tensor) -> Tensor:
    """Return a window of `size`, spread size / 5, of sum 1."""
    line = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    return torch.softmax(-line.square() / (2 * (size / 5) ** 2), 0)


def _smoothed(x: Tensor, window: Tensor, stride: int = 1) -> Tensor:
    """Filter (N, 1, H, W) along both axes where the window fits.

    As products with banded matrices, mostly zeros: on a CPU a third of the time of convolutions of one channel.
    """
    return _band(x.shape[-2], window, stride).T @ x @ _band(x.shape[-1], window, stride)


def _band(length: int, window: Tensor, stride: int) -> Tensor:
    """Return the matrix (length, places) whose columns hold the window, each `stride` further down."""
    places = (length - len(window)) // stride + 1
    line = torch.arange(length, device=window.device)[:, None] - stride * torch.arange(places, device=window.device)
    inside = (line >= 0) & (line < len(window))
    return window[line.clamp(0, len(window) - 1)] * inside
