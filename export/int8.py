"""INT8 variants of FP32 graphs: explicit Q/DQ nodes before dense 3x3 convolutions, as many as the loop can bear.

What enters such a convolution is quantised: its input by one scale, its weights by one for each output channel, both
symmetric around 0, as TensorRT demands. All else stays FP32: what leaves it, biases, streams that go around it, heads,
attention, what is over a whole image. OpenVINO, ONNX Runtime and TensorRT read the same file.

Which convolutions, and where their inputs are clipped, is measured: what each alone does to the loop. In nano the
deepest one decides. A range up to its largest input, 179, has steps of 1.4, and SiLU's negative outputs, above -0.28,
become 0: the means over the image, and by them the gain of all of it, are then off, to 33 dB. Clipped at 63: 48 dB.
"""

import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.facts import BackendFacts, RunFacts
from cled_edge.bundle.manifest import OPSETS
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import REFERENCE_GRAPHS, Controls
from cled_edge.errors import ParityError
from cled_edge.fuser import Fuser
from cled_edge.image import Float32
from cled_edge.verify import NEEDED_DB, judge
from export.golden import ImagePair, cut, noise
from export.recording import Inputs, recorded_inputs

log = logging.getLogger("export")
Array = NDArray[Any]
Scales = dict[str, float]  # of a convolution's input, by `key` of its weights; 0 where it stays FP32
SIZE = (240, 320)  # height, width of what is measured on
PAIRS = 6
CLIPS = (1.0, 0.7, 0.5, 0.35, 0.25)  # shares of the largest value that comes up; what is beyond is clipped
MARGIN_DB = 3.0  # above what verification needs, which runs other images


def quantised(graph: onnx.ModelProto, scales: Mapping[str, float]) -> onnx.ModelProto:
    """Return the INT8 form of an FP32 graph; KeyError for a dense convolution that `scales` does not know."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    del model.graph.node[:], model.graph.initializer[:]
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    dense, done = dense_convolutions(graph), set[str]()
    for node in graph.graph.node:
        scale = scales[key(dense[node.name])] if node.name in dense else 0.0
        if not scale:
            model.graph.node.append(node)
            continue
        x, weight = node.input[:2]
        if weight not in done:  # of an unrolled loop, every step has the same
            done.add(weight)
            model.graph.node.append(_dequantize(weight, axis=0))
            constants |= _weight_constants(weight, dense[node.name])
        model.graph.node.extend((_quantize(x, node.name), _dequantize(node.name)))
        constants |= _named({f"{node.name}_scale": np.float32(scale), f"{node.name}_zero": np.int8(0)})
        model.graph.node.append(node)
        model.graph.node[-1].input[:2] = [f"{node.name}_dequantized", f"{weight}_dequantized"]
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)
    onnx.checker.check_model(model, full_check=True)
    return model


def _quantize(x: str, name: str) -> onnx.NodeProto:
    inputs = [x, f"{name}_scale", f"{name}_zero"]
    return helper.make_node("QuantizeLinear", inputs, [f"{name}_int8"], name=f"{name}_quantize")


def _dequantize(name: str, axis: int | None = None) -> onnx.NodeProto:
    inputs = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}_dequantized"], name=f"{name}_dequantize", axis=axis)


def _weight_constants(name: str, weights: Array) -> dict[str, onnx.TensorProto]:
    scale = np.abs(weights).max(axis=(1, 2, 3)) / 127
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    levels = np.rint(weights / scale[:, None, None, None]).astype(np.int8)
    return _named({f"{name}_int8": levels, f"{name}_scale": scale, f"{name}_zero": np.zeros(len(scale), np.int8)})


def _named(arrays: Mapping[str, Array | np.generic]) -> dict[str, onnx.TensorProto]:
    return {name: numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()}


def dense_convolutions(model: onnx.ModelProto) -> dict[str, Array]:
    """Return the weights, by node name, of the 3x3 convolutions that map all channels to all: most of the work."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.name: numpy_helper.to_array(tensors[node.input[1]])
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.input[1] in tensors
        and tensors[node.input[1]].dims[2:] == [3, 3]
        and tensors[node.input[1]].dims[1] > 1
    }


def key(weights: Array) -> str:
    """Return what names a convolution in every graph that has it: a hash of its weights."""
    return hashlib.sha256(weights.tobytes()).hexdigest()


def measured_scales(bundle: Bundle, pairs: Sequence[ImagePair]) -> Scales:
    """Return scales with which the loop stays MARGIN_DB above what is needed, the worst convolutions left out.

    Each is measured alone first, at every clip, and gets its best. Then all are INT8, and the one that alone does the
    most damage is FP32 again, until the loop is good enough. ParityError if none is left.
    """
    loop = _Loop(bundle, pairs)
    alone = {
        conv: max((loop.psnr_db({conv: clip * largest / 127}), clip * largest / 127) for clip in CLIPS)
        for conv, largest in loop.largest.items()
    }
    worst_first = sorted(alone, key=lambda conv: alone[conv][0])
    needed, reached = NEEDED_DB["int8"] + MARGIN_DB, 0.0
    for left_out in range(len(worst_first)):
        scales = {conv: alone[conv][1] for conv in worst_first[left_out:]}
        reached = loop.psnr_db(scales)
        share = sum(loop.arithmetic[conv] for conv in scales) / sum(loop.arithmetic.values())
        log.info(
            "  %d of %d dense convolutions in INT8, %.0f%% of their arithmetic: %.1f dB from FP32",
            *(len(scales), len(alone), 100 * share, reached),
        )
        if reached >= needed:
            return {conv: scales.get(conv, 0.0) for conv in alone}
    raise ParityError(
        f"TOLERANCE: with one of {len(alone)} dense convolutions in INT8 the loop is {reached:.1f} dB from FP32, "
        f"needed {needed:g}; leave --precision int8 out, or train on"
    )


class _Loop:
    """The reference graphs in ONNX Runtime, with some convolutions in INT8: a backend, and a few frames for it.

    largest, arithmetic: by key of a dense convolution, the largest value that enters it and its share of the work.
    """

    choice = BackendChoice("onnxruntime", "fp32")
    opsets: tuple[int, ...] = OPSETS
    description = "dense convolutions in INT8"
    in_use: "threading.Lock | None" = None

    def __init__(self, bundle: Bundle, pairs: Sequence[ImagePair]) -> None:
        self.facts = BackendFacts("onnxruntime", "CPU", "fp32")
        self.runs = RunFacts()
        self._graphs: dict[str, onnx.ModelProto] = {
            name: onnx.load_from_string(bundle.graph(name)) for name in REFERENCE_GRAPHS
        }
        self._fuser = Fuser(bundle, self)
        frames = [*pairs[:PAIRS], dark(pairs[0])]
        frames = [*(cut(pair, SIZE) for pair in frames), noise(SIZE, seed=3)]
        # One step shows most: what a later one is given differs less from what it was trained on.
        self._frames = [
            (pair.infrared, pair.visible, Controls(steps=1 if index % 2 == 0 else 3))
            for index, pair in enumerate(frames)
        ]
        self.largest: dict[str, float] = {}
        self.arithmetic: dict[str, float] = {}
        for name in REFERENCE_GRAPHS:
            self._watch(name, recorded_inputs(bundle, name, ((*frame, None) for frame in self._frames)))
        self._sessions = {name: _session(graph) for name, graph in self._graphs.items()}
        self._exact = dict(self._sessions)
        self._expected = list(self._outputs())

    def _watch(self, name: str, calibration: Iterable[Inputs]) -> None:
        """Fill `largest` and `arithmetic` with the dense convolutions of a graph."""
        dense = dense_convolutions(self._graphs[name])
        entering = {node.name: node.input[0] for node in self._graphs[name].graph.node if node.name in dense}
        watched = onnx.ModelProto()
        watched.CopyFrom(self._graphs[name])
        tensors = list(dict.fromkeys(entering.values()))
        for tensor in tensors:
            watched.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
        session = _session(watched)
        for inputs in calibration:
            seen = dict(zip(tensors, session.run(tensors, inputs), strict=True))
            for node, weights in dense.items():
                entered, conv = seen[entering[node]], key(weights)
                self.largest[conv] = max(self.largest.get(conv, 0.0), float(np.abs(entered).max()))
                self.arithmetic[conv] = float(weights.size) * entered.shape[2] * entered.shape[3]

    def psnr_db(self, scales: Scales) -> float:
        """Return how far the loop is from FP32 with these convolutions in INT8: the worst frame and output."""
        for name, graph in self._graphs.items():
            convs = {key(weights) for weights in dense_convolutions(graph).values()}
            chosen = {conv: scales.get(conv, 0.0) for conv in convs}
            self._sessions[name] = _session(quantised(graph, chosen)) if any(chosen.values()) else self._exact[name]
        pairs = zip(self._outputs(), self._expected, strict=True)
        return min(judge(seen, exact)[1] for case in pairs for seen, exact in zip(*case, strict=True))

    def _outputs(self) -> Iterator[tuple[Float32, Float32]]:
        for infrared, visible, controls in self._frames:
            yield self._fuser.residual_and_fused(self._fuser.prepare(infrared, visible), controls)[:2]

    def run(self, graph: str, inputs: Mapping[str, Array]) -> list[Array]:
        return list(self._sessions[graph].run(None, dict(inputs)))

    def close(self) -> None:
        """Nothing to give back."""


def dark(pair: ImagePair) -> ImagePair:
    """Return the pair with a quarter of the light and half the thermal contrast: what the loop amplifies most."""
    return ImagePair(pair.infrared // 2 + 64, pair.visible // 4)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
