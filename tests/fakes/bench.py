"""What stands in for a machine in the tests of the benchmark: a clock that is told, calls that only tell it."""

from collections.abc import Callable, Sequence
from uuid import uuid4

import psutil

from cled_edge.bench.machine import describe_machine
from cled_edge.bench.record import BackendResult, BundleSpec, CameraResult, Record, RunSpec, Samples, Summary
from cled_edge.bench.scenario import Block, Sample


class FakeClock:
    """Time passes when somebody sleeps or works. others_share: of the CPU time, used by other processes."""

    def __init__(self, others_share: float = 0.0) -> None:
        self.time_ns = 0
        self.others_share = others_share

    def now_ns(self) -> int:
        return self.time_ns

    def process_ns(self) -> int:
        return 0

    def others_ns(self) -> int:
        return round(self.time_ns * (psutil.cpu_count() or 1) * self.others_share)

    def sleep_until_ns(self, time_ns: int) -> None:
        self.time_ns = max(self.time_ns, time_ns)

    spin_until_ns = sleep_until_ns


class FakeSubject:
    """Takes `call_ms`, times a factor drawn for each call."""

    def __init__(
        self,
        label: str,
        clock: FakeClock,
        call_ms: float,
        factor: Callable[[], float] = lambda: 1.0,
        log: list[str] | None = None,
    ) -> None:
        self.label = label
        self.clock = clock
        self.call_ms = call_ms
        self.factor = factor
        self.log = log

    def fuse(self) -> dict[str, int]:
        call_ns = round(self.call_ms * self.factor() * 1e6)
        self.clock.time_ns += call_ns
        if self.log is not None:
            self.log.append(self.label)
        steps_ns = call_ns * 3 // 4
        return {"steps": steps_ns, "fusion": call_ns - steps_ns}


def fake_record(
    rounds_ms: dict[str, Sequence[Sequence[float]]],
    size: tuple[int, int] = (480, 640),
    rate_hz: float | None = None,
    reasons: Sequence[str] = (),
    run_id: str | None = None,
) -> Record:
    """Return a record of these latencies: label -> rounds -> milliseconds."""
    results = [_result(label, rounds, rate_hz) for label, rounds in rounds_ms.items()]
    return Record(
        run_id=run_id or uuid4().hex,
        created_utc="2026-01-01T00:00:00+00:00",
        valid=not reasons,
        invalid_reasons=list(reasons),
        run=RunSpec(
            scenario="camera" if rate_hz else "single-stream",
            rate_hz=rate_hz,
            streams=1,
            warm_up_s=1,
            duration_s=1,
            min_samples=1,
            block_s=1,
            inputs="fake",
            size=size,
        ),
        machine=describe_machine() | {"cpu": "a fake CPU"},
        versions={"numpy": "2"},
        gauges={"peak_memory_mb": 100.0, "energy_j": None, "energy_source": None},
        others_percent=0.0,
        peaks=None,
        backends=results,
    )


def _result(label: str, rounds: Sequence[Sequence[float]], rate_hz: float | None) -> BackendResult:
    blocks, start_ns = [], 0
    for latencies in rounds:
        samples = []
        for latency_ms in latencies:
            ns = round(latency_ms * 1e6)
            samples.append(Sample(start_ns, ns, {"steps": ns // 2, "fusion": ns - ns // 2}, ns if rate_hz else None))
            start_ns += ns
        blocks.append(Block(samples, sum(s.latency_ns for s in samples)))
    columns = Samples.of(blocks, 0)
    return BackendResult(
        label=label,
        backend=f"fake {label}",
        precision="fp32",
        threads=0,
        details={},
        steps=2,
        bundle=BundleSpec(name="nano", path="bundles/nano", sha256={"unet_step.onnx": "0" * 64}),
        warm_up_ms=[1.0],
        measured_s=start_ns / 1e9,
        rate_hz=1.0,
        headline={"miss_percent": 0.5} if rate_hz else {"p90": None},
        latency_ms=Summary.of(columns.latency_ms),
        stages_ms={name: Summary.of(values) for name, values in columns.stages_ms.items()},
        camera=CameraResult.of(columns.age_ms, 0, rate_hz) if rate_hz else None,
        samples=columns,
    )
