"""Kernels, arithmetic and memory traffic of a graph at one size, by the fusions that runtimes are known to make.

The rules are `RULES`, in words. They stand between ONNX Runtime, which fuses less, and TensorRT, which fuses more: it
also merges convolutions side by side and whole attention blocks, and writes parts of a concatenation in place.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from cled_edge.bundle.graph_shapes import LiveGraph, LiveNode, Tensor, live_graph, words
from cled_edge.errors import OptionError
from cled_edge.size import Size

if TYPE_CHECKING:
    from onnx import ModelProto

RULES = (
    "What does not depend on the inputs is folded: constants, and shapes at this size. What no output needs goes.",
    "Reshape, Squeeze, Unsqueeze, Flatten, Identity and Dropout are views of a dense tensor, no kernels. So is a "
    "Transpose that moves only sides of 1, and an Expand, Tile or Cast that changes nothing.",
    "DequantizeLinear is part of who reads it: the quantised values are what memory gives.",
    "An elementwise operator joins the kernel that makes one of its inputs, if that is a Conv, ConvTranspose, Gemm or "
    "MatMul (bias, activation, residual sum) or elementwise itself, both write the same shape, only elementwise "
    "operators of this shape read what it joins, and no other kernel has to run between the two.",
    "Every other operator is a kernel. Transpose, Slice, Split, Concat, Pad, Resize, Tile, Expand, Gather and the like "
    "are layout kernels: they compute nothing.",
    "A kernel reads each tensor from outside once, weights too, and writes what others read, at the stored precision. "
    "Slice and Gather read as much as they write. No cache is counted.",
    "Arithmetic: 2 for each multiplication and addition of a convolution or product of matrices, 1 for each element of "
    "an elementwise operator, of a pooling's window and of what a reduction reads; for Softmax 5, a normalisation 8. "
    "Nothing for the bias inside a convolution.",
)
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}  # and which input holds the weights
_MULTIPLY = {*_CONVOLUTIONS, "ConvTranspose", "Gemm", "MatMul", "MatMulInteger"}
_ELEMENTWISE = words(
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BatchNormalization BitShift BitwiseAnd BitwiseNot BitwiseOr",
    "BitwiseXor Cast CastLike Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual",
    "HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow",
    "QuantizeLinear Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan",
    "Tanh ThresholdedRelu Where Xor",
)
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout", "DequantizeLinear"}
_LAYOUT = words(
    "CenterCropPad Concat DepthToSpace Expand Gather GatherElements GatherND Pad Resize ReverseSequence",
    "ScatterElements ScatterND Slice SpaceToDepth Split Tile Transpose Trilu Upsample",
)
_PICK = {"Slice", "Gather", "GatherElements", "GatherND"}
_POOLS = {"AveragePool", "MaxPool", "LpPool"}
_PER_ELEMENT = {"Softmax": 5, "LogSoftmax": 5} | dict.fromkeys(
    ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "LpNormalization"), 8
)
_REDUCE = {*_POOLS, *_PER_ELEMENT} | words(
    "ArgMax ArgMin CumSum GlobalAveragePool GlobalLpPool GlobalMaxPool ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp",
    "ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare",
)
_KINDS = {"multiply": _MULTIPLY, "elementwise": _ELEMENTWISE, "layout": _LAYOUT, "reduce": _REDUCE}


@dataclass(frozen=True)
class Cost:
    """What one run of a graph costs. One run of a `fused_loop` is a frame; of a `unet_step`, a step of it.

    nodes: in the file; nodes_folded: left once constants are folded, views too. kernels: after `RULES`; layout: those
    of them that only move data; views: nodes that move none. chain: kernels of the longest chain of which each needs
    the one before. flop: arithmetic. read_bytes, written_bytes: traffic of the kernels; unfused_bytes: if each node
    but the views was a kernel. weights: bytes by dtype, as stored. takes_size: whether the graph leaves its size open.
    """

    nodes: int
    nodes_folded: int
    kernels: int
    layout: int
    views: int
    chain: int
    flop: int
    read_bytes: int
    written_bytes: int
    unfused_bytes: int
    weights: dict[str, int]
    takes_size: bool

    @property
    def traffic_bytes(self) -> int:
        """Bytes read and written."""
        return self.read_bytes + self.written_bytes

    def values(self) -> dict[str, Any]:
        """Return it as JSON has it: GFLOP, and MB of 1,000,000 bytes."""
        return {
            "takes_size": self.takes_size,
            "nodes": self.nodes,
            "nodes_folded": self.nodes_folded,
            "views": self.views,
            "kernels": self.kernels,
            "layout_kernels": self.layout,
            "longest_chain": self.chain,
            "gflop": self.flop / 1e9,
            "read_mb": self.read_bytes / 1e6,
            "written_mb": self.written_bytes / 1e6,
            "traffic_mb": self.traffic_bytes / 1e6,
            "unfused_traffic_mb": self.unfused_bytes / 1e6,
            "weights_bytes": dict(sorted(self.weights.items())),
        }


def cost_of(model: "ModelProto", size: Size | None, batch: int = 1) -> Cost:
    """Count what a graph of plain ONNX operators costs at a size, (height, width) in pixels, without running it.

    batch: of graphs that leave it open.
    OptionError as `live_graph` raises it, and for an operator whose cost is not known.
    """
    return _Counting(live_graph(model, size, batch)).cost()


@dataclass
class _Kernel:
    kind: str  # multiply, elementwise, layout or reduce
    shape: tuple[int, ...]  # of what it writes
    level: int = 1  # kernels of the longest chain that ends in it
    nodes: list[LiveNode] = field(default_factory=list)
    is_read: bool = False  # by another kernel


class _Counting:
    def __init__(self, graph: LiveGraph) -> None:
        self.graph, self.tensors = graph, graph.tensors
        self.sources: dict[str, str] = {}  # of a view: the tensor that it shows
        self.readers: dict[str, list[LiveNode]] = defaultdict(list)  # of a tensor, through views too
        self.makers: dict[str, _Kernel] = {}
        self.private: dict[str, bool] = {}
        self.kernels: list[_Kernel] = []
        self.work: list[LiveNode] = []  # all nodes but the views
        for node in graph.nodes:
            if self._is_view(node):
                self.sources[node.outputs[0]] = self._source(node.inputs[0])
            else:
                self.work.append(node)
                for name in self._read(node):
                    self.readers[name].append(node)
        self.outputs = {self._source(name) for name in graph.outputs}

    def cost(self) -> Cost:
        for node in self.work:
            self._place(node)
        return Cost(
            nodes=self.graph.written,
            nodes_folded=len(self.graph.nodes),
            kernels=len(self.kernels),
            layout=sum(kernel.kind == "layout" for kernel in self.kernels),
            views=len(self.sources),
            chain=max((kernel.level for kernel in self.kernels), default=0),
            flop=sum(self._flop(node) for node in self.work),
            read_bytes=sum(self._read_bytes(kernel) for kernel in self.kernels),
            written_bytes=sum(self._written_bytes(kernel) for kernel in self.kernels),
            unfused_bytes=sum(
                self._read_bytes(_Kernel("", (), nodes=[node])) + self._bytes(filter(None, node.outputs))
                for node in self.work
            ),
            weights=dict(self.graph.weights),
            takes_size=self.graph.takes_size,
        )

    def _source(self, name: str) -> str:
        return self.sources.get(name, name)

    def _read(self, node: LiveNode) -> dict[str, None]:
        """Return what a node reads, each tensor once, in order."""
        return dict.fromkeys(self._source(name) for name in node.inputs if name)

    def _is_view(self, node: LiveNode) -> bool:
        if node.op in _VIEWS:
            return True
        if node.op not in ("Transpose", "Cast", "Expand", "Tile"):
            return False
        seen, given = self.tensors[node.inputs[0]], self.tensors[node.outputs[0]]
        if node.op == "Transpose":
            order = node.attributes.get("perm", range(len(seen.shape))[::-1])
            moved = [axis for axis in order if seen.shape[axis] != 1]
            return moved == sorted(moved)
        return seen == given

    def _place(self, node: LiveNode) -> None:
        """Put a node into a kernel that there is, or into one of its own."""
        makers = [self.makers[name] for name in self._read(node) if name in self.makers]
        shape = self.tensors[next(filter(None, node.outputs))].shape
        able = [maker for maker in makers if node.op in _ELEMENTWISE and self._joins(node, shape, maker, makers)]
        kernel = max(able, key=lambda maker: maker.level, default=None)
        if kernel is None:
            kernel = _Kernel(_kind(node), shape)
            self.kernels.append(kernel)
        for maker in makers:
            if maker is not kernel:
                maker.is_read = True
                kernel.level = max(kernel.level, maker.level + 1)
        kernel.nodes.append(node)
        self.makers.update((name, kernel) for name in node.outputs if name)

    def _joins(self, node: LiveNode, shape: tuple[int, ...], kernel: _Kernel, makers: list[_Kernel]) -> bool:
        if kernel.kind not in ("multiply", "elementwise") or kernel.shape != shape:
            return False
        # Another input may come from a kernel that needs this one, which would then wait for itself. None does if this
        # one was read by no other kernel so far, or if the others end shorter chains.
        if kernel.is_read and any(other.level >= kernel.level for other in makers if other is not kernel):
            return False
        joined = [name for name in node.inputs if self.makers.get(self._source(name)) is kernel]
        return all(self.tensors[name].shape == shape and self._is_private(self._source(name), shape) for name in joined)

    def _is_private(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether only elementwise operators of a shape, that of the tensor, read it."""
        if name not in self.private:  # asked once for each reader
            self.private[name] = name not in self.outputs and all(
                reader.op in _ELEMENTWISE and self.tensors[reader.outputs[0]].shape == shape
                for reader in self.readers[name]
            )
        return self.private[name]

    def _bytes(self, names: Iterable[str]) -> int:
        return sum(self.tensors[name].bytes for name in names)

    def _read_bytes(self, kernel: _Kernel) -> int:
        first = kernel.nodes[0]
        made = {name for node in kernel.nodes for name in node.outputs}
        names = {name for node in kernel.nodes for name in self._read(node)} - made
        if first.op in _PICK:
            data = self._source(first.inputs[0])
            picked = Tensor(self.tensors[first.outputs[0]].shape, "", self.tensors[data].bits)
            return picked.bytes + self._bytes(names - {data})
        return self._bytes(names)

    def _written_bytes(self, kernel: _Kernel) -> int:
        inside = {id(node) for node in kernel.nodes}
        return self._bytes(
            name
            for node in kernel.nodes
            for name in filter(None, node.outputs)
            if name in self.outputs or any(id(reader) not in inside for reader in self.readers[name])
        )

    def _flop(self, node: LiveNode) -> int:
        shapes = [self.tensors[name].shape if name else () for name in node.inputs]
        given = prod(self.tensors[next(filter(None, node.outputs))].shape)
        kind = _kind(node)
        if kind == "layout":
            return 0
        if kind == "elementwise":
            return given
        if kind == "reduce":
            if node.op in _POOLS:
                return given * prod(node.attributes["kernel_shape"])
            return prod(shapes[0]) * _PER_ELEMENT.get(node.op, 1)
        if node.op == "ConvTranspose":
            return 2 * prod(shapes[0]) * prod(shapes[1][1:])
        if node.op in _CONVOLUTIONS:
            return 2 * given * prod(shapes[_CONVOLUTIONS[node.op]][1:])
        return 2 * given * shapes[0][0 if node.attributes.get("transA") else -1]


def _kind(node: LiveNode) -> str:
    """Return what kind of kernel a node makes; OptionError if that is not known of its operator."""
    for kind, operators in _KINDS.items():
        if node.op in operators:
            return kind
    raise OptionError(f"its node {node.name} is of an operator whose cost is not known here; give a graph without it")
