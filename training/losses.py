"""Losses of Eq. 15 to 19. Images are (N, 3, H, W); fusion losses take them in [0, 1]."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cled_edge.network.blocks import LUMA, patches_from_images
from training.fidelity import edge_preservation, information_fidelity, sobel

Weighting = Literal["pixel", "share"]
_RESIDUAL_FLOOR = 0.3  # of a mean over [-1, 1]; with 0.1 a dark image was not dared to be brightened
_UNSEEN = 8e-6  # mean squared error over [-1, 1]
_FLAT = 0.12  # mean deviation over [0, 2], 15 grey levels: an image that has less counts for less
_HOT = 0.08, 0.13  # of the range of a luma above its surroundings, where it begins and is in full: people, engines
_RAISED = 0.1  # of the range: a pixel that salience raises by so much counts in full
_REACH = 10  # cells: two and a half standard deviations
# BT.601 full range, no offset.
_CHROMA = ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def residual_loss(
    predicted: Tensor,
    residual: Tensor,
    weighting: Weighting = "pixel",
    weights: Tensor | None = None,
    square_share: float = 0.0,
) -> Tensor:
    """Eq. 15: mean absolute error of the residual, each `pixel` alike.

    weighting: `share` differs from Eq. 15 in dividing each image's error by what there was to remove, its mean
    absolute residual, plus a floor: the share of the degradation that is left. With each pixel alike, the few images
    that are nearly black, and can only be guessed at, drown what is lost on those that hardly need a change; with the
    logarithm of each image's error, leaving clean images clean drowned the removal of haze, noise and rain.
    weights: (N,), of each image.
    square_share: how much of the mean absolute value of an image is replaced by the root of its mean square. Where few
    pixels have much to remove, as in rain, the least absolute error removes too little of it.
    """
    error = _mean_size(predicted - residual, square_share)
    if weighting == "share":
        error = error / (_mean_size(residual, square_share) + _RESIDUAL_FLOOR)
    return (error if weights is None else error * weights).mean()


def _mean_size(x: Tensor, square_share: float) -> Tensor:
    """Return the mean absolute value of each image, (N,), a share of it replaced by the root of its mean square."""
    size = x.abs().mean(dim=(1, 2, 3))
    if not square_share:
        return size
    return torch.lerp(size, (x.square().mean(dim=(1, 2, 3)) + _UNSEEN).sqrt(), square_share)


def gain_loss(clean: Tensor, told: Tensor, truth: Tensor) -> Tensor:
    """Return the mean change of log10 of an image's squared error from `told` to `clean`; a rise counts three times.

    All are (N, C, H, W) over a range of 2. It is no part of the paper. Of Eq. 15 a step may lose decibels on one kind
    for others; so it may not. Below an error of about one grey level nothing is gained any more.
    """
    new, old = ((x.float() - truth).square().mean(dim=(1, 2, 3)) + _UNSEEN for x in (clean, told))
    change = torch.log10(new / old.detach())
    return (change + 2 * change.clamp_min(0)).mean()


def weights_of(kinds: Tensor, names: Sequence[str], by_kind: Mapping[str, float]) -> Tensor:
    """Return the weight of each image, (N,), by what `kinds` (N, K) says it has; 1 where none is or none is known.

    names: of the K kinds. by_kind: weights by name, 1 if not named.
    """
    weights = torch.tensor([by_kind.get(kind, 1.0) for kind in names], device=kinds.device)
    largest = (kinds.nan_to_num() * weights).amax(dim=1)
    return torch.where(largest > 0, largest, 1.0)


def pattern_loss(error: Tensor, side: int) -> Tensor:
    """Return how much of an error (N, 3, H, W) repeats from patch to patch, as a mean over [-1, 1]: a grid that shows.

    side: of the network's patches, which H and W are multiples of. It is no part of the paper. The error at each place
    of a patch is averaged over four by four patches: what then differs from place to place is no chance.
    """
    return patch_pattern(patches_from_images(error, side), side)


def patch_pattern(places: Tensor, side: int) -> Tensor:
    """Return `pattern_loss` of an error that is patches, (N, 3 side^2, h, w)."""
    around = F.avg_pool2d(places, 4, stride=2).unflatten(1, (side**2, -1))
    return (around - around.mean(dim=1, keepdim=True)).abs().mean()


def relative_loss(clean: Tensor, truth: Tensor) -> Tensor:
    """Return how much grey images differ once gain and level are taken off, (N, 3 side^2, h, w) patches over [0, 2].

    Both are taken relative to their own mean and mean deviation, as a fusion net sees the infrared. It is no part of
    the paper. Of an image with little contrast nobody can tell the true gain and level, and Eq. 15 presses its extremes
    together to hedge; but how its parts stand to one another is known. Images in colour have no part in it.
    """
    is_grey = are_grey(truth.unflatten(1, (-1, 3)).transpose(1, 2)).float()
    error = (_relative(clean) - _relative(truth)).abs().mean(dim=(1, 2, 3))
    return (error * is_grey).sum() / is_grey.sum().clamp_min(1)


def are_grey(x: Tensor) -> Tensor:
    """Return which images (N, 3, ...) have three channels alike, (N,): those of infrared cameras, in training."""
    return x.diff(dim=1).abs().flatten(1).amax(dim=1) == 0


def _relative(x: Tensor) -> Tensor:
    away = x - x.mean(dim=(1, 2, 3), keepdim=True)
    return away / away.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(_FLAT)


def kinds_loss(logits: Tensor, kinds: Tensor) -> Tensor:
    """Return the mean cross-entropy of which degradations an image has, both (N, K); NaN in `kinds` is left out.

    It is no part of the paper. A network that is asked what it looks at learns sooner to treat one kind apart from
    another.
    """
    known = ~torch.isnan(kinds)
    error = F.binary_cross_entropy_with_logits(logits.float(), kinds.nan_to_num(), reduction="none")
    return (error * known).sum() / known.sum().clamp_min(1)


def fusion_losses(
    fused: Tensor, infrared: Tensor, visible: Tensor, balance: Tensor, salience: float = 0.0, measured: bool = False
) -> dict[str, Tensor]:
    """Return `intensity` (Eq. 16), `gradient` (Eq. 17) and `color` (Eq. 18), each a scalar.

    infrared and visible are the targets. balance is (N, 1) in [0, 1]: at 0.5 the maximum of Eq. 16/17; towards 0 the
    targets go linearly to the visible, towards 1 to the infrared (an extension; the paper defines no balance).
    Intensity and gradient are of the luma; Eq. 18 keeps the colour. salience: see `salient_maximum`; unless 0, also
    `hot`: of the error of `intensity`, what lies where salience raises the maximum.

    measured: also `edges` and `information`, which the paper does not have: what is lost of Q^AB/F and of VIF
    (`fidelity.py`), of the images whose balance is 0.5. Eq. 17 takes the stronger gradient of each axis by itself:
    the two may belong to different sources, and then have the direction of neither.
    """
    luma, luma_infrared, luma_visible = (_weighted(x, LUMA) for x in (fused, infrared, visible))
    maximum = salient_maximum(luma_infrared, luma_visible, salience)
    target = balanced_target(luma_infrared, luma_visible, balance, maximum)
    # Absolute before any maximum: the larger of two signed responses would prefer rising edges.
    gradients = zip(*([g.abs() for g in sobel(x)] for x in (luma, luma_infrared, luma_visible)), strict=True)
    losses = {
        "intensity": (luma - target).abs().mean(),
        "gradient": torch.stack([(g - balanced_target(i, v, balance)).abs().mean() for g, i, v in gradients]).sum(),
        "color": torch.stack([(_weighted(fused, w) - _weighted(visible, w)).abs().mean() for w in _CHROMA]).sum(),
    }
    if salience:
        raised = maximum - torch.maximum(luma_infrared, luma_visible)
        losses["hot"] = ((luma - target).abs() * (raised / _RAISED).clamp(max=1)).mean()
    if measured:
        even = balance.flatten() == 0.5
        lumas = luma_infrared, luma_visible, luma
        losses["edges"] = ((1 - edge_preservation(*lumas)) * even).mean()
        losses["information"] = ((2 - information_fidelity(*lumas)) * even).mean()
    return losses


def balanced_target(infrared: Tensor, visible: Tensor, balance: Tensor, middle: Tensor | None = None) -> Tensor:
    """Return the visible at balance 0, `middle` (the maximum of both) at 0.5, the infrared at 1, linear in between."""
    b = balance.reshape(-1, 1, 1, 1)
    middle = torch.maximum(infrared, visible) if middle is None else middle
    return torch.where(b < 0.5, visible + 2 * b * (middle - visible), middle + (2 * b - 1) * (infrared - middle))


def salient_maximum(infrared: Tensor, visible: Tensor, salience: float) -> Tensor:
    """Return the maximum of two lumas (N, 1, H, W) in [0, 1], with what is hot standing out as it does in the infrared.

    salience: 0 is the maximum of Eq. 16, in which a person before a lit road or in bright smoke sinks into it.
    Otherwise differs from it: where the infrared is above its surroundings by `_HOT`, `salience` times the contrast
    that it has there and the maximum has lost is added; the result is clamped to 1.
    """
    maximum = torch.maximum(infrared, visible)
    if not salience:
        return maximum
    contrast, left = infrared - _surroundings(infrared), maximum - _surroundings(maximum)
    heat = ((contrast - _HOT[0]) / (_HOT[1] - _HOT[0])).clamp(0, 1)
    return (maximum + salience * heat * (contrast - left).clamp_min(0)).clamp(max=1)


def _surroundings(x: Tensor) -> Tensor:
    """Blur (N, 1, H, W) by a Gaussian of about 32 pixels, on a grid of 8 pixels; borders replicated."""
    grid = F.avg_pool2d(x, 8, ceil_mode=True, count_include_pad=False)
    line = torch.arange(-_REACH, _REACH + 1, dtype=x.dtype, device=x.device)
    kernel = torch.softmax(-line.square() / (2 * (32 / 8) ** 2), 0)
    grid = F.conv2d(F.pad(grid, (_REACH, _REACH, 0, 0), mode="replicate"), kernel[None, None, None, :])
    grid = F.conv2d(F.pad(grid, (0, 0, _REACH, _REACH), mode="replicate"), kernel[None, None, :, None])
    return F.interpolate(grid, x.shape[-2:], mode="bilinear")


def _weighted(rgb: Tensor, weights: tuple[float, float, float]) -> Tensor:
    red, green, blue = rgb.split(1, dim=1)
    return weights[0] * red + weights[1] * green + weights[2] * blue
