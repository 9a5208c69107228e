"""What a graph must not hold, found in its bytes before any runtime sees it, without the `onnx` package.

An ONNX file is a program. Three of its means are never in a graph of export and are refused here: data in other files,
which a runtime would open; functions of its own and graphs inside nodes (Loop, If, Scan), by which a few bytes make
work without end; operators of other domains, which a runtime may take from a library.

Fields by number: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections.abc import Iterator
from math import prod

MAX_NODES = 100_000
MAX_ELEMENTS = 2**29  # of a tensor: 2 GiB of float32, the most that a file holds
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_OWN_DOMAINS = (b"", b"ai.onnx")
_CONTROL = (b"Loop", b"If", b"Scan", b"SequenceMap", b"Optional")

Field = tuple[int, int | memoryview]


def why_refused(content: bytes) -> str | None:
    """Return what in a graph is refused, in a few words, or None: it is a plain graph, as far as can be seen here."""
    try:
        return _model(memoryview(content))
    except ValueError as error:
        return str(error)


def _model(model: memoryview) -> str | None:
    graphs = 0
    for number, value in _fields(model):
        if number == 25:
            return "it defines functions of its own"
        if number == 7 and isinstance(value, memoryview):
            graphs += 1
            refused = _graph(value)
            if refused:
                return refused
    return None if graphs == 1 else f"it holds {graphs} graphs, needed one"


def _graph(graph: memoryview) -> str | None:
    nodes = 0
    for number, value in _fields(graph):
        refused = None
        if number == 1:
            nodes += 1
            refused = _node(_message(value))
        elif number == 5:
            refused = _tensor(_message(value))
        elif number == 15:
            refused = _sparse(_message(value))
        if nodes > MAX_NODES:
            refused = f"it has over {MAX_NODES} nodes"
        if refused:
            return refused
    return None


def _node(node: memoryview) -> str | None:
    for number, value in _fields(node):
        if number == 4 and bytes(_message(value)) in _CONTROL:
            return f"it has a node {bytes(_message(value)).decode()}, which can run without end"
        if number == 7 and bytes(_message(value)) not in _OWN_DOMAINS:
            return "it has a node of another domain than ai.onnx"
        if number == 5:
            refused = _attribute(_message(value))
            if refused:
                return refused
    return None


def _attribute(attribute: memoryview) -> str | None:
    refused = None
    for number, value in _fields(attribute):
        if number in (6, 11):
            return "it has a graph inside a node"
        if number in (5, 10):
            refused = refused or _tensor(_message(value))
        elif number in (22, 23):
            refused = refused or _sparse(_message(value))
    return refused


def _sparse(sparse: memoryview) -> str | None:
    return "it has a sparse tensor, which a few bytes can make of any size" if len(sparse) else None


def _tensor(tensor: memoryview) -> str | None:
    dims: list[int] = []
    for number, value in _fields(tensor):
        if number == 13 or (number == 14 and value != 0):
            return "it keeps data outside, in another file"
        if number == 1:
            dims += _packed(value) if isinstance(value, memoryview) else [value]
    if any(side >= 2**63 for side in dims) or prod(dims) > MAX_ELEMENTS:
        return f"it has a tensor of over {MAX_ELEMENTS} elements"
    return None


# --- The wire format of protobuf --------------------------------------------------------------------------------------


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is no ONNX graph: a field has another type")
    return value


def _fields(message: memoryview) -> Iterator[Field]:
    """Yield the number and the value of each field; ValueError if the bytes are no message."""
    at, end = 0, len(message)
    while at < end:
        tag = message[at]
        if tag < 0x80:  # nearly all are of one byte, and a call for each would double the time
            at += 1
        else:
            tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            if at < end and message[at] < 0x80:
                length, at = message[at], at + 1
            else:
                length, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("it is no ONNX graph: a field of an unknown kind")
        if length > end - at:
            raise ValueError("it is no ONNX graph: it ends too early")
        yield tag >> 3, message[at : at + length]
        at += length


def _packed(message: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(message):
        value, at = _varint(message, at)
        values.append(value)
    return values


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("it is no ONNX graph: it ends in a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
