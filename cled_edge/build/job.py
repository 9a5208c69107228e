"""What the parent writes for the child that builds, and what the child answers: files in a folder of their own.

From the parent: job.json, graph.onnx, the inputs of each trial and, if there is one, timing.cache. From the child:
plan.engine, timing.cache, the outputs of each trial and, last, result.json.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cled_edge.backend.tensorrt.build_options import BuildOptions
from cled_edge.backend.tensorrt.build_record import Layers, ReadBack
from cled_edge.bundle.manifest import GraphSpec

TRIAL, ANSWER = "trial{}.safetensors", "answer{}.safetensors"
JOB, GRAPH, TIMINGS, PLAN, RESULT = "job.json", "graph.onnx", "timing.cache", "plan.engine", "result.json"


class Job(BaseModel):
    """What to build.

    builds: how many to make; the fastest is kept. trials: how many to run the engine in. binding: to CUDA. log: a file
    that all TensorRT says is added to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: GraphSpec
    options: BuildOptions
    builds: int
    trials: int = 0
    binding: str = "cuda"
    log: Path | None = None


class Result(BaseModel):
    """tensorrt: the version that built. medians_ms: of each build, if several. launched: how, in each trial."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensorrt: str
    strongly_typed: bool
    read_back: ReadBack
    layers: Layers | None
    medians_ms: tuple[float, ...]
    launched: tuple[str, ...]
    build_s: float
