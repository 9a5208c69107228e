"""A stream that is pushed: a server gets every frame in H.264; one that is not there, or goes away, is said."""

import socket
import threading
from collections.abc import Iterator

import cv2  # noqa: F401 (before av)

# isort: split
import av
import numpy as np
import pytest

from cled_edge.errors import OutputError
from cled_edge.frame import MONOTONIC, FusedFrame
from cled_edge.output.encoder import H264, chosen_encoder
from cled_edge.output.sink import open_output

pytestmark = pytest.mark.skipif(chosen_encoder(".mp4")[1] != H264, reason="needs a PyAV with an encoder of H.264")


def fused(index: int) -> FusedFrame:
    picture = np.full((48, 64, 3), 100 + index, np.uint8)
    return FusedFrame(picture, picture[:, :, 0], picture, timestamp_ns=index * 40_000_000, clock=MONOTONIC)


class Server(threading.Thread):
    """FFmpeg's RTSP server: takes one publisher and decodes what it sends."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"rtsp://127.0.0.1:{free.getsockname()[1]}/fused"
        self.levels: list[float] = []
        self.codec = ""

    def run(self) -> None:
        with av.open(self.url, options={"rtsp_flags": "listen", "listen_timeout": "15"}) as container:
            self.codec = container.streams.video[0].codec_context.name
            for frame in container.decode(video=0):
                self.levels.append(float(frame.to_ndarray(format="gray").mean()))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    for _ in range(1000):  # until it listens, without connecting: it takes one
        with open("/proc/net/tcp") as table:
            if any(line.split()[1].endswith(f":{port:04X}") for line in table.readlines()[1:]):
                break
        threading.Event().wait(0.01)
    yield server
    server.join(10)


def test_a_server_gets_every_frame_in_order(server: Server) -> None:
    with open_output(server.url, 25.0) as output:
        assert output.drops
        for index in range(30):
            assert output.write(fused(index))
    server.join(10)
    assert server.codec == "h264"
    assert len(server.levels) == 30
    assert server.levels == sorted(server.levels)
    assert abs(server.levels[-1] - 129) < 10


def test_a_server_that_is_not_there_is_one_line_without_the_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = open_output(f"rtsp://me:secret@127.0.0.1:{port}/fused")
    with pytest.raises(OutputError, match=r"rtsp://\*\*\*@127.0.0.1:.* takes no stream: Connection refused") as told:
        output.write(fused(0))
    assert "secret" not in str(told.value)


def test_a_server_that_goes_away_is_tried_again_later_and_the_run_goes_on(monkeypatch) -> None:
    opened, now_s = [], [0.0]

    class Gone:
        """A container whose line is cut: it takes the first frame."""

        def add_stream(self, *_, **__):
            self.codec_context, self.frames = type("Context", (), {})(), 0
            return self

        def start_encoding(self) -> None:
            opened.append(now_s[0])

        def encode(self, _frame):
            self.frames += 1
            return [None] if self.frames > 1 else []

        def mux(self, _packet):
            raise BrokenPipeError(32, "Broken pipe")

        def close(self) -> None:
            raise OSError("it is gone")

    monkeypatch.setattr(av, "open", lambda *_, **__: Gone())
    output = open_output("rtsp://127.0.0.1:1/fused")
    output.now_s = lambda: now_s[0]
    for index in range(60):
        assert output.write(fused(index))
        now_s[0] += 0.1
    assert len(opened) == 3, "not at every frame"
    assert output.notes == ["rtsp://127.0.0.1:1/fused went away 3 times, and was tried again every 2 s"]
