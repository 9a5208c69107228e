"""The loop: read a pair, fuse it, hand it on, count and time it."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cled_edge.camera.source import FramePair, PictureSource, StreamSource
from cled_edge.fuser import Controls, Fused, Fuser, check_sizes
from cled_edge.latency import LatencyLog
from cled_edge.sink import FolderSink, Sink, open_sink


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
    latency: LatencyLog = field(default_factory=LatencyLog)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types; latencies in milliseconds."""
        values = {name: value for name, value in vars(self).items() if name != "latency"}
        rate_hz = self.written / self.seconds if self.seconds else 0.0
        return {
            **values,
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

    An interrupt (Ctrl-C) ends the run in order: outputs are closed and the report says so.
    """
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
                pair = next(pairs, None)
                if pair is None:
                    break
                read_ns = time.perf_counter_ns() - began_ns
                report.read += 1
                check_sizes(pair.infrared.shape, pair.visible.shape)
                fused = fuser(pair.infrared, pair.visible, controls)
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


class _Sinks:
    """The fused output and, if asked for, the two restored ones."""

    def __init__(self, stack: ExitStack, out: str, rate_hz: float | None, restored: Path | None) -> None:
        self._fused: Sink = stack.enter_context(open_sink(out, rate_hz))
        self._restored = [FolderSink(restored / name) for name in ("infrared", "visible")] if restored else []

    def write(self, fused: Fused, pair: FramePair) -> bool:
        for sink, picture in zip(self._restored, (fused.infrared, fused.visible), strict=False):
            sink.write(picture, pair.stem)
        return self._fused.write(fused.picture, pair.stem)
