"""The lineage's residual UNet (DiffUIR's), as published: the starting point, and where foreign checkpoints fit."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cled_edge.network.blocks import sinusoid, softmax_attention
from cled_edge.network.presets import UNetConfig

_GROUPS = 8
_HEADS = 4
_HEAD_WIDTH = 32
_EPS = 1e-5


class LineageUNet(nn.Module):
    """R = unet(x_t, x_in, time), 3-channel images in [-1, 1], R in about [-2, 2], all (N, 3, H, W).

    `time` is (1,) or (N,), A_t * 1000. H and W must be multiples of `config.size_multiple`; nothing is padded here.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        time_width = 4 * widths[0]

        def blocks(width_in: int, width_out: int, count: int) -> Iterable[ResBlock]:
            return (ResBlock(width_in, width_out, time_width) for _ in range(count))

        self.time_mlp = nn.Sequential(nn.Linear(widths[0], time_width), nn.GELU(), nn.Linear(time_width, time_width))
        self.stem = nn.Conv2d(6, widths[0], 7, padding=3)
        encoder, decoder = [], []
        last = len(widths) - 2
        for level in range(last + 1):
            width, deeper = widths[level], widths[level + 1]
            same_size = nn.Conv2d(width, deeper, 3, padding=1)
            down = same_size if level == last else nn.Conv2d(width, deeper, 4, 2, padding=1)
            up = nn.Conv2d(deeper, width, 3, padding=1)
            doubled = up if level == 0 else nn.Sequential(nn.Upsample(scale_factor=2), up)
            encoder.append(
                _EncoderLevel(blocks(width, width, config.encoder_blocks[level]), LinearAttention(width), down)
            )
            decoding = blocks(deeper + width, deeper, config.decoder_blocks[level])
            decoder.append(_DecoderLevel(decoding, LinearAttention(deeper), doubled))
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(decoder)
        self.middle_in = ResBlock(widths[-1], widths[-1], time_width)
        self.middle_attention = SoftmaxAttention(widths[-1])
        self.middle_out = ResBlock(widths[-1], widths[-1], time_width)
        self.final_block = ResBlock(2 * widths[0], widths[0], time_width)
        self.head = nn.Conv2d(widths[0], 3, 1)

    def forward(self, x_t: Tensor, x_in: Tensor, time: Tensor) -> Tensor:
        """Return the predicted residual, (N, 3, H, W)."""
        embedding = self.time_mlp(sinusoid(time, self.config.widths[0]))
        stem = x = self.stem(torch.cat([x_t, x_in], dim=1).to(self.stem.weight.dtype))
        skips: list[Tensor] = []
        for level in self.encoder:
            x = level(x, embedding, skips)
        x = self.middle_out(self.middle_attention(self.middle_in(x, embedding)), embedding)
        for level in reversed(self.decoder):
            x = level(x, embedding, skips)
        residual: Tensor = self.head(self.final_block(torch.cat([x, stem], dim=1), embedding))
        return residual.float()


class _EncoderLevel(nn.Module):
    """The blocks of one resolution on the way down; each appends its output to `skips`."""

    def __init__(self, blocks: Iterable[nn.Module], attention: nn.Module, resample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention = attention
        self.resample = resample

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
            if block is self.blocks[-1]:
                x = self.attention(x)
            skips.append(x)
        return self.resample(x)


class _DecoderLevel(_EncoderLevel):
    """The same on the way up; each block takes back a skip."""

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for block in self.blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), embedding)
        return self.resample(self.attention(x))


class ResBlock(nn.Module):
    """Two standardised 3x3 convolutions with a time-dependent scale and shift between them, plus the input."""

    def __init__(self, width_in: int, width_out: int, time_width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(time_width, 2 * width_out)
        self.conv_in = StandardisedConv2d(width_in, width_out, 3, padding=1)
        self.conv_out = StandardisedConv2d(width_out, width_out, 3, padding=1)
        self.norm_in = GroupNorm(width_out)
        self.norm_out = GroupNorm(width_out)
        self.skip = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return (N, width_out, H, W) for x (N, width_in, H, W) and embedding (1 or N, time_width)."""
        scale, shift = self.modulation(F.silu(embedding))[:, :, None, None].to(x.dtype).chunk(2, dim=1)
        h = F.silu(self.norm_in(self.conv_in(x)) * (scale + 1) + shift)
        h = F.silu(self.norm_out(self.conv_out(h)))
        return h + self.skip(x)


class GroupNorm(nn.GroupNorm):
    """Group normalisation in 8 groups, eps 1e-5; for export `written_out` in FP32 reductions.

    torch's own becomes an InstanceNormalization at opset 17, which TensorRT 8.6's Python cannot run natively.
    """

    def __init__(self, width: int) -> None:
        super().__init__(_GROUPS, width, eps=_EPS)
        self.written_out = False

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised, same shape and type."""
        if not self.written_out:
            return super().forward(x)
        grouped = x.float().reshape(x.shape[0], _GROUPS, -1)
        centred = grouped - grouped.mean(dim=2, keepdim=True)
        scaled = centred * torch.rsqrt(centred.square().mean(dim=2, keepdim=True) + _EPS)
        return (scaled.reshape(x.shape) * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class StandardisedConv2d(nn.Conv2d):
    """Convolution whose weights are standardised per output channel, in FP32 with eps 1e-5."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with (w - mean) / std."""
        return F.conv2d(x, self.plain_weight().to(x.dtype), self.bias, self.stride, self.padding)

    def plain_weight(self) -> Tensor:
        """Return the weight of the plain convolution that this one is, FP32."""
        weight = self.weight.float()
        mean = weight.mean(dim=(1, 2, 3), keepdim=True)
        variance = weight.var(dim=(1, 2, 3), keepdim=True, unbiased=False)
        return (weight - mean) * torch.rsqrt(variance + _EPS)


class _GainNorm(nn.Module):
    """Normalisation over channels with a gain and no bias (lineage)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        exact = x.float()
        mean = exact.mean(dim=1, keepdim=True)
        variance = exact.var(dim=1, keepdim=True, unbiased=False)
        return ((exact - mean) * torch.rsqrt(variance + _EPS) * self.gain).to(x.dtype)


class LinearAttention(nn.Module):
    """Lineage attention of linear cost, pre-normalised and residual; v is divided by H * W."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = _HEADS * _HEAD_WIDTH
        self.norm = _GainNorm(width)
        self.to_qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(inner, width, 1), _GainNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H, W)."""
        n, _, height, width = x.shape
        q, k, v = self.to_qkv(self.norm(x)).reshape(n, 3, _HEADS, _HEAD_WIDTH, height * width).unbind(dim=1)
        # What leaves here is of the size of 1 / (H W), under FP16's smallest number: to_out is FP32 in every precision.
        q = q.float().softmax(dim=-2) * _HEAD_WIDTH**-0.5
        context = k.float().softmax(dim=-1) @ (v.float() / (height * width)).transpose(-1, -2)
        out = context.transpose(-1, -2) @ q
        return x + self.to_out(out.reshape(n, -1, height, width)).to(x.dtype)


class SoftmaxAttention(nn.Module):
    """Lineage full softmax attention in the middle, pre-normalised and residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = _HEADS * _HEAD_WIDTH
        self.norm = _GainNorm(width)
        self.to_qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        self.to_out = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H, W)."""
        n, _, height, width = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(n, 3, _HEADS, _HEAD_WIDTH, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(dim=1)
        out = softmax_attention(q, k, v)
        return x + self.to_out(out.transpose(-1, -2).reshape(n, -1, height, width))
