"""A run: several backends on the same pairs, in short alternating blocks, until each has enough samples."""

import datetime
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cled_edge.backend.facts import details
from cled_edge.bench.clock import Clock, SystemClock, others_percent
from cled_edge.bench.machine import Monitor, describe_machine, library_versions
from cled_edge.bench.project import project_commit
from cled_edge.bench.record import (
    BackendResult,
    BundleSpec,
    CameraResult,
    Record,
    RunSpec,
    Samples,
    Summary,
)
from cled_edge.bench.scenario import HEADLINES, Block, Scenario, Subject
from cled_edge.bench.stats import samples_needed
from cled_edge.bench.subject import FuserSubject
from cled_edge.errors import OptionError

SETTLE_STEP_S, SETTLE_STEPS, SETTLED_SHARE = 0.005, 60, 0.2
WARM_UP_CALLS = 3
BUSY_PERCENT = 10.0  # of all CPU time: what other processes may use at most
PATIENCE = 4  # a run that lacks samples goes on up to so many times its duration


@dataclass(frozen=True)
class Budget:
    """How long to measure each subject; OptionError for values outside their ranges."""

    scenario: Scenario
    duration_s: float = 20.0
    warm_up_s: float = 2.0
    min_samples: int = 50

    def __post_init__(self) -> None:
        """Refuse a run that would measure nothing."""
        if not 0 < self.duration_s <= 86_400:
            raise OptionError(f"duration_s is {self.duration_s:g}; it must lie above 0 and up to 86400")
        if not 0 <= self.warm_up_s <= 3600:
            raise OptionError(f"warm_up_s is {self.warm_up_s:g}; it must lie between 0 and 3600")
        if self.min_samples < 1:
            raise OptionError(f"min_samples is {self.min_samples}; it must be 1 or more")

    @property
    def needed_samples(self) -> int:
        """Return how many samples each subject needs: the headline's percentile may need more than was asked for."""
        # A camera is judged by whether it misses 1 % of its deadlines, which also takes a hundred frames.
        percentile = {"p90": 90.0, "p99": 99.0, "miss_percent": 99.0}.get(HEADLINES[self.scenario.name], 0.0)
        return max(self.min_samples, samples_needed(percentile))


@dataclass
class Measured:
    """What one subject gave."""

    warm_up_ns: list[int]
    blocks: list[Block]

    @property
    def span_ns(self) -> int:
        """Return the measured time."""
        return sum(block.span_ns for block in self.blocks)

    @property
    def count(self) -> int:
        """Return the measured queries."""
        return sum(len(block.samples) for block in self.blocks)


def measure(
    subjects: Sequence[Subject],
    budget: Budget,
    clock: Clock,
    rng: np.random.Generator,
    advance: Callable[[float], None] = lambda _: None,
) -> list[Measured]:
    """Warm up each subject, then let all take turns in random order, a block each, until each has enough.

    Enough is the budget's duration and samples, or PATIENCE times the duration. `advance` is told seconds measured.
    """
    measured = [Measured(warm_up(subject, budget.warm_up_s, clock), []) for subject in subjects]
    running: Subject = subjects[-1]
    block_ns = round(min(budget.scenario.block_s, budget.duration_s) * 1e9)
    while any(not _enough(m, budget) for m in measured):
        for k in rng.permutation(len(subjects)):
            if subjects[k] is not running:
                settle(clock)
                subjects[k].fuse()  # does not count: it fills the caches
                running = subjects[k]
            block = budget.scenario.block(subjects[k], clock, block_ns)
            measured[k].blocks.append(block)
            advance(block.span_ns / 1e9)
    return measured


def warm_up(subject: Subject, warm_up_s: float, clock: Clock) -> list[int]:
    """Call for `warm_up_s` seconds, three times at least; return the times in nanoseconds."""
    begin_ns = now_ns = clock.now_ns()
    times_ns: list[int] = []
    while len(times_ns) < WARM_UP_CALLS or now_ns - begin_ns < warm_up_s * 1e9:
        subject.fuse()
        start_ns, now_ns = now_ns, clock.now_ns()
        times_ns.append(now_ns - start_ns)
    return times_ns


def settle(clock: Clock) -> None:
    """Wait, 0.3 s at most, until the last subject's threads sleep.

    Those of ONNX Runtime 1.32 spin for 50 ms after a call and take a core from whoever runs next: on two cores a call
    of 130 ms took 190 ms right after one of another session.
    """
    for _ in range(SETTLE_STEPS):
        start_ns, used_ns = clock.now_ns(), clock.process_ns()
        clock.sleep_until_ns(start_ns + round(SETTLE_STEP_S * 1e9))
        if clock.process_ns() - used_ns < SETTLED_SHARE * SETTLE_STEP_S * 1e9:
            return


def _enough(measured: Measured, budget: Budget) -> bool:
    duration_ns = budget.duration_s * 1e9
    return measured.span_ns >= duration_ns and (
        measured.count >= budget.needed_samples or measured.span_ns >= PATIENCE * duration_ns
    )


def bench(
    subjects: Sequence[FuserSubject],
    budget: Budget,
    peaks: dict[str, Any] | None = None,
    advance: Callable[[float], None] = lambda _: None,
    seed: int = 0,
) -> Record:
    """Measure and return the record."""
    clock = SystemClock()
    begin_ns, others_ns = clock.now_ns(), clock.others_ns()
    with Monitor() as monitor:
        measured = measure(subjects, budget, clock, np.random.default_rng(seed), advance)
    others = others_percent(clock.others_ns() - others_ns, clock.now_ns() - begin_ns)
    report = monitor.report()
    reasons = [*_shortages(subjects, measured, budget), *busy_reasons(others)]
    if report["throttled"]:
        reasons.append(f"the machine was throttled: {report['throttle_reason']}")
    return Record(
        run_id=uuid.uuid4().hex,
        created_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        commit=project_commit(),
        valid=not reasons,
        invalid_reasons=reasons,
        run=_run_spec(subjects[0], budget),
        machine=describe_machine(),
        versions=library_versions(),
        gauges=report,
        others_percent=others,
        peaks=peaks,
        backends=[_result(s, m, budget, begin_ns) for s, m in zip(subjects, measured, strict=True)],
    )


def busy_reasons(others: float) -> list[str]:
    """Return why a run is invalid during which other processes used this share of the CPU time, in percent."""
    if others <= BUSY_PERCENT:
        return []
    seen = f"other processes used {others:g} % of the CPU time"
    return [f"{seen}, needed {BUSY_PERCENT:g} % at most; end them and measure again"]


def _shortages(subjects: Sequence[Subject], measured: Sequence[Measured], budget: Budget) -> list[str]:
    needed = budget.needed_samples
    return [
        f"{subject.label} has {m.count} samples, needed {needed}; measure for longer"
        for subject, m in zip(subjects, measured, strict=True)
        if m.count < needed
    ]


def _run_spec(subject: FuserSubject, budget: Budget) -> RunSpec:
    return RunSpec(
        scenario=budget.scenario.name,
        rate_hz=budget.scenario.rate_hz,
        streams=budget.scenario.streams,
        warm_up_s=budget.warm_up_s,
        duration_s=budget.duration_s,
        min_samples=budget.needed_samples,
        block_s=budget.scenario.block_s,
        inputs=subject.feed.name,
        size=subject.feed.size,
    )


def _result(subject: FuserSubject, measured: Measured, budget: Budget, begin_ns: int) -> BackendResult:
    """Summarise one subject."""
    scenario, fuser = budget.scenario, subject.fuser
    samples = Samples.of(measured.blocks, begin_ns)
    latency = Summary.of(samples.latency_ms)
    rate_hz = round(measured.count * scenario.streams / (measured.span_ns / 1e9), 3)
    camera = None
    if scenario.rate_hz is not None:
        camera = CameraResult.of(samples.age_ms, sum(block.skipped for block in measured.blocks), scenario.rate_hz)
    manifest = fuser.bundle.manifest
    values = {**latency.percentiles, "rate_hz": rate_hz, "miss_percent": camera.miss_percent if camera else None}
    headline = HEADLINES[scenario.name]
    return BackendResult(
        label=subject.label,
        backend=fuser.backend.description,
        precision=fuser.backend.choice.precision or "",
        threads=subject.threads,
        details=details(fuser.backend.facts, fuser.backend.runs),
        steps=subject.controls.steps or manifest.schedule.default_steps,
        bundle=BundleSpec(
            name=manifest.name,
            path=str(fuser.bundle.path),
            sha256=manifest.hashes,
        ),
        warm_up_ms=[round(time_ns / 1e6, 3) for time_ns in measured.warm_up_ns],
        measured_s=round(measured.span_ns / 1e9, 3),
        rate_hz=rate_hz,
        headline={headline: values[headline]},
        latency_ms=latency,
        stages_ms={name: Summary.of(values_ms) for name, values_ms in samples.stages_ms.items()},
        camera=camera,
        samples=samples,
    )
