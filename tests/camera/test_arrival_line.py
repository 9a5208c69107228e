"""How late frames come by the times in their stream, and how far times by arrival may be wrong."""

import random

from cled_edge.camera.arrival_line import UNKNOWN_NS, ArrivalLine

MS = 1_000_000
START_NS = 7_000_000 * MS


def ran(way_ms, rate_hz: float = 30.0, seconds: float = 3.0) -> tuple[ArrivalLine, list[float], list[int]]:
    """Let frames come that took `way_ms(seconds)`; return the line, how late each was, and what it then doubted."""
    line, late_ms, doubts = ArrivalLine(), [], []
    for index in range(round(seconds * rate_hz)):
        at_s = index / rate_hz
        late_ms.append(line.late_ns(round(at_s * 1e9), START_NS + round(at_s * 1e9 + way_ms(at_s) * MS)) / MS)
        doubts.append(line.doubt_ns)
    return line, late_ms, doubts


def test_frames_that_come_steadily_are_not_late_and_nearly_sure() -> None:
    _, late_ms, doubts = ran(lambda _s: 25)
    assert max(late_ms) < 1
    assert doubts[:7] == [UNKNOWN_NS] * 7, "of the first 0.25 s nobody knows"
    assert max(doubts[8:]) < 2 * MS


def test_what_was_held_up_at_the_begin_is_forgotten_once_frames_come_steadily() -> None:
    _, _, doubts = ran(lambda s: max(10, 130 - 600 * s))
    assert next(doubt for doubt in doubts if doubt < UNKNOWN_NS) > 150 * MS
    assert doubts[round(30 * 0.8)] < 5 * MS


def test_frames_of_a_server_that_lags_are_doubted_by_more_than_they_are_wrong() -> None:
    """Each took 200 ms at least: no arrival tells that, but they come unsteadily."""
    dice = random.Random(1)
    for rate_hz in (9, 30):
        _, _, doubts = ran(lambda _s: 200 + dice.uniform(0, 250), rate_hz)
        assert min(doubts[round(rate_hz * 0.5) :]) > 200 * MS


def test_where_there_are_no_times_a_frame_that_comes_out_of_step_is_doubted() -> None:
    line, doubts = ArrivalLine(), []
    for index in range(120):
        line.count(1, START_NS + round(index * 1e9 / 30) + (150 if index in (60, 61) else 0) * MS)
        doubts.append(line.doubt_ns)
    assert max(doubts[10:60]) < 2 * MS
    assert min(doubts[60:74]) > 150 * MS
    assert doubts[-1] < 2 * MS


def test_where_there_are_no_times_frames_that_were_left_out_or_come_at_another_rate_are_sure_again() -> None:
    line, now_ns, doubts = ArrivalLine(), START_NS, []
    for index in range(300):
        frames = 3 if index % 10 == 0 else 1  # two of them were overtaken here
        now_ns += round(frames * 1e9 / (30 if index < 150 else 15))
        line.count(frames, now_ns)
        doubts.append(line.doubt_ns)
    assert max(doubts[20:150]) < 2 * MS
    assert max(doubts[200:]) < 20 * MS


def test_nobody_knows_of_the_first_three_frames_however_slowly_they_come() -> None:
    line = ArrivalLine()
    doubts = []
    for index, way_ms in enumerate((317, 273, 264, 145)):
        line.late_ns(index * 160 * MS, START_NS + (index * 160 + way_ms) * MS)
        doubts.append(line.doubt_ns)
    assert doubts == [UNKNOWN_NS] * 3 + [2 * (317 - 145) * MS]
