"""A camera's clock on this computer's: offset, drift and jumps, found by when frames arrive."""

import random

import pytest

from cled_edge.camera.clock_map import ClockMap

MS = 1_000_000
START_NS = 5_000_000 * MS


def errors_ms(
    clock_map: ClockMap, *, drift: float = 0.0, jitter_ms: float = 0.0, seconds: float = 60, rate_hz: float = 30
) -> list[float]:
    """Return by how much each mapped time is late; the way takes 20 ms at least."""
    dice = random.Random(4)
    late = []
    for index in range(round(seconds * rate_hz)):
        taken_ns = START_NS + round(index * 1e9 / rate_hz)
        stamp_ns = round((taken_ns - START_NS) * (1 + drift))
        arrival_ns = taken_ns + round((20 + dice.random() * jitter_ms) * MS)
        late.append((clock_map.taken_ns(stamp_ns, arrival_ns) - taken_ns) / MS - 20)
    return late


@pytest.mark.parametrize("drift", [-0.02, 0.0, 1e-4, 0.02])
@pytest.mark.parametrize("rate_hz", [9, 30])
def test_offset_and_drift_are_found_under_jitter(drift: float, rate_hz: float) -> None:
    clock_map = ClockMap()
    late = errors_ms(clock_map, drift=drift, jitter_ms=30, rate_hz=rate_hz)
    assert max(abs(each) for each in late[round(5 * rate_hz) :]) < 12
    assert clock_map.drift == pytest.approx(drift, abs=6e-4)
    assert clock_map.restarts == 0


def test_without_jitter_and_drift_the_time_is_exact() -> None:
    assert set(errors_ms(ClockMap())) == {0.0}


def test_no_frame_was_taken_after_it_arrived() -> None:
    dice, clock_map = random.Random(1), ClockMap()
    for index in range(3000):
        stamp_ns = index * 33 * MS + round(dice.gauss(0, 40) * MS)
        arrival_ns = START_NS + index * 33 * MS
        assert clock_map.taken_ns(stamp_ns, arrival_ns) <= arrival_ns


def test_frames_that_a_stall_held_up_keep_the_time_at_which_they_were_taken() -> None:
    clock_map = ClockMap()
    for index in range(300):
        clock_map.taken_ns(index * 33 * MS, START_NS + index * 33 * MS)
    back_ns = START_NS + 450 * 33 * MS  # 5 s of frames arrive at once
    for index in range(300, 450):
        assert clock_map.taken_ns(index * 33 * MS, back_ns) - (START_NS + index * 33 * MS) < MS
    assert clock_map.restarts == 0


@pytest.mark.parametrize(("jump_s", "within_s"), [(60, 0), (-60, 2.1)])
def test_a_clock_that_is_set_is_found_anew(jump_s: int, within_s: float) -> None:
    clock_map = ClockMap()
    for index in range(300):
        clock_map.taken_ns(10**12 + index * 33 * MS, START_NS + index * 33 * MS)
    wrong_s = 0.0
    for index in range(300, 500):
        taken_ns = START_NS + index * 33 * MS
        mapped_ns = clock_map.taken_ns(10**12 + jump_s * 1000 * MS + index * 33 * MS, taken_ns)
        wrong_s += 0.033 if abs(mapped_ns - taken_ns) > MS else 0
    assert clock_map.restarts == 1
    assert wrong_s <= within_s


def test_it_holds_no_more_the_longer_it_runs() -> None:
    clock_map = ClockMap()
    errors_ms(clock_map, seconds=200)
    assert len(clock_map._points) <= 60
