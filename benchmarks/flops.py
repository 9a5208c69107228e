"""How much arithmetic an ONNX graph holds at given input shapes: what convolutions and matrix products need."""

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any


def count_gflop(model: bytes, shapes: Mapping[str, Sequence[int]]) -> float:
    """Return GFLOP of one call with inputs of these shapes; a product and its sum are 2.

    OpenVINO's reader is used for its shape inference, which also folds the shape arithmetic that exporters leave.
    """
    graph = importlib.import_module("openvino").Core().read_model(model)
    graph.reshape({name: list(shape) for name, shape in shapes.items()})
    return sum(_flop(node) for node in graph.get_ordered_ops()) / 1e9


def _flop(node: Any) -> int:
    kind = node.get_type_name()
    if kind == "Convolution":  # weights are (out, in, height, width)
        return 2 * math.prod(node.output(0).shape) * math.prod(list(node.input_value(1).shape)[1:])
    if kind == "GroupConvolution":  # weights are (groups, out, in, height, width)
        return 2 * math.prod(node.output(0).shape) * math.prod(list(node.input_value(1).shape)[2:])
    if kind == "MatMul":
        left = list(node.input_value(0).shape)
        inner = left[-2] if node.get_attributes()["transpose_a"] else left[-1]
        return 2 * math.prod(node.output(0).shape) * inner
    return 0
