"""Who connects and asks for nothing, or asks for nonsense: the page closes it, and the run keeps its descriptors."""

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from cled_edge.serve.server import PageServer
from tests.serve.conftest import Client, scene

websockets = pytest.importorskip("websockets.sync.client", reason="needs the extra serve")
connection = pytest.importorskip("cled_edge.serve.connection", reason="needs the extra serve")


def is_closed(line: socket.socket) -> bool:
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True


def test_idle_connections_keep_nobody_out(serve: Callable[..., PageServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST", 3)
    monkeypatch.setattr(connection, "IDLE_S", 60)
    page = serve()
    with ExitStack() as stack:
        place = "127.0.0.1", page.address.port
        lines = [stack.enter_context(socket.create_connection(place, timeout=10)) for _ in range(5)]
        assert is_closed(lines[0])
        assert is_closed(lines[1])
        lines[4].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert lines[4].recv(12) == b"HTTP/1.1 503"


def test_connections_above_the_most_are_closed_while_all_are_answered(
    serve: Callable[..., PageServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST", 1)
    page = serve()
    page.show(scene(0))
    with websockets.connect(f"ws{page.url[4:]}live", max_size=None) as viewer:
        viewer.send(json.dumps({"views": ["fused"], "after": 0}))
        assert viewer.recv(timeout=10)
        with socket.create_connection(("127.0.0.1", page.address.port), timeout=10) as line:
            assert is_closed(line)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_connection_that_never_ends_its_request_is_closed(
    serve: Callable[..., PageServer], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connection, "IDLE_S", 0.05)
    page = serve()
    with socket.create_connection(("127.0.0.1", page.address.port), timeout=10) as line:
        line.sendall(sent)
        assert is_closed(line)


def test_an_open_stream_outlives_the_look_for_idle_connections(
    serve: Callable[..., PageServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "IDLE_S", 0.05)
    page = serve()
    page.show(scene(0))
    with websockets.connect(f"ws{page.url[4:]}live", max_size=None) as viewer:
        for _ in range(2):  # the second answer comes after a second without a frame
            viewer.send(json.dumps({"views": ["fused"], "after": 1}))
            assert viewer.recv(timeout=10)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/controls", {"self": 1}),
        ("/record", {"on": True, "view": []}),
        ("/reading.json?row=inf&column=nan", None),
        ("/reading.json?row=-0.001&column=0", None),
    ],
)
def test_nonsense_is_refused_in_words(client: Client, path: str, body: Any) -> None:
    status, told = client.json(path, body)
    assert status == 422
    assert "needed" in told["error"] or "known" in told["error"]


@pytest.mark.parametrize("message", [b"\xff\xfe", b"abc", json.dumps({"views": ["\U0001f600" * 60], "after": 0})])
def test_a_viewer_that_asks_nonsense_is_told_why_it_is_closed(page: PageServer, message: str | bytes) -> None:
    from websockets.exceptions import ConnectionClosed

    page.show(scene(0))
    with websockets.connect(f"ws{page.url[4:]}live") as viewer:
        viewer.send(message)
        with pytest.raises(ConnectionClosed) as told:
            viewer.recv(timeout=10)
    assert told.value.rcvd is not None
    assert told.value.rcvd.code == 1008
    assert told.value.rcvd.reason
