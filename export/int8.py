"""INT8 variants of FP32 graphs: explicit Q/DQ nodes around the dense 3x3 convolutions, calibrated on real pairs.

Static quantisation by ONNX Runtime: activations and weights symmetric around 0, as TensorRT demands, weights per output
channel. Everything else stays FP32: heads, stems, attention, what is over a whole picture. OpenVINO, ONNX Runtime and
TensorRT read the same file.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from cled_edge.bundle import Bundle
from cled_edge.fuser import Controls
from export.golden import Pair
from export.recording import Frame, Inputs, recorded_inputs


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


def calibration_inputs(bundle: Bundle, name: str, pairs: Sequence[Pair]) -> list[Inputs]:
    """Return what the FP32 graph of that name is given when pairs are fused at different controls."""
    spec = bundle.manifest.graphs[name]

    def frame(index: int, pair: Pair) -> Frame:
        steps = spec.steps or 1 + index % 3
        controls = Controls(steps, 1.0 if index % 2 else 0.6, 1.0, (0.5, 0.2, 0.8)[index % 3])
        whole = np.full((*pair.infrared.shape, 2), 255, np.uint8) if spec.strength_map else None
        return pair.infrared, pair.visible, controls, whole

    return list(recorded_inputs(bundle, name, (frame(index, pair) for index, pair in enumerate(pairs))))


class _Reader:
    def __init__(self, inputs: Sequence[Inputs]) -> None:
        self._left = iter(inputs)

    def get_next(self) -> Inputs | None:
        return next(self._left, None)
