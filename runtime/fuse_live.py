"""Fuse two cameras live, with the loop spelled out: start a loop of your own from this.

    python -m runtime.fuse_live 0 1 --out window --out fused.mp4

Ctrl-C ends it; the video is closed properly. Every second it prints how old the frames are and what was dropped.
"""

import time
from typing import Annotated

import typer

from cled_edge import Controls, FramePair, FusedFrame, Fuser, open_camera
from cled_edge.ending import ends_on_signals
from cled_edge.errors import one_line_errors
from cled_edge.output.fanout import Fanout
from cled_edge.pairing import pair_cameras
from cled_edge.queues import ReadAhead

STATUS_PERIOD_S = 1.0


def main(
    infrared: Annotated[str, typer.Argument(help="address of the infrared camera")],
    visible: Annotated[str, typer.Argument(help="address of the visible camera")],
    out: Annotated[list[str], typer.Option(help="window, a video or a folder; repeat for several")],
    strength_visible: Annotated[float, typer.Option(help="share of the visible degradation to remove")] = 1.0,
) -> None:
    """Read on one thread, fuse on this one, write on one for each output."""
    controls = Controls(strength_visible=strength_visible)
    with (
        open_camera(infrared) as infrared_camera,
        open_camera(visible) as visible_camera,
        Fuser.load(color_order="BGR") as fuser,  # as OpenCV reads and writes
    ):
        pairs = pair_cameras(infrared_camera, visible_camera)
        outputs = Fanout(out, is_live=pairs.is_live, rate_hz=pairs.rate_hz)
        reader = ReadAhead(pairs, newest_only=pairs.is_live)  # a live camera does not wait: take its newest pair
        with ends_on_signals(reader.stop), outputs, reader:
            loop(reader, fuser, controls, outputs)


def loop(reader: ReadAhead[FramePair], fuser: Fuser, controls: Controls, outputs: Fanout) -> None:
    """Fuse until the cameras end, an output asks to stop, or Ctrl-C."""
    status_s = time.monotonic()
    while drawn := reader.next():
        pair, _decode_ns = drawn
        fused = fuser(pair.infrared, pair.visible, controls)
        if not outputs.put(fused):
            return
        if time.monotonic() - status_s >= STATUS_PERIOD_S:
            status_s = time.monotonic()
            print(status_line(pair, fused, reader.dropped))


def status_line(pair: FramePair, fused: FusedFrame, dropped: int) -> str:
    """Say which pair was fused last, how old its infrared frame is by which clock, and how many pairs were dropped."""
    age_ns = fused.infrared_age_ns
    age = "unknown" if age_ns is None else f"{age_ns / 1e6:.0f} ms"
    return f"pair {fused.name}, age {age} (clock {pair.infrared.clock}), dropped {dropped}"


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
