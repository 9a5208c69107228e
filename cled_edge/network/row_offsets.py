"""What each row of an image is too bright by: the pattern of a sensor that is read out by rows.

It is taken off before anything else of the network sees the image. The pattern of columns the network knows by itself.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cled_edge.network.blocks import kernel_of

_PROBES, _WIDTH, _SIGHT = 16, 48, 5
_STEEP = 4.0  # a filter's answer of a quarter of the range counts as much as any larger one
_AROUND = 9  # rows of patches whose mean is what is usual there


class RowOffsets(nn.Module):
    """How a row differs from those around it, and how small filters up and down answer along it.

    An answer is cut off on both sides, so that the edge of a thing in a part of the row counts no more than it is wide.
    A few convolutions from row to row then tell a pattern from a horizon. All is of the mean of the colours.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.probe = nn.Conv2d(factor**2, _PROBES, (3, 1))
        widths = (_PROBES + factor, _WIDTH)
        margin = (_SIGHT // 2, 0)
        self.along = nn.ModuleList(nn.Conv2d(width, _WIDTH, (_SIGHT, 1), padding=margin) for width in widths)
        self.tell = nn.Conv2d(_WIDTH, factor, (_SIGHT, 1), padding=margin)
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)  # type: ignore[arg-type]
        # A patch's channels are rows, columns, colours.
        pixels, rows = torch.eye(factor**2), torch.eye(factor)
        self.register_buffer("grey", kernel_of(pixels.repeat_interleave(3, 1) / 3), persistent=False)
        self.register_buffer("across", kernel_of(rows.repeat_interleave(factor, 1) / factor), persistent=False)
        self.register_buffer("spread", kernel_of(rows.repeat_interleave(3 * factor, 0)), persistent=False)

    grey: Tensor
    across: Tensor
    spread: Tensor

    def forward(self, light: Tensor) -> Tensor:
        """Return the offsets, (N, 3 f^2, h, 1), of patches (N, 3 f^2, h, w), over the same range."""
        return F.conv2d(self._told(light), self.spread)

    def told(self, light: Tensor) -> Tensor:
        """Return one offset per row of pixels, (N, f h)."""
        return self._told(light).transpose(1, 2).flatten(1)

    def _told(self, light: Tensor) -> Tensor:
        grey = F.conv2d(light, self.grey)
        # Without their mean: a filter answers to differences alone, whatever the light.
        weight = self.probe.weight - self.probe.weight.mean(dim=(1, 2, 3), keepdim=True)
        within = F.pad(grey, (0, 0, 1, 1), mode="replicate")
        answers = F.hardtanh(_STEEP * F.conv2d(within, weight, self.probe.bias)).mean(dim=3, keepdim=True)
        rows = F.conv2d(grey.mean(dim=3, keepdim=True), self.across)
        usual = F.avg_pool2d(rows, (_AROUND, 1), stride=1, padding=(_AROUND // 2, 0), count_include_pad=False)
        x = torch.cat([4 * answers, 16 * (rows - usual.mean(dim=1, keepdim=True))], dim=1)
        for layer in self.along:
            x = F.silu(layer(x))
        offsets: Tensor = self.tell(x) / 4
        return offsets
