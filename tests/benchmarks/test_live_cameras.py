"""The live benchmark in small: cameras of this process, no network, and what it counts."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.live_cameras import RATES_HZ, SIZES, ReadingRegistrar, Watch, run_scenario
from benchmarks.live_rig import DrawnRig, Faults
from benchmarks.rtsp_camera import draw_clock, read_clock, since_ms
from benchmarks.tables_speed import LIVE
from cled_edge.areas import Areas
from cled_edge.frame import MONOTONIC, Frame, FramePair, FusedFrame
from cled_edge.pair_facts import timed
from cled_edge.thermal import WHITE_HOT


class EchoFuser:
    """Returns what it got."""

    color_order = "BGR"
    thermal = WHITE_HOT
    backend = SimpleNamespace(description="a fake")
    bundle = SimpleNamespace(manifest=SimpleNamespace(name="fake", schedule=SimpleNamespace(default_steps=1)))
    areas, is_looked_at = Areas(()), False

    def warm_up(self, *_: object) -> None:
        """Do nothing."""

    def with_thermal(self, _thermal: object) -> "EchoFuser":
        return self

    def fuse_pair(self, pair: FramePair, *_: object) -> FusedFrame:
        images = pair.visible.image, pair.infrared.image, pair.visible.image
        return timed(FusedFrame(*images, latency_ns={"network": 1_000_000}), pair)


def test_drawn_clocks_are_read_back_and_turn_over() -> None:
    image = np.zeros((120, 160), np.uint8)
    for ms in (0, 123_456, (1 << 20) + 7):
        draw_clock(image, ms)
        assert read_clock(image) == ms % (1 << 20)
    assert since_ms(5, (1 << 20) - 5) == 10
    assert since_ms((1 << 20) - 5, 5) == -10


def test_pairs_that_were_drawn_far_apart_are_wrong_whatever_their_stamps_say() -> None:
    watch = Watch()
    images = [np.zeros(size, np.uint8) for size in SIZES]
    now_ms = time.monotonic_ns() // 10**6
    for image, ms in zip(images, (now_ms - 300, now_ms - 100), strict=True):
        draw_clock(image, ms)
    frames = [Frame(image, 10**9, MONOTONIC, 0, "fake") for image in images]
    ReadingRegistrar(watch, (48, 64))(FramePair(*frames))
    assert (watch.skew_ms, watch.apart_ms) == ([-200], [-200.0])
    for image, ms in zip(images, (now_ms - 900, now_ms + 10_000), strict=True):  # damaged: both cannot be
        draw_clock(image, ms)
        ReadingRegistrar(watch, (48, 64))(FramePair(*frames))
    assert (watch.unread, len(watch.skew_ms)) == (2, 1)


def test_a_scenario_with_restarts_tells_pairs_and_recoveries_and_leaves_nothing_behind() -> None:
    with DrawnRig(SIZES, RATES_HZ, Faults(jitter_ms=2)) as rig:
        row = run_scenario("restart", rig, EchoFuser(), (48, 64), 1.0, restarts=2)
    assert row["pairs"] > 0
    assert row["law"]
    assert (row["restarts"], row["reopened"], row["unread"]) == (2, 2, 0)
    assert row["recovered_max_s"] < 30
    assert row["threads_left"] == 0
    assert {column.key for column in LIVE.columns} <= {*row, "source"}


def test_a_soak_has_the_page_open_and_tells_how_memory_grew() -> None:
    pytest.importorskip("websockets.sync.client", reason="needs the extra serve")
    with DrawnRig(SIZES, RATES_HZ, Faults()) as rig:
        row = run_scenario("soak", rig, EchoFuser(), (48, 64), 2.0)
    assert row["page_frames"] > 0
    assert float(row["rss_mb"].split()[0]) > 0
    assert row["threads_left"] == 0
