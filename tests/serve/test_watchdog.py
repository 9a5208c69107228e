"""What a service manager hears: ready, alive twice in its time, stopping; and nothing where there is none."""

import socket

import numpy as np
import pytest

from cled_edge.frame import FusedFrame
from cled_edge.serve.watchdog import Watchdog

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs sockets of UNIX")


def fused(degraded: str = "") -> FusedFrame:
    picture = np.zeros((2, 2, 3), np.uint8)
    return FusedFrame(picture, picture[:, :, 0], picture, name="000007", degraded=degraded)


class Clock:
    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A socket as systemd listens on, and its address as NOTIFY_SOCKET has it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        address = str(tmp_path / "notify") if request.param == "path" else f"@{tmp_path}/notify"
        listening.bind(address.replace("@", "\0", 1))
        listening.settimeout(5)
        yield listening, address


def test_a_manager_hears_of_each_sign_of_life_and_not_more_often_than_it_needs(manager) -> None:
    listening, address = manager
    clock = Clock()
    with Watchdog({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000"}, clock) as watchdog:
        watchdog.begin(dict)
        for tenth in range(101):  # ten seconds
            clock.now_ns = tenth * 10**8
            watchdog.show(fused("visible lost" if tenth > 50 else ""))
    listening.setblocking(False)
    heard = []
    while True:
        try:
            heard.append(listening.recv(500).decode())
        except BlockingIOError:
            break
    assert heard == [
        "READY=1\nSTATUS=waiting for the first pair",
        "WATCHDOG=1\nSTATUS=fusing, both cameras, pair 000007",
        "WATCHDOG=1\nSTATUS=fusing, both cameras, pair 000007",
        "WATCHDOG=1\nSTATUS=fusing, visible lost, pair 000007",
        "STOPPING=1",
    ]


def test_a_manager_that_does_not_read_holds_up_nothing(manager) -> None:
    _, address = manager
    clock = Clock()
    watchdog = Watchdog({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2"}, clock)
    for _ in range(1000):
        clock.now_ns += 10**6
        watchdog.show(fused())


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    with Watchdog(environ) as watchdog:
        watchdog.begin(dict)
        watchdog.show(fused())
