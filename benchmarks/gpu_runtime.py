"""The forms that need no torch: TensorRT by one CUDA graph or launch by launch, and ONNX Runtime on CUDA."""

from functools import partial
from typing import Any

from benchmarks.gpu_bars import STREAM
from benchmarks.gpu_frame import Form, Frame
from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.opener import open_backend
from cled_edge.backend.tensorrt.build_options import BuildOptions
from cled_edge.backend.tensorrt.capabilities import capabilities
from cled_edge.backend.tensorrt.device import read_facts
from cled_edge.backend.tensorrt.launch import ONE_GRAPH
from cled_edge.backend.tensorrt.run_options import CudaOptions
from cled_edge.backend.tensorrt.runner import TensorRtBackend
from cled_edge.backend.tensorrt.sdk import import_tensorrt
from cled_edge.backend.tensorrt.store import current_record, default_folder
from cled_edge.build.builder import build_engine
from cled_edge.bundle.manifest import OPSETS
from cled_edge.errors import BackendError


def engine(frame: Frame) -> dict[str, Any]:
    """Build the engine of a frame if it is not there yet; return its row, of its sidecar."""
    newest = capabilities(import_tensorrt()).newest_opset
    opsets = [opset for opset in sorted(OPSETS, reverse=True) if newest is None or opset <= newest]
    facts, folder, options = read_facts(), default_folder(), BuildOptions(size=frame.size)
    graph = frame.loop(opsets)
    record = current_record(frame.bundle, graph, options, facts, folder)
    if record is None:
        print(f"building {graph} of {frame.bundle.manifest.name} ...", flush=True)
        record = build_engine(frame.bundle, graph, options, facts, folder)
    return {
        "preset": frame.bundle.manifest.name,
        "graph": graph,
        "size": list(frame.size),
        "tensorrt": record.facts.tensorrt,
        "engine_mb": round(record.plan.bytes / 1e6, 2),
        "device_mb": round(record.read_back.device_memory_bytes / 1e6, 2),
        "build_s": record.build_s,
        "psnr_db": min(trial.psnr_db for trial in record.trials),
    }


def open_tensorrt(frame: Frame, cuda_graph: bool) -> Form:
    """Return the runner on engines that are there; what is read and written is page-locked memory."""
    backend = TensorRtBackend(
        frame.bundle, BackendChoice("tensorrt", "fp16"), options=CudaOptions(graphs=cuda_graph, timed=True)
    )
    try:
        graph = frame.loop(backend.opsets)
        arrays = backend.pinned_inputs(graph, frame.size)
        for name, value in frame.inputs.items():
            arrays[name][...] = value
        call = partial(backend.run, graph, arrays)
        call()
        (said,) = backend.details["cuda_graph"].values()
        if cuda_graph and said != ONE_GRAPH:
            raise BackendError(f"no CUDA graph could be made: {said}; its time is that of the form {STREAM}")
    except BaseException:
        backend.close()
        raise
    facts = {"device_mb": round(backend.details["arena_bytes"] / 1e6, 2)}
    return Form(
        call, lambda: backend.details["gpu_ms"], lambda: said, str(backend.details["sdk"]), facts, backend.close
    )


def open_loop(frame: Frame) -> tuple[TensorRtBackend, str]:
    """Return the runner and the name of a frame's loop, an engine of which is built if it is not there."""
    engine(frame)
    backend = TensorRtBackend(frame.bundle, BackendChoice("tensorrt", "fp16"))
    return backend, frame.loop(backend.opsets)


def open_onnxruntime(frame: Frame) -> Form:
    """Return ONNX Runtime on CUDA, which copies from and to pageable memory and tells no time of the GPU's."""
    backend = open_backend(BackendChoice("onnxruntime-cuda", "fp16"), frame.bundle)
    try:
        call = partial(backend.run, frame.loop((OPSETS[0],)), frame.inputs)
        call()
    except BaseException:
        backend.close()
        raise
    how = partial(", ".join, dict.fromkeys(backend.details["providers"].values()))
    return Form(call, lambda: None, how, str(backend.details["sdk"]), {}, backend.close)
