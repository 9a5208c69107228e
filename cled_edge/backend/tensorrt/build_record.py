"""What is known of an engine: the sidecar `<graph>-<key>.build.json` beside its plan."""

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cled_edge.backend.tensorrt.build_options import RECIPE, BuildOptions, canonical_json
from cled_edge.backend.tensorrt.device import DeviceFacts
from cled_edge.bundle.manifest import GraphPrecision, Verdict
from cled_edge.contract import GraphRole
from cled_edge.size import Size

# 1 had no trials: its engines were never run before they were kept. 2 took every Orin for the same.
RECORD_VERSION: Literal[3] = 3
MAX_LAYERS_BYTES = 2**19  # of JSON: sidecars are read whenever a backend opens, and MAX_JSON_BYTES at most

Layers = tuple[dict[str, Any] | str, ...]  # as the EngineInspector of each release tells them, or their names


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorReadBack(_Model):
    """An input or output as the engine has it. A side of -1 is chosen at run time; `profile` is min, opt, max then."""

    name: str
    mode: Literal["input", "output"]
    dtype: str
    shape: tuple[int, ...]
    profile: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None


class ReadBack(_Model):
    """What the engine said of itself after it was built. Nothing in it is what was asked for."""

    tensors: tuple[TensorReadBack, ...]
    profiles: int
    device_memory_bytes: int
    aux_streams: int | None
    hardware_compatibility: str | None


class PlanSpec(_Model):
    """Size and hash of the plan, checked before anybody deserialises it."""

    bytes: int = Field(gt=0)
    sha256: str = Field(pattern="[0-9a-f]{64}")


class GraphFacts(_Model):
    """Which graph of which bundle was built."""

    name: str
    bundle: str
    role: GraphRole
    precision: GraphPrecision
    opset: int
    sha256: str = Field(pattern="[0-9a-f]{64}")


class TrialRecord(_Model):
    """How the engine did in a trial at one size: its worst output. launched: as one CUDA graph, or why not."""

    size: Size
    tensor: str
    psnr_db: float
    needed_db: float
    verdict: Verdict
    launched: str


class BuildRecord(_Model):
    """`build.json`: all that an engine was built from, for and with.

    recipe: `RECIPE` when it was built. layers: what TensorRT's EngineInspector tells of each, or their names alone
    where that takes over `MAX_LAYERS_BYTES`; None if it told nothing that can be read.
    strongly_typed: the precision is the graph's own; False is TensorRT 8.6, where FP16 is a permission to the builder.
    timing_cache_bytes: how much of an earlier builds' timings it began with. medians_ms: of each build, if several
    were timed; the fastest is kept. trials: at each size of a profile, all passed.
    """

    record_version: Literal[3]
    created_by: str
    key: str = Field(pattern="[0-9a-f]{64}")
    graph: GraphFacts
    facts: DeviceFacts
    options: BuildOptions
    plan: PlanSpec
    read_back: ReadBack
    recipe: int
    layers: Layers | None
    trials: tuple[TrialRecord, ...] = Field(min_length=1)
    strongly_typed: bool
    build_s: float
    timing_cache_bytes: int
    medians_ms: tuple[float, ...] = ()


def engine_key(graph_sha256: str, options: BuildOptions, facts: DeviceFacts, recipe: int = RECIPE) -> str:
    """Return the SHA-256 of all that decides whether an engine may run here for this graph, in hexadecimal."""
    values: dict[str, object] = {"graph": graph_sha256, "recipe": recipe}
    values |= {"options": options.key_values(), "facts": facts.key_values()}
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()
