"""How images are cut and scaled."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import numpy as np  # noqa: E402

from training.crops import monochrome, random_crop, within_border  # noqa: E402


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


def test_a_monochrome_image_is_its_luma_three_times() -> None:
    x = torch.zeros(1, 3, 2, 2)
    x[:, 1] = 1.0
    torch.testing.assert_close(monochrome(x), torch.full((1, 3, 2, 2), 0.587))


def test_a_border_lies_at_the_sides_alone_and_never_covers_the_middle() -> None:
    masks = [within_border(96, np.random.default_rng(seed)) for seed in range(40)]
    assert {value for mask in masks for value in mask.unique().tolist()} == {0.0, 1.0}
    assert all(mask[..., 32:64, 32:64].min() == 1 for mask in masks)
    for axis in (2, 3):
        assert any(mask.amax(axis).flatten()[0] == 0 for mask in masks)
        assert any(mask.amax(axis).flatten()[-1] == 0 for mask in masks)
