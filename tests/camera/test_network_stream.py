"""Streams from the network, on loopback: what they give, how a loss is told, and that no password is shown."""

import os
import socket
import subprocess
import sys
import threading
import time
from fractions import Fraction

import cv2  # noqa: F401 (before av, as in the package)
import numpy as np
import pytest

# isort: split
import av

from cled_edge import open_camera
from cled_edge.camera import network_stream
from cled_edge.camera.live_source import LiveSource, SourceState
from cled_edge.errors import OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import ARRIVAL
from tests.fakes.mjpeg_server import serving

MARK = "hun:ter2"


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(autouse=True)
def _without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")  # FFmpeg reads this one


def test_motion_jpeg_over_http_gives_the_newest_frame_when_it_arrives() -> None:
    with serving(password=MARK) as server:
        server.next(4)
        url = server.url.replace("http://", f"http://me:{MARK}@")
        with open_camera(url) as camera:
            assert (camera.is_live, camera.announced, camera.files) == (True, None, ())
            frames = iter(camera)
            first = next(frames)
            server.next()
            second = next(frames)
            assert first.source == server.url.replace("http://", "http://***@")
            assert first.image.shape == (48, 64, 3)
            assert int(second.image.mean()) - int(first.image.mean()) in (8, 16, 24)
            assert (second.clock, second.timestamp_ns, second.sequence) == (ARRIVAL, second.arrival_ns, 1)
            server.cut()
            with pytest.raises(SourceUnreadableError, match=r"\*\*\*@127.0.0.1.*check") as lost:
                list(frames)
    assert MARK not in str(lost.value)


def test_a_wrong_password_and_a_wrong_path_are_told_apart() -> None:
    with serving(password=MARK) as server:
        with pytest.raises(SourceUnreadableError, match="refuses user or password"):
            open_camera(server.url)
        with pytest.raises(SourceMissingError, match="has no stream of that path"):
            open_camera(server.url.replace("/video", "/other"))


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp"])
def test_where_nobody_listens_says_so_without_the_password(scheme: str) -> None:
    with pytest.raises(SourceUnreadableError) as lost:
        open_camera(f"{scheme}://me:{MARK}@127.0.0.1:{closed_port()}/a?token=abc")
    told = str(lost.value)
    assert told.startswith(f"{scheme}://***@127.0.0.1:")
    assert "Connection refused" in told
    assert MARK not in told
    assert "abc" not in told
    assert lost.value.__cause__ is None
    assert lost.value.__suppress_context__


def test_a_camera_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_stream, "OPEN_WITHIN_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(SourceUnreadableError, match=r"is silent for 0.3 s; check its power and network"):
            open_camera(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/a")


def test_an_unknown_way_of_transport_is_refused() -> None:
    with pytest.raises(OptionError, match=r"known: #transport=tcp, udp, multicast, http; correct it"):
        open_camera("rtsp://host/a#transport=carrier-pigeon")
    with pytest.raises(OptionError, match="that only RTSP has"):
        open_camera("http://host/a#transport=udp")


def test_a_playlist_cannot_open_a_file(tmp_path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/a.ts\n#EXT-X-ENDLIST\n".encode()

        def answer() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                client.recv(4096)
                head = b"HTTP/1.0 200 OK\r\nContent-Type: application/vnd.apple.mpegurl\r\n\r\n"
                client.sendall(head + playlist)
                client.close()

        threading.Thread(target=answer, daemon=True).start()
        write_ts(tmp_path / "a.ts")
        with pytest.raises(SourceUnreadableError):
            list(open_camera(f"http://127.0.0.1:{server.getsockname()[1]}/list.m3u8"))


def write_ts(path, count: int = 5) -> None:
    with av.open(str(path), "w", format="mpegts") as out:
        stream = out.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, 25)
        for k in range(count):
            image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * k, np.uint8), format="bgr24")
            image.pts = k
            out.mux(stream.encode(image))
        out.mux(stream.encode())


def test_a_transport_stream_over_tcp_is_read(tmp_path) -> None:
    write_ts(tmp_path / "a.ts", 30)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            client, _ = server.accept()
            client.sendall((tmp_path / "a.ts").read_bytes())
            client.close()

        threading.Thread(target=answer, daemon=True).start()
        with open_camera(f"tcp://127.0.0.1:{server.getsockname()[1]}") as camera:
            levels = []
            with pytest.raises(SourceUnreadableError, match=r"tcp://127.* ended after \d+ frames; check"):
                levels.extend(round(frame.image.mean() / 8) for frame in camera)
    assert levels == list(range(levels[0], 29))  # the parser still holds the last
    assert len(levels) > 20


def test_a_source_comes_back_after_its_server() -> None:
    with serving() as server:
        port = server.server_address[1]
        source = LiveSource(server.url)
        source.start()
        server.next(3)
        with source.arrived:
            assert source.arrived.wait_for(lambda: source.received >= 1, 20)
    with source.arrived:
        assert source.arrived.wait_for(lambda: source.state is SourceState.LOST, 20)
    with serving(port=port) as server:
        server.next(3)
        with source.arrived:
            assert source.arrived.wait_for(lambda: source.reopened == 1, 20)
        assert source.state is SourceState.OPEN
        server.cut()
        assert source.stop(20)


def test_a_reader_of_a_silent_camera_ends_within_two_seconds() -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with serving() as server:
        server.next(4)
        source = LiveSource(server.url)
        source.start()
        with source.arrived:
            assert source.arrived.wait_for(lambda: source.received >= 1, 20)
        begin_s = time.monotonic()
        assert source.stop(20)
        assert time.monotonic() - begin_s < 2.5  # on a computer that does much else
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, files)


@pytest.mark.parametrize(
    "options",
    [
        ["fuse", "--out", "none:", "-v", "--json"],
        ["fuse", "--out", "window:x"],
        ["calibrate", "--out", "calibration.yaml"],
        ["score", "--fused", "fused"],
    ],
)
def test_no_command_shows_a_password(options: list[str], tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = f"rtsp://me:{MARK}@127.0.0.1:{closed_port()}/a?token={MARK}#bad"
    command, *rest = options
    cameras = ["--infrared", address, "--visible", address]
    done = subprocess.run(
        [sys.executable, "-m", "cled_edge.cli", command, *cameras, *rest], capture_output=True, text=True, check=False
    )
    assert done.returncode not in (0, 1)
    assert "***@127.0.0.1" in done.stderr
    assert MARK not in done.stdout + done.stderr
