"""How images are cut and scaled."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import numpy as np  # noqa: E402

from training.crops import random_crop  # noqa: E402


def test_crops_are_scaled_as_averages_of_their_pixels(rng) -> None:
    smooth = np.linspace(0, 250, 100).astype(np.uint8)
    picture = np.repeat(np.repeat(smooth[None, :, None], 100, 0), 3, 2)
    for seed in range(12):
        (crop,) = random_crop([picture], 40, np.random.default_rng(seed))
        assert crop.shape == (40, 40, 3)
        steps = np.abs(np.diff(crop[0, :, 0].astype(int)))
        assert 2 <= np.median(steps) <= 7
    checks = (np.indices((100, 100)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None]
    (flat,) = random_crop([checks], 40, _always_widest())
    assert abs(flat.astype(int) - 127).max() <= 1


class _always_widest:  # noqa: N801
    def random(self) -> float:
        return 0.4

    def integers(self, low: int, high: int | None = None) -> int:
        return 0 if high is None else high - 1
