"""Light at night: what is brightened and how far, what stays, and that whole, tiled and recorded pairs see the same."""

import numpy as np
import pytest

from cled_edge import Controls, Fuser
from cled_edge.explain.recorder import explain
from cled_edge.frame import ORDER
from cled_edge.image import Uint8
from cled_edge.light import SteadyLight, brightened, gains
from cled_edge.memory import Memory
from cled_edge.tiling import Tiling, fuse_tiled


def street(level: float, size: tuple[int, int] = (96, 128)) -> Uint8:
    """Return a textured scene (H, W, 3) of a mean level, with a lamp of 250 in the middle."""
    rng = np.random.default_rng(1)
    image = level * (0.7 + 0.6 * rng.random((*size, 1))) * np.array([1.0, 0.9, 0.8])
    top, left = size[0] // 2, size[1] // 2
    image[top - 8 : top + 8, left - 8 : left + 8] = 250
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def test_a_night_is_brightened_as_far_as_the_control_says() -> None:
    night = street(18)
    means = [float(brightened(night, light)[:20].mean()) for light in (0.0, 0.3, 0.6, 1.0)]
    assert means == sorted(means)
    assert means[0] == pytest.approx(night[:20].mean())
    assert 4 * means[0] < means[3] < 9 * means[0]
    assert brightened(night, 0.0) is night


def test_a_day_stays_as_it_is_and_dusk_is_brightened_in_part() -> None:
    for level in (75, 150):
        day = street(level)
        assert brightened(day, 1.0) is day
    dusk, night = street(45), street(18)
    assert 1 < brightened(dusk, 1.0)[:20].mean() / dusk[:20].mean() < 2
    assert brightened(night, 1.0)[:20].mean() / night[:20].mean() > 4


@pytest.mark.parametrize("level", [0, 3])
def test_a_black_frame_around_a_day_does_not_make_it_a_night(level: int) -> None:
    day = street(75)
    for side in (0, 1):
        framed = np.concatenate([np.full_like(day, level), day], axis=side)
        assert brightened(framed, 1.0) is framed


def test_a_stream_follows_a_scene_slowly_and_a_cut_at_once() -> None:
    night, lamp = street(18), street(18)
    lamp[:, :60] = 240
    steady, second = SteadyLight(), 10**9
    first = brightened(night, 1.0, steady.at((0, "monotonic")))
    np.testing.assert_array_equal(first, brightened(night, 1.0))
    alone, next_one = brightened(lamp, 1.0), brightened(lamp, 1.0, steady.at((second // 30, "monotonic")))
    before, after, at_once = (float(image[80:, 100:].mean()) for image in (first, next_one, alone))
    assert abs(after - before) < 0.1 * abs(at_once - before)
    for frame in range(2, 150):
        last = brightened(lamp, 1.0, steady.at((frame * second // 30, "monotonic")))
    assert np.abs(last.astype(int) - alone).max() <= 2
    for moment in ((9 * second, "monotonic"), (9 * second, "other"), (4, ORDER), (5, ORDER)):
        np.testing.assert_array_equal(brightened(night, 1.0, steady.at(moment)), first)
        steady.at((moment[0], moment[1]))(0.3)
    stream = Memory()
    with Fuser.load() as fuser:
        lit = Controls(light=1.0, strength_visible=0.0)
        fuser(night[:, :, 0].copy(), night, lit, memory=stream, moment=(0, "monotonic"))
        live = fuser(night[:, :, 0].copy(), lamp, lit, memory=stream, moment=(second // 30, "monotonic"))
    np.testing.assert_array_equal(live.visible, next_one)


def test_a_flat_image_passes_through_in_any_light_and_the_deadline_stays_as_it_was_asked() -> None:
    flat, night = np.full((96, 128, 3), 12, np.uint8), street(18)
    with Fuser.load() as fuser:
        assert (fuser(night[:, :, 0].copy(), flat, Controls(light=1.0)).visible == 12).all()
        fused = fuser(night[:, :, 0].copy(), night, Controls(light=1.0, deadline_ms=5.0))
    assert (fused.controls.deadline_ms, fused.controls.steps) == (5.0, 1)


def test_a_lamp_keeps_its_level_and_a_colour_most_of_its_hue() -> None:
    night = street(18, (192, 256))
    lit = brightened(night, 1.0)
    assert lit[90:102, 122:134].min() >= 248
    red, green, blue = (lit[:40, :, channel].astype(float).mean() for channel in range(3))
    assert red > green > blue, "warm stays warm"
    assert night[:40, :, 1].mean() / night[:40, :, 0].mean() < green / red < 0.97, (
        "and a little less so: colours are noisy"
    )


def test_black_beside_a_warped_image_does_not_count() -> None:
    night = street(40, (96, 128))
    framed = np.zeros((96, 256, 3), np.uint8)
    framed[:, :128] = night
    inner = brightened(framed, 1.0)[:, :100]
    assert np.abs(inner.astype(int) - brightened(night, 1.0)[:, :100]).mean() < 2
    assert brightened(framed, 1.0)[:, 140:].max() == 0
    assert brightened(np.zeros((16, 16, 3), np.uint8), 1.0).max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 7, 3), (5, 1, 1), (3, 400)])
def test_any_shape_keeps_its_shape(shape: tuple[int, ...]) -> None:
    dark = np.full(shape, 12, np.uint8)
    lit = brightened(dark, 1.0)
    assert lit.shape == shape
    assert lit.min() > 30
    found = gains(dark, 1.0)
    assert found is not None
    assert found.shape == shape[:2]


def test_grey_stays_grey_and_bgr_is_rgb() -> None:
    night = street(18)
    np.testing.assert_array_equal(brightened(night[:, :, ::-1].copy(), 0.7)[:, :, ::-1], brightened(night, 0.7))
    grey = np.repeat(night[:, :, :1], 3, axis=2)
    assert np.ptp(brightened(grey, 0.7), axis=2).max() == 0
    np.testing.assert_allclose(brightened(night[:, :, 0].copy(), 0.7), brightened(grey, 0.7)[:, :, 0], atol=1)


def test_a_pair_is_brightened_whole_in_tiles_and_in_its_report() -> None:
    visible = street(18, (160, 192))
    infrared = visible[::-1, :, 1].copy()
    lit = Controls(light=1.0, strength_visible=0.0)
    with Fuser.load() as fuser:
        dark, whole = fuser(infrared, visible, Controls(strength_visible=0.0)), fuser(infrared, visible, lit)
        tiled = fuse_tiled(fuser, infrared, visible, lit, Tiling((128, 128), 32))
        told = explain(fuser, infrared, visible, lit)
    np.testing.assert_array_equal(dark.visible, visible)
    np.testing.assert_array_equal(whole.visible, brightened(visible, 1.0))
    np.testing.assert_array_equal(told.fused.visible, whole.visible)
    assert np.abs(tiled.visible.astype(int) - whole.visible).mean() < 3
    assert whole.picture.mean() > dark.picture.mean() + 20
    assert any("light is 1" in note for note in told.fused.notes)
