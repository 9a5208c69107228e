"""ONNX files from outside, parsed by the `onnx` package and never run; external data is counted, not opened."""

from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cled_edge.errors import BundleCorruptError, BundleMissingError, OptionError
from cled_edge.files import Reader
from cled_edge.json_text import shown

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

INSTALL = "pip install onnx, or the extra export: pip install 'cled-edge[export]'"
MAX_BYTES = 2 * 2**30  # of a protobuf message
_GRAPHS = Reader(BundleMissingError, BundleCorruptError, "give an .onnx file", follow_links=True)


def inspect_onnx(path: Path) -> dict[str, Any]:
    """Return opsets, inputs, outputs, counts of nodes by operator, and counts and bytes of initialisers by dtype.

    OptionError if the `onnx` package is not installed, BundleMissingError if the file cannot be read,
    BundleCorruptError if it is no ONNX graph.
    """
    content = read_onnx(path)
    model = onnx_model(path, content)
    try:
        values = _described(model)
    except Exception as error:  # what reading a half-sensible message may raise
        raise _no_graph(path, error) from error
    return {"kind": "ONNX graph", "path": str(path), "bytes": len(content), **values}


def read_onnx(path: Path) -> bytes:
    """Return the bytes of a file of at most 2 GiB; BundleMissingError or BundleCorruptError if it cannot be read."""
    return _GRAPHS.read(path, MAX_BYTES)


def onnx_model(path: Path, content: bytes) -> "ModelProto":
    """Parse a graph. path: for messages.

    OptionError if the `onnx` package is not installed, BundleCorruptError if it is no ONNX graph.
    """
    try:
        import onnx  # noqa: PLC0415
    except ImportError as error:
        raise OptionError(f"{path}: an ONNX graph is read by a package that is missing ({error}); {INSTALL}") from error
    try:
        model = onnx.load_model_from_string(content)
        if not model.HasField("graph"):
            raise ValueError("it holds no graph")
    except Exception as error:  # protobuf's own
        raise _no_graph(path, error) from error
    return model


def _no_graph(path: Path, error: Exception) -> BundleCorruptError:
    return BundleCorruptError(f"{path} is not an ONNX graph ({shown(error, 200)}); get it again from its source")


def _described(model: "ModelProto") -> dict[str, Any]:
    nodes: Counter[str] = Counter()
    initialisers: dict[str, Counter[str]] = {}
    external = 0
    for graph in _with_subgraphs(model):
        nodes.update(".".join(_utf8(word) for word in (node.domain, node.op_type) if word) for node in graph.node)
        for tensor in graph.initializer:
            row = initialisers.setdefault(_dtype(tensor.data_type), Counter())
            row.update(tensors=1, elements=prod(tensor.dims), bytes=_stored_bytes(tensor))
            external += tensor.data_location == tensor.EXTERNAL
    return {
        "ir_version": model.ir_version,
        "producer": " ".join(_utf8(word) for word in (model.producer_name, model.producer_version) if word),
        "opset": {_utf8(opset.domain) or "ai.onnx": opset.version for opset in model.opset_import},
        "inputs": [_value(value) for value in model.graph.input],
        "outputs": [_value(value) for value in model.graph.output],
        "nodes": dict(nodes.most_common()),
        "initialisers": {dtype: dict(row) for dtype, row in sorted(initialisers.items())},
        "external_initialisers": external,
    }


def _with_subgraphs(model: "ModelProto") -> list["GraphProto"]:
    """Return the graph, those inside its nodes (of If, Loop, Scan), and so on."""
    graphs = [model.graph]
    for graph in graphs:  # grows as it goes
        for node in graph.node:
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs
    return graphs


def _value(value: "ValueInfoProto") -> dict[str, Any]:
    tensor = value.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else _utf8(d.dim_param) or "?" for d in tensor.shape.dim]
    return {"name": _utf8(value.name), "dtype": _dtype(tensor.elem_type), "shape": shape}


def _utf8(text: str) -> str:
    """Return `text`; ValueError if it is bytes, as protobuf 6 gives strings that are not UTF-8."""
    if not isinstance(text, str):
        raise ValueError("a name is not UTF-8")
    return text


def _dtype(number: int) -> str:
    from onnx import TensorProto  # noqa: PLC0415

    names = {value: name.lower() for name, value in TensorProto.DataType.items()}
    return names.get(number, f"unknown ({number})")


def _stored_bytes(tensor: "TensorProto") -> int:
    """Return the bytes of its values in this file: raw as exporters write them, else what the message takes."""
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    return 0 if tensor.data_location == tensor.EXTERNAL else tensor.ByteSize()
