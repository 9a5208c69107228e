"""Monochrome cameras: which images get a tint, how much of it by their noise, and grey images out again."""

import numpy as np
import pytest

from cled_edge import Controls, Fuser
from cled_edge.image import Uint8
from cled_edge.monochrome import is_grey, noise_levels, tinted
from cled_edge.tiling import Tiling, fuse_tiled


def scene(noise: float = 0.0, size: tuple[int, int] = (96, 128)) -> Uint8:
    """Return a grey ramp with a box, (H, W), and noise of so many levels."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    image = 60 + 40 * rows / size[0] + 30 * columns / size[1]
    image[20:50, 30:70] += 60
    image += np.random.default_rng(0).normal(0, noise, size) if noise else 0
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def test_an_image_is_grey_if_every_pixel_is() -> None:
    grey = scene()
    color = np.stack([grey] * 3, axis=2)
    for image in (grey, grey[:, :, None], color):
        assert is_grey(image)
    color[33, 45, 2] += 1  # no pixel of the probe
    assert not is_grey(color)


@pytest.mark.parametrize("sigma", [3.0, 8.0, 15.0])
def test_noise_is_estimated_within_a_tenth(sigma: float) -> None:
    assert noise_levels(scene(sigma, (480, 640))) == pytest.approx(sigma, rel=0.1)


def test_images_of_one_pixel_and_of_one_value_have_no_noise() -> None:
    assert noise_levels(np.zeros((1, 1), np.uint8)) == 0
    assert noise_levels(np.full((64, 64), 90, np.uint8)) < 0.4


def test_the_tint_keeps_the_luma_and_fades_with_noise() -> None:
    calm, rough = tinted(scene(), "RGB").astype(float), tinted(scene(9.0), "RGB").astype(float)
    luma = calm @ (0.299, 0.587, 0.114)
    assert np.abs(luma - scene()).max() < 0.7
    assert (calm[:, :, 0] - calm[:, :, 2]).mean() > 5
    assert np.ptp(rough, axis=2).max() == 0
    between = tinted(scene(5.0, (480, 640)), "RGB").astype(float)
    assert 1 < (between[:, :, 0] - between[:, :, 2]).mean() < 5


def test_bgr_gets_the_same_tint_as_rgb() -> None:
    np.testing.assert_array_equal(tinted(scene(), "BGR")[:, :, ::-1], tinted(scene(), "RGB"))


def test_a_grey_pair_gives_grey_images_whole_and_in_tiles() -> None:
    infrared, grey = scene(size=(160, 192))[::-1].copy(), scene(size=(160, 192))
    with Fuser.load() as fuser:
        whole = fuser(infrared, grey)
        tiled = fuse_tiled(fuser, infrared, grey, None, Tiling((128, 128), 32))
        color = fuser(infrared, np.stack([grey, grey, grey - 20], axis=2))
    for fused in (whole, tiled):
        for image in (fused.picture, fused.visible):
            assert image.shape == (160, 192, 3)
            assert np.ptp(image.astype(int), axis=2).max() == 0
    assert np.ptp(color.visible.astype(int), axis=2).max() > 0


def test_without_removal_a_grey_image_stays_as_it_is() -> None:
    grey = scene()
    with Fuser.load() as fuser:
        fused = fuser(grey[::-1].copy(), grey, Controls(strength_visible=0.0))
    np.testing.assert_array_equal(fused.visible, np.stack([grey] * 3, axis=2))
