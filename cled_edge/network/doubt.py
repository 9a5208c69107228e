"""What a restored image leaves open: how far the estimate may be off at a pixel, and samples of what it may be.

The loop's estimate is one image, the likeliest middle of those that the input allows. Start noise of Eq. 12 does not
change it, since a network that is trained by a pointwise loss averages noise out. Here it chooses among them:

    residual of a sample = R - s (sum_j w_j z_j),   sum_j w_j^2 = 1

z_j is the start noise seen at one scale, of unit variance: each pixel's own, of blocks, or of the whole image; and what
the colours differ by apart from what they share. s is the standard deviation of the estimate's error, and w_j^2 the
share of its variance that is of that scale. A small network reads both off the degraded input and the residual, which
it leaves as it is. The mean of many samples is the estimate, and no noise gives the estimate itself.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cled_edge.contract import UNCERTAINTY_DEVIATIONS
from cled_edge.network.blocks import LUMA, ResidualPair, images_from_patches, patches_from_images
from cled_edge.network.presets import DoubtConfig

SCALES_PX = (1, 4, 16, 32)  # sides of the blocks that have a noise of their own; then comes the whole image's
_FIELDS = 2 * (len(SCALES_PX) + 1)  # of each, what the colours differ by and what they share
_LEVELS = 127.5  # grey levels of a range of 1
_SEEN, _ROUGH = 3, 3  # lumas, and numbers that say how rough each is at a patch
_USUAL = math.log(8.0)  # of the uncertainty before training, grey levels
_LEAST, _MOST = math.log(0.25), math.log(255.0)  # of the uncertainty, grey levels
_SPREAD = 1.5  # bilinear interpolation between blocks leaves 2/3 of the deviation, on average


class DoubtNet(nn.Module):
    """A U-shaped network over patches of 4 pixels; heights and widths are multiples of 32.

    Beside the images it sees the logarithms of how rough they are within a patch, around it and in all: errors grow
    with them by powers. It tells a pattern, whose order of the pixels is that of their likely errors, and for the whole
    image how large the errors are and how far apart:

        ln uncertainty = size + slope pattern + calibration
    """

    factor = 4

    def __init__(self, config: DoubtConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.widths
        patch = self.factor**2
        self.stem = nn.Conv2d((7 + _SEEN) * patch + 2 * _SEEN * _ROUGH, first, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualPair(width, width, 1) for width in config.widths)
        self.down_second, self.down_third = nn.Conv2d(first, second, 2, stride=2), nn.Conv2d(second, third, 2, stride=2)
        self.whole = nn.Linear(third, third)
        self.up_second = nn.ConvTranspose2d(third, second, 2, stride=2)
        self.up_first = nn.ConvTranspose2d(second, first, 2, stride=2)
        self.last = ResidualPair(first, first, 1)
        self.pattern_head = nn.Conv2d(first, patch, 3, padding=1)
        self.size_head = nn.Sequential(nn.Linear(third + _SEEN * _ROUGH, first), nn.SiLU(), nn.Linear(first, 2))
        self.share_head = nn.Conv2d(first, 3 + _FIELDS, 1)
        for head in (self.pattern_head, self.size_head[2], self.share_head):
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.register_buffer("luma", torch.tensor(LUMA).reshape(1, 3, 1, 1), persistent=False)
        self.calibration = nn.Parameter(torch.zeros(1), requires_grad=False)

    luma: Tensor

    def forward(self, x_in: Tensor, residual: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return (drawn, uncertainty), (N, 3, H, W) in [-2, 2] and (N, 1, H, W) in grey levels.

        x_in: degraded images, (N, 3, H, W) in [-1, 1]. residual: the loop's last one, of x_in. noise: standard normal
        times how much of it is wanted; 0 gives the residual itself. drawn: the residual of a sample; x_in - drawn is an
        image. uncertainty: the true luma lies no further from the estimate's in nine of ten pixels.
        """
        judged = self.judge(x_in, residual)
        uncertainty = judged.log_uncertainty.clamp(_LEAST, _MOST).exp()
        moved = self.deviation(uncertainty, judged.log_ratios) * mixed(noise, judged.weights)
        return x_in - (x_in - residual + moved).clamp(-1, 1), uncertainty

    @staticmethod
    def deviation(uncertainty: Tensor, log_ratios: Tensor) -> Tensor:
        """Return the standard deviation of a sample, (N, 3, H, W) over a range of 2, of what `judge` says."""
        return uncertainty / (UNCERTAINTY_DEVIATIONS * _LEVELS) * log_ratios.exp()

    def judge(self, x_in: Tensor, residual: Tensor) -> "Judged":
        """Return what the network says of a degraded input and the residual that the loop has found."""
        clean = x_in - residual
        lumas = [(x * self.luma).sum(1, keepdim=True) for x in (x_in, residual, clean)]
        looks = [_look(luma, self.factor) for luma in lumas]
        rough = torch.cat([look for _, look in looks], dim=1)
        mean = rough.mean(dim=(2, 3), keepdim=True)
        images = [patches_from_images(x, self.factor) for x in (x_in, 4 * residual, lumas[2])]
        seen = torch.cat([*images, *(fine for fine, _ in looks), rough, mean.expand_as(rough)], dim=1)
        first = self.blocks[0](F.relu(self.stem(seen)))
        second = self.blocks[1](F.relu(self.down_second(first)))
        third = self.blocks[2](F.relu(self.down_third(second)))
        whole = third.mean(dim=(2, 3))
        third = third + self.whole(whole)[:, :, None, None]
        second = second + self.up_second(F.relu(third))
        first = self.last(first + self.up_first(F.relu(second)))
        pattern = images_from_patches(self.pattern_head(first), self.factor)
        size, log_slope = self.size_head(torch.cat([whole, mean.flatten(1)], dim=1))[:, :, None, None].chunk(2, dim=1)
        # The pattern learns the order alone. Were it to learn the size too, an image that may be off as a whole, such
        # as one whose gain is unknown, would drown what tells its pixels apart.
        log_uncertainty = _USUAL + size + log_slope.exp() * pattern.detach() + self.calibration
        shares = F.interpolate(self.share_head(first), scale_factor=self.factor, mode="nearest")
        weights = (0.5 * shares[:, 3:].log_softmax(dim=1)).exp()  # a root of nothing has no slope
        return Judged(pattern, log_uncertainty, 2 * torch.tanh(shares[:, :3] / 2), weights)


class Judged(NamedTuple):
    """What `DoubtNet.judge` says.

    pattern: (N, 1, H, W), the expected rank of a pixel's error in its image; ranks are spread over -1.73 to 1.73.
    log_uncertainty: (N, 1, H, W); it teaches the pattern nothing. For samples: log_ratios, the logarithm of each
    colour's deviation over the luma's, (N, 3, H, W), and the weights of the scales, (N, fields, H, W).
    """

    pattern: Tensor
    log_uncertainty: Tensor
    log_ratios: Tensor
    weights: Tensor


def _look(luma: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return logarithms of how far a luma, (N, 1, H, W) over a range of 2, is from what is around, in grey levels.

    Of each pixel from its patch, (N, f^2, h, w); and (N, 3, h, w): of all of them on average, of the patch from its
    neighbours and from the image.
    """
    pixels = patches_from_images(luma * _LEVELS, factor)
    mean = pixels.mean(dim=1, keepdim=True)
    apart = (pixels - mean).abs()
    around = F.avg_pool2d(mean, 3, stride=1, padding=1, count_include_pad=False)
    far = mean - mean.mean(dim=(2, 3), keepdim=True)
    rough = apart.mean(dim=1, keepdim=True) + 0.25, (mean - around).abs() + 0.25, far.abs() + 1
    return torch.log(apart + 0.5), torch.log(torch.cat(rough, dim=1))


def mixed(noise: Tensor, weights: Tensor) -> Tensor:
    """Return sum_j w_j z_j, (N, 3, H, W), of standard normal noise, (N, 3, H, W), and weights, (N, fields, H, W)."""
    total = torch.zeros_like(noise)
    for place, field in enumerate(fields(noise)):
        total = total + weights[:, place : place + 1] * field
    return total


def fields(noise: Tensor) -> list[Tensor]:
    """Return the noise seen at each scale, of unit variance: for each what the colours differ by, and what they share.

    (N, 3, H, W) and (N, 1, H, W), which do not correlate. The last scale is the image: one number a colour, that of its
    first pixel, so that no size comes into it.
    """
    means = [noise]
    for side, larger in pairwise(SCALES_PX):
        means.append(F.avg_pool2d(means[-1], larger // side))
    found = []
    for place, (side, mean) in enumerate(zip(SCALES_PX, means, strict=True)):
        own = mean * side
        if place + 1 < len(means):  # less what the larger blocks have, so that scales do not correlate
            ratio = SCALES_PX[place + 1] // side
            own = (mean - F.interpolate(means[place + 1], scale_factor=ratio, mode="nearest")) * side
            own = own / math.sqrt(1 - ratio**-2)
        if side > 1:
            own = _SPREAD * F.interpolate(own, scale_factor=side, mode="bilinear", align_corners=False)
        found.append(own)
    found.append(noise[:, :, :1, :1])
    shared = [own.mean(dim=1, keepdim=True) for own in found]
    pairs = zip(found, shared, strict=True)
    return [each for own, mean in pairs for each in ((own - mean) * math.sqrt(3 / 2), mean * math.sqrt(3))]
