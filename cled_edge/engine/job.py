"""What the parent writes for the child that builds, and what the child answers: files in a folder of their own.

From the parent: job.json, graph.onnx and, if there is one, timing.cache. From the child: plan.engine, timing.cache
and, last, result.json.
"""

from pydantic import BaseModel, ConfigDict

from cled_edge.engine.options import BuildOptions
from cled_edge.engine.record import ReadBack
from cled_edge.manifest import GraphSpec

JOB, GRAPH, TIMINGS, PLAN, RESULT = "job.json", "graph.onnx", "timing.cache", "plan.engine", "result.json"


class Job(BaseModel):
    """builds: how many to make; the fastest is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: GraphSpec
    options: BuildOptions
    builds: int


class Result(BaseModel):
    """tensorrt: the version that built. medians_ms: of each build, if there were several."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensorrt: str
    strongly_typed: bool
    read_back: ReadBack
    medians_ms: tuple[float, ...]
    build_s: float
