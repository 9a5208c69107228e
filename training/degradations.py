"""Simulated degradations of clean images, in batches, own code from the parameters in the literature.

Every function takes float32 (N, C, H, W) in [0, 1] and a generator, draws its parameters per image, and returns the
same shape (values may leave [0, 1]; `degrade` clips after each). C is 1 for infrared, 3 for visible. A sensor adds its
noise after the optics, so mixtures keep the order of the tables below. Where EMS simulates six kinds and has three real
ones, all are simulated here.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations, islice
from typing import Literal

import cv2
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Degradation = Callable[[Tensor, Generator], Tensor]
Modality = Literal["infrared", "visible"]
MODALITIES: tuple[Modality, Modality] = ("infrared", "visible")
_BLUR_REACH = 8  # half the side of the largest blur


def low_light(x: Tensor, generator: Generator) -> Tensor:
    """Darken by a gamma and a gain, leave lamps and their pools of light, add the noise of a dark exposure."""
    n, dark = len(x), darkened(x, generator)
    # From hardly any noise to much: neither may pass for a night street that is meant to be dark.
    peak = torch.exp(draw(n, math.log(60), math.log(10000), generator))
    return sensor_noise(dark, peak, draw(n, 0, 0.18, generator).square(), generator)


def darkened(x: Tensor, generator: Generator) -> Tensor:
    """Darken as `low_light` does, without its noise."""
    n = len(x)
    # Log-uniform gain: each stop is as likely as the next.
    gain = torch.exp(draw(n, math.log(0.06), math.log(0.7), generator))
    dark = x.clamp_min(1e-4) ** draw(n, 1.0, 3.0, generator) * gain
    # Some are not evenly dark: what shines saturates, and lights what is near it. Night images are mostly so.
    shining = ((x.amax(1, keepdim=True) - draw(n, 0.6, 0.95, generator)) / 0.1).clamp(0, 1)
    near = _smooth(shining, 8) * draw(n, 0, 2, generator)
    share = torch.maximum(shining * draw(n, 0.5, 1, generator), near).clamp(0, 1) * _chosen(n, 0.35, generator)
    dark = dark + (x - dark) * share
    return dark * (0.9 + 0.2 * torch.rand(n, x.shape[1], 1, 1, generator=generator))


def overexposure(x: Tensor, generator: Generator) -> Tensor:
    """Gain and lift: highlights clip, shadows wash out."""
    n = len(x)
    lifted = x.clamp_min(1e-4) ** draw(n, 0.4, 0.95, generator) * draw(n, 1.1, 2.0, generator)
    return lifted + draw(n, 0, 0.12, generator)


def haze(x: Tensor, generator: Generator) -> Tensor:
    """Atmospheric scattering I t + A (1 - t), t = exp(-beta d): fog with depth, or smoke in patches.

    The depth d, of mean 1, mixes four cues in random shares: an even veil, the distance from a vanishing point, the
    height in the image, and the image's dark channel, which is bright where skies and far walls are. Optical
    thickness beta is log-uniform: each doubling is as likely as the next.
    """
    n, channels, height, width = x.shape
    rows = torch.linspace(1, 0, height)[:, None].expand(height, width)
    columns = torch.linspace(0, 1, width)[None, :].expand(height, width)
    centre = torch.rand(2, n, 1, 1, generator=generator)
    radial = (1 - torch.hypot(rows - centre[0], columns - centre[1])[:, None]).clamp_min(0)
    dark_channel = _smooth(x.amin(1, keepdim=True), 4)
    cues = (torch.ones(()), radial, rows.square(), dark_channel)
    depth = sum(draw(n, 0, 1, generator).square() * cue for cue in cues)
    thick = torch.randn(n, 1, 3, 3, generator=generator) * draw(n, 1, 3, generator)
    patches = F.interpolate(thick, (height, width), mode="bicubic").sigmoid()
    depth = depth * torch.where(_chosen(n, 0.3, generator) > 0, patches, torch.ones(()))
    depth = depth / depth.mean((2, 3), keepdim=True).clamp_min(1e-3)
    transmission = torch.exp(-torch.exp(draw(n, math.log(0.2), math.log(2.5), generator)) * depth)
    air = draw(n, 0.65, 0.98, generator) + 0.06 * (torch.rand(n, channels, 1, 1, generator=generator) - 0.5)
    return x * transmission + air * (1 - transmission)


def rain(x: Tensor, generator: Generator) -> Tensor:
    """Slanted streaks S of drops that a line draws out.

    Half of the images J have a few bright ones, 0.9 J to J + b S. The other half are mixed with many, (1 - a) J + a S:
    the more of them shows, the less of the scene does.
    """
    n, _, height, width = x.shape
    reach = 30
    is_mixed = _chosen(n, 0.5, generator)
    few = draw(n, math.log(0.0005), math.log(0.03), generator)
    share = torch.exp(torch.where(is_mixed > 0, draw(n, math.log(0.004), math.log(0.04), generator), few))
    drops = (torch.rand(n, 1, height + 2 * reach, width + 2 * reach, generator=generator) < share).float()
    lines = _lines(draw(n, 8, 60, generator), draw(n, 45, 135, generator), draw(n, 0.5, 1.2, generator), reach)
    streaks = _convolved(drops, lines / lines.amax((2, 3), keepdim=True))[..., reach:-reach, reach:-reach]
    streaks = streaks / streaks.amax((2, 3), keepdim=True).clamp_min(1)
    mixed = torch.exp(draw(n, math.log(0.04), math.log(0.25), generator))
    bright = torch.exp(draw(n, math.log(0.05), math.log(0.5), generator))
    left = torch.where(is_mixed > 0, 1 - mixed, draw(n, 0.9, 1.0, generator))
    return x * left + streaks * torch.where(is_mixed > 0, mixed * draw(n, 0.7, 1.0, generator), bright)


def blur(x: Tensor, generator: Generator) -> Tensor:
    """Defocus (Gaussian), motion (a line), or a sensor of fewer pixels (down and up again), behind either or alone."""
    n, _, height, width = x.shape
    spread = draw(n, 0.5, 2.0, generator)
    gaussian = _gaussians(spread)
    lines = _lines(draw(n, 3, 13, generator), draw(n, 0, 180, generator), torch.full((n, 1, 1, 1), 0.5))
    kernels = torch.where(_chosen(n, 0.5, generator) > 0, gaussian, lines)
    out = _convolved(x, kernels / kernels.sum((2, 3), keepdim=True))
    for index in torch.nonzero(torch.rand(n, generator=generator) < 0.5).flatten().tolist():
        by, behind, averages, is_smooth = torch.rand(4, generator=generator).tolist()
        factor = 1.4 + 3.0 * by
        image = (out if behind < 0.4 else x)[index : index + 1]
        size = int(height / factor), int(width / factor)
        mode = "bilinear" if averages < 0.5 else "bicubic"
        small = F.interpolate(image, size, mode=mode, antialias=averages < 0.75)
        out[index] = F.interpolate(small, (height, width), mode="bicubic" if is_smooth < 0.8 else "bilinear")[0]
    return out


def noise(x: Tensor, generator: Generator) -> Tensor:
    """Shot and read noise, as strong as a small sensor in poor light has them."""
    n = len(x)
    return sensor_noise(x, draw(n, 60, 600, generator), draw(n, 0.01, 0.1, generator), generator)


def low_contrast(x: Tensor, generator: Generator) -> Tensor:
    """Compress towards a grey, as a poorly ranged thermal camera does; half keep most of their own level."""
    n = len(x)
    mean = x.mean((1, 2, 3), keepdim=True)
    level = _level(mean, 0.15, 0.65, generator)
    return level + draw(n, 0.15, 0.7, generator) * (x - mean)


def stripes(x: Tensor, generator: Generator) -> Tensor:
    """Fixed-pattern columns: an offset and a gain per column, the same in every row, as on a microbolometer.

    Its pixels have noise of their own too, from none to much.
    """
    n, _, _, width = x.shape
    offsets = torch.randn(n, 1, 1, width, generator=generator) * draw(n, 0.015, 0.12, generator)
    gains = 1 + torch.randn(n, 1, 1, width, generator=generator) * draw(n, 0, 0.05, generator)
    return x * gains + offsets + torch.randn(x.shape, generator=generator) * draw(n, 0, 0.3, generator).square()


def shading(x: Tensor, generator: Generator) -> Tensor:
    """Add a smooth offset: vignetting, or the warmth that gathers between two closings of a thermal shutter."""
    n = len(x)
    field = F.interpolate(torch.randn(n, 1, 3, 3, generator=generator), x.shape[-2:], mode="bicubic")
    return x + field * draw(n, 0.02, 0.1, generator)


def rows(x: Tensor, generator: Generator) -> Tensor:
    """Add an offset per row, as `stripes` do per column: a readout by rows, or a camera that lies on its side."""
    n, _, height, _ = x.shape
    return x + torch.randn(n, 1, height, 1, generator=generator) * draw(n, 0.01, 0.1, generator)


def dead_pixels(x: Tensor, generator: Generator) -> Tensor:
    """Make 0.03 to 1.2 % of the pixels, and a few clusters of nine, black, white or any grey."""
    n = len(x)
    share = torch.exp(draw(n, math.log(0.0003), math.log(0.012), generator))
    dead = (torch.rand(x.shape, generator=generator) < share).float()
    seeds = (torch.rand(x.shape, generator=generator) < share / 12).float() * _chosen(n, 0.4, generator)
    dead = torch.maximum(dead, F.max_pool2d(seeds, 3, stride=1, padding=1))
    level = torch.rand(x.shape, generator=generator)
    level = torch.where(_chosen(n, 0.6, generator) > 0, (level > 0.5).float(), level)
    return torch.where(dead > 0, level, x)


def another_agc(x: Tensor, generator: Generator) -> Tensor:
    """Give another gain and level, as an automatic gain control does; half keep most of the level."""
    n = len(x)
    mean = x.mean((1, 2, 3), keepdim=True)
    gain = torch.exp(draw(n, math.log(0.2), math.log(0.8), generator))
    return (x - mean) * gain + _level(mean, 0.1, 0.6, generator)


def hot_target(x: Tensor, generator: Generator) -> Tensor:
    """Let one hot thing set the gain: the scene is pressed together, its hottest percents stand far above it."""
    n = len(x)
    quantiles = draw(n, 0.97, 0.997, generator).flatten()
    edge = torch.stack([torch.quantile(one, at) for one, at in zip(x.flatten(1), quantiles, strict=True)])
    hot = ((x - edge[:, None, None, None]) / 0.04).clamp(0, 1)
    return another_agc(x, generator) + hot * draw(n, 0.15, 0.5, generator)


def jpeg(x: Tensor, generator: Generator, quality: tuple[float, float] = (20, 85)) -> Tensor:
    """Code as JPEG of a quality, 20 to 85 as a network camera does: blocks and rings."""
    qualities = draw(len(x), *quality, generator).flatten().int().tolist()
    coded = []
    for image, drawn in zip(x.clamp(0, 1).mul(255).round().byte(), qualities, strict=True):
        bgr = image.permute(1, 2, 0).flip(2).contiguous().numpy()
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, drawn])
        coded.append(torch.from_numpy(cv2.imdecode(data, cv2.IMREAD_COLOR)).flip(2).permute(2, 0, 1))
    return torch.stack(coded).float() / 255


# A new kind stands here alone, under the modalities that have it: a model tells apart what its recipe simulates.
DEGRADATIONS: dict[Modality, dict[str, Degradation]] = {
    "infrared": {
        "blur": blur,
        "low_contrast": low_contrast,
        "shading": shading,
        "noise": noise,
        "stripes": stripes,
        "rows": rows,
        "dead_pixels": dead_pixels,
        "another_agc": another_agc,
        "hot_target": hot_target,
    },
    "visible": {
        "haze": haze,
        "rain": rain,
        "blur": blur,
        "overexposure": overexposure,
        "low_light": low_light,
        "noise": noise,
        "jpeg": jpeg,
    },
}
EXPOSURES = frozenset({"overexposure", "low_light"})
# No camera makes the first, nothing is left of the second, and a thermal camera has one gain.
_EXCLUSIVE = (
    EXPOSURES,
    frozenset({"overexposure", "haze"}),
    *map(frozenset, combinations(("low_contrast", "another_agc", "hot_target"), 2)),
)


def degrade(x: Tensor, modality: Modality, kinds: Sequence[Sequence[str]], generator: Generator) -> Tensor:
    """Apply to each image its kinds, in the order of `DEGRADATIONS`, clipped to [0, 1] after each.

    x: (N, C, H, W) in [0, 1]. kinds: N lists of names. Returns the same shape.
    """
    x = x.clone()
    for name, function in DEGRADATIONS[modality].items():
        chosen = [index for index, names in enumerate(kinds) if name in names]
        if chosen:
            x[chosen] = function(x[chosen], generator).clamp(0, 1)
    return x


def draw_kinds(names: Sequence[str], generator: Generator, clean: float, mixed: float) -> tuple[str, ...]:
    """Draw of the names none (probability `clean`), two different and compatible ones (`mixed`) or one.

    A name that is there several times is drawn so much more often. Where nothing goes with the first, it stays alone.
    """
    draw = torch.rand((), generator=generator).item()
    order = [names[i] for i in torch.randperm(len(names), generator=generator).tolist()]
    if draw < clean:
        return ()
    first = order[0]
    if draw >= clean + mixed:
        return (first,)
    others = (name for name in order if name != first and not any(pair <= {first, name} for pair in _EXCLUSIVE))
    return (first, *islice(others, 1))


def draw(n: int, low: float, high: float, generator: Generator) -> Tensor:
    """Uniform per image, (N, 1, 1, 1)."""
    return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator)


def _level(mean: Tensor, low: float, high: float, generator: Generator) -> Tensor:
    """Level of a camera with another gain, (N, 1, 1, 1): for half most of the image's own mean, else any in a range."""
    n = len(mean)
    own, kept = draw(n, low, high, generator), mean * draw(n, 0.7, 1.0, generator)
    return torch.where(_chosen(n, 0.5, generator) > 0, kept, own)


def _chosen(n: int, share: float, generator: Generator) -> Tensor:
    """1 for a share of the images, else 0, (N, 1, 1, 1)."""
    return (torch.rand(n, 1, 1, 1, generator=generator) < share).float()


def sensor_noise(x: Tensor, peak: Tensor, read: Tensor, generator: Generator) -> Tensor:
    """Noise of variance x / peak + read^2: `peak` electrons at full scale, `read` in units of full scale.

    One image in five has the same noise in all channels, as after a conversion from grey.
    """
    sigma = (x.clamp_min(0) / peak + read.square()).sqrt()
    drawn = torch.randn(x.shape, generator=generator)
    return x + sigma * torch.where(_chosen(len(x), 0.2, generator) > 0, drawn[:, :1], drawn)


def _smooth(x: Tensor, cells: int) -> Tensor:
    """Blur widely: the mean over a grid of `cells` by `cells`, drawn up smoothly."""
    return F.interpolate(F.adaptive_avg_pool2d(x, cells), x.shape[-2:], mode="bicubic").clamp(0, 1)


def _grid(reach: int) -> tuple[Tensor, Tensor]:
    line = torch.arange(-reach, reach + 1, dtype=torch.float32)
    return line[:, None], line[None, :]


def _gaussians(spread_px: Tensor) -> Tensor:
    """Return (N, 1, K, K) for spreads (N, 1, 1, 1)."""
    rows, columns = _grid(_BLUR_REACH)
    return torch.exp(-(rows.square() + columns.square()) / (2 * spread_px.square()))


def _lines(length_px: Tensor, angle_deg: Tensor, spread_px: Tensor, reach: int = _BLUR_REACH) -> Tensor:
    """Return soft lines through the middle, (N, 1, K, K), of a length, an angle and a thickness each."""
    rows, columns = _grid(reach)
    angle = angle_deg * (math.pi / 180)
    along = rows * angle.sin() + columns * angle.cos()
    across = columns * angle.sin() - rows * angle.cos()
    within = (length_px / 2 - along.abs() + 0.5).clamp(0, 1)
    return within * torch.exp(-across.square() / (2 * spread_px.square()))


def _convolved(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image with its own kernel, edges replicated; by Fourier transform, since kernels are large."""
    height, width = x.shape[-2:]
    reach = kernels.shape[-1] // 2
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    size = padded.shape[-2] + 2 * reach, padded.shape[-1] + 2 * reach
    spectrum = torch.fft.rfft2(padded, size) * torch.fft.rfft2(kernels, size)
    full = torch.fft.irfft2(spectrum, size)
    return full[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]
