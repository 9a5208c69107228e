"""Which sizes of detail an image holds: root mean squares in grey levels, by half octaves of the period in pixels."""

from typing import NamedTuple

import numpy as np

from cled_edge.image import Float32

_BANDS_PER_OCTAVE = 2


class Spectrum(NamedTuple):
    """period_px: (B,) middle period of each band, ascending. rms_levels: (B,) of the image less its mean.

    mean_level: its mean, which is in no band. The squares of all add up to the image's mean square, but for the window.
    """

    period_px: Float32
    rms_levels: Float32
    mean_level: float


def spectrum_of(image: Float32) -> Spectrum:
    """Return the spectrum of an image, (H, W) in grey levels.

    A Hann window takes away what the cut at the edges would add; its mean power is divided out.
    """
    height, width = image.shape
    mean = float(image.mean())
    window = np.outer(_hann(height), _hann(width))
    power = np.abs(np.fft.rfft2((image - mean) * window)) ** 2 / (image.size**2 * np.mean(window**2))
    power[:, 1 : (width + 1) // 2] *= 2  # their mirror images are not in the half that is kept
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    edges = _edges(max(height, width))
    place = np.digitize(frequency.ravel(), 1 / edges[::-1]) - 1
    sums = np.bincount(np.clip(place, 0, len(edges) - 2), power.ravel(), len(edges) - 1)[::-1]
    middles = np.sqrt(edges[:-1] * edges[1:])
    return Spectrum(middles.astype(np.float32), np.sqrt(sums).astype(np.float32), mean)


def _hann(length: int) -> Float32:
    return np.sin(np.pi * (np.arange(length) + 0.5) / length).astype(np.float32) ** 2


def _edges(longest_px: int) -> Float32:
    """Return the borders of the bands, periods from sqrt 2 pixels, the diagonal's shortest, to the whole image."""
    count = int(np.ceil(np.log2(longest_px / np.sqrt(2)) * _BANDS_PER_OCTAVE))
    return (np.sqrt(2) * 2 ** (np.arange(count + 1) / _BANDS_PER_OCTAVE)).astype(np.float32)
