"""Fakes and small things that the tests share."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # there are as many as cores; NumPy and torch read it when they are imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from cled_edge.image import write_png

# Under nohup it is ignored, and so by every command that a test starts, as it should be.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

Write = Callable[..., tuple[Path, Path]]
LONGEST = ("export", "training")  # folders whose files take a minute or more each


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: workers take a file at a time, and the last should be a short one."""
    items.sort(key=lambda item: item.path.parent.name not in LONGEST)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def write_pairs(tmp_path: Path, rng: np.random.Generator) -> Write:
    """Write small pairs and return the infrared and the visible folder."""

    def write(stems: tuple[str, ...] = ("a", "b"), size: tuple[int, int] = (40, 56)) -> tuple[Path, Path]:
        folders = tmp_path / "infrared", tmp_path / "visible"
        for folder, channels in zip(folders, ((), (3,)), strict=True):
            folder.mkdir(exist_ok=True)
            for stem in stems:
                write_png(folder / f"{stem}.png", rng.integers(0, 256, (*size, *channels), np.uint8))
        return folders

    return write
