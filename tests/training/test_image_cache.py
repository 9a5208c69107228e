"""How often an image is decoded."""

import logging
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from tests.fakes.training import data_recipe  # noqa: E402
from training.image_cache import (  # noqa: E402
    GIB,
    ImageCache,
)
from training.pairs import FusionBatches, RestorationBatches  # noqa: E402


def test_a_image_is_decoded_once_within_the_limit_and_again_beyond_it(train_only: Path, caplog) -> None:
    both = ImageCache(4)
    restoration = RestorationBatches(train_only, data_recipe(), 4, 32, 0, images=both)
    FusionBatches(train_only, data_recipe(), 4, 32, 0, images=both)(0)
    wanted = restoration(0)
    assert both.decoded == 40
    few = ImageCache(6 * 48 * 56 * 3 / GIB)
    with caplog.at_level(logging.INFO, "training"):
        small = RestorationBatches(train_only, data_recipe(), 4, 32, 0, images=few)
        assert few.decoded == 40
        got = [small(k) for k in range(6)]
    assert few.decoded > 40
    assert few.kept_bytes <= few.limit_bytes
    assert sum("of keep_gib; the others are decoded at each use" in r.message for r in caplog.records) == 1
    assert all(torch.equal(a, b) for a, b in zip(got[0], wanted, strict=True))
    with pytest.raises(ValueError, match="read-only"):
        both(restoration.clean["visible"][0], "visible")[0, 0] = 0
