"""The loop: a thread reads pairs ahead, the calling thread fuses them, another writes; all is counted and timed."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from cled_edge.camera.source import PictureSource, StreamSource
from cled_edge.contract import Controls
from cled_edge.errors import OptionError, SizeMismatchError, SourceUnreadableError
from cled_edge.frame import FramePair, FusedFrame
from cled_edge.fuser import Fuser, timed
from cled_edge.latency import IDLE, LatencyLog, process_age_s
from cled_edge.output.sink import VIDEO_SUFFIXES, WINDOW, FolderSink, Sink, open_sink
from cled_edge.queues import ReadAhead, WriteBehind
from cled_edge.tiling import Tiling, fuse_tiled

RESTORED = ("infrared", "visible")  # subfolders of --restored


@dataclass
class Report:
    """What a run did.

    announced: how many frames each source said it holds, infrared first; None for a camera.
    read: pairs given to the fuser. dropped: pairs of a camera that a newer one overtook before; not among `read`.
    seconds: of the loop. first_frame_s: from the start of the process until the first frame was written.
    """

    backend: str
    bundle: str
    steps: int
    size: tuple[int, int] = (0, 0)
    announced: tuple[int, int] | None = None
    read: int = 0
    dropped: int = 0
    written: int = 0
    seconds: float = 0.0
    first_frame_s: float | None = None
    interrupted: bool = False
    failure: SourceUnreadableError | None = None
    latency: LatencyLog = field(default_factory=LatencyLog)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types; latencies in milliseconds."""
        values = {name: value for name, value in vars(self).items() if name not in ("latency", "failure")}
        rate_hz = self.written / self.seconds if self.seconds else 0.0
        return {
            **values,
            "failure": str(self.failure) if self.failure else None,
            "size": list(self.size),
            "rate_hz": round(rate_hz, 2),
            "latency_ms": self.latency.summary_ms(),
        }


def fuse_source(
    source: PictureSource | StreamSource,
    fuser: Fuser,
    controls: Controls,
    out: str,
    restored: Path | None = None,
    max_frames: int | None = None,
    advance: Callable[[], None] = lambda: None,
    *,
    live: bool = False,
    tiling: Tiling | None = None,
) -> Report:
    """Fuse every pair of `source` into `out` (see `open_sink`) and, if given, the folder `restored`.

    tiling: how to cut pictures that do not fit one tile; None fuses all of them whole.
    live: the source is a camera, which does not wait; always the newest pair is fused, and those that it overtook are
    counted. An interrupt (Ctrl-C) ends the run in order, and so does a source that gives out after the first pair:
    outputs are closed and kept, and the report says so. An output that would overwrite an input is an OptionError.
    `advance` is called after each frame, on the thread that wrote it.
    """
    refuse_overwriting(source, out, restored)
    manifest = fuser.bundle.manifest
    if tiling:
        tiling.check(manifest.size_multiple)
    steps = controls.steps or manifest.schedule.default_steps
    report = Report(fuser.backend.description, manifest.name, steps, announced=source.announced)
    start = time.perf_counter()
    reader = ReadAhead(source, newest_only=live)
    try:
        # Left in reverse order: the outputs are closed when both threads have ended. Windows need the main thread.
        with (
            _Output(out, source.rate_hz, restored, report, advance) as output,
            reader,
            WriteBehind(output.write, beside=out != WINDOW) as writer,
        ):
            _fuse_all(reader, fuser, controls, tiling, writer, report, max_frames)
    except KeyboardInterrupt:
        report.interrupted = True
    report.dropped = reader.dropped
    report.seconds = round(time.perf_counter() - start, 3)
    return report


def refuse_overwriting(source: PictureSource | StreamSource, out: str, restored: Path | None) -> None:
    """Raise OptionError if an output lies on an input, or two outputs on each other."""
    folders = [restored / name for name in RESTORED] if restored else []
    if out != WINDOW and Path(out).suffix.lower() not in VIDEO_SUFFIXES:
        folders.append(Path(out))
    resolved = [folder.resolve() for folder in folders]
    inputs = {path.parent for path in source.files} if isinstance(source, PictureSource) else set()
    for folder, place in zip(folders, resolved, strict=True):
        if place in inputs:
            raise OptionError(f"{folder} holds input pictures, which the output would overwrite; choose another folder")
    if Path(out).resolve() in source.files:
        raise OptionError(f"{out} is an input, which the output would overwrite; choose another name")
    if len(set(resolved)) < len(resolved):
        raise OptionError(f"{out} is also where --restored writes; choose another folder")


def _fuse_all(
    reader: ReadAhead[FramePair],
    fuser: Fuser,
    controls: Controls,
    tiling: Tiling | None,
    writer: WriteBehind["_Frame"],
    report: Report,
    max_frames: int | None,
) -> None:
    """Fuse on this thread until the source ends, the writer wants no more, or `max_frames` are done."""
    while report.read != max_frames:
        start_ns = time.perf_counter_ns()
        drawn = _next_pair(reader, report)
        if drawn is None:
            return
        wait_ns = time.perf_counter_ns() - start_ns + writer.waited_ns
        report.read += 1
        pair, decode_ns = drawn
        fused = _fuse(fuser, pair, controls, tiling)
        stages_ns = {IDLE: wait_ns, "decode": decode_ns, **fused.latency_ns}
        if not writer.put(_Frame(fused, pair.name, stages_ns)):
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


@dataclass(frozen=True)
class _Frame:
    fused: FusedFrame
    stem: str
    stages_ns: dict[str, int]


class _Output:
    """The fused output and, if asked for, the two restored ones; counts what it writes."""

    def __init__(
        self, out: str, rate_hz: float | None, restored: Path | None, report: Report, advance: Callable[[], None]
    ) -> None:
        self._out, self._rate_hz, self._folder = out, rate_hz, restored
        self._report, self._advance = report, advance
        self._stack = ExitStack()
        self._fused: Sink | None = None
        self._restored: list[FolderSink] = []

    def write(self, frame: _Frame) -> bool:
        """Write, count and time a frame; return False if the user asked to stop."""
        fused, report = frame.fused, self._report
        start_ns = time.perf_counter_ns()
        sink = self._fused or self._open()
        for folder, picture in zip(self._restored, (fused.infrared, fused.visible), strict=False):
            folder.write(picture, frame.stem)
        go_on = sink.write(fused.picture, frame.stem)
        report.latency.add({**frame.stages_ns, "write": time.perf_counter_ns() - start_ns})
        report.written += 1
        report.size = (fused.picture.shape[0], fused.picture.shape[1])
        if report.first_frame_s is None:
            report.first_frame_s = round(process_age_s(), 3)
        self._advance()
        return go_on

    def _open(self) -> Sink:
        """Open at the first frame, not before: bad input must not leave an empty output behind."""
        self._fused = self._stack.enter_context(open_sink(self._out, self._rate_hz))
        self._restored = [FolderSink(self._folder / name) for name in RESTORED] if self._folder else []
        return self._fused

    def __enter__(self) -> "_Output":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
