"""A page with frames of a fake run, on a port of this machine."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from cled_edge.contract import Controls
from cled_edge.control_box import ControlBox
from cled_edge.errors import OptionError
from cled_edge.frame import MONOTONIC, Frame, FramePair, FusedFrame
from cled_edge.serve.page_address import PageAddress
from cled_edge.serve.server import PageServer

SIZE = 48, 64
TOKEN = "correct-horse-battery"  # noqa: S105 (of tests)

_LEDGER = {
    "received": 9,
    "fused": 5,
    "held": 2,
    "unpaired": 1,
    "pending": 0,
    "dropped": {"overtaken": 3},
    "holds": True,
}
_SOURCE = {"state": "open", "failure": None, "oddities": {"repeated": 1}, "reopened": 2, "rate_hz": 9.0}
STATUS = {
    "dropped": 3,
    "outputs": [{"to": "a.mp4", "written": 5, "dropped": 1}],
    "live": {
        "pairing": {"policy": "latest", "slop_ms": 20.0, "hold_ms": 500.0},
        "sources": {"infrared": _SOURCE, "visible": {**_SOURCE, "failure": "it is unplugged"}},
        "ledger": {"infrared": _LEDGER, "visible": _LEDGER},
    },
}


def scene(index: int = 0, **values: Any) -> FusedFrame:
    """A fused frame of one grey level, and inputs of others."""
    heat, color = np.full(SIZE, 40, np.uint8), np.full((*SIZE, 3), 80, np.uint8)
    heat[8:20, 8:20] = 220
    pair = FramePair(Frame(heat, 0, MONOTONIC, index, "ir"), Frame(color, 0, MONOTONIC, index, "vis"))
    given: dict[str, Any] = {
        "controls": Controls(steps=1),
        "latency_ns": {"wait": 9_000_000, "network": 20_000_000, "output": 1_000_000},
        "infrared_age_ns": 40_000_000,
        "visible_age_ns": 30_000_000,
        "skew_ns": -10_000_000,
        "name": f"{index:06d}",
        "pair": pair,
        **values,
    }
    picture = given.pop("picture", np.full((*SIZE, 3), 120, np.uint8))
    return FusedFrame(picture, heat, color, **given)


class Client:
    """Asks a server as a script does. headers: sent with every request."""

    def __init__(self, url: str, **headers: str) -> None:
        self.url, self.headers = url, {name.replace("_", "-"): value for name, value in headers.items()}

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, bytes, Any]:
        """Return status, content and headers of a GET, or of a POST if there is a body."""
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent = {"content-type": "application/json"} | sent
        try:
            with urlopen(Request(self.url.rstrip("/") + path, data, sent), timeout=10) as answer:  # noqa: S310 (loopback)
                return answer.status, answer.read(), answer.headers
        except HTTPError as error:
            return error.code, error.read(), error.headers

    def json(self, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        status, content, _ = self.ask(path, body, **headers)
        return status, json.loads(content)


@pytest.fixture
def box() -> ControlBox:
    def check(controls: Controls) -> None:
        if controls.steps == 9:
            raise OptionError("the bundle has no graph of 9 steps")

    return ControlBox(check=check)


@pytest.fixture
def serve(box: ControlBox, tmp_path: Path) -> Iterator[Callable[..., PageServer]]:
    """Return what starts a server; all are ended after the test."""
    begun: list[PageServer] = []

    def start(host: str = "127.0.0.1", token: str | None = None, **more: Any) -> PageServer:
        place = PageAddress(host, 0, token)
        server = PageServer(place, box, about={"bundle": "fake"}, record_to=tmp_path / "rec", **more)
        server.__enter__()
        begun.append(server)
        server.begin(lambda: STATUS)
        return server

    yield start
    for server in begun:
        server.__exit__(None, None, None)


@pytest.fixture
def page(serve: Callable[..., PageServer]) -> PageServer:
    return serve()


@pytest.fixture
def client(page: PageServer) -> Client:
    return Client(page.url)
