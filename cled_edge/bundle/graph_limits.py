"""What a graph must not hold, found in its bytes before any runtime sees it, without the `onnx` package.

An ONNX file is a program. What is never in a graph of export is refused here: data in other files, which a runtime
would open; functions of its own and graphs inside nodes (Loop, If, Scan), by which a few bytes make work without end;
operators of other domains, which a runtime may take from a library; tensors of more elements than their bytes hold;
weights that are NaN or infinite; nodes of thousands of inputs or of long names, of which runtimes make many copies.
What remains may still take all memory, by operators that make much of little. Only a trial finds that:
`cled_edge.backend.graph_trial`.

Fields by number: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections.abc import Iterator
from math import prod

import numpy as np

MAX_NODES = 40_000
MAX_FIELDS = 500_000  # of all messages in a file: they are read in half a second; the shipped loop has 21,509
MAX_NAME_BYTES = 1000  # of a node, an operator or a tensor; the exporters write under 200
MAX_WIRES = 1000  # inputs and outputs of a node; a concatenation of export has five
_MAX_RANK = 16
_LEAST_BITS = 2  # of an element: int2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_OWN_DOMAINS = (b"", b"ai.onnx")
_CONTROL = (b"Loop", b"If", b"Scan", b"SequenceMap", b"Optional")

_LAST_NAME = 4  # of the fields of a node: inputs, outputs, its name, its operator
_DATA = (4, 5, 6, 7, 9, 10, 11)  # fields of a tensor that hold elements: 9 is raw, the others are by type
# Of floats: the field that holds them and their type, as unsigned numbers, with the bits of the exponent.
_FLOATS = {
    (4, 1): ("<u4", 0x7F800000),
    (9, 1): ("<u4", 0x7F800000),
    (9, 10): ("<u2", 0x7C00),
    (9, 16): ("<u2", 0x7F80),
    (9, 11): ("<u8", 0x7FF0000000000000),
    (10, 11): ("<u8", 0x7FF0000000000000),
}

Field = tuple[int, int | memoryview]


def why_refused(content: bytes) -> str | None:
    """Return what in a graph is refused, in a few words, or None: it is a plain graph, as far as can be seen here."""
    try:
        _Reading().model(memoryview(content))
    except ValueError as error:
        return str(error)
    return None


class _Reading:
    """Reads one file; each method raises ValueError with what is refused."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

    def model(self, model: memoryview) -> None:
        graphs = 0
        for number, value in self._fields(model):
            if number == 25:
                raise ValueError("it defines functions of its own")
            if number == 7 and isinstance(value, memoryview):
                graphs += 1
                self._graph(value)
        if graphs != 1:
            raise ValueError(f"it holds {graphs} graphs, needed one")

    def _graph(self, graph: memoryview) -> None:
        nodes = 0
        for number, value in self._fields(graph):
            if number == 1:
                nodes += 1
                if nodes > MAX_NODES:
                    raise ValueError(f"it has over {MAX_NODES} nodes")
                self._node(_message(value))
            elif number == 5:
                self._tensor(_message(value))
            elif number == 15:
                _check_sparse(_message(value))

    def _node(self, node: memoryview) -> None:
        wires = 0
        for number, value in self._fields(node):
            if number <= _LAST_NAME:
                _check_name(value)
            wires += number in (1, 2)
            if wires > MAX_WIRES:
                raise ValueError(f"it has a node of over {MAX_WIRES} inputs and outputs")
            if number == 4 and bytes(_message(value)) in _CONTROL:
                raise ValueError(f"it has a node {bytes(_message(value)).decode()}, which can run without end")
            if number == 7 and bytes(_message(value)) not in _OWN_DOMAINS:
                raise ValueError("it has a node of another domain than ai.onnx")
            if number == 5:
                self._attribute(_message(value))

    def _attribute(self, attribute: memoryview) -> None:
        for number, value in self._fields(attribute):
            if number in (6, 11):
                raise ValueError("it has a graph inside a node")
            if number in (2, 7):
                _check_finite(4, 1, value)
            elif number in (5, 10):
                self._tensor(_message(value))
            elif number in (22, 23):
                _check_sparse(_message(value))

    def _tensor(self, tensor: memoryview) -> None:
        dims: list[int] = []
        data: list[Field] = []
        kind = stored = 0
        for number, value in self._fields(tensor):
            if number == 13 or (number == 14 and value != 0):
                raise ValueError("it keeps data outside, in another file")
            if number == 1:
                dims += _packed(value) if isinstance(value, memoryview) else [value]
                if len(dims) > _MAX_RANK:
                    raise ValueError(f"it has a tensor of over {_MAX_RANK} dimensions")
            elif number == 8:
                _check_name(value)
            elif number == 2:
                kind = value if isinstance(value, int) else 0
            elif number in _DATA:
                stored += len(value) if isinstance(value, memoryview) else 1
                data.append((number, value))
        for number, value in data:
            if number == 5 and kind in (10, 16) and isinstance(value, memoryview):
                halves = np.fromiter(self._numbers(value), "<u2")
                _check_finite(9, kind, halves.data.cast("B"))
            else:
                _check_finite(number, kind, value)
        if any(side >= 2**63 for side in dims) or prod(dims) * _LEAST_BITS > stored * 8 + 7:
            raise ValueError("it has a tensor of more elements than its bytes hold")

    def _fields(self, message: memoryview) -> Iterator[Field]:
        for field in _fields(message):
            self._count()
            yield field

    def _numbers(self, message: memoryview) -> Iterator[int]:
        at = 0
        while at < len(message):
            self._count()
            value, at = _varint(message, at)
            yield value & 0xFFFF

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it has over {MAX_FIELDS} fields")


def _check_name(value: int | memoryview) -> None:
    if len(_message(value)) > MAX_NAME_BYTES:
        raise ValueError(f"it has a name of over {MAX_NAME_BYTES} bytes")


def _check_sparse(sparse: memoryview) -> None:
    if len(sparse):
        raise ValueError("it has a sparse tensor, which a few bytes can make of any size")


def _check_finite(number: int, kind: int, value: int | memoryview) -> None:
    """Raise ValueError if floats of a tensor are not finite: all bits of their exponent are set."""
    layout = _FLOATS.get((number, kind))
    if layout is None or not isinstance(value, memoryview):
        return
    dtype, exponent = layout
    count = len(value) // np.dtype(dtype).itemsize
    bits = np.frombuffer(value, dtype, count) & np.array(exponent, dtype)
    if (bits == exponent).any():
        raise ValueError("it has a weight that is NaN or infinite")


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
    values: list[int] = []
    at = 0
    while at < len(message) and len(values) <= _MAX_RANK:
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
