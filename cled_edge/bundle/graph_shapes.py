"""The nodes of an ONNX graph that are left at one size once constants are folded, and the tensors between them.

Shapes are inferred by the `onnx` package, a node at a time. Of the constants only small ones that sizes are made of are
computed, by the package's reference implementation; of the others only the shape is known. No network is run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from cled_edge.errors import OptionError
from cled_edge.json_text import shown
from cled_edge.size import Size

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto


def words(*lines: str) -> set[str]:
    """Return the words of some lines."""
    return set(" ".join(lines).split())


MAX_NODES = 100_000
_MAX_COMPUTED = 2**16  # elements
_OWN_DOMAINS = ("", "ai.onnx")
_SIDES = {"batch": None, "n": None, "b": None, "height": 0, "h": 0, "width": 1, "w": 1}  # None: batch
_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
_COMPUTED = words(
    "Abs Add And Cast Ceil Concat Constant ConstantOfShape Div Equal Expand Floor Gather Greater Identity Less Max Min",
    "Mod Mul Neg Not Or Range ReduceMax ReduceMin ReduceProd ReduceSum Reshape Slice Squeeze Sub Transpose Unsqueeze",
    "Where",
)


@dataclass(frozen=True)
class Tensor:
    """shape: in elements. bits: of an element, as it is stored."""

    shape: tuple[int, ...]
    dtype: str
    bits: int

    @property
    def elements(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """The bytes of all elements, packed."""
        return -(-self.elements * self.bits // 8)


@dataclass(frozen=True)
class LiveNode:
    """A node that runs for every frame. inputs, outputs: names of tensors, "" for one that is left out or not used."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class LiveGraph:
    """What is left of a graph at one size.

    nodes: in an order in which they can run. tensors: all that a node reads or writes, by name. outputs: names, of the
    graph. written: how many nodes the file holds. takes_size: whether the graph leaves its height and width open.
    weights: bytes of initialisers, by dtype.
    """

    nodes: tuple[LiveNode, ...]
    tensors: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    written: int
    takes_size: bool
    weights: Mapping[str, int]


def live_graph(model: "ModelProto", size: Size | None, batch: int = 1) -> LiveGraph:
    """Fold the constants of a graph of plain ONNX operators, and infer each shape.

    size: (height, width) in pixels of a graph that leaves them open: its dimensions named `height` and `width`, or h
    and w, or, without a name, the last two of four. batch: of graphs that leave it open.
    OptionError for a graph that needs a size and has none, for dimensions that are none of these, for sizes that
    depend on what the pictures show, and for graphs inside nodes, functions, and operators of other domains.
    """
    _check(model)
    takes_size = any(side is not None for value in _fed(model.graph) for side in _open_sides(value).values())
    return _Folding(model, size, batch).folded(takes_size)


def _check(model: "ModelProto") -> None:
    nodes = model.graph.node
    if len(nodes) > MAX_NODES:
        raise OptionError(f"it has {len(nodes)} nodes, over {MAX_NODES}; give a smaller graph")
    if model.functions:
        raise OptionError("it defines functions of its own, whose cost is not counted; inline them first")
    for node in nodes:
        if node.domain not in _OWN_DOMAINS:
            raise OptionError(
                f"its node {_called(node)} is of {shown(node.domain)}, whose costs are not known here; give the graph "
                "as it was exported, before a runtime optimised it"
            )
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise OptionError(
                f"its node {_called(node)} holds a graph, and how often that runs is not known; give one without"
            )


def _called(node: "NodeProto") -> str:
    return f"{shown(node.op_type)} '{shown(node.name or (node.output[0] if node.output else ''))}'"


class _Folding:
    def __init__(self, model: "ModelProto", size: Size | None, batch: int) -> None:
        self.graph, self.size, self.batch = model.graph, size, batch
        self.opsets = list(model.opset_import)
        self.version = max((opset.version for opset in self.opsets if opset.domain in _OWN_DOMAINS), default=1)
        self.types: dict[str, TypeProto] = {}
        self.values: dict[str, np.ndarray] = {}
        self.constants: set[str] = set()

    def folded(self, takes_size: bool) -> LiveGraph:
        self._feed()
        running = [node for node in self.graph.node if not self._is_constant(node)]
        outputs = tuple(value.name for value in self.graph.output)
        missing = set(outputs) - self.types.keys()
        if missing:
            raise OptionError(f"nothing gives its output '{shown(min(missing))}'; export it again")
        wanted, kept = set(outputs), []
        for node in reversed(running):
            if wanted.intersection(node.output):
                used = tuple(name if name in wanted else "" for name in node.output)
                kept.append(LiveNode(_called(node), node.op_type, tuple(node.input), used, _attributes(node.attribute)))
                wanted.update(filter(None, node.input))
        return LiveGraph(
            tuple(reversed(kept)),
            {name: _tensor(self.types[name]) for name in wanted},
            outputs,
            len(self.graph.node),
            takes_size,
            _weights(self.graph.initializer),
        )

    def _feed(self) -> None:
        from onnx import helper, numpy_helper  # noqa: PLC0415

        for tensor in self.graph.initializer:
            self.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            self.constants.add(tensor.name)
            if tensor.data_location != tensor.EXTERNAL and prod(tensor.dims) <= _MAX_COMPUTED:
                self.values[tensor.name] = numpy_helper.to_array(tensor)
        for value in _fed(self.graph):
            self.types[value.name] = _at_size(value, self.size, self.batch)

    def _is_constant(self, node: "NodeProto") -> bool:
        """Infer the shapes of what a node gives, and say whether that is known before any picture is."""
        inputs = [name for name in node.input if name]
        unknown = next((name for name in inputs if name not in self.types), None)
        if unknown is not None:
            raise OptionError(f"its node {_called(node)} reads '{shown(unknown)}', which nothing before it gives")
        self.types |= self._inferred(node, inputs)
        if node.op_type in ("Shape", "Size"):
            shape = np.array(_tensor(self.types[node.input[0]]).shape, np.int64)
            ends = _attributes(node.attribute)
            cut = shape[ends.get("start", 0) : ends.get("end", len(shape))]
            self.values[node.output[0]] = cut if node.op_type == "Shape" else np.array(shape.prod())
            self.constants.update(node.output)
            return True
        # Quantised weights stay as they are stored: who reads them makes numbers of them.
        if node.op_type in (*_RANDOM, "DequantizeLinear") or not self.constants.issuperset(inputs):
            return False
        self.constants.update(node.output)
        small = all(_tensor(self.types[name]).elements <= _MAX_COMPUTED for name in node.output if name)
        if small and node.op_type in _COMPUTED and self.values.keys() >= set(inputs):
            self._compute(node)
        return True

    def _inferred(self, node: "NodeProto", inputs: Iterable[str]) -> "dict[str, TypeProto]":
        from onnx import defs, numpy_helper, shape_inference  # noqa: PLC0415

        data = {name: numpy_helper.from_array(self.values[name]) for name in inputs if name in self.values}
        try:
            schema = defs.get_schema(node.op_type, self.version, "")
            types = {name: self.types[name] for name in inputs}
            found = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=self.opsets)
            _check_reshape(node, types | found)
        except Exception as error:  # the package's own, of several kinds
            text = " ".join(str(error).split())
            raise OptionError(
                f"the shapes of its node {_called(node)} do not fit ({shown(text, 150)}); give another size"
            ) from error
        for name in filter(None, node.output):
            kind = found.get(name)
            if kind is None or not kind.tensor_type.HasField("shape") or not _is_closed(kind):
                raise OptionError(
                    f"what its node {_called(node)} gives has no size before it runs; give a graph of fixed shapes"
                )
        return {name: kind for name, kind in found.items() if name}

    def _compute(self, node: "NodeProto") -> None:
        from onnx import helper  # noqa: PLC0415
        from onnx.reference import ReferenceEvaluator  # noqa: PLC0415

        inputs, outputs = dict.fromkeys(filter(None, node.input)), list(filter(None, node.output))
        given, made = (
            [helper.make_value_info(name, self.types[name]) for name in names] for names in (inputs, outputs)
        )
        try:
            model = helper.make_model(helper.make_graph([node], "constant", given, made), opset_imports=self.opsets)
            found = ReferenceEvaluator(model).run(None, {name: self.values[name] for name in inputs})
        except Exception:  # its shape is known; a node that needs its values as well says that its size is not
            return
        self.values |= dict(zip(outputs, map(np.asarray, found), strict=True))


def _check_reshape(node: "NodeProto", types: "Mapping[str, TypeProto]") -> None:
    """Raise ValueError if a Reshape changes the number of elements, which inference lets pass."""
    if node.op_type == "Reshape" and _is_closed(types[node.output[0]]):
        given, made = (_tensor(types[name]) for name in (node.input[0], node.output[0]))
        if given.elements != made.elements:
            raise ValueError(f"a reshape of {list(given.shape)} to {list(made.shape)}")


def _fed(graph: "GraphProto") -> "list[ValueInfoProto]":
    """Return the inputs that are given for every frame: older files list initialisers among them."""
    initialisers = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in initialisers]


def _open_sides(value: "ValueInfoProto") -> dict[int, int | None]:
    """Return which dimensions are open: 0 height, 1 width, None batch; OptionError for any other."""
    dims = value.type.tensor_type.shape.dim
    sides: dict[int, int | None] = {}
    for place, dim in enumerate(dims):
        if dim.HasField("dim_value"):
            continue
        name = dim.dim_param.lower()
        if name in _SIDES:
            sides[place] = _SIDES[name]
        elif len(dims) == 4 and not name and place != 1:
            sides[place] = (None, None, 0, 1)[place]
        else:
            raise OptionError(
                f"dimension {place} of its input '{shown(value.name)}' is open and called '{shown(dim.dim_param)}', "
                "needed batch, height or width; export it with these names, or at one size"
            )
    return sides


def _at_size(value: "ValueInfoProto", size: Size | None, batch: int) -> "TypeProto":
    from onnx import TypeProto  # noqa: PLC0415

    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        raise OptionError(f"its input '{shown(value.name)}' is no tensor of a known rank; export it again")
    kind = TypeProto()
    kind.CopyFrom(value.type)
    for place, side in _open_sides(value).items():
        if side is not None and size is None:
            raise OptionError("its height and width are open; give a size, such as 480x640")
        kind.tensor_type.shape.dim[place].dim_value = batch if side is None or size is None else size[side]
    return kind


def _is_closed(kind: "TypeProto") -> bool:
    return all(dim.HasField("dim_value") for dim in kind.tensor_type.shape.dim)


def _tensor(kind: "TypeProto") -> Tensor:
    number = kind.tensor_type.elem_type
    return Tensor(tuple(dim.dim_value for dim in kind.tensor_type.shape.dim), _dtype(number), _bits(number))


def _dtype(number: int) -> str:
    from onnx import TensorProto  # noqa: PLC0415

    return TensorProto.DataType.Name(number).lower()


def _bits(number: int) -> int:
    from onnx import helper  # noqa: PLC0415

    name = _dtype(number)
    for part, bits in (("int4", 4), ("float4", 4), ("int2", 2), ("float8", 8)):
        if part in name:
            return bits
    return 8 * helper.tensor_dtype_to_np_dtype(number).itemsize


def _weights(initialisers: "Iterable[TensorProto]") -> dict[str, int]:
    weights: dict[str, int] = {}
    for tensor in initialisers:
        stored = Tensor(tuple(tensor.dims), _dtype(tensor.data_type), _bits(tensor.data_type))
        weights[stored.dtype] = weights.get(stored.dtype, 0) + stored.bytes
    return weights


def _attributes(attributes: "Iterable[AttributeProto]") -> dict[str, Any]:
    """Return the numbers, texts and lists among them."""
    from onnx import AttributeProto, helper  # noqa: PLC0415

    kinds = {getattr(AttributeProto, kind) for kind in ("INT", "INTS", "FLOAT", "FLOATS", "STRING", "STRINGS")}
    return {
        attribute.name: helper.get_attribute_value(attribute) for attribute in attributes if attribute.type in kinds
    }
