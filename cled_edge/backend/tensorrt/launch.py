"""A frame's work on the GPU, from the host's bytes to the host's bytes: one CUDA graph, or call by call."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from cled_edge.backend.protocol import Array
from cled_edge.backend.tensorrt.cuda import Cuda, CudaError
from cled_edge.errors import BackendError

ONE_GRAPH = "one CUDA graph, verified bit for bit"
_SPOILT = 0xA5


@dataclass(frozen=True)
class DeviceTensor:
    """A contiguous array in device memory."""

    shape: tuple[int, ...]
    dtype: str
    address: int

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


class Launch:
    """Uploads `inputs`, makes `calls`, downloads `outputs`, always in this order on one stream.

    name: for reports. calls: they put work on the stream and raise BackendError if it is refused. how: `ONE_GRAPH`, or
    "stream launches" and why; None before the first frame. no_graph: why there is to be none. gpu_ms: of the last
    frame, from its upload to its download, if `timed`. Outputs are two sets of pinned arrays that take turns, so that a
    frame's outlive the next frame. A CUDA graph holds the addresses it copies to: there is one for each set.
    """

    def __init__(
        self,
        name: str,
        cuda: Cuda,
        stream: Any,
        inputs: Mapping[str, DeviceTensor],
        calls: Sequence[Callable[[], None]],
        outputs: Sequence[DeviceTensor],
        *,
        no_graph: str | None = None,
        timed: bool = False,
    ) -> None:
        self.name = name
        self.how: str | None = None
        self.gpu_ms: float | None = None
        self._no_graph = no_graph or cuda.no_capture
        self._cuda, self._stream, self._calls = cuda, stream, calls
        self._inputs = {name: (self._pinned(tensor), tensor.address) for name, tensor in inputs.items()}
        self._addresses = [tensor.address for tensor in outputs]
        self._sets = [[self._pinned(tensor) for tensor in outputs] for _ in range(2)]
        self._graphs: list[Any] = []
        self._turn = 0
        self._done = cuda.event(timed)
        self._begin = cuda.event(timed) if timed else None

    def __call__(self, values: Mapping[str, Array]) -> list[Array]:
        """Return the outputs for these inputs, which must be all there are; BackendError if they do not fit."""
        self._check(values)
        if self.how is None:
            values = {name: np.array(value) for name, value in values.items()}  # preparing writes over pinned inputs
            self.how = self._prepare(values)
        self._turn = 1 - self._turn
        return self._run(values, self._turn, self._graphs[self._turn] if self._graphs else None)

    @property
    def pinned_inputs(self) -> dict[str, Array]:
        """The page-locked arrays that are uploaded, by name: given as inputs themselves, they are not copied first."""
        return {name: host for name, (host, _) in self._inputs.items()}

    def close(self) -> None:
        """Give back the graphs. Inputs and outputs live as long as somebody holds them."""
        self._drop_graphs()
        self._cuda.destroy_event(self._done)
        if self._begin is not None:
            self._cuda.destroy_event(self._begin)

    def _pinned(self, tensor: DeviceTensor) -> Array:
        return self._cuda.pinned(tensor.size).view(tensor.dtype).reshape(tensor.shape)

    def _check(self, values: Mapping[str, Array]) -> None:
        if values.keys() != self._inputs.keys():
            given, needed = (", ".join(sorted(names)) for names in (values, self._inputs))
            raise BackendError(f"TensorRT refused {self.name}: inputs are {given}, needed {needed}; give these alone")
        for name, (host, _) in self._inputs.items():
            seen = np.asarray(values[name])
            if (seen.dtype, seen.shape) != (host.dtype, host.shape):
                raise BackendError(
                    f"TensorRT refused {self.name}: {name} is {seen.dtype} {seen.shape}, needed {host.dtype} "
                    f"{host.shape}; give it so"
                )

    def _prepare(self, values: Mapping[str, Array]) -> str:
        """Capture a graph for each set of outputs and verify both; return how frames will be launched.

        TensorRT initialises in the first call, which must not be captured, so the frames to compare with come first. A
        second frame tells a graph that works from one that repeats what it did when it was captured.
        """
        if self._no_graph:
            return f"stream launches: {self._no_graph}"
        self._drop_graphs()  # of an attempt that was interrupted
        frames = values, {name: _other(value) for name, value in values.items()}
        needed = [[output.copy() for output in self._run(frame, 0)] for frame in frames]
        try:
            for index, outputs in enumerate(self._sets):
                self._capture(index)
                for frame, expected in zip(frames, needed, strict=True):
                    for output in outputs:
                        output.view(np.uint8).fill(_SPOILT)
                    _compare(self._run(frame, index, self._graphs[index]), expected)
        except BackendError as error:
            self._drop_graphs()
            self._cuda.clear_error()
            return f"stream launches: {error}"
        return ONE_GRAPH

    def _capture(self, index: int) -> None:
        """Add the graph of a frame that ends in a set of outputs."""
        cuda, stream = self._cuda, self._stream
        cuda.begin_capture(stream)
        try:
            self._submit(index)
        except BaseException:
            # Left capturing, the stream could never be used again.
            with suppress(CudaError):
                cuda.destroy_graph(cuda.end_capture(stream))
            raise
        graph = cuda.end_capture(stream)
        try:
            self._graphs.append(cuda.instantiate(graph))
        finally:
            cuda.destroy_graph(graph)
        cuda.upload_graph(self._graphs[index], stream)

    def _run(self, values: Mapping[str, Array], index: int, graph: Any = None) -> list[Array]:
        for name, (host, _) in self._inputs.items():
            if values[name] is not host:
                np.copyto(host, values[name])
        if self._begin is not None:
            self._cuda.record(self._begin, self._stream)
        if graph is None:
            self._submit(index)
        else:
            self._cuda.launch(graph, self._stream)
        # Waiting for the stream itself keeps a core busy, which the cameras need.
        self._cuda.record(self._done, self._stream)
        self._cuda.wait(self._done)
        if self._begin is not None:
            self.gpu_ms = self._cuda.elapsed_ms(self._begin, self._done)
        return self._sets[index]

    def _submit(self, index: int) -> None:
        for host, address in self._inputs.values():
            self._cuda.upload(address, host, self._stream)
        for call in self._calls:
            call()
        for host, address in zip(self._sets[index], self._addresses, strict=True):
            self._cuda.download(host, address, self._stream)

    def _drop_graphs(self) -> None:
        while self._graphs:
            self._cuda.destroy_executable(self._graphs.pop())


def _other(value: Array) -> Array:
    """Return another input within the same range: bytes inverted, floats halved, both in reverse order."""
    reverse = value.reshape(-1)[::-1].reshape(value.shape)
    return np.asarray(255 - reverse if value.dtype == np.uint8 else reverse * value.dtype.type(0.5))


def _compare(seen: Sequence[Array], expected: Sequence[Array]) -> None:
    for index, (one, other) in enumerate(zip(seen, expected, strict=True)):
        different = np.count_nonzero(one.view(np.uint8) != other.view(np.uint8))
        if different:
            raise BackendError(f"a CUDA graph gave {different} other bytes of {one.nbytes} in output {index}")
