"""ONNX Runtime on the CPU: the backend that is always there."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cled_edge.bundle import Bundle
from cled_edge.errors import BackendError
from cled_edge.manifest import GraphName

Float32 = NDArray[np.float32]


class OnnxRuntimeBackend:
    """One session per graph, FP32, CPU provider only. `threads` of 0 leaves the number to ONNX Runtime."""

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        try:
            import onnxruntime as ort  # noqa: PLC0415
        except ImportError as error:
            raise BackendError(f"onnxruntime cannot be imported ({error}); pip install onnxruntime") from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._sessions = {
                name: ort.InferenceSession(bundle.graph(name), options, providers=["CPUExecutionProvider"])
                for name in bundle.manifest.graphs
            }
        except Exception as error:  # ONNX Runtime has no common base for what a bad graph raises
            raise BackendError(
                f"{bundle.path}: ONNX Runtime refused a graph: {_one_line(error)}; export again"
            ) from error
        self.description = f"onnxruntime {ort.__version__} cpu fp32"

    def run(self, graph: GraphName, inputs: Mapping[str, Float32]) -> list[Float32]:
        """Return the graph's outputs in the manifest's order."""
        try:
            outputs: list[Float32] = self._sessions[graph].run(None, dict(inputs))
        except Exception as error:  # InvalidArgument, RuntimeException and others, none of them a RuntimeError
            raise BackendError(f"ONNX Runtime failed in {graph}: {_one_line(error)}") from error
        return outputs

    def close(self) -> None:
        """Drop the sessions."""
        self._sessions.clear()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
