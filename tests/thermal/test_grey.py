"""Infrared values as grey: which counts the stretch takes for the scene, ranges, polarity."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from cled_edge.errors import OptionError
from cled_edge.thermal import Thermal, band_of

Spoil = Callable[[np.ndarray, np.random.Generator], None]


def counts_of_a_scene(rng: np.random.Generator) -> np.ndarray:
    """A wall of 7600 to 7900 counts, and a warm body of 8200: (120, 160) uint16."""
    y, x = np.mgrid[:120, :160]
    counts = 7750 + 150 * np.sin(x / 20) * np.cos(y / 15) + rng.normal(0, 4, (120, 160))
    counts[40:80, 70:85] = 8200
    return counts.astype(np.uint16)


def scattered(value: int | None, share: float) -> Spoil:
    def spoil(counts: np.ndarray, rng: np.random.Generator) -> None:
        places = rng.choice(counts.size, round(share * counts.size), replace=False)
        counts.ravel()[places] = rng.integers(0, 65536, len(places)) if value is None else value

    return spoil


def rows(place: slice) -> Spoil:
    def spoil(counts: np.ndarray, rng: np.random.Generator) -> None:
        counts[place] = rng.integers(0, 65536, counts[place].shape)

    return spoil


def warped(fill: int, degrees: float) -> Spoil:
    def spoil(counts: np.ndarray, rng: np.random.Generator) -> None:
        turn = cv2.getRotationMatrix2D((80, 60), degrees, 1)
        counts[:] = cv2.warpAffine(counts, turn, (160, 120), borderValue=fill)

    return spoil


def every(*spoils: Spoil) -> Spoil:
    def spoil(counts: np.ndarray, rng: np.random.Generator) -> None:
        for each in spoils:
            each(counts, rng)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(warped(0, 4), id="zero borders of a warp"),
        pytest.param(warped(65535, 4), id="saturated borders"),
        pytest.param(warped(0, 30), id="wide zero borders"),
        pytest.param(rows(slice(-1, None)), id="one row of telemetry"),
        pytest.param(rows(slice(-4, None)), id="four rows of telemetry"),
        pytest.param(rows(slice(0, 2)), id="telemetry above"),
        pytest.param(scattered(0, 0.003), id="dead pixels"),
        pytest.param(scattered(16383, 0.003), id="stuck pixels"),
        pytest.param(scattered(None, 0.01), id="defective pixels of any value"),
        pytest.param(rows(slice(50, 51)), id="a defective row"),
        pytest.param(every(warped(0, 4), rows(slice(-2, None)), scattered(16383, 0.003)), id="all of it"),
    ],
)
def test_the_stretch_keeps_the_contrast_of_the_scene(spoil: Spoil, rng) -> None:
    clean = counts_of_a_scene(rng)
    spoiled = clean.copy()
    spoil(spoiled, rng)
    wanted, found = band_of(clean), band_of(spoiled)
    assert found == pytest.approx(wanted, abs=0.1 * (wanted[1] - wanted[0]))


def test_a_small_hot_body_is_not_taken_for_a_defect(rng) -> None:
    counts = counts_of_a_scene(rng)
    counts[20:25, 20:25] = 9000
    assert band_of(counts)[1] == 9000


def test_two_values_are_kept_apart_however_far_they_are() -> None:
    counts = np.zeros((48, 64), np.uint16)
    counts[10:20, 10:20] = 1000
    assert np.unique(Thermal().grey(counts)).tolist() == [0, 255]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 300), (3, 3), (600, 400)])
def test_any_size_is_stretched(shape: tuple[int, int], rng) -> None:
    counts = rng.integers(7000, 9000, shape).astype(np.uint16)
    assert Thermal().grey(counts).shape == shape


def test_counts_that_differ_by_less_than_noise_are_no_scene(rng) -> None:
    assert int(Thermal().grey(rng.integers(7000, 7003, (60, 80)).astype(np.uint16)).max()) <= 2


def test_a_range_in_counts_makes_frames_comparable(rng) -> None:
    thermal = Thermal((7000, 9000))
    assert thermal.grey(np.array([[6000, 7000, 8000, 9000, 65535]], np.uint16)).tolist() == [[0, 0, 128, 255, 255]]
    assert Thermal((0, 128)).grey(np.array([[0, 64, 200]], np.uint8)).tolist() == [[0, 128, 255]]


def test_black_hot_is_turned_over() -> None:
    values = np.array([[0, 100, 255]], np.uint8)
    assert Thermal(polarity="black-hot").grey(values).tolist() == [[255, 155, 0]]
    assert Thermal().grey(values).tolist() == [[0, 100, 255]]
    assert Thermal((0, 2), "black-hot").grey(np.array([[0, 1, 2]], np.uint16)).tolist() == [[255, 127, 0]]


@pytest.mark.parametrize(
    ("counts", "polarity", "words"),
    [
        ((9000, 7000), "white-hot", "9000 to 7000 counts; needed a low and a higher value"),
        ((np.nan, 1), "white-hot", "needed a low and a higher value"),
        (None, "hot", "polarity is 'hot'; known: white-hot, black-hot"),
    ],
)
def test_other_settings_are_refused(counts: tuple[float, float] | None, polarity: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Thermal(counts, polarity)


def test_it_says_what_is_done() -> None:
    assert str(Thermal()) == "8 bit as it is, 16 bit stretched; bad pixels replaced; polarity white-hot"
    assert str(Thermal((7000, 9000), "black-hot", False)) == "7000 to 9000 counts; bad pixels kept; polarity black-hot"
