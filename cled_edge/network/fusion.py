"""The degrade-fusion network of section 3.2: dual-stream encoder, cross-attention, decoder, refinement."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cled_edge.contract import CONTROL_TENSORS
from cled_edge.network.blocks import (
    LUMA,
    ChannelCrossAttention,
    ScaledConv2d,
    SpatialCrossAttention,
    TransformerBlock,
    images_from_patches,
    patches_from_images,
)
from cled_edge.network.presets import FusionConfig, MergeKind


class FusionNet(nn.Module):
    """Fuse I_in - s I_res of both modalities into one image.

    All images are (N, 3, H, W) in [-1, 1], RGB; infrared repeats its channel three times. Residuals are on the same
    scale, in [-2, 2]. H and W must be multiples of `config.size_multiple`.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        pairs = list(pairwise(widths))
        self.encoder_infrared = _Encoder(config)
        self.encoder_visible = _Encoder(config)
        self.merges = nn.ModuleList(_Merge(width, kind) for width, kind in zip(widths, config.merges, strict=True))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(deeper, width, 2, stride=2) for width, deeper in pairs)
        self.decoder = nn.ModuleList(
            _stage(config, level, config.decoder_blocks[level]) for level in range(len(widths))
        )
        if config.refinement == "transformer":
            self.refinement = _stage(config, 0, config.refinement_blocks)
        else:
            self.refinement = nn.Sequential(*(_Refinement(widths[0]) for _ in range(config.refinement_blocks)))
        self.head = (
            _Mix(widths[0], config.unshuffle, config.detail) if config.mix else _Draw(widths[0], config.unshuffle)
        )

    def forward(
        self,
        infrared: Tensor,
        infrared_residual: Tensor,
        visible: Tensor,
        visible_residual: Tensor,
        controls: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the fused image, (N, 3, H, W) in [-1, 1].

        controls: by the names of cled_edge/contract.py, (length,) or (N, length); those not given are neutral.
        `strength` is infrared then visible: 0 fuses the untouched input, 1 the clean estimate. `balance` 0 is the
        visible, 1 the infrared, 0.5 the loss of Eq. 16/17.
        """
        controls = all_controls(controls, infrared)
        s = controls["strength"].reshape(-1, 2, 1, 1, 1)
        infrared = remove(infrared, infrared_residual, s[:, 0])
        visible = remove(visible, visible_residual, s[:, 1])
        factor = self.config.unshuffle
        infrared, visible = (patches_from_images(x, factor) for x in (infrared, visible))
        return images_from_patches(self.patches(infrared, visible, controls), factor).clamp(-1, 1)

    def patches(self, infrared: Tensor, visible: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        """Return the fused image as patches, (N, 3 f^2, h, w), of the restored ones and every control.

        They are not clamped to [-1, 1]: what makes an image of them cuts it.
        """
        streams = zip(self.encoder_infrared(infrared), self.encoder_visible(visible), strict=True)
        levels = [merge(a, b) for merge, (a, b) in zip(self.merges, streams, strict=True)]
        x = self.decoder[-1](levels[-1])
        for level in reversed(range(len(self.ups))):
            x = self.decoder[level](self.ups[level](x) + levels[level])
        x = self.refinement(x)
        fused: Tensor = self.head(x, infrared, visible, controls["balance"])
        return fused


def all_controls(given: Mapping[str, Tensor] | None, like: Tensor) -> dict[str, Tensor]:
    """Return the tensor of every control: those given, and the others at their neutral values, (length,).

    KeyError for a name that is no control. like: the tensor whose type and device those others have.
    """
    given = given or {}
    if not given.keys() <= CONTROL_TENSORS.keys():
        raise KeyError(f"controls are {', '.join(given)}, needed some of {', '.join(CONTROL_TENSORS)}")
    return {
        name: given[name] if name in given else like.new_tensor([entry.neutral for entry in entries])
        for name, entries in CONTROL_TENSORS.items()
    }


def remove(x_in: Tensor, residual: Tensor, strength: Tensor) -> Tensor:
    """Return I_in - s I_res (section 3.2.1, form A): 0 is the input bit for bit, 1 the clean estimate.

    Above 1 it goes on beyond the estimate, as far as there are images: [-1, 1].
    """
    return (x_in - strength * residual).clamp(-1, 1)


class _Encoder(nn.Module):
    """One stream: levels of TSAB and SSAB, halving the size and widening in between."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        widths = config.widths
        self.stem = nn.Conv2d(3 * config.unshuffle**2, widths[0], 3 if config.unshuffle == 1 else 1, padding="same")
        self.stages = nn.ModuleList(_stage(config, level, blocks) for level, blocks in enumerate(config.blocks))
        pairs = pairwise(widths)
        self.downs = nn.ModuleList(nn.Conv2d(width, deeper, 2, stride=2) for width, deeper in pairs)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [self.stages[0](self.stem(x.to(self.stem.weight.dtype)))]
        for down, stage in zip(self.downs, list(self.stages)[1:], strict=True):
            levels.append(stage(down(levels[-1])))
        return levels


class _Merge(nn.Module):
    """Let the streams look at each other, then merge them."""

    def __init__(self, width: int, kind: MergeKind) -> None:
        super().__init__()
        attention = {"channel": ChannelCrossAttention, "spatial": SpatialCrossAttention}.get(kind)
        self.cross = attention(width) if attention else None
        self.merge = nn.Conv2d(2 * width, width, 1)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        if self.cross is not None:
            infrared, visible = self.cross(infrared, visible)
        merged: Tensor = self.merge(torch.cat([infrared, visible], dim=1))
        return merged


class _Refinement(nn.Module):
    """Two 3x3 convolutions and the input: the last look at the finest level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_in = ScaledConv2d(width, width, 3, padding=1)
        self.conv_out = ScaledConv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_out.gain)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_out(F.silu(self.conv_in(x)))


class _Draw(nn.Module):
    """Draw the image itself from the features; `balance` has no part in it."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.draw = nn.Conv2d(width, 3 * factor**2, 3, padding=1)

    def forward(self, x: Tensor, infrared: Tensor, visible: Tensor, balance: Tensor) -> Tensor:  # noqa: ARG002
        # Graphs keep their inputs: an unused one would be dropped from the export.
        return self.draw(x).float() + 0 * balance.reshape(-1, 1, 1, 1)


class _Mix(nn.Module):
    """Mix the luma of both images at full resolution; the network decides where to leave the rule.

    With d = infrared - visible luma, the rule adds a relu(d) - b relu(-d) to the visible: a and b follow `balance` b so
    that the result is the target of Eq. 16 as `training/losses.py` bends it: the visible at 0, the maximum at 0.5, the
    infrared at 1, linear in between. The network adds to a, b and to the sum, most at 0.5 and nothing at either end.
    Colour differences are the visible ones (Eq. 18).

    detail: features of a look at the lumas themselves, which the streams have seen through a narrow stem only.
    """

    luma: Tensor
    spread: Tensor

    def __init__(self, width: int, factor: int, detail: int) -> None:
        super().__init__()
        count = factor**2
        self.detail = ScaledConv2d(width + 2 * count, detail, 3, padding=1) if detail else None
        self.more_infrared, self.less_visible, self.correction = (nn.Conv2d(width + detail, count, 1) for _ in range(3))
        for head in (self.more_infrared, self.less_visible, self.correction):
            for parameter in head.parameters():
                nn.init.zeros_(parameter)
        same = torch.eye(count)
        luma = torch.tensor(LUMA).repeat(count) * same.repeat_interleave(3, 1)
        self.register_buffer("luma", luma[:, :, None, None], persistent=False)
        self.register_buffer("spread", same.repeat_interleave(3, 0)[:, :, None, None], persistent=False)

    def forward(self, x: Tensor, infrared: Tensor, visible: Tensor, balance: Tensor) -> Tensor:
        b = balance.reshape(-1, 1, 1, 1)
        free = 4 * b * (1 - b)
        luma_infrared, luma_visible = (F.conv2d(y, self.luma) for y in (infrared, visible))
        brighter = luma_infrared - luma_visible
        if self.detail is not None:
            lumas = torch.cat([luma_infrared, luma_visible], dim=1).to(x.dtype)
            x = torch.cat([x, F.silu(self.detail(torch.cat([x, lumas], dim=1)))], dim=1)
        more = (2 * b).clamp(max=1) + free * self.more_infrared(x).float()
        less = (2 * b - 1).clamp(min=0) + free * self.less_visible(x).float()
        change = more * F.relu(brighter) - less * F.relu(-brighter) + free * self.correction(x).float()
        return visible + F.conv2d(change, self.spread)


def _stage(config: FusionConfig, level: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            TransformerBlock(config.widths[level], config.heads[level], config.windows[level], config.expansion)
            for _ in range(blocks)
        )
    )
