"""Whether B is slower than A: from short blocks of both in turns, or from results that were kept."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cled_edge.bench.clock import Clock, others_percent
from cled_edge.bench.measure import busy_reasons, settle, warm_up
from cled_edge.bench.record import BackendResult, Record
from cled_edge.bench.scenario import Subject
from cled_edge.bench.stats import CONFIDENCE_PERCENT, Effect, block_log_ratios, paired_effect, unpaired_effect
from cled_edge.errors import OptionError, ResultError

BLOCK_S = 0.1
MIN_PAIRS = 12  # fewer, and the interval of their median is a guess
WARM_UP_S = 1.0
# What the median of one bundle moved between two runs on a two-core virtual machine, its neighbours being what they
# were. One run cannot show it, so it widens the interval of two.
BETWEEN_RUNS_PERCENT = 10.0
CALM_PERCENT = 5.0  # what other processes may use without a word
ABBA, BAAB = (0, 1, 1, 0), (1, 0, 0, 1)


@dataclass(frozen=True)
class Comparison:
    """B judged against A. blocks_ms: call times by block, A's and B's; block k of one ran beside block k of the other.

    notes: what a reader must know before believing the effect. invalid_reasons: why not to believe it at all.
    """

    a: str
    b: str
    effect: Effect
    blocks_ms: tuple[list[list[float]], list[list[float]]]
    notes: list[str] = field(default_factory=list)
    invalid_reasons: list[str] = field(default_factory=list)

    @property
    def medians_ms(self) -> tuple[float, float]:
        """Return the median call of A and of B."""
        a_ms, b_ms = (float(np.median(np.concatenate(blocks))) for blocks in self.blocks_ms)
        return a_ms, b_ms

    def sentence(self) -> str:
        """Return the verdict in a line."""
        e = self.effect
        interval = f"{CONFIDENCE_PERCENT:g} % interval {e.low_percent:+.1f} to {e.high_percent:+.1f} %"
        if e.verdict == "no difference":
            return f"no difference: B's time is {e.percent:+.1f} % of A's, {interval}, margin {e.margin_percent:g} %"
        return f"B is {e.verdict} than A by {abs(e.percent):.1f} %, {interval}, margin {e.margin_percent:g} %"

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        a_ms, b_ms = self.medians_ms
        return {
            "a": self.a,
            "b": self.b,
            **vars(self.effect),
            "resolved": self.effect.resolved,
            "confidence_percent": CONFIDENCE_PERCENT,
            "a_median_ms": round(a_ms, 3),
            "b_median_ms": round(b_ms, 3),
            "notes": self.notes,
            "invalid_reasons": self.invalid_reasons,
            "a_blocks_ms": self.blocks_ms[0],
            "b_blocks_ms": self.blocks_ms[1],
        }


@dataclass
class DelayedSubject:
    """A subject made slower on purpose, by a share of each call's own time: a test of the instrument."""

    subject: Subject
    delay_percent: float
    clock: Clock

    def __post_init__(self) -> None:
        """Say so in the label."""
        self.label = f"{self.subject.label} + {self.delay_percent:g} % delay"

    def fuse(self) -> dict[str, int]:
        """Fuse, then spin: the scheduler rewards a process that slept with a faster next call."""
        start_ns = self.clock.now_ns()
        stages = self.subject.fuse()
        now_ns = self.clock.now_ns()
        self.clock.spin_until_ns(now_ns + round((now_ns - start_ns) * self.delay_percent / 100))
        return stages


def compare_subjects(
    a: Subject,
    b: Subject,
    clock: Clock,
    *,
    duration_s: float = 20.0,
    margin_percent: float = 3.0,
    seed: int = 0,
    advance: Callable[[float], None] = lambda _: None,
) -> Comparison:
    """Measure A and B in blocks ordered ABBA or BAAB at random, and judge the ratios of neighbouring blocks.

    Two neighbours suffer what the machine does to both; that each comes first equally often cancels a drift. Goes on
    for `duration_s` seconds, or half of it if the interval is narrow by then, and at least twelve pairs.
    """
    check_margin(margin_percent)
    if not 0 < duration_s <= 86_400:
        raise OptionError(f"duration_s is {duration_s:g}; it must lie above 0 and up to 86400")
    subjects, rng = (a, b), np.random.default_rng(seed)
    call_s = max(float(np.median(warm_up(s, WARM_UP_S, clock))) / 1e9 for s in subjects)
    calls = max(1, round(BLOCK_S / call_s))
    blocks: tuple[list[list[float]], list[list[float]]] = ([], [])
    begin_ns = last_ns = clock.now_ns()
    others_ns = clock.others_ns()
    effect: Effect | None = None
    while effect is None or (last_ns - begin_ns < duration_s * 1e9 and not effect.resolved):
        for which in ABBA if rng.random() < 0.5 else BAAB:
            # Also between two blocks of one subject: all blocks must begin alike, or neighbours differ by their place.
            settle(clock)
            blocks[which].append([_timed_ms(subjects[which], clock) for _ in range(calls)])
        now_ns = clock.now_ns()
        advance((now_ns - last_ns) / 1e9)
        last_ns = now_ns
        if last_ns - begin_ns >= duration_s * 1e9 / 2 and len(blocks[0]) >= MIN_PAIRS:
            effect = paired_effect(block_log_ratios(*blocks), margin_percent, seed)
    others = others_percent(clock.others_ns() - others_ns, last_ns - begin_ns)
    return Comparison(a.label, b.label, effect, blocks, _notes(effect, others), busy_reasons(others))


def compare_results(
    a: tuple[Record, BackendResult], b: tuple[Record, BackendResult], margin_percent: float = 3.0, seed: int = 0
) -> Comparison:
    """Judge two backends of one interleaved run by its rounds; those of two runs by much wider intervals."""
    check_margin(margin_percent)
    (a_record, a_result), (b_record, b_result) = a, b
    for name in ("scenario", "rate_hz", "streams", "size"):
        of_a, of_b = getattr(a_record.run, name), getattr(b_record.run, name)
        if of_a != of_b:
            raise OptionError(f"A was measured with {name} {of_a}, B with {of_b}; compare runs of the same kind")
    rounds_a, rounds_b = a_result.samples.blocks_ms(), b_result.samples.blocks_ms()
    labels = a_result.label, b_result.label
    if a_record.run_id == b_record.run_id:
        common = sorted(rounds_a.keys() & rounds_b.keys())
        blocks = [rounds_a[k] for k in common], [rounds_b[k] for k in common]
        _check_rounds(len(common))
        effect = paired_effect(block_log_ratios(*blocks), margin_percent, seed)
        return Comparison(*labels, effect, blocks, _notes(effect, a_record.others_percent), _invalid(a_record))
    blocks = list(rounds_a.values()), list(rounds_b.values())
    _check_rounds(min(len(rounds_a), len(rounds_b)))
    logs = [np.log([float(np.median(block)) for block in found]) for found in blocks]
    effect = unpaired_effect(logs[0], logs[1], margin_percent, BETWEEN_RUNS_PERCENT, seed)
    notes = [
        "two separate runs: a noisy machine changes between them by more than small differences, so the interval is "
        f"widened by {BETWEEN_RUNS_PERCENT:g} % either way; measure both in one run to see less"
    ]
    if a_record.machine != b_record.machine:
        notes.append("the two runs are of different machines or set-ups")
    return Comparison(*labels, effect, blocks, notes, [*_invalid(a_record), *_invalid(b_record)])


def _check_rounds(rounds: int) -> None:
    if rounds < MIN_PAIRS:
        raise ResultError(f"the results share {rounds} rounds, needed {MIN_PAIRS}; measure both for longer")


def find_result(text: str) -> tuple[Record, BackendResult]:
    """Read `RESULT.json`, or one backend of it, `RESULT.json@BACKEND`."""
    path, _, backend = text.partition(".json@")
    record = Record.read(Path(f"{path}.json" if backend else path))
    labels = [result.label for result in record.backends]
    if not backend and len(labels) == 1:
        return record, record.backends[0]
    if backend not in labels:
        raise ResultError(f"{text} must name one of {', '.join(labels)}; write it as RESULT.json@{labels[0]}")
    return record, record.backends[labels.index(backend)]


def is_result(text: str) -> bool:
    """Return whether an argument of compare names a result and not something to measure."""
    return text.endswith(".json") or ".json@" in text


def check_margin(margin_percent: float) -> None:
    """Raise OptionError unless the margin is a share."""
    if not 0 <= margin_percent <= 100:
        raise OptionError(f"margin_percent is {margin_percent:g}; it must lie between 0 and 100")


def _timed_ms(subject: Subject, clock: Clock) -> float:
    start_ns = clock.now_ns()
    subject.fuse()
    return round((clock.now_ns() - start_ns) / 1e6, 3)


def _notes(effect: Effect, others: float) -> list[str]:
    notes = [f"other processes used {others:g} % of the CPU time"] if others > CALM_PERCENT else []
    if not effect.resolved:
        notes.append(
            f"the interval is wider than the margin: a difference of {effect.margin_percent:g} % might have been "
            "missed; measure for longer or calm the machine"
        )
    return notes


def _invalid(record: Record) -> list[str]:
    return [f"run {record.run_id[:8]} is invalid: {reason}" for reason in record.invalid_reasons]
