"""The loop: read a pair, fuse it, hand it on, count and time it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cled_edge.camera.source import FramePair, PictureSource, StreamSource
from cled_edge.errors import OptionError, SizeMismatchError, SourceUnreadableError
from cled_edge.fuser import Controls, Fused, Fuser
from cled_edge.latency import LatencyLog
from cled_edge.sink import VIDEO_SUFFIXES, WINDOW, FolderSink, Sink, open_sink

RESTORED = ("infrared", "visible")  # subfolders of --restored


@dataclass
class Report:
    """What a run did. `announced` is how many frames each source said it holds, infrared first; None for a camera."""

    backend: str
    bundle: str
    steps: int
    size: tuple[int, int] = (0, 0)
    announced: tuple[int, int] | None = None
    read: int = 0
    written: int = 0
    seconds: float = 0.0
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
) -> Report:
    """Fuse every pair of `source` into `out` (see `open_sink`) and, if given, the folder `restored`.

    An interrupt (Ctrl-C) ends the run in order, and so does a source that gives out after the first pair: outputs are
    closed and kept, and the report says so. An output that would overwrite an input is an OptionError.
    """
    refuse_overwriting(source, out, restored)
    manifest = fuser.bundle.manifest
    steps = controls.steps or manifest.schedule.default_steps
    report = Report(fuser.backend.description, manifest.name, steps, announced=source.announced)
    start = time.perf_counter()
    try:
        with ExitStack() as stack:
            sinks: _Sinks | None = None
            pairs = iter(source)
            while report.written != max_frames:
                began_ns = time.perf_counter_ns()
                pair = _next_pair(pairs, report)
                if pair is None:
                    break
                read_ns = time.perf_counter_ns() - began_ns
                report.read += 1
                fused = _fuse(fuser, pair, controls)
                # Opened only now: bad input must not leave an empty output behind.
                sinks = sinks or _Sinks(stack, out, source.rate_hz, restored)
                began_ns = time.perf_counter_ns()
                go_on = sinks.write(fused, pair)
                write_ns = time.perf_counter_ns() - began_ns
                report.latency.add({"read": read_ns, **fused.latency_ns, "write": write_ns})
                report.written += 1
                report.size = (fused.picture.shape[0], fused.picture.shape[1])
                advance()
                if not go_on:
                    break
    except KeyboardInterrupt:
        report.interrupted = True
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


def _next_pair(pairs: Iterator[FramePair], report: Report) -> FramePair | None:
    """Return the next pair, or None at the end; what was fused before a camera or a file gave out is kept."""
    try:
        return next(pairs, None)
    except SourceUnreadableError as error:
        if not report.written:
            raise
        report.failure = error
        return None


def _fuse(fuser: Fuser, pair: FramePair, controls: Controls) -> Fused:
    """Fuse one pair; what is wrong with it names it."""
    try:
        return fuser(pair.infrared, pair.visible, controls)
    except (OptionError, SizeMismatchError) as error:
        raise type(error)(f"pair {pair.stem}: {error}") from error


class _Sinks:
    """The fused output and, if asked for, the two restored ones."""

    def __init__(self, stack: ExitStack, out: str, rate_hz: float | None, restored: Path | None) -> None:
        self._fused: Sink = stack.enter_context(open_sink(out, rate_hz))
        self._restored = [FolderSink(restored / name) for name in RESTORED] if restored else []

    def write(self, fused: Fused, pair: FramePair) -> bool:
        for sink, picture in zip(self._restored, (fused.infrared, fused.visible), strict=False):
            sink.write(picture, pair.stem)
        return self._fused.write(fused.picture, pair.stem)
