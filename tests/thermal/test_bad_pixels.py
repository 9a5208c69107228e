"""Bad pixels: which are replaced in one image, which are found in a stream, and what must stay."""

import numpy as np
import pytest

from cled_edge.metrics.psnr import psnr_db
from cled_edge.thermal import Thermal
from cled_edge.thermal.bad_pixels import StuckPixels, repaired

DEPTHS = [pytest.param(np.uint8, 1, id="8 bit"), pytest.param(np.uint16, 20, id="16 bit")]


def scene(rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """Grey walls with noise, a warm body with sharp sides, and a stripe pattern: (120, 160) uint8."""
    y, x = np.mgrid[:120, :160]
    grey = 110 + 50 * np.sin((x + shift) / 20) * np.cos(y / 15) + rng.normal(0, 1, (120, 160))
    grey[40:80, 70:85] = 220
    grey[90:110] += 12 * ((x[90:110] + round(shift)) // 3 % 2)
    return np.clip(grey, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("value", [0, 255, None])
@pytest.mark.parametrize("share", [0.002, 0.01])
@pytest.mark.parametrize(("dtype", "gain"), DEPTHS)
def test_dead_pixels_are_replaced(dtype: type, gain: int, share: float, value: int | None, rng) -> None:
    clean = scene(rng).astype(dtype) * dtype(gain)
    spoiled = clean.copy()
    places = rng.choice(clean.size, round(share * clean.size), replace=False)
    spoiled.ravel()[places] = (rng.integers(0, 256, len(places)) if value is None else value) * gain
    before, after = (psnr_db(image / gain, clean / gain) for image in (spoiled, repaired(spoiled)))
    assert after >= before + 10


@pytest.mark.parametrize(("dtype", "gain"), DEPTHS)
@pytest.mark.parametrize("cluster", [((0, 0),), ((0, 0), (0, 1)), ((0, 0), (1, 1)), ((0, 0), (0, 1), (1, 0))])
def test_clusters_of_up_to_three_go_and_targets_of_four_stay(cluster, dtype: type, gain: int, rng) -> None:
    clean = scene(rng).astype(dtype) * dtype(gain)
    dead, target = clean.copy(), clean.copy()
    for y, x in cluster:
        dead[20 + y, 120 + x] = 255 * gain
    target[20:22, 120:122] = 255 * gain
    assert abs(int(repaired(dead)[20, 120]) - int(clean[20, 120])) < 20 * gain
    assert (repaired(target)[20:22, 120:122] == 255 * gain).all()


def test_a_clean_image_stays_as_it_is(rng) -> None:
    clean = scene(rng)
    assert psnr_db(repaired(clean), clean) > 50


def test_noise_is_left_to_the_network(rng) -> None:
    noisy = np.clip(scene(rng) + rng.normal(0, 25, (120, 160)), 0, 255).astype(np.uint8)
    assert np.mean(repaired(noisy) != noisy) < 0.001


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (7, 7), (8, 8), (33, 47)])
def test_any_size_is_taken(shape: tuple[int, int], rng) -> None:
    image = rng.integers(0, 256, shape).astype(np.uint8)
    assert repaired(image).shape == shape


def test_the_image_that_is_given_is_not_written_to(rng) -> None:
    spoiled = scene(rng)
    spoiled[10, 10] = 255
    kept = spoiled.copy()
    assert repaired(spoiled)[10, 10] != 255
    assert np.array_equal(spoiled, kept)


def test_a_fuser_replaces_them_unless_told_otherwise(rng) -> None:
    spoiled = scene(rng)
    spoiled[10, 10] = 255
    assert Thermal().grey(spoiled)[10, 10] != 255
    assert Thermal(repair_pixels=False).grey(spoiled)[10, 10] == 255


def moving(rng: np.random.Generator, spoil, frames: int = 150) -> tuple[StuckPixels, np.ndarray, np.ndarray]:
    """Return what has seen a scene that moves, and its last frame, clean and spoiled."""
    stuck = StuckPixels()
    for index in range(frames):
        clean = scene(rng, 2.0 * index).astype(np.uint16) * 20
        spoiled = clean.copy()
        spoil(spoiled)
        stuck.see(spoiled)
    return stuck, clean, spoiled


def test_pixels_that_stay_while_the_scene_moves_are_found(rng) -> None:
    def spoil(image: np.ndarray) -> None:
        image[5, 30] = image[5, 31] = 2200  # in the middle of the scene: no single image shows them
        image[60] = 2300

    stuck, clean, spoiled = moving(rng, spoil)
    assert stuck.count == pytest.approx(162, abs=1)
    wrong = np.abs(stuck.filled(spoiled).astype(int) - clean)
    assert wrong[5, 30:32].max() < 300
    assert np.median(wrong[60]) < 150 < np.median(np.abs(spoiled.astype(int) - clean)[60])


def test_what_is_drawn_into_the_image_and_what_holds_still_stay(rng) -> None:
    def draw(image: np.ndarray) -> None:
        image[10:18, 10:14] = 5000

    assert moving(rng, draw)[0].count == 0
    still = StuckPixels()
    for _ in range(80):
        still.see(scene(rng))
    assert still.count == 0


def test_a_pixel_that_moves_again_leaves_the_map(rng) -> None:
    stuck, _, _ = moving(rng, lambda image: image.__setitem__((5, 30), 2200))
    assert stuck.count == 1
    for index in range(30):
        stuck.see(scene(rng, 300 + 2.0 * index).astype(np.uint16) * 20)
    assert stuck.count == 0
