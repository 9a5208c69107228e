"""Parts of both networks: patches, convolutions, TSAB and SSAB (X-Restormer's form), the two cross-attentions.

Deployment facts that shaped them: the L2 norm over H * W overflows FP16 (a sum of 786 k values near 1), so queries and
keys are divided by sqrt(H * W) first, which changes nothing, since the norm is scale-invariant. Overlapping windows
are built from reshapes and slices, because Unfold exports as index arithmetic and its inverse is not in TensorRT.
Nothing is split after a joint projection: OpenVINO 2026.4 runs Split in a reference kernel, and separate projections
took 0.7 of the time in OpenVINO and ONNX Runtime alike.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # of R, G and B: ITU-R BT.601, full range


def patches_from_images(x: Tensor, factor: int) -> Tensor:
    """Return (N, factor^2 C, H / factor, W / factor) of (N, C, H, W); channels are rows, columns, colours of a patch.

    Channels come last in memory, as convolutions of CPUs and tensor cores want them; and unlike in torch's pixel
    unshuffle, a patch's row of interleaved bytes stays together.
    """
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // factor, factor, width // factor, factor)
    x = x.permute(0, 2, 4, 3, 5, 1).reshape(n, height // factor, width // factor, factor**2 * channels)
    return x.permute(0, 3, 1, 2)


def images_from_patches(x: Tensor, factor: int) -> Tensor:
    """Undo `patches_from_images`."""
    n, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, height, width, factor, factor, channels // factor**2)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(n, channels // factor**2, height * factor, width * factor)


def sinusoid(time: Tensor, width: int) -> Tensor:
    """Return the sinusoidal embedding (N, width) of time (N,)."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=time.device) * -(math.log(10000) / (half - 1)))
    angle = time[:, None].float() * frequency[None, :]
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ScaledConv2d(nn.Conv2d):
    """Convolution whose weights are standardised per output channel and scaled by fan-in and a learned gain.

    It trains like a normalised network (NFNets, arXiv:2102.06171), but folds into plain weights on export: a group
    normalisation of the same place took a third of a step in ONNX Runtime and half of one in OpenVINO.
    """

    def __init__(self, width_in: int, width_out: int, kernel: int, padding: int = 0) -> None:
        super().__init__(width_in, width_out, kernel, padding=padding)
        self.gain = nn.Parameter(torch.ones(width_out, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; shapes as of nn.Conv2d."""
        return F.conv2d(x, self.plain_weight().to(x.dtype), self.bias, self.stride, self.padding)

    def plain_weight(self) -> Tensor:
        """Return the weight of the plain convolution that this one is, FP32."""
        weight = self.weight.float()
        variance, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
        return (weight - mean) * torch.rsqrt(variance * weight[0].numel() + 1e-4) * self.gain


def kernel_of(matrix: Tensor) -> Tensor:
    """Return a matrix, (out, in), as the kernel of a 1x1 convolution."""
    return matrix[:, :, None, None]


class ResidualPair(nn.Module):
    """Two 3x3 convolutions, `inner` channels between them, and the input."""

    def __init__(self, width: int, inner: int, groups: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(width, inner, 3, padding=1, groups=groups)
        self.conv_out = nn.Conv2d(inner, width, 3, padding=1, groups=groups)
        with torch.no_grad():
            self.conv_out.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape."""
        out: Tensor = x + self.conv_out(F.relu(self.conv_in(x)))
        return out


class TransformerBlock(nn.Module):
    """TSAB, then SSAB if `window` is not 0 (section 3.2.1): pre-normalised residual sub-layers, shape kept."""

    def __init__(self, width: int, heads: int, window: int, expansion: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [ChannelSelfAttention(width, heads), GatedFeedForward(width, expansion)]
        if window:
            layers += [WindowSelfAttention(width, heads, window), GatedFeedForward(width, expansion)]
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H, W)."""
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x))
        return x


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (N, C, H, W), with gain and bias, eps 1e-5, in FP32."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised per pixel, same shape and type."""
        return super().forward(x.permute(0, 2, 3, 1).float()).permute(0, 3, 1, 2).to(x.dtype)


class ChannelSelfAttention(nn.Module):
    """TSAB's attention: a (C / heads)^2 map between channels, linear in the number of pixels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.to_q, self.to_k, self.to_v = (_mixed_projection(width, width) for _ in range(3))
        self.to_out = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H, W)."""
        attended = _channel_attention(self.to_q(x), self.to_k(x), self.to_v(x), self.temperature, self.heads)
        out: Tensor = self.to_out(attended)
        return out


class GatedFeedForward(nn.Module):
    """GELU(a) * b of two widened, depthwise-convolved projections a and b."""

    def __init__(self, width: int, expansion: float) -> None:
        super().__init__()
        hidden = int(width * expansion)
        self.to_a, self.to_b = (_mixed_projection(width, hidden) for _ in range(2))
        self.narrow = nn.Conv2d(hidden, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H, W)."""
        out: Tensor = self.narrow(F.gelu(self.to_a(x)) * self.to_b(x))
        return out


def _mixed_projection(width: int, width_out: int) -> nn.Sequential:
    """Return a 1x1 projection and a depthwise 3x3, as in Restormer."""
    mix = nn.Conv2d(width_out, width_out, 3, padding=1, groups=width_out, bias=False)
    return nn.Sequential(nn.Conv2d(width, width_out, 1, bias=False), mix)


class WindowSelfAttention(nn.Module):
    """SSAB's attention: queries of a window see keys of a window half as wide again.

    Three things differ from X-Restormer. What windows at the border lack is replicated, not zero: crops of training
    have few windows, all at a border, and a large image many that are not, which zeros made look unlike them.
    Everything is channels-last, so that cutting windows copies whole pixels instead of transposing seven axes. And the
    relative position is a learned bias per head and offset, not a product with the query. `window` is a multiple of 4.
    """

    offsets: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.reach = window + window // 2
        self.scale = (width // heads) ** -0.5
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width, bias=False) for _ in range(4))
        side = window + self.reach - 1
        self.position = nn.Parameter(torch.zeros(heads, side**2))
        self.register_buffer("offsets", self._offsets(side), persistent=False)

    def _offsets(self, side: int) -> Tensor:
        """Return the offset from query i to key j, rows times `side` plus columns: (window^2, reach^2)."""
        line = torch.arange(self.reach)[None, :] - torch.arange(self.window)[:, None] + self.window - 1
        grid = line[:, None, :, None] * side + line[None, :, None, :]
        return grid.reshape(self.window**2, self.reach**2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H, W)."""
        n, width, height_px, width_px = x.shape
        below, right = -height_px % self.window, -width_px % self.window
        margin = self.window // 4
        rows, columns = (height_px + below) // self.window, (width_px + right) // self.window
        # By index: the gradient of torch 2.13's own replication fails to compile where channels come last.
        x = x.permute(0, 2, 3, 1)
        for axis, count, size in ((1, rows, height_px), (2, columns, width_px)):
            places = torch.arange(-margin, count * self.window + margin, device=x.device)
            x = x.index_select(axis, places.clamp(0, size - 1))
        inner = x[:, margin:-margin, margin:-margin]
        q = self.to_q(inner).reshape(n, rows, self.window, columns, self.window, width)
        q = self._heads(q.transpose(2, 3).reshape(n * rows * columns, self.window**2, width))
        k, v = (self._heads(self._windows(to(x), rows, columns)) for to in (self.to_k, self.to_v))
        attention = (q * self.scale) @ k.transpose(-1, -2) + self.position[:, self.offsets].to(q.dtype)
        out = (attention.float().softmax(dim=-1).to(v.dtype) @ v).transpose(1, 2)
        out = out.reshape(n, rows, columns, self.window, self.window, width).transpose(2, 3)
        out = out.reshape(n, rows * self.window, columns * self.window, width)
        out = self.to_out(out[:, :height_px, :width_px])
        return out.permute(0, 3, 1, 2)

    def _windows(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Return the overlapping windows of (N, H, W, C), margins included, as (N * rows * columns, reach^2, C)."""
        n, _, _, width = x.shape
        half = self.window // 2
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
        self.to_q, self.to_k, self.to_v, self.to_out = (
            nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in range(2)) for _ in range(4)
        )
        self.temperature = nn.Parameter(torch.ones(2, 1, 1, 1))

    def forward(self, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Return both streams, (N, width, H, W) each, with what the other one asked of them added."""
        streams = (infrared, visible)
        normed = [norm(x) for norm, x in zip(self.norms, streams, strict=True)]
        fused = []
        for own, other in ((0, 1), (1, 0)):
            q, k, v = self.to_q[other](normed[other]), self.to_k[own](normed[own]), self.to_v[own](normed[own])
            fused.append(streams[own] + self.to_out[own](self._attend(q, k, v, self.temperature[own])))
        return fused[0], fused[1]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
        return _channel_attention(q, k, v, temperature, heads=1)


class SpatialCrossAttention(ChannelCrossAttention):
    """The same over all H * W positions: quadratic in the image, meant for L4 only."""

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
        n, width, height_px, width_px = q.shape
        q, k, v = (x.reshape(n, 1, width, -1).transpose(-1, -2) for x in (q * temperature.to(q.dtype), k, v))
        return softmax_attention(q, k, v).transpose(-1, -2).reshape(n, width, height_px, width_px)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return scaled dot-product attention of (..., tokens, width); with FP16 tokens, logits and softmax are FP32."""
    if q.dtype != torch.float16:
        return F.scaled_dot_product_attention(q, k, v)
    attention = (q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return attention.to(v.dtype) @ v


def _channel_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, heads: int) -> Tensor:
    """Softmax attention between channels of (N, C, H, W), per head, with rows of unit L2 norm over H * W."""
    n, width, height_px, width_px = q.shape
    pixels = height_px * width_px
    q, k, v = (x.reshape(n, heads, width // heads, pixels) for x in (q, k, v))
    q, k = (_unit_rows(x.float() * pixels**-0.5) for x in (q, k))
    attention = (q @ k.transpose(-1, -2) * temperature).softmax(dim=-1)
    return (attention.to(v.dtype) @ v).reshape(n, width, height_px, width_px)


def _unit_rows(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + 1e-12)
