"""An RTSP camera on loopback that draws into every frame when it was drawn; for a Python with GStreamer's server.

    apt-get install python3-gi python3-numpy gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,bad,ugly}
    /usr/bin/python3 benchmarks/rtsp_camera.py 48x64 9 8554 --drift 0.02

It then says its address. It needs nothing else of this repository, as that Python has no other packages.
"""

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PYTHON = "/usr/bin/python3"
NEEDS = """
import gi, numpy
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
missing = [name for name in ("x264enc", "rtph264pay", "x265enc", "rtph265pay") if Gst.ElementFactory.find(name) is None]
raise SystemExit(f"GStreamer lacks {missing}" if missing else 0)
"""
_BITS, _CHECK_BITS = 20, 4
_ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max=15 ! rtph264pay",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max=15 ! h265parse ! rtph265pay "
    "config-interval=-1",
}


def draw_clock(image: NDArray[Any], ms: int) -> None:
    """Write the milliseconds, modulo 2^20, into the top rows of a grey image (H, W): 24 blocks, W // 26 wide."""
    side = image.shape[1] // 26
    value = ms % (1 << _BITS)
    value = value << _CHECK_BITS | _check(value)
    image[: side + 2] = 0
    for k in range(_BITS + _CHECK_BITS):
        if value >> (_BITS + _CHECK_BITS - 1 - k) & 1:
            image[1 : side + 1, (k + 1) * side : (k + 2) * side] = 255


def read_clock(image: NDArray[Any]) -> int | None:
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


def since_ms(later_ms: int, earlier_ms: int) -> int:
    """Return the milliseconds from one drawn clock to another, which may be negative, whichever has turned over."""
    half = 1 << (_BITS - 1)
    return (later_ms - earlier_ms + half) % (2 * half) - half


def _check(value: int) -> int:
    return sum(value >> k & 15 for k in range(0, _BITS, 4)) & 15


def lacking() -> str:
    """Say what this computer lacks to run the camera, "" if nothing."""
    if not Path(PYTHON).exists():
        return f"there is no {PYTHON}"
    done = subprocess.run([PYTHON, "-c", NEEDS], capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@contextmanager
def rtsp_camera(
    size: tuple[int, int], rate_hz: float, port: int, *options: str, program: tuple[str, ...] = (PYTHON, __file__)
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the camera as a process and yield (process, address) when it is there; it is killed at the end.

    program: another camera of the same arguments.
    """
    told = [*program, f"{size[0]}x{size[1]}", str(rate_hz), str(port), *options]
    with subprocess.Popen(told, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 (it is a pipe)
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


class Pace:
    """Says when frames are due: at a rate that drifts, and not during a stall."""

    def __init__(self, told: argparse.Namespace) -> None:
        self.period_s = 1 / (told.rate_hz * (1 + told.drift))
        self.stall_s = (told.stall_at, told.stall_at + told.stall_for)
        self.begin_s, self.count = time.monotonic(), 0

    def wait(self) -> None:
        """Wait until the next frame is due."""
        passed_s = self.count * self.period_s
        if self.stall_s[0] <= passed_s < self.stall_s[1]:
            self.count += round((self.stall_s[1] - passed_s) / self.period_s)
        time.sleep(max(0.0, self.begin_s + self.count * self.period_s - time.monotonic()))
        self.count += 1


def _serve(told: argparse.Namespace) -> None:
    import gi  # noqa: PLC0415

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # noqa: PLC0415

    Gst.init(None)
    height, width = map(int, told.size.split("x"))
    caps = f"video/x-raw,format=GRAY8,width={width},height={height},framerate={round(told.rate_hz)}/1"
    base = (np.add.outer(np.arange(height), np.arange(width)) % 200).astype(np.uint8)

    def push(source: Any, _length: int, pace: Pace) -> None:
        pace.wait()
        image = np.roll(base, pace.count, axis=1)
        draw_clock(image, time.monotonic_ns() // 10**6)
        drawn_ns = source.get_clock().get_time() - source.get_base_time()  # what the server tells in RTCP
        time.sleep(random.random() * told.jitter_ms / 1000)  # noqa: S311
        buffer = Gst.Buffer.new_wrapped(image.tobytes())
        buffer.pts = buffer.dts = max(0, drawn_ns)
        buffer.duration = int(Gst.SECOND / told.rate_hz)
        source.emit("push-buffer", buffer)

    def lose(pad: Any, info: Any) -> Any:
        """Lose some packets, one by one, though they come in lists."""
        packets = info.get_buffer_list()
        for k in range(packets.length()):
            if random.random() >= told.loss:  # noqa: S311
                pad.get_peer().chain(packets.get(k).copy())
        return Gst.PadProbeReturn.DROP

    class Factory(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.set_launch(
                f"( appsrc name=src is-live=true format=time do-timestamp=false caps={caps} ! videoconvert ! "
                f"video/x-raw,format=I420 ! {_ENCODERS[told.codec]} name=pay0 pt=96 )"
            )
            self.set_shared(True)

        def do_configure(self, media: Any) -> None:
            media.get_element().get_child_by_name("src").connect("need-data", push, Pace(told))
            if told.loss:
                pad = media.get_element().get_child_by_name("pay0").get_static_pad("src")
                pad.add_probe(Gst.PadProbeType.BUFFER_LIST, lose)

    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(told.port)
    server.get_mount_points().add_factory("/camera", Factory())
    server.attach(None)
    print(f"rtsp://127.0.0.1:{told.port}/camera", flush=True)
    GLib.MainLoop().run()


def arguments_of(arguments: list[str]) -> argparse.Namespace:
    """Return size, rate_hz, port, and what is wrong with the camera."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("size", help="HEIGHTxWIDTH")
    parser.add_argument("rate_hz", type=float)
    parser.add_argument("port")
    parser.add_argument("--codec", choices=_ENCODERS, default="h264")
    parser.add_argument("--drift", type=float, default=0.0, help="0.02: its pace is 2 %% fast")
    parser.add_argument("--jitter-ms", type=float, default=0.0, help="frames come up to so much later")
    parser.add_argument("--stall-at", type=float, default=0.0, metavar="S", help="when no frames come")
    parser.add_argument("--stall-for", type=float, default=0.0, metavar="S", help="for how long")
    parser.add_argument("--loss", type=float, default=0.0, help="0.01: 1 %% of the packets are lost")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    _serve(arguments_of(sys.argv[1:]))
