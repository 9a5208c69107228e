"""The synthetic street: the same frames for the same arguments, and people that infrared sees and visible misses."""

from dataclasses import astuple

import numpy as np
import pytest

from cled_edge.errors import OptionError
from cled_edge.scene.night_street import SyntheticPair, night_street

SIZE = 120, 160
LUMA = np.array((0.299, 0.587, 0.114))
DARK = 40


def same(one: SyntheticPair, other: SyntheticPair) -> list[bool]:
    return [np.array_equal(a, b) for a, b in zip(astuple(one), astuple(other), strict=True)]


def test_a_frame_does_not_depend_on_how_many_are_asked_for() -> None:
    many, few = list(night_street(4, SIZE, seed=3)), list(night_street(2, SIZE, seed=3))
    assert (len(many), len(few)) == (4, 2)
    for one, other in zip(many, few, strict=False):
        assert all(same(one, other))


def test_each_frame_and_each_seed_differs() -> None:
    first, second = night_street(2, SIZE, seed=3)
    (other,) = night_street(1, SIZE, seed=4)
    assert not any(same(first, second))
    assert not any(same(first, other))


def test_rate_sets_the_time_between_frames() -> None:
    slow, fast = list(night_street(2, SIZE, rate_hz=5.0)), list(night_street(3, SIZE, rate_hz=10.0))
    np.testing.assert_array_equal(slow[1].visible_clean, fast[2].visible_clean)
    assert not np.array_equal(slow[1].visible_clean, fast[1].visible_clean)


@pytest.mark.parametrize("size", [(97, 131), (64, 64)])
def test_pictures_of_one_pair_have_one_size(size: tuple[int, int]) -> None:
    (pair,) = night_street(1, size)
    assert [picture.shape for picture in astuple(pair)] == [size, (*size, 3), (*size, 3)]
    assert {picture.dtype for picture in astuple(pair)} == {np.dtype(np.uint8)}


def test_infrared_shows_people_where_the_night_hides_them() -> None:
    """Of the warmest 1 % a quarter or more is dark in visible, yet twice as warm as the street and clear by day."""
    for frame in night_street(5, SIZE, rate_hz=2.0):
        warm = frame.infrared >= np.quantile(frame.infrared, 0.99)
        hidden = warm & (frame.visible @ LUMA < DARK)
        assert hidden.sum() > 0.25 * warm.sum()
        assert frame.infrared[hidden].min() > 2 * np.median(frame.infrared)
        assert (frame.visible_clean @ LUMA)[hidden].mean() > 2 * DARK
        assert frame.visible_clean.mean() > 3 * frame.visible.mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "frames is 0; a synthetic street needs 1 or more"),
        ((1, (32, 32)), "size is 32 x 32; height and width need 64 pixels or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(arguments: tuple, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        night_street(*arguments)
