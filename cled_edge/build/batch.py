"""All engines that are asked for, one after the other: those that are there are kept, the others built."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cled_edge.backend.tensorrt.build_options import BuildOptions
from cled_edge.backend.tensorrt.build_record import BuildRecord
from cled_edge.backend.tensorrt.capabilities import capabilities
from cled_edge.backend.tensorrt.device import read_facts
from cled_edge.backend.tensorrt.sdk import import_tensorrt
from cled_edge.backend.tensorrt.store import current_record, engine_paths
from cled_edge.build.builder import build_engine
from cled_edge.build.request import chosen_graphs
from cled_edge.build.supervisor import Limits, OnStep
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import OptionError


@dataclass(frozen=True)
class Effort:
    """How engines are built: how often each, of which the fastest is kept; within which limits; with which log.

    force: build also what is already there. binding: to CUDA, by which engines are tried and run.
    """

    builds: int = 1
    keep_fastest: bool = False
    force: bool = False
    limits: Limits = field(default_factory=Limits)
    log: Path | None = None
    binding: str = "cuda"

    def __post_init__(self) -> None:
        """Refuse several builds of which none is chosen with an OptionError."""
        if (self.builds > 1) != self.keep_fastest:
            state = "with" if self.keep_fastest else "without"
            raise OptionError(
                f"builds is {self.builds} {state} keep_fastest, needed both or none, as one engine is kept; give for "
                "example 3 builds with keep_fastest"
            )


@dataclass(frozen=True)
class Engine:
    """An engine on disk. is_new: it was built now."""

    path: Path
    record: BuildRecord
    is_new: bool


def build_all(
    bundle: Bundle,
    options: Sequence[BuildOptions],
    folder: Path,
    graphs: Sequence[str] = (),
    steps: int | None = None,
    *,
    effort: Effort | None = None,
    on_step: OnStep | None = None,
) -> Iterator[Engine]:
    """Yield each engine of `chosen_graphs`, for this device, once it is in `folder`.

    Raises what `chosen_graphs` and `build_engine` raise, and BackendError without TensorRT or a GPU.
    """
    how = effort or Effort()
    has, facts = capabilities(import_tensorrt()), read_facts(how.binding)
    for name, one in chosen_graphs(bundle, has, options, graphs, steps):
        is_looked_for = not (how.force or how.keep_fastest)
        record = current_record(bundle, name, one, facts, folder) if is_looked_for else None
        is_new = record is None
        if record is None:
            record = build_engine(
                bundle,
                name,
                one,
                facts,
                folder,
                limits=how.limits,
                builds=how.builds,
                on_step=on_step,
                binding=how.binding,
                log=how.log,
            )
        yield Engine(engine_paths(folder, name, record.key)[0], record, is_new)
