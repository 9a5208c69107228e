"""The frames of a thermal camera in order: a steady gain, shutter events, readings."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from cled_edge.errors import OptionError
from cled_edge.frame import ARRIVAL, MONOTONIC, ORDER, Frame
from cled_edge.live_pairing import TimePairer
from cled_edge.thermal import SHUTTER, ShutterWatch, Thermal, ThermalStream

PERIOD_S = 0.1


def wall(rng: np.random.Generator, level: int = 2800, noise: float = 2) -> np.ndarray:
    """A scene of about 200 counts, (120, 160) uint16."""
    y, x = np.mgrid[:120, :160]
    return np.rint(level + 90 * np.sin(x / 20) * np.cos(y / 15) + rng.normal(0, noise, (120, 160))).astype(np.uint16)


def framed(image: np.ndarray, time_s: float, sequence: int = 0, clock: str = ARRIVAL, name: str = "") -> Frame:
    return Frame(image, round(time_s * 1e9), clock, sequence, "camera", name=name)


def seen(stream: ThermalStream, images, first_s: float = 0.0) -> list[Frame]:
    return [stream(framed(image, first_s + PERIOD_S * index, index)) for index, image in enumerate(images)]


def test_counts_become_steady_grey(rng) -> None:
    frames = seen(ThermalStream(), [wall(rng) for _ in range(20)])
    levels = [float(frame.image.mean()) for frame in frames]
    assert all(frame.image.dtype == np.uint8 and not frame.event for frame in frames)
    assert max(levels) - min(levels) < 1
    assert frames[0].image.std() > 40


@pytest.mark.parametrize(("side", "counts"), [(14, 1000), (20, 500), (24, 6000)])
def test_a_small_hot_thing_that_enters_moves_the_background_little(side: int, counts: int, rng) -> None:
    stream = ThermalStream()
    before = seen(stream, [wall(rng) for _ in range(10)])[-1]
    hot = [wall(rng) for _ in range(30)]
    for image in hot:
        image[30 : 30 + side, 40 : 40 + side] += counts
    after = seen(stream, hot, 1.0)
    for frame in after:
        moved = frame.image.astype(float) - before.image
        moved[28 : 32 + side, 38 : 42 + side] = 0
        assert abs(moved.mean()) < 3
    assert after[-1].image[31 : 29 + side, 41 : 39 + side].min() > 220


def test_a_hot_thing_that_stays_for_minutes_does_not_draw_the_background_along(rng) -> None:
    stream = ThermalStream()
    before = seen(stream, [wall(rng) for _ in range(10)])[-1]
    image = wall(rng)
    image[30:52, 40:62] += 600
    for index in range(250):  # the gain takes a pause for 0.3 s at most
        noisy = image + rng.integers(0, 2, image.shape).astype(np.uint16)
        after = stream(framed(noisy, 1 + 0.3 * index))
    moved = after.image.astype(float) - before.image
    moved[28:54, 38:64] = 0
    assert abs(moved.mean()) < 1.5


def test_the_gain_is_as_fast_at_any_rate(rng) -> None:
    hot = wall(rng)
    hot[:60] += 400
    levels = []
    for rate_hz in (5, 50):
        stream = ThermalStream(Thermal(repair_pixels=False))
        stream(framed(wall(rng), 0))
        for index in range(rate_hz):
            last = stream(framed(hot + rng.integers(0, 2, hot.shape).astype(np.uint16), (index + 1) / rate_hz))
        levels.append(float(last.image[60:].mean()))
    assert levels[0] == pytest.approx(levels[1], abs=4)


def test_borders_telemetry_and_dead_pixels_do_not_count(rng) -> None:
    spoiled = wall(rng)
    turn = cv2.getRotationMatrix2D((80, 60), 4, 1)
    spoiled = cv2.warpAffine(spoiled, turn, (160, 120), borderValue=0)
    spoiled[-2:] = rng.integers(0, 65536, (2, 160))
    spoiled.ravel()[rng.choice(spoiled.size, 60, replace=False)] = 16383
    clean, other = ThermalStream()(framed(wall(rng), 0)), ThermalStream()(framed(spoiled, 0))
    inner = (slice(30, 90), slice(30, 130))
    assert other.image[inner].mean() == pytest.approx(clean.image[inner].mean(), abs=10)


def test_a_jump_of_the_level_after_a_pause_is_a_shutter_and_makes_no_flash(rng) -> None:
    stream = ThermalStream()
    before = seen(stream, [wall(rng) for _ in range(12)])
    after = seen(stream, [wall(rng, 2769) for _ in range(12)], 2.8)
    assert [frame.event for frame in after] == [SHUTTER] + [""] * 11
    assert not any(frame.event for frame in before)
    assert all(abs(float(frame.image.mean()) - float(before[-1].image.mean())) < 3 for frame in after)
    assert stream.events == {SHUTTER: 1}
    assert "shutter" in after[0].notes[-1]


def test_a_level_that_goes_on_drifting_after_a_shutter_leaves_the_grey_where_it_was(rng) -> None:
    stream = ThermalStream()
    before = seen(stream, [wall(rng) for _ in range(12)])[-1]
    pattern = np.full(160, -31.0)
    after = []
    for _ in range(30):  # each frame other columns fall, as a Lepton's do: most of them not at all
        pattern = pattern - 8 * (rng.random(160) < 0.08)
        after.append((wall(rng, noise=0.5) + np.rint(pattern)).astype(np.uint16))
    frames = seen(stream, after, 2.8)
    assert after[0].mean() - after[-1].mean() > 15
    assert all(abs(float(frame.image.mean()) - float(before.image.mean())) < 3 for frame in frames)


def test_a_scene_that_moves_is_no_drift_of_the_level(rng) -> None:
    watch = ShutterWatch()
    image = wall(rng)
    sights = [watch.see(np.roll(image, 9 * index, axis=1), PERIOD_S * index) for index in range(12)]
    assert [sight.drift for sight in sights[1:]] == [0.0] * 11


def test_a_pause_alone_is_no_shutter(rng) -> None:
    stream = ThermalStream()
    seen(stream, [wall(rng) for _ in range(12)])
    assert not stream(framed(wall(rng), 3.0)).event


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frozen_frames_are_no_fresh_ones(dtype: type, rng) -> None:
    stream = ThermalStream()
    images = [(wall(rng) - 2700).astype(dtype) for _ in range(12)]
    frozen = [images[-1]] * 8
    almost = images[-1].copy()
    almost[50, 50] += 1
    frames = seen(stream, [*images, *frozen, almost, (wall(rng) - 2700).astype(dtype)])
    assert [frame.event for frame in frames] == [""] * 12 + [SHUTTER] * 9 + [""]
    assert np.array_equal(frames[15].image, frames[11].image)


def test_a_stream_that_repeats_each_frame_is_not_called_frozen(rng) -> None:
    twice = [image for image in (wall(rng) for _ in range(12)) for _ in range(2)]
    assert not any(frame.event for frame in seen(ThermalStream(), twice))


def test_a_covered_frame_is_bridged_and_a_lens_cap_is_what_the_camera_sees(rng) -> None:
    stream = ThermalStream()
    before = seen(stream, [wall(rng) for _ in range(12)])[-1]
    flat = [np.rint(2900 + rng.normal(0, 1, (120, 160))).astype(np.uint16) for _ in range(20)]
    covered = seen(stream, flat, 1.2)
    assert [frame.event for frame in covered[:10]] == [SHUTTER] * 10
    assert np.array_equal(covered[3].image, before.image)
    assert not covered[-1].event


def test_a_person_who_walks_through_is_no_event(rng) -> None:
    images = [wall(rng) for _ in range(40)]
    for index, image in enumerate(images):
        image[20:110, 4 * index : 4 * index + 40] += 150
    assert not any(frame.event for frame in seen(ThermalStream(), images))


def test_8_bit_passes_as_it_is_unless_asked(rng) -> None:
    image = (wall(rng) - 2700).astype(np.uint8)
    plain = Thermal(repair_pixels=False)
    assert np.array_equal(ThermalStream(plain)(framed(image, 0)).image, image)
    assert ThermalStream(plain, gain="stream")(framed(image // 4, 0)).image.std() > 2 * (image // 4).std()
    assert ThermalStream(Thermal(polarity="black-hot", repair_pixels=False))(framed(image, 0)).image[0, 0] == (
        255 - image[0, 0]
    )


def test_colour_is_read_by_its_order(rng) -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    image[..., 2] = 200
    frame = framed(image, 0)
    assert ThermalStream()(replace(frame, color_order="BGR")).image[5, 5] == round(0.299 * 200)
    assert ThermalStream()(frame).image[5, 5] == round(0.114 * 200)


def test_a_range_in_counts_wins_and_image_is_by_itself(rng) -> None:
    images = [wall(rng), wall(rng, 2900)]
    plain = Thermal((2700, 3000), repair_pixels=False)
    for frame, image in zip(seen(ThermalStream(plain), images), images, strict=True):
        assert np.array_equal(frame.image, plain.grey(image))
    alone = ThermalStream(Thermal(repair_pixels=False), gain="image")
    for frame, image in zip(seen(alone, images), images, strict=True):
        assert np.array_equal(frame.image, Thermal(repair_pixels=False).grey(image))


def test_a_locked_gain_holds(rng) -> None:
    stream = ThermalStream(lock_after_s=0.5)
    seen(stream, [wall(rng) for _ in range(6)])
    assert stream.is_locked
    image = wall(rng)
    held = stream(framed(image, 1.0)).image
    other = image.copy()
    other[:60] = 3500
    again = seen(stream, [other + np.uint16(index % 2) for index in range(20)], 1.1)[-2].image
    assert np.abs(again[70:].astype(int) - held[70:]).max() <= 1


def test_numbered_pictures_of_one_recording_share_a_gain_and_others_do_not(rng) -> None:
    wide = wall(rng)
    wide[:40] += 600

    def second(*names: str, other: np.ndarray | None = None) -> np.ndarray:
        stream = ThermalStream()
        images = wide, wall(rng) if other is None else other
        frames = [
            stream(framed(image, index, index, ORDER, name))
            for index, (image, name) in enumerate(zip(images, names, strict=True))
        ]
        return frames[1].image

    assert second("a_0009", "a_0010").std() < second("a_0009", "b_0010").std() - 10
    unlike = rng.integers(2000, 4000, (120, 160)).astype(np.uint16)
    alone = ThermalStream()(framed(unlike, 0)).image
    assert np.array_equal(second("a_0009", "a_0010", other=unlike), alone)


def test_rows_that_will_be_cut_off_do_not_count(rng) -> None:
    stacked = np.vstack([wall(rng), rng.integers(0, 65536, (120, 160)).astype(np.uint16)])
    frames = seen(ThermalStream(crop_rows=(0, 120)), [stacked, stacked])
    alone = seen(ThermalStream(), [stacked[:120], stacked[:120]])
    assert np.array_equal(frames[1].image[:120], alone[1].image)
    assert frames[1].image.shape == (240, 160)
    assert not frames[1].image[120:].any()


def test_another_size_begins_anew(rng) -> None:
    stream = ThermalStream()
    seen(stream, [wall(rng) for _ in range(8)])
    assert stream(framed(wall(rng)[:60, :80], 0.9)).image.shape == (60, 80)


def test_a_clock_that_jumps_is_no_pause_and_restarts_nothing(rng) -> None:
    images = [wall(rng) for _ in range(13)]
    images[12][:30] += 400

    def last(stamp_s: float, clock: str) -> np.ndarray:
        stream = ThermalStream()
        for index, image in enumerate(images):
            jumps = (stamp_s, clock) if index == 12 else (index / 10, ARRIVAL)
            frame = stream(replace(framed(image, jumps[0], clock=jumps[1]), arrival_ns=index * 10**8))
        assert not stream.events
        return frame.image

    steady = last(1.2, ARRIVAL)
    assert np.array_equal(last(1e9, "sender"), steady)
    assert np.array_equal(last(500.0, ARRIVAL), steady)


def test_no_pair_has_a_frozen_frame(rng) -> None:
    stream, pairer = ThermalStream(), TimePairer()
    images = [wall(rng) for _ in range(12)]
    images += [images[-1]] * 8 + [wall(rng, 2770) for _ in range(5)]
    paired = []
    for index, image in enumerate(images):
        frame = stream(replace(framed(image, index / 10, index, MONOTONIC), arrival_ns=index * 10**8))
        pairer.put("infrared", frame)
        pairer.put("visible", replace(frame, image=image, event=""))
        pair = pairer.next_pair(index * 10**8)
        if pair and not pair.degraded:
            paired.append(pair.infrared.sequence)
    assert not set(paired) & set(range(12, 21))
    assert pairer.ledgers["infrared"].dropped == {SHUTTER: 9}
    assert set(range(21, 25)) <= set(paired)


def test_stamps_that_stand_still_do_not_stop_the_gain(rng) -> None:
    stream = ThermalStream()
    stream(framed(wall(rng), 0))
    hot = wall(rng)
    hot[:60] += 400
    grey = [float(stream(framed(hot + np.uint16(k % 2), 0)).image[:60].mean()) for k in range(40)]
    assert grey[-1] < 254


def test_a_reading_is_of_the_camera(rng) -> None:
    stream = ThermalStream(kelvin_per_count=0.01)
    assert stream.reading(0, 0) is None
    image = wall(rng, 30015)
    stream(framed(image, 0))
    reading = stream.reading(3, 4)
    assert reading is not None
    assert (reading.counts, reading.kelvin) == (int(image[3, 4]), pytest.approx(image[3, 4] / 100))
    with pytest.raises(OptionError, match=r"pixel 120, 0 \(row, column\) is outside of 120x160"):
        stream.reading(120, 0)
    without = ThermalStream()
    without(framed(image, 0))
    assert without.reading(3, 4).kelvin is None


def test_what_no_fuser_takes_passes(rng) -> None:
    frame = framed(np.zeros((4, 4), np.float32), 0)
    assert ThermalStream()(frame) is frame


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gain": "fast"}, "gain is 'fast'; known: auto, stream, image"),
        ({"kelvin_per_count": 0.0}, "kelvin_per_count is 0.0; needed a number above 0"),
        ({"lock_after_s": float("nan")}, "lock_after_s is nan"),
    ],
)
def test_other_settings_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        ThermalStream(**options)


def test_it_says_what_is_done() -> None:
    assert str(ThermalStream()).startswith("8 bit as it is, 16 bit stretched over time; bad pixels replaced")
    assert str(ThermalStream(gain="stream")).startswith("stretched over time;")
    assert str(ThermalStream(Thermal((1, 2)))).startswith("1 to 2 counts;")
