"""What a measurement compares: a bundle on a backend, named BUNDLE@BACKEND, opened and fed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cled_edge.backend.choice import BackendChoice
from cled_edge.bench.feed import Feed, FileFeed, MemoryFeed, rendered_pairs
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import Controls
from cled_edge.errors import OptionError
from cled_edge.fuser import Fuser
from cled_edge.select import open_chosen

DEFAULT_BACKEND = "onnxruntime"  # always there
DEFAULT_SIZE = (480, 640)


@dataclass(frozen=True)
class Candidate:
    """A bundle folder (None is the shipped one) and a backend."""

    bundle: Path | None
    backend: BackendChoice

    @classmethod
    def parse(cls, text: str) -> "Candidate":
        """Read a bundle's folder, a backend, or BUNDLE@BACKEND; OptionError for a backend that does not exist."""
        folder, at, backend = text.rpartition("@")
        if at:
            return cls(Path(folder), BackendChoice.parse(backend))
        if Path(text).is_dir() or "/" in text:
            return cls(Path(text), BackendChoice.parse(DEFAULT_BACKEND))
        return cls(None, BackendChoice.parse(text))

    @property
    def label(self) -> str:
        """Return what tables and plots call it."""
        return f"{self.bundle}@{self.backend}" if self.bundle else str(self.backend)


@dataclass(frozen=True)
class Inputs:
    """Two sources, or none of either for a rendered street of `size` (height, width)."""

    infrared: str | None = None
    visible: str | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse half a pair, and a size that sources have already."""
        if (self.infrared is None) != (self.visible is None):
            raise OptionError("one of infrared and visible is missing; give both, or neither for a rendered street")
        if self.infrared is not None and self.size is not None:
            raise OptionError("a size is given beside sources; it is of the rendered street, sources keep their own")

    def feeds(self, count: int) -> list[Feed]:
        """Open so many feeds of the same pairs."""
        if self.infrared is not None and self.visible is not None:
            return [FileFeed(self.infrared, self.visible) for _ in range(count)]
        pairs = rendered_pairs(self.size or DEFAULT_SIZE)
        return [MemoryFeed("rendered night street", pairs) for _ in range(count)]


class CallSubject:
    """Any call."""

    def __init__(self, label: str, call: Callable[[], object]) -> None:
        self.label = label
        self._call = call

    def fuse(self) -> dict[str, int]:
        """Make the call, of which no stages are known."""
        self._call()
        return {}


class FuserSubject:
    """A fuser with its feed."""

    def __init__(self, label: str, fuser: Fuser, feed: Feed, controls: Controls, threads: int) -> None:
        self.label = label
        self.fuser = fuser
        self.feed = feed
        self.controls = controls
        self.threads = threads  # 0 is the backend's choice

    def fuse(self) -> dict[str, int]:
        """Fuse the next pair; return nanoseconds by stage."""
        pair, stages = self.feed.next()
        return {**stages, **self.fuser(pair.infrared, pair.visible, self.controls).latency_ns}


@contextmanager
def open_subjects(
    candidates: list[Candidate], inputs: Inputs, controls: Controls, threads: int, public_key: Path | None = None
) -> Iterator[list[FuserSubject]]:
    """Open every candidate on the same pairs; close all afterwards. public_key: PEM file that must have signed each."""
    with ExitStack() as stack:
        feeds = inputs.feeds(len(candidates))
        for feed in feeds:
            stack.callback(feed.close)
        subjects = []
        for candidate, feed in zip(candidates, feeds, strict=True):
            bundle = Bundle.open(candidate.bundle, public_key=public_key)
            fuser = stack.enter_context(Fuser(bundle, open_chosen(candidate.backend, bundle, threads, feed.size)))
            subjects.append(FuserSubject(candidate.label, fuser, feed, controls, threads))
        yield subjects
