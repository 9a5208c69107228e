"""What is shown while both cameras are lost."""

import numpy as np
import pytest

from cled_edge.frame import ORDER, Frame, FramePair
from cled_edge.output.dead_tile import dead_tile


def pair() -> FramePair:
    frames = Frame(np.zeros((4, 4), np.uint8), 0, ORDER, 0, "i"), Frame(np.zeros((4, 4, 3), np.uint8), 0, ORDER, 0, "v")
    return FramePair(*frames, degraded="both lost", states=("lost", "stale"))


@pytest.mark.parametrize("size", [(480, 640), (120, 160), (1080, 1920), (9, 9)])
def test_it_is_dark_with_words_of_the_size_asked_for(size: tuple[int, int]) -> None:
    tile = dead_tile(pair(), size, 3.2, "RGB")
    assert tile.picture.shape == (*size, 3)
    assert tile.infrared.shape == size
    assert tile.picture.mean() < 60
    if min(size) > 100:
        words = tile.infrared > 100
        assert 0.005 < words.mean() < 0.2
        assert not words[:, 0].any()
        assert not words[:, -1].any()


def test_it_changes_with_the_time() -> None:
    assert (dead_tile(pair(), (120, 160), 3, "RGB").picture != dead_tile(pair(), (120, 160), 4, "RGB").picture).any()
