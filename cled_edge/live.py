"""The loop: a thread reads pairs ahead, the calling thread fuses them, others write; all is counted and timed."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cled_edge.camera.source import is_picture
from cled_edge.contract import Controls
from cled_edge.errors import OptionError, SizeMismatchError, SourceUnreadableError
from cled_edge.frame import FramePair, FusedFrame
from cled_edge.fuser import Fuser, timed
from cled_edge.output.fanout import Fanout
from cled_edge.output.sink import Output, OutputSettings
from cled_edge.pairing import PairedCameras
from cled_edge.queues import ReadAhead
from cled_edge.stage_times import IDLE, LatencyLog, process_age_s
from cled_edge.tiling import Tiling, fuse_tiled


@dataclass
class Report:
    """What a run did.

    announced: how many frames each camera said it holds, infrared first; None for a live one. clocks: what stamped the
    frames, infrared first. left_out: recorded frames without a partner in time, infrared first. read: pairs given to
    the fuser. dropped: pairs of a live camera that a newer one overtook before; not among `read`. steps: asked for.
    steps_ran: in how many written frames each number of steps ran. written: frames that the first output wrote.
    outputs: see `Fanout.report`.
    input_notes: what the user should know of the inputs, a sentence each, and of how many pairs it is true.
    seconds: of the loop. first_frame_s: from the start of the process until the first frame was written.
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
    failure: SourceUnreadableError | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    input_notes: Counter[str] = field(default_factory=Counter)
    latency: LatencyLog = field(default_factory=LatencyLog)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types; latencies in milliseconds."""
        values = {name: value for name, value in vars(self).items() if name not in ("latency", "failure")}
        rate_hz = self.written / self.seconds if self.seconds else 0.0
        return {
            **values,
            "steps_ran": {str(steps): count for steps, count in sorted(self.steps_ran.items())},
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
    controls: Controls | None = None,
    *,
    tiling: Tiling | None = None,
    max_frames: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Report:
    """Fuse every pair into all outputs.

    tiling: how to cut images that do not fit one tile; None fuses all of them whole.
    The pairs of a live camera do not wait: always the newest is fused, and those that it overtook are counted. An
    interrupt (Ctrl-C) ends the run in order, and so does a source that gives out after the first pair: outputs are
    closed and kept, and the report says so. An output that would overwrite an input is an OptionError.
    `advance` is called after each frame that the first output wrote, on the thread that wrote it.
    """
    if tiling:
        tiling.check(fuser.bundle.manifest.size_multiple)
    controls = controls or Controls()
    report = _begun(pairs, fuser, controls)

    def written(frame: FusedFrame, write_ns: int) -> None:
        report.count_written(frame, write_ns)
        advance()

    fanout = Fanout(outputs, is_live=pairs.is_live, rate_hz=pairs.rate_hz, written=written)
    refuse_overwriting(pairs, fanout.outputs)
    reader = ReadAhead(pairs, newest_only=pairs.is_live)
    start = time.perf_counter()
    try:
        # Left in reverse order: the outputs are closed when all threads have ended.
        with fanout, reader:
            _fuse_all(reader, fuser, controls, tiling, fanout, report, max_frames)
    except KeyboardInterrupt:
        report.interrupted = True
    report.dropped = reader.dropped
    report.left_out = pairs.left_out[0], pairs.left_out[1]
    report.outputs = fanout.report()
    report.seconds = round(time.perf_counter() - start, 3)
    return report


def _begun(pairs: PairedCameras, fuser: Fuser, controls: Controls) -> Report:
    manifest = fuser.bundle.manifest
    steps = controls.steps or manifest.schedule.default_steps
    return Report(fuser.backend.description, manifest.name, steps, announced=pairs.announced)


def refuse_overwriting(pairs: PairedCameras, outputs: Sequence[Output]) -> None:
    """Raise OptionError if an output is a file that a camera reads, or a folder from which one reads pictures."""
    files = {path.resolve() for path in pairs.files}
    folders = {path.parent for path in files if is_picture(path.name)}
    for output in outputs:
        place = output.target.resolve() if output.target else None
        if place in folders:
            raise OptionError(
                f"{output.target} holds input pictures, which the output would overwrite; choose another folder"
            )
        if place in files:
            raise OptionError(f"{output.target} is an input, which the output would overwrite; choose another name")


def _fuse_all(
    reader: ReadAhead[FramePair],
    fuser: Fuser,
    controls: Controls,
    tiling: Tiling | None,
    fanout: Fanout,
    report: Report,
    max_frames: int | None,
) -> None:
    """Fuse on this thread until the source ends, an output wants no more, or `max_frames` are done."""
    while report.read != max_frames:
        start_ns = time.perf_counter_ns()
        drawn = _next_pair(reader, report)
        if drawn is None:
            return
        wait_ns = time.perf_counter_ns() - start_ns + fanout.waited_ns
        report.read += 1
        pair, decode_ns = drawn
        report.clocks = pair.infrared.clock, pair.visible.clock
        fused = _fuse(fuser, pair, controls, tiling)
        report.input_notes.update(fused.notes)
        stages_ns = {IDLE: wait_ns, "decode": decode_ns, **fused.latency_ns}
        if not fanout.put(replace(fused, latency_ns=stages_ns)):
            return


def _next_pair(reader: ReadAhead[FramePair], report: Report) -> tuple[FramePair, int] | None:
    """Return the next pair, or None at the end; what was fused before a camera or a file gave out is kept."""
    try:
        return reader.next()
    except SourceUnreadableError as error:
        if not report.read:
            raise
        report.failure = error
        return None


def _fuse(fuser: Fuser, pair: FramePair, controls: Controls, tiling: Tiling | None) -> FusedFrame:
    """Fuse one pair; what is wrong with it names it."""
    try:
        if tiling:
            images = fuser.image(pair.infrared), fuser.image(pair.visible)
            return timed(fuse_tiled(fuser, *images, controls, tiling), pair)
        return fuser(pair.infrared, pair.visible, controls)
    except (OptionError, SizeMismatchError) as error:
        raise type(error)(f"pair {pair.name}: {error}") from error
