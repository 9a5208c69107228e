"""Fuse two cameras live, with the loop spelled out: start a loop of your own from this.

    python -m runtime.fuse_live 0 1 --out window --out fused.mp4

Ctrl-C ends it; the video is closed properly. Every second it prints how old both frames are and how far apart. Both
cameras give one size here; for two sizes see `cled-edge calibrate`.
"""

import time
from typing import Annotated

import typer

from cled_edge import Controls, FramePair, FusedFrame, Fuser
from cled_edge.ending import ends_on_signals
from cled_edge.errors import one_line_errors
from cled_edge.frame import BOTH_LOST
from cled_edge.live_pairing import TimePairer, whole_ns
from cled_edge.live_pairs import LivePairs, open_cameras
from cled_edge.output.fanout import Fanout
from cled_edge.queues import ReadAhead
from cled_edge.thermal import WHITE_HOT, ThermalStream

STATUS_PERIOD_S = 1.0


def main(
    infrared: Annotated[str, typer.Argument(help="address of the infrared camera")],
    visible: Annotated[str, typer.Argument(help="address of the visible camera, of the same size")],
    out: Annotated[list[str], typer.Option(help="window, a video or a folder; repeat for several")],
    slop_ms: Annotated[float, typer.Option(help="most time between both frames of a pair")] = 150.0,
    strength_visible: Annotated[float, typer.Option(help="share of the visible degradation to remove")] = 1.0,
) -> None:
    """Each camera reads on a thread of its own; fuse on this one, write on one for each output."""
    controls = Controls(strength_visible=strength_visible)
    pairer = TimePairer(slop_ns=whole_ns(slop_ms, "slop_ms"))
    with (
        open_cameras(infrared, visible, pairer, process=ThermalStream(), tell=print) as pairs,
        # As OpenCV reads and writes; the stream has made grey of what the infrared camera gave.
        Fuser.load(color_order="BGR", thermal=WHITE_HOT) as fuser,
    ):
        outputs = Fanout(out, is_live=pairs.is_live, rate_hz=pairs.rate_hz)
        reader = pairs if isinstance(pairs, LivePairs) else ReadAhead(pairs)  # recordings wait for the loop
        with ends_on_signals(reader.stop), outputs, reader:
            loop(reader, fuser, controls, outputs)
    if isinstance(pairs, LivePairs):
        print(*(f"{name}: {ledger.as_dict()}" for name, ledger in pairs.ledgers.items()), sep="\n")


def loop(reader: LivePairs | ReadAhead[FramePair], fuser: Fuser, controls: Controls, outputs: Fanout) -> None:
    """Fuse the newest pair there is, until the cameras end, an output asks to stop, or Ctrl-C."""
    status_s = 0.0
    while drawn := reader.next():
        pair, _drawn_ns = drawn
        if pair.degraded == BOTH_LOST:  # comes twice a second, so that nobody takes the last frame for a live one
            print("both cameras are lost")
            continue
        fused = fuser.fuse_pair(pair, controls)  # of one that is lost, the other alone
        if not outputs.put(fused):
            return
        if time.monotonic() - status_s >= STATUS_PERIOD_S:
            status_s = time.monotonic()
            print(status_line(pair, fused))


def status_line(pair: FramePair, fused: FusedFrame) -> str:
    """Say which pair was fused last, how old both frames were then, how far apart, and what is lost."""
    times = {"infrared age": fused.infrared_age_ns, "visible age": fused.visible_age_ns, "skew": fused.skew_ns}
    told = ", ".join(f"{name} {'unknown' if ns is None else f'{ns / 1e6:.0f} ms'}" for name, ns in times.items())
    return f"pair {fused.name}: {told}{pair.degraded and f', {pair.degraded}'}"


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
