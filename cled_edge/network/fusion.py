"""The degrade-fusion network of section 3.2: dual-stream encoder, cross-attention, decoder, refinement."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cled_edge.network.blocks import ChannelCrossAttention, SpatialCrossAttention, TransformerBlock, UnshuffleConv2d
from cled_edge.network.presets import FusionConfig, MergeKind

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class FusionNet(nn.Module):
    """Fuse I_in - s I_res of both modalities into one picture.

    All pictures are (N, 3, H, W) in [-1, 1], RGB; infrared repeats its channel three times. Residuals are on the same
    scale, in [-2, 2]. H and W must be multiples of `config.size_multiple`.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.encoder_infrared = _Encoder(config)
        self.encoder_visible = _Encoder(config)
        self.merges = nn.ModuleList(_Merge(width, kind) for width, kind in zip(widths, config.merges, strict=True))
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(widths[level + 1], 4 * widths[level], 1), nn.PixelShuffle(2)) for level in range(3)
        )
        self.joins = nn.ModuleList(nn.Conv2d(2 * widths[level], widths[level], 1) for level in range(3))
        self.decoder = nn.ModuleList(_stage(config, level, config.decoder_blocks[level]) for level in range(4))
        self.refinement = _stage(config, 0, config.refinement_blocks)
        modulation = nn.Linear(32, 2 * sum(widths))
        self.balance = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), modulation)
        channels_out = (4 if config.gated_head else 3) * config.unshuffle**2
        self.head = nn.Conv2d(widths[0], channels_out, 3, padding=1)
        nn.init.zeros_(modulation.weight)
        nn.init.zeros_(modulation.bias)
        if config.gated_head:
            for parameter in self.head.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        infrared: Tensor,
        infrared_residual: Tensor,
        visible: Tensor,
        visible_residual: Tensor,
        strength: Tensor,
        balance: Tensor,
    ) -> Tensor:
        """Return the fused picture, (N, 3, H, W) in [-1, 1].

        strength is (2,) or (N, 2), infrared then visible: 0 fuses the untouched input, 1 the clean estimate.
        balance is (1,) or (N, 1) in [0, 1]: 0 leans on the visible, 1 on the infrared, 0.5 is the loss of Eq. 16/17.
        """
        s = strength.reshape(-1, 2, 1, 1, 1)
        infrared = remove(infrared, infrared_residual, s[:, 0])
        visible = remove(visible, visible_residual, s[:, 1])
        streams = zip(self.encoder_infrared(infrared), self.encoder_visible(visible), strict=True)
        modulations = self.balance(balance.reshape(-1, 1))[:, :, None, None].split(
            [2 * w for w in self.config.widths], 1
        )
        levels = [
            merge(a, b, modulation) for merge, (a, b), modulation in zip(self.merges, streams, modulations, strict=True)
        ]
        x = self.decoder[3](levels[3])
        for level in (2, 1, 0):
            x = self.joins[level](torch.cat([self.ups[level](x), levels[level]], dim=1))
            x = self.decoder[level](x)
        return self._picture(self.head(self.refinement(x)), infrared, visible)

    def _picture(self, x: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
        if self.config.unshuffle > 1:
            x = F.pixel_shuffle(x, self.config.unshuffle)
        if self.config.gated_head:
            gate, correction = x.split([1, 3], dim=1)
            x = visible + torch.sigmoid(gate) * (_luma(infrared) - _luma(visible)) + correction
        return x.clamp(-1, 1)


def remove(x_in: Tensor, residual: Tensor, strength: Tensor) -> Tensor:
    """Return I_in - s I_res (section 3.2.1, form A): 0 is the input bit for bit, 1 the clean estimate."""
    return x_in - strength * residual


class _Encoder(nn.Module):
    """One stream: four levels of TSAB then SSAB, halving the size and widening in between."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        widths = config.widths
        self.stem = UnshuffleConv2d(3, widths[0], config.unshuffle)
        self.stages = nn.ModuleList(_stage(config, level, config.blocks[level]) for level in range(4))
        self.downs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(widths[level], widths[level + 1] // 4, 3, padding=1), nn.PixelUnshuffle(2))
            for level in range(3)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [self.stages[0](self.stem(x))]
        for down, stage in zip(self.downs, self.stages[1:], strict=True):
            levels.append(stage(down(levels[-1])))
        return levels


class _Merge(nn.Module):
    """Let the streams look at each other, then merge them; `balance` scales and shifts the result."""

    def __init__(self, width: int, kind: MergeKind) -> None:
        super().__init__()
        attention = {"channel": ChannelCrossAttention, "spatial": SpatialCrossAttention}.get(kind)
        self.cross = attention(width) if attention else None
        self.merge = nn.Conv2d(2 * width, width, 1)

    def forward(self, infrared: Tensor, visible: Tensor, modulation: Tensor) -> Tensor:
        if self.cross is not None:
            infrared, visible = self.cross(infrared, visible)
        scale, shift = modulation.chunk(2, dim=1)
        x: Tensor = self.merge(torch.cat([infrared, visible], dim=1))
        return x * (1 + scale) + shift


def _stage(config: FusionConfig, level: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            TransformerBlock(config.widths[level], config.heads[level], config.windows[level], config.expansion)
            for _ in range(blocks)
        )
    )


def _luma(rgb: Tensor) -> Tensor:
    red, green, blue = rgb.split(1, dim=1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
