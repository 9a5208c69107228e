"""How long an engine takes, to keep the fastest of several builds."""

import time
from statistics import median
from typing import Any

import numpy as np

from cled_edge.backend.tensorrt.build_options import BuildOptions, tensor_shape
from cled_edge.backend.tensorrt.sdk import cuda_call
from cled_edge.bundle.manifest import GraphSpec
from cled_edge.errors import EngineError

WARM_UPS, RUNS = 10, 50


def median_ms(cuda: Any, engine: Any, spec: GraphSpec, options: BuildOptions) -> float:
    """Return the median time of a run at the size that the engine is fastest at, on zeros, without copies."""
    context = engine.create_execution_context()
    if context is None:
        raise EngineError(f"no execution context of {spec.file} could be made; free memory of the GPU, or see its log")
    size = options.sizes.opt
    stream = cuda_call(cuda, "cudaStreamCreate")
    buffers = []
    try:
        for tensor in (*spec.inputs, *spec.outputs):
            shape = tensor_shape(spec, tensor.shape, size)
            nbytes = int(np.prod(shape)) * np.dtype(tensor.dtype).itemsize
            buffers.append(cuda_call(cuda, "cudaMalloc", nbytes))
            cuda_call(cuda, "cudaMemset", buffers[-1], 0, nbytes)
            if tensor in spec.inputs and not context.set_input_shape(tensor.name, shape):
                raise EngineError(f"the engine of {spec.file} refuses {tensor.name} of shape {list(shape)}")
            if not context.set_tensor_address(tensor.name, int(buffers[-1])):
                raise EngineError(f"the engine of {spec.file} refuses an address for {tensor.name}")
        times_ms = []
        for _ in range(WARM_UPS + RUNS):
            begin = time.perf_counter()
            if not context.execute_async_v3(int(stream)):
                raise EngineError(f"the engine of {spec.file} did not run; see its log")
            cuda_call(cuda, "cudaStreamSynchronize", stream)
            times_ms.append((time.perf_counter() - begin) * 1e3)
        return round(median(times_ms[WARM_UPS:]), 3)
    finally:
        for buffer in buffers:
            cuda.cudaFree(buffer)
        cuda.cudaStreamDestroy(stream)
