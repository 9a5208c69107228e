"""Data and recipes that the tests of training share."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cled_edge.data.split import part_of
from cled_edge.image import write_png
from tests.fakes.recipes import RECIPE


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small images do not pay for torch's threads, and on a busy machine these wait for each other."""
    torch = pytest.importorskip("torch", reason="needs torch: make test installs it")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Twenty-four pairs of random images, some of them held out."""
    _write_set(tmp_path / "data/set", [f"{k:03d}" for k in range(24)], (140, 150), 100, rng)
    return tmp_path / "data"


@pytest.fixture
def train_only(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Twenty pairs of small random images, none of them held out."""
    _write_set(tmp_path / "set", [str(k) for k in range(40) if part_of(str(k)) == "train"][:20], (48, 56), 90, rng)
    return tmp_path


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A recipe of four iterations and two."""
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(iterations=4))
    return path


def _write_set(folder: Path, stems: list[str], size: tuple[int, int], darkest: int, rng: np.random.Generator) -> None:
    for modality, channels in (("infrared", ()), ("visible", (3,))):
        (folder / modality).mkdir(parents=True)
        for stem in stems:
            write_png(folder / modality / f"{stem}.png", rng.integers(darkest, 256, (*size, *channels), np.uint8))
