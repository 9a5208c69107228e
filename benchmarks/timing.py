"""Interleaved timing of calls, random inputs for a graph, and the JSON file that keeps a result."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cled_edge.bench.machine import describe_machine, library_versions, machine_slug
from cled_edge.errors import OptionError

RESULTS = Path(__file__).parent / "results"
Key = TypeVar("Key")


def timed_rounds(
    calls: Mapping[Key, Callable[[], object]],
    rounds: int,
    limit_s: float = float("inf"),
    discarded: int = 0,
    clock_s: Callable[[], float] = time.perf_counter,
) -> dict[Key, list[float]]:
    """Time every call once a round, so that other load disturbs all alike; return the samples in milliseconds.

    A round that is not kept goes before. After the first kept round, none begins once `limit_s` are over.
    `discarded` calls precede each timed one: after another call's turn its data are out of the caches, and the other's
    threads may still spin.
    """
    samples_ms: dict[Key, list[float]] = {key: [] for key in calls}
    began_s = clock_s()
    for index in range(rounds + 1):
        if index > 1 and clock_s() - began_s > limit_s:
            break
        for key, call in calls.items():
            for _ in range(discarded if index else 0):
                call()
            start_s = clock_s()
            call()
            if index:
                samples_ms[key].append(round((clock_s() - start_s) * 1e3, 4))
    return samples_ms


def percentiles_ms(samples_ms: Sequence[float] | np.ndarray[Any, Any]) -> dict[str, float]:
    """Return p50, p90 and p99."""
    return {f"p{p}": round(float(np.percentile(samples_ms, p)), 4) for p in (50, 90, 99)}


def write_result(kind: str, values: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write `values`, with the machine and the versions, to `<kind>-<machine>.json`; return the file."""
    machine = describe_machine()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{machine_slug(machine)}.json"
    content = {"machine": machine, "versions": library_versions(), **values}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path}")
    return path


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as `1,2,3`; anything else is an OptionError that names the option."""
    parts = text.split(",")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise OptionError(f"{option} is {text!r}; it must list whole numbers above 0, such as 1,2,3")
    return tuple(int(part) for part in parts)
