"""What the fuser asks of a backend."""

import threading
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.facts import BackendFacts, RunFacts
from cled_edge.bundle.manifest import StepRows
from cled_edge.bundle.reader import Bundle

Array = NDArray[Any]  # of the dtype and shape that the manifest states


class Backend(Protocol):
    """Runs the graphs of one bundle on one device. A graph is made ready when it first runs at a shape.

    choice: what was opened; it names the precision of the graphs to run. opsets: of the graphs that it runs, the
    preferred first. description: SDK, version, device and precision, in one line. facts: what it is. runs: what its
    graphs did so far. One thread at a time may run a backend, and any may close it: closing waits for the run under
    way. in_use: held while a frame is made, where outputs belong to the backend; None where threads may share it.
    """

    choice: BackendChoice
    opsets: tuple[int, ...]
    description: str
    facts: BackendFacts
    runs: RunFacts
    in_use: "threading.Lock | None"

    def run(self, graph: str, inputs: Mapping[str, Array]) -> list[Array]:
        """Return the outputs of a graph, named as in the manifest, in its order; BackendError says what failed.

        Contiguous inputs are read in place, and not kept. Outputs belong to the backend: they stay as they are through
        the next run of the same graph, so they may be its input, and the run after that may overwrite them. Copy what
        is kept for longer.
        """
        ...

    def close(self) -> None:
        """Give back what the backend holds; it cannot run afterwards. Closing twice does nothing."""
        ...


@runtime_checkable
class FrameBackend(Backend, Protocol):
    """A backend that can run all steps and the fusion without coming back to the host between them."""

    def fused_frame(
        self, step: str, fusion: str, rows: StepRows, inputs: Mapping[str, Array]
    ) -> tuple[Array, Array, Array | None]:
        """Return the last `residual` of the graph `step`, run once for each row, and `fused` of the graph `fusion`.

        Third comes what the last step tells of `kinds`; None if the graph tells none.
        inputs: `x_t`, the state to start from, `x_in`, and the controls that `fusion` takes, see cled_edge/contract.py.
        The outputs live as long as those of `run`.
        """
        ...


class BackendType(Protocol):
    """What the registry asks of a backend's class."""

    def __call__(self, bundle: Bundle, choice: BackendChoice, threads: int, **options: Any) -> Backend:
        """Open; BackendError if this machine lacks the package, the device or the precision."""
        ...

    def precisions(self, name: str) -> tuple[str, ...]:
        """Return the precisions that this machine has under a registered name; BackendError if it cannot run at all."""
        ...

    def sdk(self, name: str) -> str:
        """Return the SDK and its version; BackendError if it is not installed."""
        ...
