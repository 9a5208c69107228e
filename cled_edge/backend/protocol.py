"""What the fuser asks of a backend."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cled_edge.manifest import GraphName

Float32 = NDArray[np.float32]


class Backend(Protocol):
    """Runs the graphs of one bundle on one device."""

    description: str

    def run(self, graph: GraphName, inputs: Mapping[str, Float32]) -> list[Float32]:
        """Return the graph's outputs in the manifest's order; BackendError says what failed."""
        ...

    def close(self) -> None:
        """Give back what the backend holds; it cannot run afterwards."""
        ...
