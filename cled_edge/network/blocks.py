"""Attention blocks of the fusion network: TSAB, SSAB (X-Restormer's form) and the two cross-attentions.

Deployment facts that shaped them: the L2 norm over H * W overflows FP16 (a sum of 786 k values near 1), so queries and
keys are divided by sqrt(H * W) first, which changes nothing, since the norm is scale-invariant. Overlapping windows are
built from reshapes and slices, because Unfold exports as index arithmetic and its inverse is not in TensorRT.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UnshuffleConv2d(nn.Conv2d):
    """A 3x3 convolution of the pixel-unshuffled input, computed as one of stride `factor`: (N, C, H, W) to H / factor.

    The two are equal; but the unshuffle is a transpose of six axes once exported, and took longer than the convolution
    (33 of 50 ms in ONNX Runtime 1.32, 480x640). The weights keep the unshuffled shape, (width, C factor^2, 3, 3).
    """

    def __init__(self, channels: int, width: int, factor: int) -> None:
        super().__init__(channels * factor**2, width, 3, padding=1)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H / factor, W / factor)."""
        f = self.factor
        split = self.weight.reshape(self.out_channels, -1, f, f, 3, 3)
        kernel = split.permute(0, 1, 4, 2, 5, 3).reshape(self.out_channels, -1, 3 * f, 3 * f)
        return F.conv2d(x, kernel, self.bias, stride=f, padding=f)


class TransformerBlock(nn.Module):
    """TSAB then SSAB (section 3.2.1): four pre-normalised residual sub-layers, shape kept.

    H and W must be multiples of `window`.
    """

    def __init__(self, width: int, heads: int, window: int, expansion: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                _ChannelSelfAttention(width, heads),
                _GatedFeedForward(width, expansion),
                _WindowSelfAttention(width, heads, window),
                _GatedFeedForward(width, expansion),
            ]
        )
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H, W)."""
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x))
        return x


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (N, C, H, W), with gain and bias, eps 1e-5."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised per pixel, same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _ChannelSelfAttention(nn.Module):
    """TSAB's attention: a (C / heads)^2 map between channels, linear in the number of pixels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.to_qkv = nn.Sequential(
            nn.Conv2d(width, 3 * width, 1, bias=False),
            nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False),
        )
        self.to_out = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).chunk(3, dim=1)
        return self.to_out(_channel_attention(q, k, v, self.temperature, self.heads))


class _GatedFeedForward(nn.Module):
    """GELU(a) * b over a widened, depthwise-convolved pair (a, b)."""

    def __init__(self, width: int, expansion: float) -> None:
        super().__init__()
        hidden = int(width * expansion)
        self.widen = nn.Conv2d(width, 2 * hidden, 1, bias=False)
        self.mix = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.narrow = nn.Conv2d(hidden, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.mix(self.widen(x)).chunk(2, dim=1)
        return self.narrow(F.gelu(a) * b)


class _WindowSelfAttention(nn.Module):
    """SSAB's attention: queries of a window see keys of a window half as wide again.

    The surroundings are zero-padded and not masked, as published. Two things differ from X-Restormer, for deployment:
    everything is channels-last, so that cutting windows copies whole pixels instead of transposing seven axes; and the
    relative position is a learned bias per head and offset, not a product with the query.
    """

    offsets: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.reach = window + window // 2
        self.scale = (width // heads) ** -0.5
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        side = window + self.reach - 1
        self.position = nn.Parameter(torch.zeros(heads, side**2))
        self.register_buffer("offsets", self._offsets(side), persistent=False)

    def _offsets(self, side: int) -> Tensor:
        """Return the offset from query i to key j, rows times `side` plus columns: (window^2, reach^2)."""
        line = torch.arange(self.reach)[None, :] - torch.arange(self.window)[:, None] + self.window - 1
        grid = line[:, None, :, None] * side + line[None, :, None, :]
        return grid.reshape(self.window**2, self.reach**2)

    def forward(self, x: Tensor) -> Tensor:
        n, width, height_px, width_px = x.shape
        rows, columns = height_px // self.window, width_px // self.window
        qkv = self.to_qkv(x.permute(0, 2, 3, 1))
        q = qkv[..., :width].reshape(n, rows, self.window, columns, self.window, width)
        q = self._heads(q.transpose(2, 3).reshape(n * rows * columns, self.window**2, width))
        k, v = self._windows(qkv[..., width:], rows, columns).split(width, dim=-1)
        attention = (q * self.scale) @ self._heads(k).transpose(-1, -2) + self.position[:, self.offsets]
        out = (attention.softmax(dim=-1) @ self._heads(v)).transpose(1, 2)
        out = out.reshape(n, rows, columns, self.window, self.window, width).transpose(2, 3)
        return self.to_out(out.reshape(n, height_px, width_px, width)).permute(0, 3, 1, 2)

    def _windows(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Return the overlapping windows of (N, H, W, C) as (N * rows * columns, reach^2, C)."""
        n, _, _, width = x.shape
        margin, half = self.window // 4, self.window // 2
        x = F.pad(x, (0, 0, margin, margin, margin, margin))
        x = x.reshape(n, 2 * rows + 1, half, -1, width)
        x = torch.cat([x[:, 0:-1:2], x[:, 1::2], x[:, 2::2]], dim=2)
        x = x.reshape(n, rows, self.reach, 2 * columns + 1, half, width)
        x = torch.cat([x[:, :, :, 0:-1:2], x[:, :, :, 1::2], x[:, :, :, 2::2]], dim=4)
        return x.transpose(2, 3).reshape(n * rows * columns, self.reach**2, width)

    def _heads(self, x: Tensor) -> Tensor:
        """Return (B, heads, tokens, width / heads) of (B, tokens, width)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class ChannelCrossAttention(nn.Module):
    """Each stream asks the other: query from the other modality, key and value from its own, over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in range(2))
        self.to_qkv = nn.ModuleList(nn.Conv2d(width, 3 * width, 1, bias=False) for _ in range(2))
        self.to_out = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in range(2))
        self.temperature = nn.Parameter(torch.ones(2, 1, 1, 1))

    def forward(self, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Return both streams, (N, width, H, W) each, with what the other one asked of them added."""
        streams = (infrared, visible)
        qkv = [
            project(norm(x)).chunk(3, dim=1) for project, norm, x in zip(self.to_qkv, self.norms, streams, strict=True)
        ]
        fused = []
        for own, other in ((0, 1), (1, 0)):
            answer = self._attend(qkv[other][0], qkv[own][1], qkv[own][2], self.temperature[own])
            fused.append(streams[own] + self.to_out[own](answer))
        return fused[0], fused[1]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
        return _channel_attention(q, k, v, temperature, heads=1)


class SpatialCrossAttention(ChannelCrossAttention):
    """The same over all H * W positions: quadratic in the picture, meant for L4 only."""

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
        n, width, height_px, width_px = q.shape
        q, k, v = (x.reshape(n, 1, width, -1).transpose(-1, -2) for x in (q * temperature, k, v))
        out = F.scaled_dot_product_attention(q, k, v)
        return out.transpose(-1, -2).reshape(n, width, height_px, width_px)


def _channel_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, heads: int) -> Tensor:
    """Softmax attention between channels of (N, C, H, W), per head, with rows of unit L2 norm over H * W."""
    n, width, height_px, width_px = q.shape
    pixels = height_px * width_px
    q, k, v = (x.reshape(n, heads, width // heads, pixels) for x in (q, k, v))
    q, k = (_unit_rows(x * pixels**-0.5) for x in (q, k))
    attention = (q @ k.transpose(-1, -2) * temperature).softmax(dim=-1)
    return (attention @ v).reshape(n, width, height_px, width_px)


def _unit_rows(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + 1e-12)
