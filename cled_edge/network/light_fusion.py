"""A fusion net shaped for its work: streams as one tensor, convolutions, attention where there are few pixels.

What it keeps of section 3.2: two streams of four levels, TSAB and SSAB, cross-attention, a decoder with skips, and a
refinement. What differs: both streams are one tensor of grouped convolutions; the shallow levels have none of the
attention; L1 is the patches of both lumas as they are, since nothing but the luma is drawn.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cled_edge.network.blocks import LUMA, ResidualPair, kernel_of
from cled_edge.network.fusion import all_controls, remove
from cled_edge.network.presets import FusionConfig

_FLAT = 2 / 255  # mean deviation over [-1, 1], one grey level: below it an image shows noise, and is not stretched
_MEAN, _SPREAD = (-1.0, 1.0), (0.02, 0.6)  # over [-1, 1], that a scene may be shown at
_SOME = 1e-3  # share of an image, so that a mean over none of it is a number
_HIDDEN = 16  # features that say what scene it is


class Scene(NamedTuple):
    """How an infrared is seen: relative to its mean and mean deviation, and shown at others; (N, 1, 1, 1) each."""

    mean: Tensor
    spread: Tensor
    shown_mean: Tensor
    shown_spread: Tensor

    def relative(self, infrared: Tensor) -> Tensor:
        """Return an infrared luma relative to its own scene, which no gain and level of the camera change."""
        return (infrared - self.mean) / self.spread

    def shown(self, infrared: Tensor) -> Tensor:
        """Return an infrared luma as this scene is to be seen, in [-1, 1]."""
        return (self.relative(infrared) * self.shown_spread + self.shown_mean).clamp(-1, 1)


class SceneRange(nn.Module):
    """The range that an infrared image is to be seen in, of nothing that the camera's gain and level change.

    The image is taken relative to its own mean and mean deviation. Features of that and of the visible, averaged over
    the image, say what mean and deviation the scene is to have: what cameras give such a scene. So another gain control
    of the same scene gives the same range, however little contrast it leaves.
    """

    lowest: Tensor
    reach: Tensor

    def __init__(self) -> None:
        super().__init__()
        (low_mean, high_mean), (low_spread, high_spread) = _MEAN, _SPREAD
        self.register_buffer("lowest", kernel_of(torch.tensor([[low_mean, low_spread]])), persistent=False)
        reach = torch.tensor([[high_mean - low_mean, high_spread - low_spread]])
        self.register_buffer("reach", kernel_of(reach), persistent=False)
        self.look = nn.Conv2d(2, _HIDDEN, 1)
        self.think = nn.Conv2d(2 * _HIDDEN, _HIDDEN, 1)
        self.tell = nn.Conv2d(_HIDDEN, 2, 1)

    def forward(self, infrared: Tensor, visible: Tensor, valid: Tensor | None = None) -> Scene:
        """Return the scene of patches of both lumas, (N, f^2, h, w) in [-1, 1]; FP32.

        valid: (N, f^2, h, w), 1 where the infrared camera looks and 0 where it does not; None is 1 everywhere.
        """
        mean = _mean(infrared, valid)
        spread = _mean((infrared - mean).abs(), valid).clamp_min(_FLAT)
        return Scene(mean, spread, *self.range_of((infrared - mean) / spread, visible, valid))

    def range_of(self, relative: Tensor, visible: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean and the mean deviation to show an infrared at that is relative to its scene.

        Of patches, or of their means: (N, 1, h, w) instead of (N, f^2, h, w).
        """
        # As one convolution of both, whose weights average over a patch: noise and dead pixels are averaged with it.
        count = int(relative.shape[1])
        weight = self.look.weight[:, :, None].expand(-1, -1, count, -1, -1).reshape(_HIDDEN, 2 * count, 1, 1) / count
        seen = F.relu(F.conv2d(torch.cat([relative, visible], dim=1), weight, self.look.bias))
        share: Tensor | float = 1.0
        if valid is not None:
            weights = valid.mean(dim=1, keepdim=True)
            seen, share = seen * weights, weights.mean(dim=(2, 3), keepdim=True).clamp_min(_SOME)
        # Cameras stretch a scene until its extremes fill their range: the largest says what the mean does not.
        scene = torch.cat([seen.mean(dim=(2, 3), keepdim=True) / share, seen.amax(dim=(2, 3), keepdim=True)], dim=1)
        told = self.tell(F.relu(self.think(scene))).sigmoid() * self.reach + self.lowest
        return told[:, :1], told[:, 1:]


class LightFusion(nn.Module):
    """Fuses as `cled_edge.network.fusion.FusionNet` does, by the same inputs and controls; `config.form` is `light`.

    At balance 0 it is the visible and at 1 the infrared, both as they were restored. In between the infrared counts as
    far as it is seen relative to its own scene (`SceneRange`): wholly at 0.5.
    """

    luma: Tensor
    grey: Tensor
    cut_luma: Tensor
    cut_grey: Tensor
    spread: Tensor

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        count, widths = config.unshuffle**2, config.widths
        pairs = list(pairwise((2 * count, *widths[1:])))
        merged = (widths[0], *(max(16, width // 2) for width in widths[1:-1]))
        self.scene = SceneRange()
        self.downs = nn.ModuleList(nn.Conv2d(width, deeper, 2, stride=2, groups=2) for width, deeper in pairs)
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualPair(width, width, 2) for _ in range(blocks)))
            for width, blocks in zip(widths[1:], config.blocks[1:], strict=True)
        )
        self.deep = DeepStreams(widths[-1] // 2, config.expansion)
        # L1 has no block: its merge looks beyond the border of a patch.
        self.merges = nn.ModuleList(
            nn.Conv2d(width, narrow, 1 if level else 3, padding="same")
            for level, (width, narrow) in enumerate(zip((2 * count, *widths[1:-1]), merged, strict=True))
        )
        ups = pairwise((*merged, widths[-1]))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(deeper, width, 2, stride=2) for width, deeper in ups)
        self.refinement = nn.Sequential(
            *(ResidualPair(widths[0], config.detail or widths[0], 1) for _ in range(config.refinement_blocks))
        )
        self.weigh, self.correct = (nn.Conv2d(widths[0], count, 1) for _ in range(2))
        for head in (self.weigh, self.correct):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        same = torch.eye(count)
        for name, weights in (("luma", torch.tensor(LUMA)), ("grey", torch.full((3,), 1 / 3))):
            kernel = kernel_of(weights.repeat(count) * same.repeat_interleave(3, 1))
            self.register_buffer(name, kernel, persistent=False)
            cut = kernel.reshape(count, config.unshuffle, config.unshuffle, 3).permute(0, 3, 1, 2).contiguous()
            self.register_buffer(f"cut_{name}", cut, persistent=False)
        self.register_buffer("spread", kernel_of(same.repeat_interleave(3, 0)), persistent=False)

    def forward(
        self,
        infrared: Tensor,
        infrared_residual: Tensor,
        visible: Tensor,
        visible_residual: Tensor,
        controls: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the fused image, (N, 3, H, W) in [-1, 1]; arguments as in `FusionNet`."""
        controls = all_controls(controls, infrared)
        s = controls["strength"].reshape(-1, 2, 1, 1)
        infrared = remove(infrared, infrared_residual, s[:, :1])
        visible = remove(visible, visible_residual, s[:, 1:])
        # Luma and patches are one convolution, and what is joined again has one channel.
        factor = self.config.unshuffle
        lumas = F.conv2d(infrared, self.cut_grey, stride=factor), F.conv2d(visible, self.cut_luma, stride=factor)
        change = self.change(*lumas, controls["balance"])
        return (visible + F.pixel_shuffle(change, factor)).clamp(-1, 1)

    def patches(
        self, infrared: Tensor, visible: Tensor, controls: Mapping[str, Tensor], valid: Tensor | None = None
    ) -> Tensor:
        """Return the fused image as patches, (N, 3 f^2, h, w), not clamped, of the restored ones and every control.

        valid: (N, 2 f^2, h, w), infrared then visible: 1 where that camera looks, 0 where it does not. There the fused
            image is the other one: the visible as it is, the infrared as it is shown beside the visible. None is 1
            everywhere, and costs nothing.
        """
        lumas = F.conv2d(infrared, self.grey), F.conv2d(visible, self.luma)
        return visible + F.conv2d(self.change(*lumas, controls["balance"], valid=valid), self.spread)

    def change(
        self,
        infrared: Tensor,
        visible: Tensor,
        balance: Tensor,
        scene: Scene | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Return what is added to the visible, (N, f^2, h, w), of patches of both lumas, (N, f^2, h, w) in [-1, 1].

        scene: None is that of the images themselves; training gives crops that of the whole image.
        """
        b = 2 * balance.reshape(-1, 1, 1, 1) - 1
        free = 1 - b.abs()
        seen, looks = (None, None) if valid is None else valid.chunk(2, dim=1)
        both = None if seen is None or looks is None else seen * looks
        scene = self.scene(infrared, visible, both) if scene is None else scene
        shown = infrared + free * (scene.shown(infrared) - infrared)
        if seen is None or looks is None:
            return self._drawn(shown, visible, free, b)
        # Each fills what the other lacks: to the network both then look alike there, and it sees no border.
        drawn = self._drawn(torch.lerp(visible, shown, seen), torch.lerp(shown, visible, looks), free, b)
        return seen * torch.lerp(shown - visible, drawn, looks)

    def _drawn(self, infrared: Tensor, visible: Tensor, free: Tensor, b: Tensor) -> Tensor:
        x = self.features(torch.cat([infrared, visible], dim=1).to(self.weigh.weight.dtype))
        above = infrared - visible
        weight, correction = self.weigh(x).float(), self.correct(x).float()
        return free * (F.relu(above) + weight * above + correction) + F.relu(b) * above

    def features(self, lumas: Tensor) -> Tensor:
        """Return (N, widths[0], h, w) of the patches of both lumas, (N, 2 f^2, h, w)."""
        levels = [lumas]
        for down, stage in zip(self.downs, self.stages, strict=True):
            levels.append(stage(F.relu(down(levels[-1]))))
        x = self.deep(levels[-1])
        for level in reversed(range(len(self.ups))):
            x = self.ups[level](x) + self.merges[level](levels[level])
        refined: Tensor = self.refinement(F.relu(x))
        return refined


class DeepStreams(nn.Module):
    """TSAB, SSAB and cross-attention over all pixels of the deepest level, both streams as a batch; FP32.

    Pixels are tokens from the first to the last, so that nothing is turned around between them. Each stream has weights
    of its own. Differs from X-Restormer: one head; the mean over the pixels takes the place of rows of unit length in
    TSAB, so that FP16 holds it at any size; and SSAB's only window is the image, which is small here.
    """

    def __init__(self, width: int, expansion: float) -> None:
        super().__init__()
        inner = int(width * expansion)
        self.layers = nn.Sequential(
            _ChannelAttention(width, 1.0),
            _GatedFeedForward(width, inner),
            _SpatialAttention(width, width**-0.5),
            _GatedFeedForward(width, inner),
            _SpatialAttention(width, width**-0.5, crossed=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 2 width, h, w), infrared's channels first."""
        n, channels, height, width = x.shape
        tokens = x.float().reshape(n, 2, channels // 2, height * width).transpose(2, 3)
        return self.layers(tokens).transpose(2, 3).reshape(n, channels, height, width).to(x.dtype)


class _Projection(nn.Module):
    """A linear map for each stream, (N, 2, tokens, width): one product with a batch of two matrices."""

    def __init__(self, width: int, width_out: int, gain: float = 1.0, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        made = (torch.randn(width, width_out) * gain * width**-0.5 for _ in range(2))
        self.weights = nn.ParameterList(nn.Parameter(weight) for weight in made)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x @ (torch.stack(list(self.weights)) * self.scale).to(x.dtype)
        return out


class _SpatialAttention(nn.Module):
    """Each pixel of a stream asks all pixels of its own stream; `crossed`: a pixel of the other stream asks.

    scale: of queries, which is folded into their weights.
    """

    def __init__(self, width: int, scale: float, *, crossed: bool = False) -> None:
        super().__init__()
        self.crossed = crossed
        self.norm = nn.LayerNorm(width)
        self.to_q = _Projection(width, width, scale=scale)
        self.to_k, self.to_v = (_Projection(width, width) for _ in range(2))
        self.to_out = _Projection(width, width, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        out: Tensor = self.to_out(self._attend(self.to_q(y.flip(1) if self.crossed else y), self.to_k(y), self.to_v(y)))
        return x + out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(2, 3)).softmax(dim=-1) @ v


class _ChannelAttention(_SpatialAttention):
    """TSAB's: a map between the channels of a stream."""

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attention = (q.transpose(2, 3) @ (k / q.shape[2])).softmax(dim=-1)
        return v @ attention.transpose(2, 3)


class _GatedFeedForward(nn.Module):
    """GDFN's gate without its depthwise convolutions, which the residual blocks before it stand for."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.to_a, self.to_b = (_Projection(width, inner) for _ in range(2))
        self.narrow = _Projection(inner, width, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        out: Tensor = self.narrow(F.relu(self.to_a(y)) * self.to_b(y))
        return x + out


def _mean(x: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean over all but the first dimension, (N, 1, 1, 1), weighted."""
    if weights is None:
        return x.mean(dim=(1, 2, 3), keepdim=True)
    whole = weights.mean(dim=(1, 2, 3), keepdim=True).clamp_min(_SOME)
    return (x * weights).mean(dim=(1, 2, 3), keepdim=True) / whole
