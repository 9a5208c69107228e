"""The loop: a thread reads pairs ahead, the calling thread fuses them, others write; all is counted and timed."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from cled_edge.camera.source import is_picture
from cled_edge.contract import Controls
from cled_edge.control_box import ControlBox
from cled_edge.ending import ends_on_signals
from cled_edge.errors import CledEdgeError, OptionError, OutOfMemoryError, SizeMismatchError
from cled_edge.frame import FramePair, FusedFrame
from cled_edge.fuser import Fuser, timed
from cled_edge.output.fanout import Fanout
from cled_edge.output.sink import Output, OutputSettings
from cled_edge.pairing import PairedCameras
from cled_edge.queues import ReadAhead
from cled_edge.registration.border import bordered
from cled_edge.registration.warp import Registrar
from cled_edge.stage_times import IDLE, LatencyLog, process_age_s
from cled_edge.thermal import WHITE_HOT
from cled_edge.tiling import Tiling, fuse_tiled

LATE_CLOSE_S = 0.5  # for outputs that are closed while a frame is still being fused
_MAX_LINKS = 40  # as Linux follows


class Monitor(Protocol):
    """Watches a run from beside, as a page does. What it does must take no time: the loop calls it."""

    def begin(self, status: Callable[[], dict[str, Any]]) -> None:
        """Take what returns `Report.as_dict` as it is by then; any thread may call it."""

    def show(self, frame: FusedFrame) -> None:
        """Take each fused frame, before the outputs do."""


@dataclass
class Report:
    """What a run did.

    announced: how many frames each camera said it holds, infrared first; None for a live one. clocks: what stamped the
    frames, infrared first. left_out: recorded frames without a partner in time, infrared first. read: pairs that were
    fused. dropped: pairs of a live camera that a newer one overtook before; not among `read`. steps: asked for.
    steps_ran: in how many written frames each number of steps ran. written: frames that the first output wrote.
    outputs: see `Fanout.report`.
    input_notes: what the user should know of the inputs, a sentence each, and of how many pairs it is true.
    drift_px: how far both cameras have moved since they were calibrated, see `DriftWatch`; None if that is unknown.
    interrupted: a signal ended it. is_stuck: a camera, or a frame in work, did not end in time after that, and must be
    left alone. failure: what ended it after the first pair. seconds: of the loop. first_frame_s: from the start of the
    process until the first frame was written.
    """

    backend: str
    bundle: str
    steps: int
    size: tuple[int, int] = (0, 0)
    announced: tuple[int, int] | None = None
    clocks: tuple[str, str] | None = None
    left_out: tuple[int, int] = (0, 0)
    read: int = 0
    dropped: int = 0
    written: int = 0
    seconds: float = 0.0
    first_frame_s: float | None = None
    steps_ran: Counter[int] = field(default_factory=Counter)
    interrupted: bool = False
    is_stuck: bool = False
    failure: CledEdgeError | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    input_notes: Counter[str] = field(default_factory=Counter)
    drift_px: float | None = None
    latency: LatencyLog = field(default_factory=LatencyLog)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types; latencies in milliseconds."""
        values = {name: value for name, value in vars(self).items() if name not in ("latency", "failure", "is_stuck")}
        rate_hz = self.written / self.seconds if self.seconds else 0.0
        return {
            **values,
            "steps_ran": {str(steps): count for steps, count in sorted(self.steps_ran.copy().items())},
            "input_notes": dict(self.input_notes),
            "failure": str(self.failure) if self.failure else None,
            "size": list(self.size),
            "rate_hz": round(rate_hz, 2),
            "latency_ms": self.latency.summary_ms(),
        }

    def count_written(self, frame: FusedFrame, write_ns: int) -> None:
        """Count and time a frame that the first output wrote."""
        self.latency.add({**frame.latency_ns, "write": write_ns})
        self.written += 1
        self.steps_ran[frame.controls.steps or 0] += 1
        self.size = (frame.picture.shape[0], frame.picture.shape[1])
        if self.first_frame_s is None:
            self.first_frame_s = round(process_age_s(), 3)


def fuse_pairs(
    pairs: PairedCameras,
    fuser: Fuser,
    outputs: Sequence[OutputSettings | str],
    controls: Controls | ControlBox | None = None,
    *,
    registrar: Registrar | None = None,
    tiling: Tiling | None = None,
    max_frames: int | None = None,
    monitor: Monitor | None = None,
    advance: Callable[[], None] = lambda: None,
    overdue: Callable[[Report, BaseException | None], None] | None = None,
) -> Report:
    """Fuse every pair into all outputs.

    controls: those of a `ControlBox` may change at any time, from any thread: each frame takes those of its beginning.
    registrar: warps each pair into one frame before; None takes pairs that are registered already.
    tiling: how to cut images that do not fit one tile; None fuses all of them whole.
    The pairs of a live camera do not wait: always the newest is fused, and those that it overtook are counted.

    Ctrl-C, SIGTERM, SIGHUP and SIGPIPE end the run in order, and so does anything that is wrong with a pair after the
    first: outputs are closed and kept, and the report says so. That takes 2 s at most, even if a camera hangs: then
    `Report.is_stuck`. OptionError for an output that would overwrite an input, or that holds fewer frames than come.
    monitor: watches the run, see there.
    `advance` is called after each frame that the first output wrote, on the thread that wrote it.
    overdue: called on another thread if a frame is still being fused that long after a signal, when all outputs are
    closed and the report is complete; a program can leave there.
    """
    if tiling:
        tiling.check(fuser.bundle.manifest.size_multiple)
    box = ControlBox.of(controls)
    report = _begun(pairs, fuser, box.current)

    def written(frame: FusedFrame, write_ns: int) -> None:
        report.count_written(frame, write_ns)
        advance()

    fanout = Fanout(outputs, is_live=pairs.is_live, rate_hz=pairs.rate_hz, written=written)
    refuse_overwriting(pairs.files, fanout.outputs)
    _refuse_overfull(pairs, fanout.outputs, max_frames)
    reader = ReadAhead(pairs, newest_only=pairs.is_live)
    start = time.perf_counter()

    def finish() -> None:
        report.dropped = reader.dropped
        report.left_out = pairs.left_out[0], pairs.left_out[1]
        report.outputs = fanout.report()
        report.seconds = round(time.perf_counter() - start, 3)

    def status() -> dict[str, Any]:
        finish()
        return report.as_dict()

    def late() -> None:
        failed = fanout.close(LATE_CLOSE_S)
        report.interrupted, report.is_stuck = True, True
        finish()
        if overdue:
            overdue(report, failed[0] if failed else None)

    if monitor:
        monitor.begin(status)
    try:
        # Left in reverse order: the outputs are closed when the reader has ended.
        with ends_on_signals(reader.stop, late) as stopped:
            with fanout, reader:
                _fuse_all(reader, fuser, box, registrar, tiling, fanout, report, max_frames, monitor)
            report.interrupted = stopped.is_set()
    except KeyboardInterrupt:
        report.interrupted = True
    if reader.is_stuck:
        report.is_stuck = True
    finish()
    return report


def _begun(pairs: PairedCameras, fuser: Fuser, controls: Controls) -> Report:
    manifest = fuser.bundle.manifest
    steps = controls.steps or manifest.schedule.default_steps
    return Report(fuser.backend.description, manifest.name, steps, announced=pairs.announced)


def refuse_overwriting(files: Sequence[Path], outputs: Sequence[Output]) -> None:
    """Raise OptionError if an output is a file that a camera reads, or a folder from which one reads pictures.

    What a link leads to counts as well as the link, under whatever other names it has.
    """
    links = {link for path in files for link in _links(path)}
    read = {_identity(path) for path in links}
    folders = {_identity(path.parent) for path in links if is_picture(path.name)}
    for output in outputs:
        place = _identity(output.target) if output.target else None
        if place is None:
            continue
        if place in folders:
            raise OptionError(
                f"{output.target} holds input pictures, which the output would overwrite; choose another folder"
            )
        if place in read:
            raise OptionError(f"{output.target} is an input, which the output would overwrite; choose another name")


def _links(path: Path) -> Iterator[Path]:
    """Yield a path, and what it links to, link by link."""
    for _ in range(_MAX_LINKS):
        yield path
        try:
            path = path.parent / os.readlink(path)
        except OSError:
            return


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file or folder from all others, None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _refuse_overfull(pairs: PairedCameras, outputs: Sequence[Output], max_frames: int | None) -> None:
    """Raise OptionError if an output holds fewer frames than are sure to come."""
    counts = [*(pairs.announced or ()), *((max_frames,) if max_frames else ())]
    coming = min(counts) if counts else None
    for output in outputs:
        if output.holds is not None and (coming is None or coming > output.holds):
            seen = f"{coming} pairs come" if coming is not None else "nobody says how many pairs come"
            raise OptionError(
                f"{output.address.text} holds {output.holds} picture, but {seen}; give a folder or a video, or end "
                f"after {output.holds}"
            )


def _fuse_all(
    reader: ReadAhead[FramePair],
    fuser: Fuser,
    box: ControlBox,
    registrar: Registrar | None,
    tiling: Tiling | None,
    fanout: Fanout,
    report: Report,
    max_frames: int | None,
    monitor: Monitor | None,
) -> None:
    """Fuse on this thread until the source ends or is stopped, an output wants no more, or `max_frames` are done.

    What is wrong with a pair after the first ends it too, as the report's failure: what was fused before is kept.
    """
    while report.read != max_frames:
        try:
            start_ns = time.perf_counter_ns()
            drawn = reader.next()
            if drawn is None:
                return
            wait_ns = time.perf_counter_ns() - start_ns + fanout.waited_ns
            pair, decode_ns = drawn
            fused = _fuse(fuser, pair, box.current, registrar, tiling)
        except CledEdgeError as error:
            if not report.read:
                raise
            report.failure = error
            return
        report.read += 1
        report.clocks = pair.infrared.clock, pair.visible.clock
        report.input_notes.update(fused.notes)
        report.drift_px = registrar.drift_px if registrar else None
        stages_ns = {IDLE: wait_ns, "decode": decode_ns, **fused.latency_ns}
        fused = replace(fused, latency_ns=stages_ns)
        if monitor:
            monitor.show(fused)
        if not fanout.put(fused):
            return


def _fuse(
    fuser: Fuser, pair: FramePair, controls: Controls, registrar: Registrar | None, tiling: Tiling | None
) -> FusedFrame:
    """Register and fuse one pair; what is wrong with it names it."""
    try:
        if registrar:
            return _fuse_registered(fuser, pair, controls, registrar, tiling)
        return _fuse_same_size(fuser, pair, controls, tiling)
    except (OptionError, OutOfMemoryError, SizeMismatchError) as error:
        raise type(error)(f"pair {pair.name}: {error}") from error
    except MemoryError as error:
        height, width = pair.visible.image.shape[:2]
        raise OutOfMemoryError(
            f"pair {pair.name}: there is too little memory for {height}x{width}; needed more, or smaller images; "
            "fuse them in tiles"
        ) from error


def _fuse_registered(
    fuser: Fuser, pair: FramePair, controls: Controls, registrar: Registrar, tiling: Tiling | None
) -> FusedFrame:
    """Warp, fuse, and show one camera alone where the other sees nothing."""
    start_ns = time.perf_counter_ns()
    pair = registrar(pair, fuser.thermal)
    warped_ns = time.perf_counter_ns()
    fused = _fuse_same_size(fuser.with_thermal(WHITE_HOT), pair, controls, tiling)
    fused_ns = time.perf_counter_ns()
    fused = bordered(fused, registrar.validity)
    register_ns = warped_ns - start_ns + time.perf_counter_ns() - fused_ns
    return replace(fused, latency_ns={"register": register_ns, **fused.latency_ns})


def _fuse_same_size(fuser: Fuser, pair: FramePair, controls: Controls, tiling: Tiling | None) -> FusedFrame:
    if tiling:
        images = fuser.image(pair.infrared), fuser.image(pair.visible)
        return timed(fuse_tiled(fuser, *images, controls, tiling), pair)
    return fuser(pair.infrared, pair.visible, controls)
