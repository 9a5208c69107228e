"""An RTSP camera on loopback that draws into every frame when it was drawn; for a Python with GStreamer's server.

    apt-get install python3-gi python3-numpy gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,bad,ugly}
    /usr/bin/python3 tests/fakes/rtsp_camera.py 48x64 9 8554

It then says its address. It needs nothing else of this repository, as that Python has no other packages.
"""

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

PYTHON = "/usr/bin/python3"
NEEDS = """
import gi, numpy
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
missing = [name for name in ("x264enc", "rtph264pay") if Gst.ElementFactory.find(name) is None]
raise SystemExit(f"GStreamer lacks {missing}" if missing else 0)
"""
_BITS, _CHECK_BITS = 20, 4


def draw_clock(image: np.ndarray, ms: int) -> None:
    """Write the milliseconds, modulo 2^20, into the top rows of a grey image (H, W): 24 blocks, W // 26 wide."""
    side = image.shape[1] // 26
    value = ms % (1 << _BITS)
    value = value << _CHECK_BITS | _check(value)
    image[: side + 2] = 0
    for k in range(_BITS + _CHECK_BITS):
        if value >> (_BITS + _CHECK_BITS - 1 - k) & 1:
            image[1 : side + 1, (k + 1) * side : (k + 2) * side] = 255


def read_clock(image: np.ndarray) -> int | None:
    """Return the milliseconds that are drawn into an image (H, W) or (H, W, 3), None if they cannot be read."""
    grey = image if image.ndim == 2 else image.mean(axis=2)
    side = grey.shape[1] // 26
    inner = slice(1 + side // 4, 1 + side - side // 4)
    value = 0
    for k in range(_BITS + _CHECK_BITS):
        left = (k + 1) * side
        value = value << 1 | int(grey[inner, left + side // 4 : left + side - side // 4].mean() > 127)
    value, check = value >> _CHECK_BITS, value & 15
    return value if check == _check(value) else None


def _check(value: int) -> int:
    return sum(value >> k & 15 for k in range(0, _BITS, 4)) & 15


def lacking() -> str:
    """Say what this computer lacks to run the camera, "" if nothing."""
    if not Path(PYTHON).exists():
        return f"there is no {PYTHON}"
    done = subprocess.run([PYTHON, "-c", NEEDS], capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@contextmanager
def rtsp_camera(size: tuple[int, int], rate_hz: float, port: int):
    """Run the camera as a process and yield (process, address) when it is there; it is killed at the end."""
    told = [PYTHON, __file__, f"{size[0]}x{size[1]}", str(rate_hz), str(port)]
    with subprocess.Popen(told, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def _serve(height: int, width: int, rate_hz: float, port: str) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    caps = f"video/x-raw,format=GRAY8,width={width},height={height},framerate={round(rate_hz)}/1"
    base = (np.add.outer(np.arange(height), np.arange(width)) % 200).astype(np.uint8)

    def push(source, _length, state):
        due = state["start"] + state["count"] / rate_hz
        time.sleep(max(0.0, due - time.monotonic()))
        image = np.roll(base, state["count"], axis=1)
        drawn = time.monotonic()
        draw_clock(image, int(drawn * 1000))
        buffer = Gst.Buffer.new_wrapped(image.tobytes())
        buffer.pts = buffer.dts = int((drawn - state["start"]) * Gst.SECOND)
        buffer.duration = int(Gst.SECOND / rate_hz)
        state["count"] += 1
        source.emit("push-buffer", buffer)

    class Factory(GstRtspServer.RTSPMediaFactory):
        def __init__(self):
            super().__init__()
            self.set_launch(
                f"( appsrc name=src is-live=true format=time do-timestamp=false caps={caps} ! videoconvert ! "
                "video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max=15 "
                "! rtph264pay name=pay0 pt=96 )"
            )
            self.set_shared(True)

        def do_configure(self, media):
            source = media.get_element().get_child_by_name("src")
            source.connect("need-data", push, {"count": 0, "start": time.monotonic()})

    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    server.get_mount_points().add_factory("/camera", Factory())
    server.attach(None)
    print(f"rtsp://127.0.0.1:{port}/camera", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    _serve(*(int(side) for side in sys.argv[1].split("x")), float(sys.argv[2]), sys.argv[3])
