"""What a run did: counts, times, the ages of what it fused, and what became of every frame."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cled_edge.errors import CledEdgeError
from cled_edge.frame import FusedFrame
from cled_edge.image import Float32
from cled_edge.stage_times import LatencyLog, SampleLog, process_age_s


class LevelLog:
    """The uncertainty of a run's frames: means over frames of each frame's mean, and of its 95th percentile."""

    def __init__(self) -> None:
        self._sums = np.zeros((2, 2))
        self._frames = 0

    def add(self, levels: Float32) -> None:
        """Add a frame's, (2, H, W), infrared first."""
        self._sums += np.stack([levels.mean(axis=(1, 2)), np.percentile(levels, 95, axis=(1, 2))], axis=1)
        self._frames += 1

    def as_dict(self) -> dict[str, dict[str, float]] | None:
        """Return mean and p95 of each modality in grey levels; None if no frame had any."""
        if not self._frames:
            return None
        means = (self._sums / self._frames).round(2).tolist()
        rows = ({"mean": mean, "p95": p95} for mean, p95 in means)
        return dict(zip(("infrared", "visible"), rows, strict=True))


@dataclass
class Report:
    """What a run did.

    announced: how many frames each camera said it holds, infrared first; None for a live one. clocks: what stamped the
    frames, infrared first. left_out: recorded frames without a partner in time, infrared first. read: pairs that were
    fused. dropped: frames of both live cameras that were not fused, see `live` for the causes. steps: asked for.
    steps_ran: in how many written frames each number of steps ran. warm: how many of them started from the last one's
    estimate. written: frames that the first output wrote.
    outputs: see `Fanout.report`.
    input_notes: what the user should know of the inputs, a sentence each, and of how many pairs it is true.
    drift_px: how far both cameras have moved since they were calibrated, see `DriftWatch`; None if that is unknown.
    interrupted: a signal ended it. is_stuck: a camera, or a frame in work, did not end in time after that, and must be
    left alone. failure: what ended it after the first pair. seconds: of the loop. first_frame_s: from the start of the
    process until the first frame was written.
    live: makes what `as_dict` says of live cameras, see `LivePairs.as_dict`; None for recordings. degraded: pairs with
    a lost camera, by what is lost. ages: of the frames that were fused, and their skew, in nanoseconds. uncertainty: of
    the frames that tell theirs.
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
    warm: int = 0
    interrupted: bool = False
    is_stuck: bool = False
    failure: CledEdgeError | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    input_notes: Counter[str] = field(default_factory=Counter)
    drift_px: float | None = None
    latency: LatencyLog = field(default_factory=LatencyLog)
    live: Callable[[], dict[str, Any]] | None = None
    degraded: Counter[str] = field(default_factory=Counter)
    ages: SampleLog = field(default_factory=SampleLog)
    uncertainty: LevelLog = field(default_factory=LevelLog)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types; latencies in milliseconds. Any thread may ask while the run is on."""
        kept_out = ("latency", "failure", "is_stuck", "live", "degraded", "ages", "uncertainty")
        values = {name: value for name, value in vars(self).items() if name not in kept_out}
        rate_hz = self.written / self.seconds if self.seconds else 0.0
        return {
            **values,
            "steps_ran": {str(steps): count for steps, count in sorted(dict(self.steps_ran).items())},
            "input_notes": dict(self.input_notes),
            "failure": str(self.failure) if self.failure else None,
            "size": list(self.size),
            "rate_hz": round(rate_hz, 2),
            "latency_ms": self.latency.summary_ms(),
            "uncertainty_levels": self.uncertainty.as_dict(),
            "live": self._live_dict(),
        }

    def _live_dict(self) -> dict[str, Any] | None:
        if self.live is None:
            return None
        ages = self.ages.summary_ms()
        return {
            **self.live(),
            "degraded": dict(self.degraded),
            "age_ms": {name: ages[name] for name in ("infrared", "visible") if name in ages},
            "skew_ms": ages.get("skew"),
        }

    def count_fused(self, frame: FusedFrame) -> None:
        """Count what was fused: its notes, what is degraded, its ages and its skew without a sign."""
        self.read += 1
        self.input_notes.update(frame.notes)
        if frame.uncertainty is not None:
            self.uncertainty.add(frame.uncertainty)
        if frame.degraded:
            self.degraded[frame.degraded] += 1
        skew_ns = None if frame.skew_ns is None else abs(frame.skew_ns)
        samples = {"infrared": frame.infrared_age_ns, "visible": frame.visible_age_ns, "skew": skew_ns}
        self.ages.add({name: value for name, value in samples.items() if value is not None})

    def count_written(self, frame: FusedFrame, write_ns: int) -> None:
        """Count and time a frame that the first output wrote."""
        self.latency.add({**frame.latency_ns, "write": write_ns})
        self.written += 1
        self.warm += frame.warm
        self.steps_ran[frame.controls.steps or 0] += 1
        self.size = (frame.picture.shape[0], frame.picture.shape[1])
        if self.first_frame_s is None:
            self.first_frame_s = round(process_age_s(), 3)
