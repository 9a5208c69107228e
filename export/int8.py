"""INT8 variants of FP32 graphs: explicit Q/DQ nodes around the dense 3x3 convolutions, calibrated on real pairs.

Static quantisation by ONNX Runtime: activations and weights symmetric around 0, as TensorRT demands, weights per output
channel. Everything else stays FP32: heads, stems, attention, what is over a whole picture. OpenVINO, ONNX Runtime and
TensorRT read the same file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cled_edge.bundle import Bundle
from cled_edge.fuser import Controls, Fuser
from cled_edge.manifest import GraphSpec
from export.golden import Pair

Inputs = dict[str, NDArray[Any]]


def quantised(graph: Path, calibration: Sequence[Inputs], out: Path) -> None:
    """Write the INT8 form of an FP32 graph.

    calibration: inputs of the graph, of real pairs; ranges are the largest values that come up.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    quantize_static(
        str(graph),
        str(out),
        _Reader(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        nodes_to_quantize=dense_convolutions(onnx.load(graph)),
        op_types_to_quantize=["Conv"],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "DedicatedQDQPair": False},
    )


def dense_convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the names of the 3x3 convolutions that map all channels to all: nearly all of the arithmetic."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and shapes.get(node.input[1], ())[2:] == (3, 3) and shapes[node.input[1]][1] > 1
    ]


def calibration_inputs(bundle: Bundle, spec: GraphSpec, name: str, pairs: Iterable[Pair]) -> list[Inputs]:
    """Return what the FP32 graph of that name is given when pairs are fused at different controls."""
    inputs: list[Inputs] = []
    with Fuser.load(bundle.path) as fuser:
        backend = _Recorder(fuser.backend, name, inputs)
        recording = Fuser(bundle, backend, opset=spec.opset)  # type: ignore[arg-type]
        for index, pair in enumerate(pairs):
            controls = Controls(spec.steps, 1.0 if index % 2 else 0.6, 1.0, (0.5, 0.2, 0.8)[index % 3])
            if spec.role == "fused_loop":
                recording.in_one_graph(
                    pair.infrared, pair.visible, controls, _whole(pair) if spec.strength_map else None
                )
            else:
                recording.step_by_step(pair.infrared, pair.visible, replace(controls, steps=1 + index % 3))
    return inputs


def _whole(pair: Pair) -> NDArray[np.uint8]:
    return np.full((*pair.infrared.shape, 2), 255, np.uint8)


class _Recorder:
    """A backend that keeps what one graph is given."""

    def __init__(self, backend: Any, graph: str, kept: list[Inputs]) -> None:
        self.backend, self.graph, self.kept = backend, graph, kept
        self.choice, self.opsets = backend.choice, backend.opsets

    def run(self, graph: str, inputs: Inputs) -> list[NDArray[Any]]:
        if graph == self.graph:
            self.kept.append({name: np.array(array) for name, array in inputs.items()})
        outputs: list[NDArray[Any]] = self.backend.run(graph, inputs)
        return outputs


class _Reader:
    def __init__(self, inputs: Sequence[Inputs]) -> None:
        self._left = iter(inputs)

    def get_next(self) -> Inputs | None:
        return next(self._left, None)
