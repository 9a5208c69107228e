"""What a graph of a bundle is given when pairs are fused: to calibrate on, and to look into it with."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing

import numpy as np

from cled_edge.backend.opener import open_backend
from cled_edge.backend.protocol import Array, Backend
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import Controls
from cled_edge.fuser import Fuser
from cled_edge.image import Uint8
from cled_edge.tensors import maps_of
from cled_edge.thermal import WHITE_HOT

Inputs = dict[str, Array]
Call = tuple[Uint8, Uint8, Controls, Uint8 | None]  # of the fuser: infrared, visible, controls, strength map


def recorded_inputs(bundle: Bundle, name: str, calls: Iterable[Call]) -> Iterator[Inputs]:
    """Yield the inputs of the graph of that name, each time that it runs in ONNX Runtime while pairs are fused.

    A call with images of a size, of steps or with a map that the graph is not for yields nothing.
    """
    spec = bundle.manifest.graphs[name]
    with closing(open_backend(f"onnxruntime:{spec.precision}", bundle)) as backend:
        recorder = _Recorder(backend, name)
        fuser = Fuser(bundle, recorder, opset=spec.opset, thermal=WHITE_HOT)
        for infrared, visible, controls, strength_map in calls:
            if spec.role == "fused_loop":
                if fuser.loop_graph(infrared.shape[:2], controls, tuple(maps_of(strength_map))) == name:
                    fuser.in_one_graph(infrared, visible, controls, strength_map)
            elif spec.size in (None, fuser.prepare(infrared, visible).shape[2:]):
                fuser.step_by_step(infrared, visible, controls, strength_map)
            yield from recorder.taken()


class _Recorder:
    """A backend that keeps what one graph is given."""

    def __init__(self, backend: Backend, graph: str) -> None:
        self.choice, self.opsets = backend.choice, backend.opsets
        self.description, self.facts, self.runs = backend.description, backend.facts, backend.runs
        self.in_use = backend.in_use
        self._backend, self._graph, self._kept = backend, graph, list[Inputs]()

    def run(self, graph: str, inputs: Mapping[str, Array]) -> list[Array]:
        if graph == self._graph:
            self._kept.append({name: np.array(array) for name, array in inputs.items()})
        return self._backend.run(graph, inputs)

    def close(self) -> None:
        self._backend.close()

    def taken(self) -> list[Inputs]:
        """Return what was kept since the last time."""
        kept, self._kept = self._kept, []
        return kept
