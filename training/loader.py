"""Batches made ahead by worker processes, in their order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

import cv2
from torch.utils.data import DataLoader, Dataset

from cled_edge.errors import CledEdgeError
from training.batches import Fields

AHEAD = 2  # batches in preparation per worker


def prepared(make: Callable[[int], Fields], iterations: range, workers: int, pinned: bool = False) -> Iterator[Fields]:
    """Yield the batches of iterations in their order, prepared ahead by processes; without workers, when needed.

    Processes and not threads: the many small operations of an item would wait for each other's turn in Python. They
    share the decoded images with this one, which is why they are forked. pinned: in memory that a GPU reads directly.
    """
    if not workers:
        yield from map(make, iterations)
        return
    loader = DataLoader(
        _Made(make),
        batch_size=None,
        sampler=iterations,
        num_workers=workers,
        prefetch_factor=AHEAD,
        pin_memory=pinned,
        multiprocessing_context="fork",
        worker_init_fn=_be_one_thread,
    )
    for batch in loader:
        if isinstance(batch, CledEdgeError):
            raise batch
        yield batch


@dataclass(frozen=True)
class _Made(Dataset[Fields | CledEdgeError], Generic[Fields]):
    """The batches as torch's loader asks for them, or what went wrong: the loader would add a traceback to it."""

    make: Callable[[int], Fields]

    def __getitem__(self, iteration: int) -> Fields | CledEdgeError:
        try:
            return self.make(iteration)
        except CledEdgeError as error:
            return error


def _be_one_thread(worker: int) -> None:  # noqa: ARG001
    """OpenCV's threads of before the fork are no more; torch's loader sees to torch's."""
    cv2.setNumThreads(0)
