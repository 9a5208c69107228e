"""The loop: threads read, the calling thread fuses pairs, others write; all is counted and timed.

Of recordings a thread reads the next pair ahead. Of live cameras the loop asks for the newest pair when it is free.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from cled_edge.areas import Areas
from cled_edge.camera.source import is_picture
from cled_edge.contract import Controls
from cled_edge.control_box import ControlBox
from cled_edge.ending import ends_on_signals
from cled_edge.errors import CledEdgeError, OptionError, OutOfMemoryError, SizeMismatchError
from cled_edge.frame import BOTH_LOST, MONOTONIC, FramePair, FusedFrame
from cled_edge.fuser import Fuser
from cled_edge.live_pairs import LivePairs
from cled_edge.memory import Memory
from cled_edge.output.dead_tile import dead_tile
from cled_edge.output.fanout import Fanout
from cled_edge.output.sink import Output, OutputSettings
from cled_edge.pair_facts import completed, timed
from cled_edge.pairing import PairedCameras
from cled_edge.queues import ReadAhead
from cled_edge.registration.warp import Registrar
from cled_edge.run_report import Report
from cled_edge.size import Size
from cled_edge.stage_times import IDLE
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


def fuse_pairs(
    pairs: PairedCameras | LivePairs,
    fuser: Fuser,
    outputs: Sequence[OutputSettings | str],
    controls: Controls | ControlBox | None = None,
    *,
    registrar: Registrar | None = None,
    tiling: Tiling | None = None,
    max_frames: int | None = None,
    monitors: Sequence[Monitor] = (),
    advance: Callable[[], None] = lambda: None,
    overdue: Callable[[Report, BaseException | None], None] | None = None,
) -> Report:
    """Fuse every pair into all outputs.

    controls: those of a `ControlBox` may change at any time, from any thread: each frame takes those of its beginning.
    registrar: warps each pair into one frame before; None takes pairs that are registered already.
    tiling: how to cut images that do not fit one tile; None fuses all of them whole.
    Live cameras do not wait: the loop takes the newest pair when it is free. The run goes on while they are lost: one
    that lives is fused alone, and of two lost ones a dead tile is shown at 2 Hz. It ends at `max_frames`, by a signal,
    or where both are recordings that ended.

    Ctrl-C, SIGTERM, SIGHUP and SIGPIPE end the run in order, and so does anything that is wrong with a pair after the
    first: outputs are closed and kept, and the report says so. That takes 2 s at most, even if a camera hangs: then
    `Report.is_stuck`. OptionError for an output that would overwrite an input, or that holds fewer frames than come.
    monitors: watch the run, see there.
    `advance` is called after each frame that the first output wrote, on the thread that wrote it.
    overdue: called on another thread if a frame is still being fused that long after a signal, when all outputs are
    closed and the report is complete; a program can leave there.
    """
    if tiling:
        tiling.check(fuser.bundle.manifest.size_multiple)
    box = ControlBox.of(controls)
    report = _begun(pairs, fuser, box.current, registrar)

    def written(frame: FusedFrame, write_ns: int) -> None:
        report.count_written(frame, write_ns)
        advance()

    work = _Work(fuser, box, registrar, tiling)
    fanout = Fanout(outputs, is_live=pairs.is_live, rate_hz=pairs.rate_hz, written=written)
    refuse_overwriting(pairs.files, fanout.outputs)
    _refuse_overfull(pairs, fanout.outputs, max_frames)
    reader = pairs if isinstance(pairs, LivePairs) else ReadAhead(pairs)
    start = time.perf_counter()

    def finish() -> None:
        report.dropped = pairs.dropped if isinstance(pairs, LivePairs) else 0
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

    for monitor in monitors:
        monitor.begin(status)
    try:
        # Left in reverse order: the outputs are closed when the reader has ended.
        with ends_on_signals(reader.stop, late) as stopped:
            with fanout, reader:
                for fused in _fused_frames(reader, work, report, fanout):
                    for monitor in monitors:
                        monitor.show(fused)
                    if not fanout.put(fused) or report.read == max_frames:
                        break
            report.interrupted = stopped.is_set()
    except KeyboardInterrupt:
        report.interrupted = True
    if reader.is_stuck:
        report.is_stuck = True
    finish()
    return report


def _begun(pairs: PairedCameras | LivePairs, fuser: Fuser, controls: Controls, registrar: Registrar | None) -> Report:
    if isinstance(pairs, LivePairs):
        pairs.sizes.keeps = registrar is not None
    manifest = fuser.bundle.manifest
    steps = controls.steps or manifest.schedule.default_steps
    live = pairs.as_dict if isinstance(pairs, LivePairs) else None
    return Report(fuser.backend.description, manifest.name, steps, announced=pairs.announced, live=live)


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


def _refuse_overfull(pairs: PairedCameras | LivePairs, outputs: Sequence[Output], max_frames: int | None) -> None:
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


def fused_frames(
    pairs: PairedCameras | LivePairs,
    fuser: Fuser,
    controls: Controls | ControlBox | None = None,
    *,
    registrar: Registrar | None = None,
    tiling: Tiling | None = None,
) -> Iterator[FusedFrame]:
    """Yield every pair fused, on the caller's thread: what `fuse_pairs` writes, for a loop of your own.

        with open_cameras("0", "1", TimePairer()) as pairs, Fuser.load() as fuser:
            for fused in fused_frames(pairs, fuser): ...

    Arguments as in `fuse_pairs`. Live cameras do not wait for the caller: the next frame is fused of the newest pair.
    `FusedFrame.degraded` says what is lost. It ends where the sources do; leave the loop, and close the generator, to
    end it before. Anything that is wrong with a pair is raised. Signals are left to the caller.
    """
    box = ControlBox.of(controls)
    reader = pairs if isinstance(pairs, LivePairs) else ReadAhead(pairs)
    report, work = _begun(pairs, fuser, box.current, registrar), _Work(fuser, box, registrar, tiling)
    with reader:
        yield from _fused_frames(reader, work, report)
    if report.failure:
        raise report.failure


def _fused_frames(
    reader: ReadAhead[FramePair] | LivePairs, work: "_Work", report: Report, fanout: Fanout | None = None
) -> Iterator[FusedFrame]:
    """Yield each pair fused, and count it, until the source ends or is stopped. fanout: what it waited is no work.

    What is wrong with a pair after the first ends it too, as the report's failure: what was fused before is kept. But
    live cameras that go over to a size that cannot be fused are left out.
    """
    drawing = "pair" if isinstance(reader, LivePairs) else "decode"
    if isinstance(reader, LivePairs):
        work.warm_up(reader)
    while True:
        drawn = None
        try:
            start_ns = time.perf_counter_ns()
            drawn = reader.next()
            if drawn is None:
                return
            pair, drawn_ns = drawn
            wait_ns = time.perf_counter_ns() - start_ns + (fanout.waited_ns if fanout else 0)
            fused = work(pair)
        except CledEdgeError as error:
            if not report.read:
                raise
            if drawn and isinstance(reader, LivePairs) and work.is_of_a_new_size(drawn[0]):
                reader.leave_out(drawn[0], error)
                continue
            report.failure = error
            return
        report.count_fused(fused)
        if not pair.degraded:
            report.clocks = pair.infrared.clock, pair.visible.clock
        report.drift_px = work.registrar.drift_px if work.registrar else None
        yield replace(fused, latency_ns={IDLE: wait_ns, drawing: drawn_ns, **fused.latency_ns})


def _sizes(pair: FramePair) -> tuple[Size, Size]:
    infrared, visible = pair.infrared.image.shape, pair.visible.image.shape
    return (infrared[0], infrared[1]), (visible[0], visible[1])


@dataclass
class _Work:
    """What is done to each pair.

    controls: of the pair in work. dead_since_ns: since when both cameras are lost. size: of what was shown last.
    memory: of the last pair, if they ask for steadiness. sizes: of the images of the last pair that was fused. areas:
    of the pair in work. proven_areas: those that a pair was fused with, or that the run began with.
    """

    fuser: Fuser
    box: ControlBox
    registrar: Registrar | None
    tiling: Tiling | None
    controls: Controls = field(default_factory=Controls)
    dead_since_ns: int | None = None
    size: Size | None = None
    memory: Memory = field(default_factory=Memory)
    sizes: tuple[Size, Size] | None = None
    areas: Areas = field(init=False)
    proven_areas: Areas = field(init=False)

    def __post_init__(self) -> None:
        """Take what the run begins with as proven."""
        self.areas = self.proven_areas = self.fuser.areas

    def warm_up(self, pairs: LivePairs) -> None:
        """Let the backend compile while cameras open: as soon as the size of their pairs is known."""
        size = self.registrar.size if self.registrar else pairs.first_size()
        if self.tiling:
            size = self.tiling.tile
        if size:
            with suppress(CledEdgeError, MemoryError):  # which the first pair meets too, and names
                self.fuser.warm_up(size, self.box.current)

    def __call__(self, pair: FramePair) -> FusedFrame:
        """Register and fuse one pair, with what was changed if that can be applied, else with what held before.

        Nothing that is changed while a run goes on must end it. Areas are doubted first, then controls, then a look at
        the uncertainty; of several only what is at fault is withdrawn.
        """
        asked = self.box.current, self.fuser.areas
        trials, reason = [*self._trials(*asked)], ""
        while True:
            (self.controls, self.areas, is_looked_at), *trials = trials
            if not is_looked_at:
                self.fuser.give_up_look(reason)
            try:
                fused = self._tried(pair)
            except CledEdgeError as error:
                reason = reason or str(error)
                if not trials:
                    raise
            else:
                self._settle(asked, reason)
                return fused

    def _trials(self, controls: Controls, areas: Areas) -> Iterator[tuple[Controls, Areas, bool]]:
        """Yield with what to try a pair: controls, areas, and whether an uncertainty may be looked at."""
        before = self.box.proven, self.proven_areas
        yield controls, areas, True
        if before[1] is not areas:
            yield controls, before[1], True
        if before[0] != controls:
            yield before[0], areas, True
        if before[1] is not areas and before[0] != controls:
            yield *before, True
        if self.fuser.is_looked_at:
            yield controls, areas, False
            yield *before, False

    def _settle(self, asked: tuple[Controls, Areas], reason: str) -> None:
        """Take it that a pair was fused with the present controls and areas; withdraw what was asked for instead."""
        controls, areas = asked
        is_withdrawn = self.areas is not areas
        if is_withdrawn and self.fuser.areas is areas:  # not newer ones
            self.fuser.areas = self.areas
        if is_withdrawn or self.areas is not self.proven_areas:
            self.box.refusal = reason
        if self.controls is not controls:
            self.box.withdraw(controls, reason)
        self.box.prove(self.controls)
        self.proven_areas = self.areas

    def _tried(self, pair: FramePair) -> FusedFrame:
        """Register and fuse one pair; what is wrong with it names it."""
        if pair.degraded == BOTH_LOST:
            return self._dead(pair)
        self.dead_since_ns = None
        try:
            fused = self._registered(pair)
        except (OptionError, OutOfMemoryError, SizeMismatchError) as error:
            raise type(error)(f"pair {pair.name}: {error}") from error
        except MemoryError as error:
            height, width = pair.visible.image.shape[:2]
            raise OutOfMemoryError(
                f"pair {pair.name}: there is too little memory for {height}x{width}; needed more, or smaller images; "
                "fuse them in tiles"
            ) from error
        self.size, self.sizes = (fused.picture.shape[0], fused.picture.shape[1]), _sizes(pair)
        return fused

    def is_of_a_new_size(self, pair: FramePair) -> bool:
        """Say whether a pair has other sizes than the last one that was fused."""
        return pair.degraded != BOTH_LOST and _sizes(pair) != self.sizes

    def _registered(self, pair: FramePair) -> FusedFrame:
        """Warp if a calibration is there, fuse, and show one camera alone where the other sees nothing."""
        if self.registrar is None:
            return self._fused(pair)
        start_ns = time.perf_counter_ns()
        pair = self.registrar(pair, self.fuser.thermal)
        register_ns = time.perf_counter_ns() - start_ns
        fused = self._fused(pair, self.fuser.with_thermal(WHITE_HOT))
        return replace(fused, latency_ns={"register": register_ns, **fused.latency_ns})

    def _fused(self, pair: FramePair, fuser: Fuser | None = None) -> FusedFrame:
        """Fuse a pair of one size; what a camera does not see, as one that is lost, the other one shows."""
        fuser, controls = fuser or self.fuser, self.controls
        if not controls.steadiness:
            self.memory.forget()
        if self.tiling is None:
            return fuser.fuse_pair(pair, controls, self.memory, self.areas)
        images = fuser.image(pair.infrared), fuser.image(pair.visible)
        of_pair: dict[str, Any] = {"validity": pair.validity, "memory": self.memory, "moment": pair.time}
        fused = fuse_tiled(fuser, *images, controls, self.tiling, areas=self.areas, **of_pair)
        return completed(fused, pair)

    def _dead(self, pair: FramePair) -> FusedFrame:
        """Return a dark image with words, of the size that was shown last."""
        now_ns = time.monotonic_ns()
        if self.dead_since_ns is None:
            self.dead_since_ns = now_ns
        shape = pair.visible.image.shape
        size = self.size or (self.registrar.size if self.registrar else (shape[0], shape[1]))
        tile = dead_tile(pair, size, (now_ns - self.dead_since_ns) / 1e9, self.fuser.color_order)
        infrared, visible = replace(pair.infrared, image=tile.infrared), replace(pair.visible, image=tile.visible)
        tile = timed(tile, replace(pair, infrared=infrared, visible=visible))
        return replace(tile, timestamp_ns=now_ns, clock=MONOTONIC)
