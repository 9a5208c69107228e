"""A camera that gives Motion JPEG over HTTP on loopback, as many cameras in shops do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


class MjpegServer(ThreadingHTTPServer):
    """Sends grey frames whose level grows by 8; `next` lets one more go, `cut` ends the stream."""

    daemon_threads = True

    def __init__(self, port: int = 0, size: tuple[int, int] = (48, 64), password: str = "") -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.size, self.password = size, password
        self.may_send = threading.Semaphore(0)
        self.is_cut = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/video"

    def next(self, count: int = 1) -> None:
        for _ in range(count):
            self.may_send.release()

    def cut(self) -> None:
        self.is_cut.set()
        self.may_send.release()


class _Handler(BaseHTTPRequestHandler):
    server: MjpegServer

    def do_GET(self) -> None:
        if self.path != "/video":
            self.send_error(404)
            return
        if self.server.password and not self.headers.get("Authorization"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        level = 0
        while self.server.may_send.acquire() and not self.server.is_cut.is_set():
            jpeg = cv2.imencode(".jpg", np.full((*self.server.size, 3), level, np.uint8))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
            try:
                self.wfile.write(head + jpeg + b"\r\n")
            except OSError:
                return
            level = (level + 8) % 256

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(**how) -> Iterator[MjpegServer]:
    with MjpegServer(**how) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.cut()
            server.shutdown()
