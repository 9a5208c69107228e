"""Whether live pairs are true and quick: two cameras whose pictures tell when they were drawn, and all that may happen.

    python -m benchmarks.live_cameras --update                                   takes 6 minutes
    python -m benchmarks.live_cameras --scenarios soak --seconds 1200 --update   20 minutes with the page open

The visible camera gives 720x1280 at 30 Hz, the infrared 120x160 (`--infrared-size`) at 9 Hz, warped into one frame of
480x640. They are RTSP servers on loopback where GStreamer is, see `benchmarks.rtsp_camera`, else (`--source drawn`)
threads of this process. A pair is wrong if its pictures were drawn farther apart than the slop. `age`: from drawing to
the fused frame; its bar is p99 of the network and one period of the faster camera. `way`: the part of it until the
visible frame came, which the camera's encoder and the connection take. `beside`: all of a frame that is not the
network.
"""

import gc
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from benchmarks.live_rig import MJPEG, DrawnRig, Faults, NetworkRig, Rig
from benchmarks.result import Out, Row, Update, check_target, new_result, save
from benchmarks.rtsp_camera import lacking, read_clock, since_ms
from benchmarks.tables_speed import LIVE
from cled_edge.camera.live_source import LiveSource
from cled_edge.control_box import ControlBox
from cled_edge.errors import OptionError, one_line_errors
from cled_edge.frame import Frame, FramePair, FusedFrame
from cled_edge.fuser import Fuser
from cled_edge.live import fuse_pairs
from cled_edge.live_pairing import MODALITIES, SLOP_NS, TimePairer
from cled_edge.live_pairs import LivePairs
from cled_edge.registration.calibration import Calibration, DistanceMap
from cled_edge.registration.warp import Registrar
from cled_edge.run_report import Report
from cled_edge.serve.page_address import PageAddress
from cled_edge.serve.server import PageServer
from cled_edge.size import Size, parse_size, size_text
from cled_edge.stage_times import IDLE, NETWORK_STAGES
from cled_edge.thermal import WHITE_HOT, Thermal, ThermalStream

SIZES, RATES_HZ = ((120, 160), (720, 1280)), (9.0, 30.0)
SCENARIOS = {
    "plain": Faults(),
    "restart": Faults(),
    "stall": Faults(stall_at=10, stall_for=5),
    "drift": Faults(drift=0.02),
    "jitter": Faults(jitter_ms=30),
    "loss": Faults(loss=0.01),
}
SOAK = "soak"
RESTARTS, PATIENCE_S, SOAK_RESTART_S, LEAVE_S = 10, 30.0, 60.0, 10.0
WARM, PARTS = 0.25, 6  # of a run, after which its memory counts, in so many parts


class Watch:
    """What is seen of a run, by the clocks in its pictures. It is a `Monitor`, and notes what its `Registrar` gets."""

    def __init__(self) -> None:
        self.first_ns: list[int | None] = [None, None]
        self.first_pair_ns: int | None = None
        self.skew_ms: list[int] = []
        self.apart_ms: list[float] = []
        self.age_ms: list[int] = []
        self.way_ms: list[int] = []
        self.unread, self.whole, self.degraded, self.shown = 0, 0, 0, 0
        self.changed, self.is_over = threading.Condition(), False
        self._drawn_ms: int | None = None
        self._last_ms: list[int | None] = [None, None]

    def came(self, index: int, process: Callable[[Frame], Frame] | None, frame: Frame) -> Frame:
        """Take a camera's frame on its own thread."""
        if self.first_ns[index] is None:
            self.first_ns[index] = time.monotonic_ns()
        return process(frame) if process else frame

    def look(self, pair: FramePair) -> None:
        """Read the clocks of a pair, before it is warped."""
        drawn_ms = [self._read(index, frame) for index, frame in enumerate((pair.infrared, pair.visible))]
        self._drawn_ms = drawn_ms[1]
        if drawn_ms[0] is None or drawn_ms[1] is None:
            self.unread += 1
            return
        if pair.visible.arrival_ns is not None:
            self.way_ms.append(since_ms(pair.visible.arrival_ns // 10**6, drawn_ms[1]))
        skew_ms = since_ms(drawn_ms[0], drawn_ms[1])
        self.skew_ms.append(skew_ms)
        self.apart_ms.append(skew_ms - (pair.skew_ns or 0) / 1e6)

    def _read(self, index: int, frame: Frame) -> int | None:
        """Return the clock of a frame; None if it cannot be, as one in sixteen of damaged pictures passes its check."""
        read_ms, last_ms = read_clock(_rows_of(frame)), self._last_ms[index]
        if read_ms is None or since_ms(time.monotonic_ns() // 10**6, read_ms) < 0:
            return None
        if last_ms is not None and since_ms(read_ms, last_ms) < 0:
            return None
        self._last_ms[index] = read_ms
        return read_ms

    def begin(self, status: Callable[[], dict[str, Any]]) -> None:
        """See `Monitor`."""

    def show(self, frame: FusedFrame) -> None:
        """See `Monitor`."""
        now_ns = time.monotonic_ns()
        with self.changed:
            self.whole += not frame.degraded
            self.degraded += bool(frame.degraded)
            self.changed.notify_all()
        if frame.degraded:
            return
        if self.first_pair_ns is None:
            self.first_pair_ns = now_ns
        if self._drawn_ms is not None:
            self.age_ms.append(since_ms(now_ns // 10**6, self._drawn_ms))

    def wait(self, is_true: Callable[[], bool]) -> bool:
        """Wait for a change; False if it does not come."""
        with self.changed:
            return self.changed.wait_for(lambda: is_true() or self.is_over, PATIENCE_S) and is_true()

    def end(self) -> None:
        """Let nobody wait any more."""
        with self.changed:
            self.is_over = True
            self.changed.notify_all()


def _rows_of(frame: Frame) -> Any:
    """Return the rows that hold the clock, grey."""
    image = frame.image[: frame.image.shape[1] // 26 + 2]
    return image if image.ndim == 2 else image[:, :, 1]


class ReadingRegistrar(Registrar):
    """Warps pairs as the rig's cameras see one scene, and shows them to a `Watch` before."""

    def __init__(self, watch: Watch, frame_size: Size, infrared_size: Size = SIZES[0]) -> None:
        (height, width), (visible_height, visible_width) = infrared_size, SIZES[1]
        matrix = ((width / visible_width, 0.0, 0.0), (0.0, height / visible_height, 0.0), (0.0, 0.0, 1.0))
        found = DistanceMap(
            model="similarity", infrared_from_visible=matrix, error_px=0.0, error_infrared_px=0.0, confidence=1.0
        )
        calibration = Calibration(mode="points", infrared_size=infrared_size, visible_size=SIZES[1], maps=(found,))
        super().__init__(calibration, "visible", frame_size)
        self._watch_clocks = watch

    def __call__(self, pair: FramePair, thermal: Thermal = WHITE_HOT) -> FramePair:
        """See `Registrar`."""
        if not pair.degraded:
            self._watch_clocks.look(pair)
        return super().__call__(pair, thermal)


def restart(rig: Rig, watch: Watch, count: int) -> list[float]:
    """Lose both cameras in turns; return after how many seconds of its return each was fused again."""
    recovered_s = []
    for number in range(count):
        index, had = number % 2, watch.degraded
        rig.lose(index)
        watch.wait(lambda had=had: watch.degraded > had)  # type: ignore[misc]
        rig.bring_back(index)
        begun_s, whole = time.monotonic(), watch.whole
        came = watch.wait(lambda whole=whole: watch.whole > whole)  # type: ignore[misc]
        recovered_s.append(time.monotonic() - begun_s if came else PATIENCE_S)
    return recovered_s


@contextmanager
def page_with_viewer(box: ControlBox, watch: Watch) -> Iterator[list[PageServer]]:
    """Serve the page, and look at it as a browser does; yield it as the run's monitor."""
    from websockets.exceptions import WebSocketException  # noqa: PLC0415
    from websockets.sync.client import connect  # noqa: PLC0415

    over = threading.Event()

    def look(url: str) -> None:
        wish = {"views": ["infrared-input@320", "visible-input@640", "fused@640"], "after": 0}
        while not over.is_set():
            with suppress(OSError, WebSocketException), connect(url, max_size=None) as live:
                while not over.is_set():
                    live.send(json.dumps(wish))
                    answer = live.recv(timeout=10)
                    told = json.loads(answer[4 : 4 + int.from_bytes(answer[:4], "little")])  # type: ignore[arg-type]
                    wish["after"] = (told["frame"] or {"number": wish["after"]})["number"]
                    watch.shown += bool(told["frame"])
            time.sleep(0.5)

    with PageServer(PageAddress("127.0.0.1", 0), box, about={"benchmark": "live"}) as page:
        viewer = threading.Thread(target=look, args=(f"{page.url.replace('http', 'ws')}live",), daemon=True)
        viewer.start()
        yield [page]
        over.set()
    viewer.join(15)


def run_scenario(
    name: str,
    rig: Rig,
    fuser: Fuser,
    frame_size: Size,
    seconds: float,
    restarts: int = RESTARTS,
    infrared_size: Size = SIZES[0],
) -> Row:
    """Fuse for so long, or until all restarts are done; return the row of the scenario."""
    watch, box, sizes = Watch(), ControlBox(), []
    process = psutil.Process()
    gc.collect()
    threads, files = threading.active_count(), process.num_fds()
    with ExitStack() as stack:
        monitors = [watch, *(stack.enter_context(page_with_viewer(box, watch)) if name == SOAK else ())]
        arrived = threading.Condition()
        streams = (ThermalStream(), None)
        sources = [
            LiveSource(modality, open=rig.opener(k), process=partial(watch.came, k, streams[k]), arrived=arrived)
            for k, modality in enumerate(MODALITIES)
        ]
        pairs = LivePairs(sources[0], sources[1], TimePairer())

        def fuse() -> Report:
            try:
                registrar = ReadingRegistrar(watch, frame_size, infrared_size)
                return fuse_pairs(pairs, fuser, ["none:"], box, registrar=registrar, monitors=monitors)
            finally:
                watch.end()

        begun_s = time.monotonic()
        running = stack.enter_context(ThreadPoolExecutor(1, "loop")).submit(fuse)
        recovered_s: list[float] = []
        try:
            watch.wait(lambda: watch.whole > 0)
            if name == "restart":
                recovered_s = restart(rig, watch, restarts)
            dice, next_s = random.Random(0), SOAK_RESTART_S  # noqa: S311
            while (passed_s := time.monotonic() - begun_s) < seconds and not running.done():
                if name == SOAK and passed_s > next_s:
                    recovered_s += restart(rig, watch, dice.choice((1, 2)))
                    next_s += SOAK_RESTART_S
                if passed_s > WARM * seconds:
                    sizes.append(process.memory_info().rss)
                time.sleep(min(0.5, seconds - passed_s))
        finally:
            pairs.stop()
        report = running.result(PATIENCE_S)
        passed_s = time.monotonic() - begun_s
    until_s = time.monotonic() + LEAVE_S
    while threading.active_count() > threads and time.monotonic() < until_s:  # a silent stream is given up in 2 s
        time.sleep(0.1)
    gc.collect()
    row = row_of(name, infrared_size, watch, report, pairs, passed_s)
    row |= {"recovered_max_s": round(max(recovered_s), 2) if recovered_s else None, "restarts": len(recovered_s)}
    parts_mb = [round(float(np.median(part)) / 1e6, 1) for part in np.array_split(sizes, PARTS) if len(part)]
    growth = round(parts_mb[-1] / parts_mb[0] - 1, 4) if len(sizes) > 4 * PARTS else None
    row |= {"rss_mb": " ".join(map(str, parts_mb)) or None, "rss_growth": growth}
    return row | {"threads_left": threading.active_count() - threads, "files_left": process.num_fds() - files}


def row_of(name: str, infrared_size: Size, watch: Watch, report: Report, pairs: LivePairs, seconds: float) -> Row:
    """Return what a run gave."""
    if report.failure:
        raise report.failure
    told = report.as_dict()
    stages, ledgers = told["latency_ms"], pairs.ledgers
    network = next((stages[stage] for stage in ("network", "steps") if stage in stages), None)
    skews = np.abs(watch.skew_ms) if watch.skew_ms else np.zeros(1)
    ages = np.array(watch.age_ms or [0])
    beside = [row["p50"] for stage, row in stages.items() if stage not in (IDLE, *NETWORK_STAGES, "total")]
    firsts = [ns for ns in watch.first_ns if ns is not None]
    return {
        "scenario": name,
        "infrared": size_text(infrared_size),
        "seconds": round(seconds, 1),
        "pairs": watch.whole,
        "wrong": int((skews > SLOP_NS / 1e6).sum()),
        "unread": watch.unread,
        "skew_p50_ms": round(float(np.median(skews)), 1),
        "skew_max_ms": round(float(skews.max()), 1),
        "skew_error_p99_ms": round(float(np.percentile(np.abs(watch.apart_ms or [0]), 99)), 1),
        "way_p50_ms": round(float(np.median(watch.way_ms or [0])), 1),
        "way_p99_ms": round(float(np.percentile(watch.way_ms or [0], 99)), 1),
        "age_p50_ms": round(float(np.median(ages)), 1),
        "age_p99_ms": round(float(np.percentile(ages, 99)), 1),
        "bar_ms": round(network["p99"] + 1000 / max(RATES_HZ), 1) if network else None,
        "network_p50_ms": network and round(network["p50"], 1),
        "beside_p50_ms": round(sum(beside), 2),
        "first_pair_ms": round((watch.first_pair_ns - max(firsts)) / 1e6) if watch.first_pair_ns and firsts else None,
        "degraded": watch.degraded,
        "page_frames": watch.shown,
        "unpaired": sum(ledger.unpaired for ledger in ledgers.values()),
        "reopened": sum(source.reopened for source in pairs.sources),
        "law": all(ledger.holds for ledger in ledgers.values()),
        **{f"dropped_{name}": str(dict(ledger.dropped)) for name, ledger in ledgers.items()},
    }


def main(
    scenarios: Annotated[str, typer.Option(metavar="A,B", help=f"of {', '.join((*SCENARIOS, SOAK))}")] = ",".join(
        SCENARIOS
    ),
    seconds: Annotated[float, typer.Option(min=1, help="of each scenario")] = 40,
    source: Annotated[
        str | None, typer.Option(help="network or drawn", show_default="network if GStreamer is here")
    ] = None,
    codec: Annotated[str, typer.Option(help="h264, h265, or mjpeg, which comes by HTTP")] = "h264",
    backend: Annotated[str, typer.Option(help="what runs it, NAME or NAME:PRECISION")] = "openvino:bf16",
    frame_size: Annotated[str, typer.Option(metavar="HxW", help="of the pairs")] = "480x640",
    infrared_size: Annotated[str, typer.Option(metavar="HxW", help="of the infrared camera")] = size_text(SIZES[0]),
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="exported model", show_default="nano")] = None,
    out: Out = None,
    update: Update = False,
) -> None:
    """Measure, and print the table."""
    with one_line_errors():
        names, lack = scenarios.split(","), lacking()
        if unknown := [name for name in names if name not in (*SCENARIOS, SOAK)]:
            raise OptionError(f"scenario {unknown[0]!r} is unknown; known: {', '.join((*SCENARIOS, SOAK))}")
        source = source or ("drawn" if lack and codec != MJPEG else "network")
        if source == "network" and codec != MJPEG and lack:
            raise OptionError(f"RTSP cameras need GStreamer's server: {lack}; install it, or take --source drawn")
        check_target(out, update)
        size, sizes, rows, load = parse_size(frame_size), (parse_size(infrared_size), SIZES[1]), [], os.getloadavg()
        for name in names:
            # A bundle of its own for each: the first pair is of a backend that has run nothing.
            with ExitStack() as stack:
                faults = SCENARIOS.get(name, Faults(jitter_ms=10))
                rig: Any = (
                    NetworkRig(sizes, RATES_HZ, faults, codec)
                    if source == "network"
                    else DrawnRig(sizes, RATES_HZ, faults)
                )
                stack.enter_context(rig)
                fuser = stack.enter_context(Fuser.load(bundle, backend=backend, color_order="BGR", thermal=WHITE_HOT))
                row = run_scenario(name, rig, fuser, size, seconds, infrared_size=sizes[0])
                rows.append({"source": codec if source == "network" else source, **row})
                opened, description = fuser.bundle, fuser.backend.description
            print(json.dumps(rows[-1]), flush=True)
        settings = {
            "backend": description,
            "size": list(size),
            "codec": codec,
            "cores": len(os.sched_getaffinity(0)),
            "load_before": round(load[0], 1),
            "load_after": round(os.getloadavg()[0], 1),
            "cameras": " and ".join(f"{size_text(s)} at {rate:g} Hz" for s, rate in zip(sizes, RATES_HZ, strict=True)),
        }
        other = [] if sizes == SIZES else [size_text(sizes[0])]
        of = "-".join(
            [opened.manifest.name, *([SOAK] if names == [SOAK] else []), *([MJPEG] if codec == MJPEG else []), *other]
        )
        result = new_result("live", of, rows, [opened], settings)
        print("\n".join(LIVE.lines(result)))
        save(result, out, update)


if __name__ == "__main__":
    typer.run(main)
