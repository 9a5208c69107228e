"""How long an engine takes, to keep the fastest of several builds."""

import time
from statistics import median
from typing import Any

from cled_edge.backend.tensorrt.build_options import BuildOptions
from cled_edge.backend.tensorrt.cuda import Cuda
from cled_edge.backend.tensorrt.engine import BoundEngine, TensorRt, allocated
from cled_edge.bundle.manifest import GraphSpec

WARM_UPS, RUNS = 10, 50


def median_ms(cuda: Cuda, tensorrt: TensorRt, engine: Any, spec: GraphSpec, options: BuildOptions) -> float:
    """Return the median time of a run at the size that the engine is fastest at, on zeros, without copies.

    BackendError if TensorRT refuses to run it.
    """
    stream = cuda.stream()
    arena = allocated(cuda, (max(tensorrt.arena_size(engine), 1),), "uint8")
    try:
        bound = BoundEngine(tensorrt, cuda, engine, spec.file, spec, options.sizes.opt, arena)
        try:
            return _timed_ms(cuda, bound, stream)
        finally:
            bound.close()
    finally:
        cuda.free(arena.address)
        cuda.destroy_stream(stream)


def _timed_ms(cuda: Cuda, bound: BoundEngine, stream: Any) -> float:
    for tensor in bound.inputs.values():
        zeros = cuda.pinned(tensor.size)
        zeros[:] = 0
        cuda.upload(tensor.address, zeros, stream)
        cuda.synchronise(stream)
    times_ms = []
    for _ in range(WARM_UPS + RUNS):
        begin = time.perf_counter()
        bound.enqueue(cuda.handle(stream))
        cuda.synchronise(stream)
        times_ms.append((time.perf_counter() - begin) * 1e3)
    return round(median(times_ms[WARM_UPS:]), 3)
