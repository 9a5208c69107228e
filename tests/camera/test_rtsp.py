"""Two RTSP cameras of GStreamer's server on loopback, lost and found again; the clock in each frame tells its age.

CLED_EDGE_RTSP_RESTARTS=10 restarts each camera so many times instead of once.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from benchmarks.rtsp_camera import lacking, read_clock, rtsp_camera
from cled_edge.camera.live_source import LiveSource, SourceState
from cled_edge.frame import ARRIVAL, SENDER, Frame

RESTARTS = int(os.environ.get("CLED_EDGE_RTSP_RESTARTS", "1"))
RECOVER_WITHIN_S = 2.0  # of the camera's return
PATIENCE_S = 20.0
SIZES, RATES_HZ = ((120, 160), (720, 1280)), (9, 30)


@pytest.fixture(scope="module", autouse=True)
def _with_a_server() -> None:
    if lack := lacking():
        pytest.skip(f"needs GStreamer's RTSP server: {lack}")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait(source: LiveSource, condition: Callable[[], bool]) -> None:
    with source.arrived:
        assert source.arrived.wait_for(condition, PATIENCE_S), source.as_dict()


def age_ms(frame: Frame) -> int:
    drawn_ms = read_clock(frame.image)
    assert drawn_ms is not None
    return ((frame.arrival_ns or 0) // 10**6 - drawn_ms) % (1 << 20)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_each_camera_comes_back_within_two_seconds_and_leaves_nothing_behind() -> None:
    ports = free_ports(2)
    threads, files = threading.active_count(), open_files()
    arrived = threading.Condition()
    recovered_s = []
    with ExitStack() as stack:
        cameras = [
            stack.enter_context(rtsp_camera(*how, port)) for *how, port in zip(SIZES, RATES_HZ, ports, strict=True)
        ]
        sources = [LiveSource(address, arrived=arrived) for _, address in cameras]
        for source in sources:
            source.start()
        for source, size in zip(sources, SIZES, strict=True):
            wait(source, lambda source=source: source.received >= 5)
            assert source.take()[-1].image.shape == (*size, 3)
        for _ in range(RESTARTS):
            for k in (0, 1):
                other = sources[1 - k]
                cameras[k][0].kill()
                wait(sources[k], lambda k=k: sources[k].state is SourceState.LOST)
                sources[k].take()
                other_had, others_reopened, reopened = other.received, other.reopened, sources[k].reopened
                cameras[k] = stack.enter_context(rtsp_camera(SIZES[k], RATES_HZ[k], ports[k]))
                back_s = time.monotonic()
                wait(sources[k], lambda k=k, had=reopened: sources[k].reopened > had and sources[k].pending > 0)
                recovered_s.append(time.monotonic() - back_s)
                assert age_ms(sources[k].take()[0]) / 1000 < recovered_s[-1] + 0.5  # a new frame, none of before
                wait(other, lambda other=other, had=other_had: other.received > had)
                assert other.reopened == others_reopened
        for source in sources:
            assert source.stop(PATIENCE_S)
    print("recovered after", [round(each, 2) for each in recovered_s])
    assert max(recovered_s) < RECOVER_WITHIN_S
    assert threading.active_count() == threads
    assert open_files() == files


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_frame_is_there_before_the_next_one_and_its_stamp_becomes_the_senders(codec: str) -> None:
    (port,) = free_ports(1)
    with rtsp_camera(SIZES[0], RATES_HZ[0], port, "--codec", codec) as (_, address):
        source = LiveSource(address, keep=500)
        source.start()
        clocks: set[str] = set()

        def has_told() -> bool:
            frames.extend(source.take())
            clocks.update(frame.clock for frame in frames)
            return SENDER in clocks and len(frames) > 30

        frames: list[Frame] = []
        wait(source, has_told)
        assert source.stop(PATIENCE_S)
    ages = [age_ms(frame) for frame in frames]
    assert min(ages) < 0.5 * 1000 / RATES_HZ[0]  # by FFmpeg's own parser every frame is one period late
    assert clocks == {ARRIVAL, SENDER}
    wall_ns = time.time_ns() - time.monotonic_ns()
    apart_ms = [
        (frame.timestamp_ns - wall_ns - (frame.arrival_ns or 0)) / 1e6 + age
        for frame, age in zip(frames, ages, strict=True)
        if frame.clock == SENDER
    ]
    assert max(abs(each) for each in apart_ms) < 50
    assert not source.oddities["corrupt"]
