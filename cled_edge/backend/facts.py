"""What a backend is and what its graphs did: typed here, and written here as results and reports have it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NOTED = {
    "engines": "engine",
    "cuda_graph": "CUDA graph",
    "providers": "providers",
}  # entries of details that reports show, by graph


@dataclass(frozen=True)
class BackendFacts:
    """What a backend is.

    sdk: the SDK and its version. device: CPU or GPU, with its name where the SDK tells it. threads: of the CPU, None
    for a device that has none or before it is known. cuda: the binding to CUDA. chosen: why a measurement took this
    backend, None if it was named.
    """

    sdk: str
    device: str
    precision: str
    threads: int | None = None
    cuda: str | None = None
    chosen: str | None = None


@dataclass
class RunFacts:
    """What the graphs of a backend did; it fills as they run.

    cache: by graph, "read" if a file spared work, "written" or "built" if one is there now, or why none was written.
    engines: by graph and size, the file of the engine and how it was built apart from the usual. cuda_graph: by launch,
    whether it is one CUDA graph, and if not, why. providers: by graph, what ONNX Runtime runs it on. gpu_ms: the last
    frame's time on the GPU, where it is timed. arena_bytes: activation memory that engines share.
    """

    cache: dict[str, str] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    cuda_graph: dict[str, str] = field(default_factory=dict)
    providers: dict[str, str] = field(default_factory=dict)
    gpu_ms: float | None = None
    arena_bytes: int | None = None


def details(facts: BackendFacts, runs: RunFacts) -> dict[str, Any]:
    """Return both as the JSON of a result has them; what does not apply is left out."""
    always = {
        "sdk": facts.sdk,
        "device": facts.device,
        "precision": facts.precision,
        "threads": facts.threads,
        "cache": dict(runs.cache),
    }
    others: dict[str, Any] = {
        "auto": facts.chosen,
        "cuda": facts.cuda,
        "engines": dict(runs.engines),
        "cuda_graph": dict(runs.cuda_graph),
        "providers": dict(runs.providers),
        "gpu_ms": runs.gpu_ms,
        "arena_bytes": runs.arena_bytes,
    }
    return {**always, **{name: value for name, value in others.items() if value not in (None, {})}}


def notes(details: Mapping[str, Any]) -> list[str]:
    """Return a line for each graph that ran, of `details`; none on a CPU."""
    return [f"{word}: {graph}: {said}" for key, word in NOTED.items() for graph, said in details.get(key, {}).items()]
