"""How calls arrive, after MLPerf inference (single-stream, multi-stream, offline), and from a camera on a clock."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, Protocol

from cled_edge.bench.clock import Clock
from cled_edge.errors import OptionError

ScenarioName = Literal["single-stream", "multi-stream", "offline", "camera"]
SCENARIOS: tuple[ScenarioName, ...] = ("single-stream", "multi-stream", "offline", "camera")
# What a scenario is judged by: a percentile of the latency, or a value of the result.
HEADLINES = {"single-stream": "p90", "multi-stream": "p99", "offline": "rate_hz", "camera": "miss_percent"}


def scenario_name(text: str) -> ScenarioName:
    """Return the text as a scenario's name; OptionError if it is none."""
    for name in SCENARIOS:
        if text == name:
            return name
    raise OptionError(f"scenario {text!r} is unknown; known: {', '.join(SCENARIOS)}")


class Subject(Protocol):
    """What is timed."""

    label: str

    def fuse(self) -> dict[str, int]:
        """Take the next pair, fuse it, and return nanoseconds by stage."""
        ...


@dataclass(frozen=True)
class Sample:
    """One query: when it began, how long it took, and its stages. age_ns: of the frame when its output was there."""

    start_ns: int
    latency_ns: int
    stages_ns: dict[str, int]
    age_ns: int | None = None


@dataclass(frozen=True)
class Block:
    """Queries of one subject in a row. skipped: camera frames that a newer one overtook before they were taken."""

    samples: list[Sample]
    span_ns: int
    skipped: int = 0


@dataclass(frozen=True)
class Scenario:
    """How queries are made; OptionError for what does not fit.

    rate_hz: of the camera. streams: pairs in a query of multi-stream, fused one after the other.
    """

    name: ScenarioName
    rate_hz: float | None = None
    streams: int = 1

    def __post_init__(self) -> None:
        """Refuse options of another scenario and values outside their ranges."""
        if (self.rate_hz is not None) != (self.name == "camera"):
            raise OptionError(f"rate_hz is {self.rate_hz} in scenario {self.name}; camera, and only camera, needs one")
        if self.rate_hz is not None and not 0 < self.rate_hz <= 1000:
            raise OptionError(f"rate_hz is {self.rate_hz:g}; it must lie above 0 and up to 1000")
        if self.streams < 1 or (self.streams > 1 and self.name != "multi-stream"):
            raise OptionError(
                f"streams is {self.streams} in scenario {self.name}; it is 1, or more pairs a query in multi-stream"
            )

    @property
    def block_s(self) -> float:
        """How long one subject runs before another takes its turn: short, so that a noisy neighbour hits all alike."""
        return 2.0 if self.name == "camera" else 1.0

    def block(self, subject: Subject, clock: Clock, span_ns: int) -> Block:
        """Make queries for `span_ns`, at least one."""
        if self.rate_hz is not None:
            return _camera_block(subject, clock, span_ns, round(1e9 / self.rate_hz))
        return _back_to_back(subject, clock, span_ns, self.streams)


def _back_to_back(subject: Subject, clock: Clock, span_ns: int, streams: int) -> Block:
    """Begin each query when the last one has ended."""
    begin_ns = now_ns = clock.now_ns()
    samples: list[Sample] = []
    while not samples or now_ns - begin_ns < span_ns:
        start_ns, stages = now_ns, Counter[str]()
        for _ in range(streams):
            stages.update(subject.fuse())
        now_ns = clock.now_ns()
        samples.append(Sample(start_ns, now_ns - start_ns, dict(stages)))
    return Block(samples, now_ns - begin_ns)


def _camera_block(subject: Subject, clock: Clock, span_ns: int, period_ns: int) -> Block:
    """Take the newest frame of a camera that exposes one every period, whether or not anybody is free to take it.

    Frame k is there at k periods, and its age counts from then on: a stall makes the frames behind it old as well.
    """
    begin_ns = clock.now_ns()
    samples: list[Sample] = []
    last, skipped = -1, 0
    while True:
        free_ns = clock.now_ns()
        newest = max((free_ns - begin_ns) // period_ns, last + 1)
        there_ns = begin_ns + newest * period_ns
        if samples and there_ns - begin_ns >= span_ns:
            return Block(samples, max(free_ns, there_ns) - begin_ns, skipped)
        skipped += newest - last - 1
        last = newest
        clock.sleep_until_ns(there_ns)
        start_ns = clock.now_ns()
        stages = subject.fuse()
        done_ns = clock.now_ns()
        # The wait is on the camera, not on us: it is shown, but no part of the latency.
        wait_ns = max(0, there_ns - free_ns)
        samples.append(Sample(start_ns, done_ns - start_ns, {"wait": wait_ns, **stages}, done_ns - there_ns))
