"""A Motion JPEG camera over HTTP on loopback that draws into every frame when it was drawn.

    python -m benchmarks.http_camera 720x1280 30 8080 --jitter-ms 30

It then says its address. Options as of `benchmarks.rtsp_camera`, without codec and loss.
"""

import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

from benchmarks.rtsp_camera import Pace, arguments_of, draw_clock


def _main(arguments: list[str]) -> None:
    told = arguments_of(arguments)
    height, width = map(int, told.size.split("x"))
    base = (np.add.outer(np.arange(height), np.arange(width)) % 200).astype(np.uint8)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            pace = Pace(told)
            while True:
                pace.wait()
                image = np.roll(base, pace.count, axis=1)
                draw_clock(image, time.monotonic_ns() // 10**6)
                time.sleep(random.random() * told.jitter_ms / 1000)  # noqa: S311
                jpeg = cv2.imencode(".jpg", image)[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
                try:
                    self.wfile.write(head + jpeg + b"\r\n")
                except OSError:  # who looked has gone
                    return

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", int(told.port)), Handler) as server:
        server.daemon_threads = True
        print(f"http://127.0.0.1:{told.port}/camera", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    _main(sys.argv[1:])
