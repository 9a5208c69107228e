"""What a stream remembers of its last frame, and when it lets go."""

import numpy as np
import pytest

from cled_edge.contract import Controls
from cled_edge.frame import MEDIA, ORDER
from cled_edge.memory import Memory

RNG = np.random.default_rng(0)
SIZE = (96, 128)
INFRARED = np.ascontiguousarray(np.tile(np.linspace(40, 200, SIZE[1]), (SIZE[0], 1)).astype(np.uint8))
VISIBLE = np.ascontiguousarray(np.repeat(INFRARED[::-1, :, None], 3, axis=2))
RESTORED = INFRARED // 2 + 60, VISIBLE // 2 + 60
ONE_S = 10**9
FULL = Controls()


def remembering(controls: Controls = FULL, moment: tuple[int, str] = (0, MEDIA)) -> Memory:
    memory = Memory()
    memory.keep((INFRARED, VISIBLE), RESTORED, controls, moment)
    return memory


def test_a_new_memory_and_one_that_forgot_tell_nothing() -> None:
    memory = remembering()
    memory.forget()
    for each in (Memory(), memory):
        assert each.told(INFRARED, VISIBLE, 0.6, (0, MEDIA)) is None


def test_a_still_scene_is_told_by_the_share_that_was_asked_for() -> None:
    told = remembering().told(INFRARED, VISIBLE, 0.6, (ONE_S // 30, MEDIA))
    assert told is not None
    assert np.array_equal(told.image, np.dstack(RESTORED))
    assert told.share.shape == (*SIZE, 2)
    assert set(told.share.ravel()) == {153}


def test_noise_holds_still_and_what_moves_is_told_nothing_in_its_modality_alone() -> None:
    noisy = np.clip(VISIBLE + RNG.normal(0, 8, VISIBLE.shape), 0, 255).astype(np.uint8)
    moved = INFRARED.copy()
    moved[40:60, 50:70] = 255
    told = remembering().told(moved, noisy, 0.6, (ONE_S // 30, MEDIA))
    assert told is not None
    infrared, visible = told.share[:, :, 0], told.share[:, :, 1]
    assert infrared[42:58, 52:68].max() == 0
    assert np.median(infrared) == 153
    assert np.median(visible) > 0.85 * 153


def test_another_colour_of_equal_brightness_is_a_change() -> None:
    turned = VISIBLE.astype(int)
    turned[40:60, 50:70] += np.array([60, -30, -30])
    told = remembering().told(INFRARED, np.clip(turned, 0, 255).astype(np.uint8), 0.6, (0, MEDIA))
    assert told is not None
    assert told.share[45:55, 55:65, 1].max() < 5


@pytest.mark.parametrize(
    ("last", "this"),
    [
        ((0, MEDIA), (ONE_S * 6 // 10, MEDIA)),  # a gap in time
        ((ONE_S, MEDIA), (0, MEDIA)),  # back in time
        ((0, MEDIA), (0, "ros")),  # another clock
        ((1, ORDER), (3, ORDER)),  # one was left out
    ],
)
def test_a_frame_that_does_not_follow_starts_cold(last: tuple[int, str], this: tuple[int, str]) -> None:
    assert remembering(moment=last).told(INFRARED, VISIBLE, 0.6, this) is None


def test_the_next_of_recorded_pictures_follows() -> None:
    assert remembering(moment=(1, ORDER)).told(INFRARED, VISIBLE, 0.6, (2, ORDER)) is not None


def test_another_size_and_another_scene_start_cold() -> None:
    memory = remembering()
    assert memory.told(INFRARED[:64], VISIBLE[:64], 0.6, (0, MEDIA)) is None
    assert memory.told(255 - INFRARED, 255 - VISIBLE, 0.6, (0, MEDIA)) is None


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0, 1.5])
def test_the_estimate_is_that_of_strength_one(strength: float) -> None:
    restored = tuple(
        np.clip(np.rint(x + strength * (y.astype(float) - x)), 0, 255).astype(np.uint8)
        for x, y in zip((INFRARED, VISIBLE), RESTORED, strict=True)
    )
    controls = Controls(strength_infrared=strength, strength_visible=strength)
    memory = Memory()
    memory.keep((INFRARED, VISIBLE), (restored[0], restored[1]), controls, (0, MEDIA))
    told = memory.told(INFRARED, VISIBLE, 0.6, (0, MEDIA))
    assert told is not None
    assert np.abs(told.image.astype(int) - np.dstack(RESTORED)).max() <= 3


def test_no_estimate_is_kept_where_little_was_removed() -> None:
    memory = remembering()
    memory.keep((INFRARED, VISIBLE), RESTORED, Controls(strength_visible=0.2), (0, MEDIA))
    assert memory.told(INFRARED, VISIBLE, 0.6, (0, MEDIA)) is None
