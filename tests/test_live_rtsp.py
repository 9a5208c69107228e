"""Two RTSP cameras with two clocks and two rates as live pairs: the clocks drawn into the frames tell what is true.

CLED_EDGE_RTSP_SECONDS says for how long.
"""

import os
import socket
import time
from contextlib import ExitStack

import numpy as np
import pytest

from benchmarks.rtsp_camera import lacking, read_clock, rtsp_camera
from cled_edge.live_pairing import TimePairer
from cled_edge.live_pairs import open_cameras

SECONDS = float(os.environ.get("CLED_EDGE_RTSP_SECONDS", "5"))
SIZES, RATES_HZ = ((120, 160), (240, 320)), (9, 30)
SLOP_MS, PATIENCE_S = 150, 20
WAY_MS = 100  # by which the way of one camera may be longer, on a computer that is busy


@pytest.fixture(scope="module", autouse=True)
def _with_a_server() -> None:
    if lack := lacking():
        pytest.skip(f"needs GStreamer's RTSP server: {lack}")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_pairs_are_true_by_the_drawn_clocks_and_a_lost_camera_comes_back() -> None:
    ports = free_port(), free_port()
    true_ms, said_ms, degraded = [], [], set()
    with ExitStack() as stack:
        cameras = [
            stack.enter_context(rtsp_camera(*how, port)) for *how, port in zip(SIZES, RATES_HZ, ports, strict=True)
        ]
        pairer = TimePairer(slop_ns=SLOP_MS * 10**6)
        pairs = stack.enter_context(open_cameras(cameras[0][1], cameras[1][1], pairer))

        def watch(until: str | None) -> None:
            end = time.monotonic() + (PATIENCE_S if until is not None else SECONDS)
            while time.monotonic() < end:
                pair, _ = pairs.next()
                degraded.add(pair.degraded)
                if not pair.degraded:
                    drawn_ms = [read_clock(frame.image) for frame in (pair.infrared, pair.visible)]
                    assert None not in drawn_ms
                    true_ms.append((drawn_ms[0] - drawn_ms[1] + (1 << 19)) % (1 << 20) - (1 << 19))
                    said_ms.append(pair.skew_ns / 1e6)
                if pair.degraded == until:
                    return
            assert until is None, pairs.as_dict()

        watch("")
        watch(None)
        cameras[0][0].kill()
        watch("infrared lost")
        stack.enter_context(rtsp_camera(SIZES[0], RATES_HZ[0], ports[0]))
        watch("")
    assert degraded == {"", "infrared lost"}
    assert max(abs(each) for each in said_ms) <= SLOP_MS
    assert max(abs(each) for each in true_ms) <= SLOP_MS + WAY_MS
    assert np.median(np.abs(np.subtract(true_ms, said_ms))) < WAY_MS / 4
    for source, ledger in zip(pairs.sources, pairs.ledgers.values(), strict=True):
        assert ledger.holds, ledger
        assert ledger.received == source.received
