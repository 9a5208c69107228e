"""The result of a run as JSON: what was measured on what, raw samples, summaries, and whether it is valid."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from cled_edge.bench.project import UNKNOWN
from cled_edge.bench.scenario import Block, ScenarioName
from cled_edge.bench.stats import PERCENTILES, percentile_name, samples_needed
from cled_edge.errors import ResultError
from cled_edge.files import read_json
from cled_edge.json_text import first_problem
from cled_edge.stage_times import STAGES

SCHEMA_VERSION = 1


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Summary(_Model):
    """Percentiles of a series in milliseconds. One that the series is too short for is null, and `missing` says why."""

    count: int
    percentiles: dict[str, float | None]
    max: float | None
    missing: dict[str, str]

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> "Summary":
        """Summarise a series."""
        series = np.asarray(values_ms, np.float64)
        table: dict[str, float | None] = {}
        missing = {}
        for percentile in PERCENTILES:
            name, needed = percentile_name(percentile), samples_needed(percentile)
            table[name] = round(float(np.percentile(series, percentile)), 3) if series.size >= needed else None
            if table[name] is None:
                missing[name] = f"needs {needed} samples, there are {series.size}"
        longest = round(float(series.max()), 3) if series.size else None
        return cls(count=series.size, percentiles=table, max=longest, missing=missing)


class Samples(_Model):
    """Raw samples in the order they were taken, one number a query in every list.

    block: the round in which it was taken; within a round every backend runs once. start_ms: since the run began.
    latency_ms: of the query. stages_ms: parts of it; `wait` comes before it. age_ms: of a camera frame when its output
    was there; empty in other scenarios.
    """

    block: list[int]
    start_ms: list[float]
    latency_ms: list[float]
    stages_ms: dict[str, list[float]]
    age_ms: list[float]

    @classmethod
    def of(cls, blocks: Sequence[Block], begin_ns: int) -> "Samples":
        """Lay samples out by column."""
        numbered = [(k, sample) for k, block in enumerate(blocks) for sample in block.samples]
        seen = {name for _, sample in numbered for name in sample.stages_ns}
        stages = [*(name for name in STAGES if name in seen), *sorted(seen - set(STAGES))]
        return cls(
            block=[k for k, _ in numbered],
            start_ms=[_ms(sample.start_ns - begin_ns) for _, sample in numbered],
            latency_ms=[_ms(sample.latency_ns) for _, sample in numbered],
            stages_ms={name: [_ms(sample.stages_ns.get(name, 0)) for _, sample in numbered] for name in stages},
            age_ms=[_ms(sample.age_ns) for _, sample in numbered if sample.age_ns is not None],
        )

    def blocks_ms(self) -> dict[int, list[float]]:
        """Return the latencies by round."""
        by_round: dict[int, list[float]] = {}
        for block, latency_ms in zip(self.block, self.latency_ms, strict=True):
            by_round.setdefault(block, []).append(latency_ms)
        return by_round


class CameraResult(_Model):
    """What became of a camera's frames. A deadline is one period after a frame is there.

    offered = taken + skipped; missed = taken but late + skipped. age_ms: of the taken ones.
    """

    offered: int
    skipped: int
    late: int
    miss_percent: float
    age_ms: Summary

    @classmethod
    def of(cls, ages_ms: list[float], skipped: int, rate_hz: float) -> "CameraResult":
        """Count."""
        late = sum(age_ms > 1e3 / rate_hz for age_ms in ages_ms)
        offered = len(ages_ms) + skipped
        miss_percent = round(100 * (late + skipped) / offered, 3)
        return cls(offered=offered, skipped=skipped, late=late, miss_percent=miss_percent, age_ms=Summary.of(ages_ms))


class BundleSpec(_Model):
    """Which bundle: its name, folder, and the SHA-256 of every file."""

    name: str
    path: str
    sha256: dict[str, str]


class BackendResult(_Model):
    """One bundle on one backend. rate_hz: pairs a second while it ran. headline: what the scenario is judged by.

    threads: as asked for, 0 is the backend's choice. details: what the backend itself tells, such as its settings.
    """

    label: str
    backend: str
    precision: str
    threads: int
    details: dict[str, Any]
    steps: int
    bundle: BundleSpec
    warm_up_ms: list[float]
    measured_s: float
    rate_hz: float
    headline: dict[str, float | None]
    latency_ms: Summary
    stages_ms: dict[str, Summary]
    camera: CameraResult | None
    samples: Samples


class RunSpec(_Model):
    """What was asked for. warm_up_s and duration_s: of each backend, without the pauses between blocks."""

    scenario: ScenarioName
    rate_hz: float | None
    streams: int
    warm_up_s: float
    duration_s: float
    min_samples: int
    block_s: float
    inputs: str
    size: tuple[int, int]


class Record(_Model):
    """A run: several backends on the same pairs, interleaved. gauges: of the whole process, all backends together.

    commit: the project's in git, with `-dirty` if files differ from it; `unknown` where there is no git.
    others_percent: share of the machine's CPU time that went to other processes, warm-up included.
    """

    schema_version: Literal[1] = 1
    kind: Literal["cled-edge bench"] = "cled-edge bench"
    run_id: str
    created_utc: str
    commit: str = UNKNOWN
    valid: bool
    invalid_reasons: list[str]
    run: RunSpec
    machine: dict[str, Any]
    versions: dict[str, str]
    gauges: dict[str, Any]
    others_percent: float
    peaks: dict[str, Any] | None
    backends: list[BackendResult]

    def to_json(self) -> str:
        """Return indented JSON with every list of numbers on one line."""
        text = json.dumps(self.model_dump(mode="json"), indent=1)
        return re.sub(r"\[[\s\d.,eE+-]*\]", lambda found: " ".join(found[0].split()), text) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read a result; ResultError if the file is not one."""
        values = read_json(path)
        if values.get("kind") != "cled-edge bench":
            raise ResultError(f"{path} is not a result; give a file that cled-edge bench wrote")
        if values.get("schema_version") != SCHEMA_VERSION:
            version = values.get("schema_version")
            raise ResultError(
                f"{path} has schema version {version!r}, needed {SCHEMA_VERSION}; measure again with this cled-edge"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ResultError(f"{path}: {first_problem(error)}; measure again") from error


def _ms(time_ns: int) -> float:
    return round(time_ns / 1e6, 3)
