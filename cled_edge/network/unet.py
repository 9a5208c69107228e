"""The UNet on patches, and our one-pass network of it: I_res from the state and the degraded input (Eq. 14/15).

It works on patches: an image's f x f blocks of pixels as channels at 1 / f of the resolution. The few-step loop stays
there from first byte to last, so that images are cut up once and put together once. What a CPU or a GPU multiplies
fast is all that is left: dense convolutions of 32 channels and more, nothing normalised at run time, no attention over
positions.

It looks at an image's light, x_in + 1 in [0, 2], rather than at x_in. Near black, at -1, BF16 numbers are 0.004 apart,
and the logarithm of 1.01 plus such a mean is off by 6%; near 0 they are as fine as light is dim. This alone brought
nano's residuals of a night from 36 to 55 dB of FP32 in OpenVINO's BF16, from 42 to 69 in its FP16 (2026.4).

Dense convolutions may have FP16 weights (cled_edge/network/precision.py). Everything else is FP32 and stays so:
images, the embedding, means over an image, and the arithmetic that ends in an image.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cled_edge.network.blocks import ScaledConv2d, images_from_patches, patches_from_images, sinusoid
from cled_edge.network.presets import UNetConfig

EMBEDDING = 64
SINUSOIDS = 32
_PROBES = 32
MAX_LOG_GAIN = 3.0  # a factor of 20: below 13 of 255, an 8-bit image holds nothing to amplify


class PatchUNet(nn.Module):
    """The U of both networks on patches: what an image looks like, features down to 1 / (8 f) and up again, two heads.

    kinds: how many kinds of degradation it tells apart while it is trained.
    """

    mean_colour: Tensor

    def __init__(self, config: UNetConfig, kinds: int) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        channels = 3 * config.unshuffle**2
        self.probe = nn.Conv2d(channels, _PROBES, 1, bias=False)
        with torch.no_grad():  # blind at first to a patch's mean colour, which exposure is about
            colours = self.probe.weight.reshape(_PROBES, -1, 3)
            colours -= colours.mean(1, keepdim=True)
        self.exposure_mlp = small_mlp(9 + _PROBES)
        mean_colour = torch.eye(3).repeat(1, config.unshuffle**2) / config.unshuffle**2
        self.register_buffer("mean_colour", mean_colour[:, :, None, None], persistent=False)
        self.stem_input = nn.Conv2d(channels, widths[0], 1)
        self.stem_scale = nn.Linear(EMBEDDING, widths[0])
        self.stem_shift = nn.Linear(EMBEDDING, widths[0])
        self.columns = ColumnContext(channels, widths[0])
        self.encoder = nn.ModuleList(_Stage(w, n) for w, n in zip(widths, config.encoder_blocks, strict=True))
        self.decoder = nn.ModuleList(_Stage(w, n) for w, n in zip(widths, config.decoder_blocks, strict=True))
        self.gates = nn.ModuleList(ChannelGate(width) for width in widths)
        pairs = list(pairwise(widths))
        self.downs = nn.ModuleList(nn.Conv2d(width, deeper, 2, stride=2) for width, deeper in pairs)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(deeper, width, 2, stride=2) for width, deeper in pairs)
        self.summary_mlp = small_mlp(2 * widths[-1])
        self.kinds = nn.Linear(EMBEDDING, kinds)
        self.skip_gates = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths[:-1])
        self.gain = nn.Conv2d(widths[0], channels, 1)
        self.offset = nn.Conv2d(widths[0], channels, 1)
        self.global_gain = nn.Linear(EMBEDDING, 3)
        self.global_offset = nn.Linear(EMBEDDING, 3)
        heads = (self.gain, self.offset, self.global_gain, self.global_offset, self.summary_mlp[2])
        for head in (*heads, *self.skip_gates):
            for parameter in head.parameters():
                nn.init.zeros_(parameter)

    def exposure(self, light: Tensor) -> Tensor:
        """Return an embedding, (N, 64), of patches of x_in + 1: how the image is exposed and what it is made of.

        By mean and spread of its patches' mean colours, and by the energies that learned probes find in them, which
        differ for noise, blur, rain and stripes.
        """
        colours = F.conv2d(light, self.mean_colour)
        mean = colours.mean(dim=(2, 3), keepdim=True)
        spread = ((colours - mean).square().mean(dim=(2, 3)) + 1e-3).sqrt()
        mean = mean.flatten(1)
        energies = torch.log(_of_light(self.probe, light).abs().mean(dim=(2, 3)) + 1e-3)
        seen = torch.cat([mean - 1, torch.log(mean + 0.01), torch.log(spread), energies], dim=1)
        embedding: Tensor = self.exposure_mlp(seen)
        return embedding

    def stem(self, light: Tensor, exposure: Tensor) -> Tensor:
        """Return features, (N, widths[0], h, w): the input, brightened as its exposure asks, and its columns' means."""
        log_gain = MAX_LOG_GAIN * torch.tanh(self.stem_scale(exposure) / MAX_LOG_GAIN)
        stem = _of_light(self.stem_input, light)
        gain, shift = (x[:, :, None, None].to(stem.dtype) for x in (torch.exp(log_gain), self.stem_shift(exposure)))
        return stem * gain + shift + self.columns(light).to(stem.dtype)

    def descend(self, x: Tensor, start: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the deepest features, those of the levels above, and the embedding of the way back up, (N, 64).

        That one knows what the deepest features are over the whole image, their means and spreads: which degradation
        it is shows best there, and training asks for it (`kinds`). start: the embedding before its activation.
        """
        embedding = F.silu(start)
        skips: list[Tensor] = []
        for level, (stage, gate) in enumerate(zip(self.encoder, self.gates, strict=True)):
            x = gate(stage(x, embedding))
            if level < len(self.downs):
                skips.append(x)
                x = self.downs[level](x)
        exact = x.float()
        mean = exact.mean(dim=(2, 3), keepdim=True)
        spread = (exact - mean).abs().mean(dim=(2, 3))
        return x, skips, F.silu(start + self.summary_mlp(torch.cat([mean.flatten(1), spread], dim=1)))

    def rise(self, x: Tensor, skips: list[Tensor], embedding: Tensor, finest: int = 0) -> Tensor:
        """Return the features at the finest level, (N, widths[0], h, w).

        finest: the last level whose blocks are run; 1 leaves those of the finest level out.
        """
        for level in reversed(range(len(self.config.widths))):
            if level < len(self.ups):
                x = self.ups[level](x)
                x = x + skips[level] * (1 + self.skip_gates[level](x))  # what is below says what of it to let through
            if level >= finest:
                x = self.decoder[level](x, embedding)
        return x

    def cleaned(self, x: Tensor, embedding: Tensor, light: Tensor, heads: tuple[nn.Module, ...] = ()) -> Tensor:
        """Return the light of the clean estimate, patches: that of the input times a gain, plus an offset.

        Low light, haze and overexposure are of that form, and a narrow low-resolution network alone could not carry
        every pixel. heads: gain, offset, global gain and global offset; none are the network's own.
        """
        count = self.config.unshuffle**2
        own = self.gain, self.offset, self.global_gain, self.global_offset
        to_gain, to_offset, to_global_gain, to_global_offset = heads or own
        gain = to_gain(x).float() + to_global_gain(embedding).repeat(1, count)[:, :, None, None]
        offset = to_offset(x).float() + to_global_offset(embedding).repeat(1, count)[:, :, None, None]
        return light * brightening(gain) + offset


class ResidualUNet(PatchUNet):
    """R = unet(x_t, x_in, time), 3-channel images in [-1, 1], R in about [-2, 2], all (N, 3, H, W).

    `time` is (1,) or (N,), A_t * 1000. H and W must be multiples of `config.size_multiple`; nothing is padded here.
    `start_input` is 1 - D_T of the schedule: the loop starts from that share of x_in.
    """

    def __init__(self, config: UNetConfig, start_input: float, kinds: int) -> None:
        super().__init__(config, kinds)
        self.start_input = start_input
        self.time_mlp = small_mlp(SINUSOIDS)
        self.stem_state = nn.Conv2d(3 * config.unshuffle**2, config.widths[0], 1, bias=False)

    def forward(self, x_t: Tensor, x_in: Tensor, time: Tensor) -> Tensor:
        """Return the predicted residual, (N, 3, H, W)."""
        return self.judge(x_t, x_in, time)[0]

    def judge(self, x_t: Tensor, x_in: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted residual, (N, 3, H, W), and a logit per kind of degradation, (N, kinds)."""
        factor = self.config.unshuffle
        states, inputs = (patches_from_images(x, factor) for x in (x_t, x_in))
        seen = self.seen(states, self.start_input * inputs)
        light = inputs + 1
        x, skips, embedding = self._encode(seen, time, self.context(light))
        return images_from_patches(self._decode(x, skips, embedding, light), factor), self.kinds(embedding)

    def context(self, light: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the loop needs of the degraded input and never changes: its `exposure` and its `stem`.

        light: patches of x_in + 1, (N, 3 f^2, h, w).
        """
        exposure = self.exposure(light)
        return exposure, self.stem(light, exposure)

    def seen(self, x_t: Tensor, start: Tensor) -> Tensor:
        """Return what the network sees of a state, (N, widths[0], h, w): how far the patches x_t have come.

        `start` is where the loop starts, (1 - D_T) x_in, so that the first evaluation has nothing to see: 0.
        """
        state: Tensor = self.stem_state((x_t - start).to(self.stem_state.weight.dtype))
        return state

    def patches(
        self, seen: Tensor | None, light: Tensor, time: Tensor, context: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the predicted residual as patches, (N, 3 f^2, h, w), as light is, and the kinds' logits, (N, kinds).

        seen: None at the start.
        """
        x, skips, embedding = self._encode(seen, time, context)
        return self._decode(x, skips, embedding, light), self.kinds(embedding)

    def _encode(
        self, seen: Tensor | None, time: Tensor, context: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        exposure, features = context
        start = self.time_mlp(sinusoid(time, SINUSOIDS)) + exposure
        return self.descend(features if seen is None else seen + features, start)

    def _decode(self, x: Tensor, skips: list[Tensor], embedding: Tensor, light: Tensor) -> Tensor:
        return light - self.cleaned(self.rise(x, skips, embedding), embedding, light)


def small_mlp(width: int) -> nn.Sequential:
    """Return two linear layers that make an embedding of `width` numbers."""
    return nn.Sequential(nn.Linear(width, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING))


def brightening(gain: Tensor) -> Tensor:
    """Return the factor that a head's number stands for, between 1/20 and 20."""
    return torch.exp((2 * gain).clamp(-MAX_LOG_GAIN, MAX_LOG_GAIN))


def _of_light(convolution: nn.Conv2d, light: Tensor) -> Tensor:
    """Return the 1x1 convolution of x_in = light - 1, of which light is given; in the type of its weights."""
    weight = convolution.weight
    bias = -weight.float().sum(dim=(1, 2, 3))
    if convolution.bias is not None:
        bias = convolution.bias.float() + bias
    return F.conv2d(light.to(weight.dtype), weight, bias.to(weight.dtype))


class ColumnContext(nn.Module):
    """What a column has in common over the height of the image (strip pooling): where sensor stripes show.

    The mean of a column less that of its neighbours, through two small convolutions along the row.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, 32, (1, 5), padding=(0, 2))
        self.conv_out = nn.Conv2d(32, width, (1, 5), padding=(0, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, 1, w) of patches (N, channels, h, w)."""
        columns = x.mean(dim=2, keepdim=True)
        around = F.avg_pool2d(columns, (1, 9), stride=1, padding=(0, 4), count_include_pad=False)
        out: Tensor = self.conv_out(F.silu(self.conv_in(4 * (columns - around))))
        return out


class _Stage(nn.ModuleList):
    """The residual blocks of one level, one way."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__(ResBlock(width) for _ in range(count))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            x = block(x, embedding)
        return x


class ResBlock(nn.Module):
    """Two 3x3 convolutions with a scale and a shift from the embedding between them, plus the input.

    It starts as the identity.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Linear(EMBEDDING, width)
        self.shift = nn.Linear(EMBEDDING, width)
        self.conv_in = ScaledConv2d(width, width, 3, padding=1)
        self.conv_out = ScaledConv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_out.gain)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return (N, width, H, W) for x of that shape and embedding (N, 64)."""
        scale, shift = (to(embedding)[:, :, None, None].to(x.dtype) for to in (self.scale, self.shift))
        return x + self.conv_out(F.silu(self.conv_in(x) * (1 + scale) + shift))


class ChannelGate(nn.Module):
    """x times a gate in (0, 2) per channel, from the channel means: what the whole image looks like."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, max(8, width // 4), 1)
        self.excite = nn.Conv2d(max(8, width // 4), width, 1)
        for parameter in self.excite.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated x, same shape; the identity before training."""
        pooled = x.float().mean(dim=(2, 3), keepdim=True)
        return x * (2 * torch.sigmoid(self.excite(F.silu(self.squeeze(pooled))))).to(x.dtype)
