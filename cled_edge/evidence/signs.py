"""Measures of an image that tell of degradations, each by a formula with its source, in few milliseconds.

They look at nine patches of at most 64x64 pixels, spread over the image, at its own resolution, and at a thumbnail of
about 72x96. All levels are of 255.

    sigma        Immerkaer, "Fast noise variance estimation", 1996: sqrt(pi/2) mean |I * N| / 6
    sigma_flat   the same on cells of 8x8 pixels, their lowest tenth: texture inflates it less
    sigma_haar   Donoho and Johnstone, 1994: median |HH| / 0.6745 of the finest diagonal Haar band
    columns      fixed pattern along columns: what the rows of a patch have in common once each row's slow part is
                 taken away, as Tendero et al., "Non-uniformity correction", 2012, suppose it: the mean product of the
                 column profiles of four bands of rows. Noise and scene differ from band to band and cancel
    rows         the same along rows; `_wide` against nine columns or rows: a pattern that was enlarged
    dead         share of pixels that differ from the median of 3x3 by 25 levels and 6 sigma_flat more than the medians
                 differ around them
    ridges       rain: bright thin lines against dark ones, and how much they share a direction, by the Hessian, as
                 Garg and Nayar, "Vision and rain", 2007, have streaks: brighter than what they cover, all one way
    lobe         rain: the largest share of a steep, slanted direction in the spectrum of periods 3 to 12 pixels, beside
                 the median direction's; `_mirrored` beside its mirror image, which a street has too
    detail       root mean squares of the Haar details of periods 2, 4, 8 and 16 pixels: their ratios fall with blur
    dark         He, Sun and Tang, "Dark channel prior", 2009: mean of the dark channel over that of the air
    blocks       Wang, Sheikh and Bovik, 2002: steps at the borders of 8x8 blocks against those inside them
    the rest     quantiles, spread and saturation of the thumbnail; `shade` is the spread of its lowest 3x4 cosines
"""

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.image import Float32, Uint8

_PATCH_PX, _GRID = 64, 3
_THUMB_PX = 72, 96  # about: an image is reduced by a whole number, which is fast
_CELL_PX = 8
_BANDS, _WIDE_PX = 4, 9
_SECTORS = 24
_DEAD_LEVELS, _DEAD_SIGMAS = 25.0, 6.0
_TINY = 1e-3
_AROUND = np.ones((3, 3), np.uint8)

Signs = dict[str, float]


def signs_of(image: Uint8) -> Signs:
    """Return every measure of an image, grey (H, W) or RGB (H, W, 3), uint8, by its name; levels are of 255.

    Sides under 16 pixels are drawn up to 16 first.
    """
    if min(image.shape[:2]) < 2 * _CELL_PX:
        height, width = (max(side, 2 * _CELL_PX) for side in image.shape[:2])
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
    grey = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    thumb = _thumbnail(image)
    patches = _patches(grey)
    fine = patches.astype(np.float32)
    noise = _noise(fine)
    return {
        **noise,
        **_patterns(fine),
        **_dead(grey, noise["sigma_flat"]),
        **_ridges(fine),
        **_lobes(fine),
        **_details(fine),
        **_blocks(fine),
        **_tones(thumb, grey),
    }


def _thumbnail(image: Uint8) -> Uint8:
    height, width = image.shape[:2]
    factor = max(1, min(height // _THUMB_PX[0], width // _THUMB_PX[1]))
    rows, columns = height // factor, width // factor
    cut = image[: rows * factor, : columns * factor]
    return np.asarray(cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _patches(grey: Uint8) -> Uint8:
    """Return nine patches, (9, h, w), from places that are multiples of 8, their sides too."""
    sides = [min(_PATCH_PX, side // _CELL_PX * _CELL_PX) for side in grey.shape]
    starts = [
        (np.linspace(0, side - own, _GRID).astype(int) // _CELL_PX * _CELL_PX)
        for side, own in zip(grey.shape, sides, strict=True)
    ]
    return np.stack([grey[y : y + sides[0], x : x + sides[1]] for y in starts[0] for x in starts[1]])


def finest_diagonal(x: NDArray[Any]) -> NDArray[Any]:
    """Return twice the finest diagonal Haar band, (..., H / 2, W / 2), of (..., H, W) with even sides."""
    return x[..., ::2, ::2] - x[..., 1::2, ::2] - x[..., ::2, 1::2] + x[..., 1::2, 1::2]


def _noise(fine: Float32) -> Signs:
    twice = fine[:, :-2] - 2 * fine[:, 1:-1] + fine[:, 2:]
    laplacian = np.abs(twice[:, :, :-2] - 2 * twice[:, :, 1:-1] + twice[:, :, 2:])
    laplacian *= np.float32(np.sqrt(np.pi / 2) / 6)
    haar = finest_diagonal(fine)
    cells = _cells(laplacian)
    flat = np.partition(cells, len(cells) // 10)[len(cells) // 10]
    return {
        "sigma": float(laplacian.mean()),
        "sigma_flat": float(flat),
        "sigma_haar": float(np.median(np.abs(haar)) / (2 * 0.6745)),
    }


def _cells(values: Float32) -> Float32:
    """Return the means of whole cells of 8x8, flat."""
    n, height, width = values.shape
    rows, columns = height // _CELL_PX, width // _CELL_PX
    cut = values[:, : rows * _CELL_PX, : columns * _CELL_PX]
    return cut.reshape(n, rows, _CELL_PX, columns, _CELL_PX).mean(axis=(2, 4)).ravel()


def _patterns(fine: Float32) -> Signs:
    turned = np.ascontiguousarray(fine.transpose(0, 2, 1))
    return {
        "columns": _pattern(fine),
        "rows": _pattern(turned),
        "columns_wide": _wide_pattern(fine),
        "rows_wide": _wide_pattern(turned),
    }


def _pattern(fine: Float32) -> float:
    """Return the root mean square in levels of what all rows have in common beside the slow part, per column."""
    n, height, width = fine.shape
    band = height // _BANDS
    bands = fine[:, : band * _BANDS].reshape(n, _BANDS, band, width)
    high = bands[..., 1:-1] - (bands[..., :-2] + bands[..., 2:]) * np.float32(0.5)
    common = float(_common(np.clip(high, -40, 40).mean(axis=2)).mean())
    return float(np.sqrt(common / 1.5))  # the second difference of independent columns has 1.5 times their variance


def _wide_pattern(fine: Float32) -> float:
    """Return the same of columns that are several pixels wide: the median over the patches, as poles are few."""
    n, height, width = fine.shape
    band = height // _BANDS
    profiles = fine[:, : band * _BANDS].reshape(n, _BANDS, band, width).mean(axis=2)
    slow = cv2.blur(profiles.reshape(-1, width), (_WIDE_PX, 1), borderType=cv2.BORDER_REFLECT_101)
    return float(np.sqrt(np.median(_common(np.clip(profiles - slow.reshape(profiles.shape), -12, 12)))))


def _common(profiles: Float32) -> Float32:
    """Return the mean product of different bands' profiles, (n,) of (n, bands, width); 0 where it is negative."""
    total, squares = profiles.sum(axis=1) ** 2, (profiles**2).sum(axis=1)
    return ((total - squares) / (_BANDS * (_BANDS - 1))).mean(axis=1).clip(0)


def _dead(grey: Uint8, sigma_flat: float) -> Signs:
    medians = cv2.medianBlur(grey, 3)
    around = cv2.morphologyEx(medians, cv2.MORPH_GRADIENT, _AROUND)  # the largest less the smallest
    beyond = cv2.subtract(cv2.absdiff(grey, medians), around)
    least = max(_DEAD_LEVELS, _DEAD_SIGMAS * sigma_flat)
    return {"dead": np.count_nonzero(beyond > np.uint8(min(least, 255))) / grey.size}


def _ridges(fine: Float32) -> Signs:
    smooth = (fine[:, :-1] + fine[:, 1:]) * np.float32(0.5)
    smooth = (smooth[:, :, :-1] + smooth[:, :, 1:]) * np.float32(0.5)
    middle = smooth[:, 1:-1, 1:-1]
    across = smooth[:, 1:-1, :-2] - 2 * middle + smooth[:, 1:-1, 2:]
    down = smooth[:, :-2, 1:-1] - 2 * middle + smooth[:, 2:, 1:-1]
    mixed = (smooth[:, 2:, 2:] - smooth[:, 2:, :-2] - smooth[:, :-2, 2:] + smooth[:, :-2, :-2]) * np.float32(0.25)
    apart, mixed2 = across - down, mixed + mixed
    trace, gap = across + down, np.sqrt(apart * apart + mixed2 * mixed2)
    bright = np.maximum(gap - trace, 0)  # twice the most negative curvature, 0 where there is none
    dark = np.maximum(gap + trace, 0)
    # Points have two negative curvatures, lines one: only where the gap is the larger part is it a line.
    lines = np.where(gap > np.abs(trace) * np.float32(0.5), bright - dark, 0).clip(min=0)
    total = _square_mean(lines) + _TINY
    # Of the doubled angle; an upright line has its curvature across.
    lines *= lines / np.maximum(gap, np.float32(_TINY))
    upright, slanted = (float(np.vdot(lines, part)) / lines.size / total for part in (apart, mixed2))
    return {
        "ridges": float(np.sqrt((_square_mean(bright) + _TINY) / (_square_mean(dark) + _TINY))),
        "ridges_aligned": float(np.hypot(upright, slanted)),
        "ridges_upright": -upright,
    }


def _lobes(fine: Float32) -> Signs:
    _, height, width = fine.shape
    place, counts, window, weight = _sectors(height, width)
    spectrum = np.fft.rfft2((fine - fine.mean(axis=(1, 2), keepdims=True)) * window)
    power = spectrum.real**2 + spectrum.imag**2
    # Each patch counts alike, and each period too.
    mean = (power / (power.mean(axis=(1, 2), keepdims=True) + _TINY)).mean(axis=0) * weight
    sums = np.bincount(place, mean.ravel(), _SECTORS + 1)[:_SECTORS] / counts
    slanted = np.log(sums + _TINY * 1e-6)
    middle = (np.arange(_SECTORS) + 0.5) * (180 / _SECTORS) - 90
    steep = (np.abs(middle) < 47) & (np.abs(middle) > 5)
    return {
        "lobe": float(slanted[steep].max() - np.median(slanted)),
        "lobe_mirrored": float((slanted - slanted[::-1])[steep].max()),
    }


@cache
def _sectors(height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32, Float32]:
    """Return each frequency's sector by its direction, how many each holds, a window, and a weight of frequencies."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.hypot(down, across)
    angle = np.degrees(np.arctan2(down, across + 1e-9))
    place = np.clip(((angle + 90) * (_SECTORS / 180)).astype(np.int64), 0, _SECTORS - 1)
    place[(frequency < 0.08) | (frequency > 0.35)] = _SECTORS
    counts = np.maximum(np.bincount(place.ravel(), minlength=_SECTORS + 1)[:_SECTORS], 1)
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    return place.ravel(), counts, window, (frequency**2).astype(np.float32)


def _square_mean(values: Float32) -> float:
    return float(np.vdot(values, values)) / values.size


def _details(fine: Float32) -> Signs:
    found: Signs = {}
    for period in (2, 4, 8, 16):
        _, height, width = fine.shape
        halves = np.ascontiguousarray(fine[:, : height // 2 * 2, : width // 2 * 2])
        coarse = (
            halves[:, ::2, ::2] + halves[:, ::2, 1::2] + halves[:, 1::2, ::2] + halves[:, 1::2, 1::2]
        ) * np.float32(0.25)
        variance = _square_mean(halves) - _square_mean(coarse)
        found[f"detail_{period}"] = float(np.sqrt(max(variance, 0)))
        fine = coarse
    return found


def _blocks(fine: Float32) -> Signs:
    steps = np.abs(np.diff(fine, axis=2)).mean(axis=(0, 1)), np.abs(np.diff(fine, axis=1)).mean(axis=(0, 2))
    phases = [np.array([step[phase::_CELL_PX].mean() for phase in range(_CELL_PX)]) for step in steps]
    ratios = [(phase.max() + _TINY) / (np.median(phase) + _TINY) for phase in phases]
    return {"blocks": float(np.sqrt(ratios[0] * ratios[1]))}


def _tones(thumb: Uint8, grey: Uint8) -> Signs:
    if thumb.ndim == 3:
        red, green, blue = cv2.split(thumb)
        darkest, brightest = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
        small = np.asarray(cv2.cvtColor(thumb, cv2.COLOR_RGB2GRAY), np.uint8)
    else:
        darkest = brightest = small = thumb
    quantiles = _quantiles(small, (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99))
    dark = np.asarray(cv2.erode(darkest, np.ones((5, 5), np.uint8)), np.uint8)
    air = max(_quantiles(dark, (0.999,))[0], 1.0)
    mean, spread = (float(value[0][0]) for value in cv2.meanStdDev(small))
    even = small[: small.shape[0] // 2 * 2, : small.shape[1] // 2 * 2]  # as the transform needs
    cosines = cv2.dct(even.astype(np.float32))[:3, :4]
    shade = float(np.sqrt(max(float((cosines**2).sum() - cosines[0, 0] ** 2), 0) / even.size))
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel()
    colour = cv2.divide(cv2.subtract(brightest, darkest), np.maximum(brightest, np.uint8(1)), dtype=cv2.CV_32F)
    return {
        "mean": mean,
        "spread": spread,
        **{f"q{place}": value for place, value in zip((1, 5, 25, 50, 75, 95, 99), quantiles, strict=True)},
        "dark": cv2.mean(dark)[0],
        "transmission": 1 - 0.95 * cv2.mean(np.minimum(dark, np.uint8(air)))[0] / air,
        "saturation": cv2.mean(colour)[0],
        "shade": shade,
        "white": float(counts[250:].sum() / grey.size),
        "black": float(counts[:6].sum() / grey.size),
    }


def _quantiles(image: Uint8, shares: tuple[float, ...]) -> list[float]:
    """Return the levels below or at which these shares of the pixels are."""
    below = np.cumsum(cv2.calcHist([image], [0], None, [256], [0, 256]).ravel())
    return [float(level) for level in np.searchsorted(below, np.array(shares) * image.size)]


def numbers_of(signs: Signs, names: tuple[str, ...]) -> NDArray[np.float64]:
    """Return the numbers that a model takes of signs: logarithms of what spans decades, the rest as shares of 255."""
    return np.array([_number(name, signs[name]) for name in names])


def _number(name: str, value: float) -> float:
    if name in _SHARES:
        return value
    if name in ("dead", "white", "black"):
        return float(np.log10(value + 1e-4))
    if name in ("ridges", "blocks"):
        return float(np.log(value))
    if name in _LOGARITHMS or name.startswith("detail_"):
        return float(np.log(value + 0.1))
    return value / 255


_SHARES = ("lobe", "lobe_mirrored", "ridges_aligned", "ridges_upright", "transmission", "saturation")
_LOGARITHMS = (
    *("sigma", "sigma_flat", "sigma_haar", "columns", "rows", "columns_wide", "rows_wide"),
    *("spread", "shade"),
)
