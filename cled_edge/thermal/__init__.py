"""Infrared values as they leave a thermal camera, and what makes 8-bit grey of them: of one image, and of a stream."""

from cled_edge.thermal.agc import Agc, Tone
from cled_edge.thermal.bad_pixels import repaired
from cled_edge.thermal.grey import (
    COLORED,
    FLAT_LEVELS,
    WHITE_HOT,
    Polarity,
    Thermal,
    band_of,
    is_colored,
    percentiles,
    stretched,
)
from cled_edge.thermal.shutter import SHUTTER, ShutterWatch
from cled_edge.thermal.thermal_stream import Gain, Reading, ThermalStream

__all__ = [
    "COLORED",
    "FLAT_LEVELS",
    "SHUTTER",
    "WHITE_HOT",
    "Agc",
    "Gain",
    "Polarity",
    "Reading",
    "ShutterWatch",
    "Thermal",
    "ThermalStream",
    "Tone",
    "band_of",
    "is_colored",
    "percentiles",
    "repaired",
    "stretched",
]
