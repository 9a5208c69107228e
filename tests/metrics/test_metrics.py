"""Metrics of fused and restored pictures: against slow obvious forms, against libraries, against closed forms."""

from itertools import pairwise
from math import atan, exp, hypot, inf, isclose, log2, log10, pi, sqrt

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cled_edge.errors import OptionError, SizeMismatchError
from cled_edge.metrics.edges import edge_artefacts, edge_preservation
from cled_edge.metrics.flicker import STILL_LEVELS, FlickerMeter
from cled_edge.metrics.fused import SMALLEST, fusion_scores, information_fidelity, mutual_information_bits
from cled_edge.metrics.luma import luma
from cled_edge.metrics.psnr import NETWORK_SPAN, psnr_db
from cled_edge.metrics.reference import (
    MS_SSIM_SMALLEST,
    average_gradient,
    deviation,
    entropy_bits,
    ms_ssim,
    spatial_frequency,
    ssim,
)

KEYS = ["mi", "vif", "qabf", "nabf", "ssim", "scd", "en", "sd", "sf", "ag"]


def pair(height: int = 48, width: int = 56) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return infrared, visible and fused, grey, by formula: edges, texture, a flat part; the fused one has stripes."""
    y, x = np.mgrid[:height, :width]
    infrared = 40 + 120 * ((y // 11 + x // 13) % 2) + (x * 7 + y * 13) % 5
    visible = 90 + 60 * np.sin(x / 3) + 40 * np.cos(y / 5 + x / 9)
    visible[: height // 3, : width // 3] = 77
    fused = 0.9 * np.maximum(infrared, visible) + 25 * (x // 2 % 2) * (y > height // 2)
    return tuple(np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in (infrared, visible, fused))


def floats(*pictures: np.ndarray) -> list[np.ndarray]:
    return [picture.astype(np.float64) for picture in pictures]


def curve(x: float, ceiling: float, steepness: float, middle: float) -> float:
    return ceiling / (1 + exp(-steepness * (x - middle)))


def sobel_at(padded: np.ndarray, i: int, j: int) -> tuple[float, float]:
    """Return the differences to the right and down around [i, j] of a picture padded by one."""
    w = padded[i : i + 3, j : j + 3]
    right = w[0, 2] + 2 * w[1, 2] + w[2, 2] - w[0, 0] - 2 * w[1, 0] - w[2, 0]
    down = w[2, 0] + 2 * w[2, 1] + w[2, 2] - w[0, 0] - 2 * w[0, 1] - w[0, 2]
    return float(right), float(down)


def slow_qabf(a: np.ndarray, b: np.ndarray, f: np.ndarray) -> float:
    padded = [np.pad(p, 1) for p in floats(a, b, f)]
    kept = weights = 0.0
    for i, j in np.ndindex(f.shape):
        edges = []
        for p in padded:
            right, down = sobel_at(p, i, j)
            edges.append((hypot(right, down), atan(-down / right) if right else pi / 2))
        g_f, angle_f = edges[2]
        for g, angle in edges[:2]:
            relative = g_f if g == g_f else min(g, g_f) / max(g, g_f)
            turn = 1 - abs(angle - angle_f) / (pi / 2)
            kept += g * curve(relative, 0.9994, 15, 0.5) * curve(turn, 0.9879, 22, 0.8)
            weights += g
    return kept / weights


def slow_nabf(a: np.ndarray, b: np.ndarray, f: np.ndarray, weight_min: float) -> float:
    padded = [np.pad(p, 1, mode="reflect") / 8 for p in floats(a, b, f)]
    lost = weights = 0.0
    for i, j in np.ndindex(f.shape):
        edges = []
        for p in padded:
            right, down = sobel_at(p, i, j)
            angle = 0.0 if right == down == 0 else atan(right / down) if down else pi / 2
            edges.append((hypot(right, down), angle))
        g_f, angle_f = edges[2]
        for g, angle in edges[:2]:
            weight = g**1.5 if g >= 2 else weight_min
            weights += weight
            if g_f > edges[0][0] and g_f > edges[1][0]:
                relative = min(g, g_f) / max(g, g_f) if g and g_f else 0.0
                turn = abs(abs(angle - angle_f) - pi / 2) * 2 / pi
                lost += weight * (1 - sqrt(curve(relative, 0.9999, 19, 0.5) * curve(turn, 0.9995, 22, 0.5)))
    return lost / weights


def slow_blur(p: np.ndarray, size: int) -> np.ndarray:
    """Filter with a two-dimensional Gaussian of sigma size / 5 where it fits, window by window."""
    d = np.arange(size) - size // 2
    window = np.exp(-(d[:, None] ** 2 + d[None] ** 2) / (2 * (size / 5) ** 2))
    window /= window.sum()
    height, width = p.shape[0] - size + 1, p.shape[1] - size + 1
    return np.array([[(p[i : i + size, j : j + size] * window).sum() for j in range(width)] for i in range(height)])


def slow_vif(x: np.ndarray, y: np.ndarray) -> float:
    kept = held = 0.0
    for scale, size in enumerate((17, 9, 5, 3)):
        if scale:
            x, y = slow_blur(x, size)[::2, ::2], slow_blur(y, size)[::2, ::2]
        mean_x, mean_y, xx, yy, xy = (slow_blur(p, size) for p in (x, y, x * x, y * y, x * y))
        for at in np.ndindex(mean_x.shape):
            var_x = max(xx[at] - mean_x[at] ** 2, 0)
            var_y = max(yy[at] - mean_y[at] ** 2, 0)
            covariance = xy[at] - mean_x[at] * mean_y[at]
            if var_x < 1e-10:
                continue
            held += log10(1 + var_x / 2)
            g = covariance / (var_x + 1e-10)
            if g > 0 and var_y >= 1e-10:
                residue = max(var_y - g * covariance, 1e-10)
                kept += log10(1 + g * g * var_x / (residue + 2))
    return kept / held


def slow_mi(x: np.ndarray, y: np.ndarray) -> float:
    joint: dict[tuple[int, int], int] = {}
    for key in zip(x.ravel().tolist(), y.ravel().tolist(), strict=True):
        joint[key] = joint.get(key, 0) + 1
    n = x.size
    p_x, p_y = np.bincount(x.ravel()) / n, np.bincount(y.ravel()) / n
    return sum(c / n * log2(c / n / (p_x[i] * p_y[j])) for (i, j), c in joint.items())


def test_edge_metrics_equal_their_slow_forms() -> None:
    a, b, f = pair()
    assert isclose(edge_preservation(*floats(a, b, f)), slow_qabf(a, b, f), rel_tol=1e-12)
    slow = slow_nabf(a, b, f, 0.001), slow_nabf(a, b, f, 0.0)
    assert slow[0] > 0.005
    assert slow[0] != slow[1]
    assert isclose(edge_artefacts(*floats(a, b, f), "strict"), slow[0], rel_tol=1e-12)
    assert isclose(edge_artefacts(*floats(a, b, f), "paper"), slow[1], rel_tol=1e-12)


def test_vif_and_mi_equal_their_slow_forms() -> None:
    a, b, f = pair()
    for x, y in ((a, f), (b, f), (f, a)):
        assert isclose(information_fidelity(*floats(x, y)), slow_vif(*floats(x, y)), rel_tol=1e-9)
        assert isclose(mutual_information_bits(x, y), slow_mi(x, y), rel_tol=1e-9)


@pytest.mark.parametrize(("profile", "value_range"), [("strict", 255), ("paper", 1)])
def test_ssim_equals_scikit_image(profile, value_range: int) -> None:
    a, b, f = pair()

    def theirs(x: np.ndarray) -> float:
        options = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": value_range}
        return structural_similarity(*floats(x, f), **options)

    assert ssim(f, b, profile) == pytest.approx(theirs(b), abs=1e-9)
    assert fusion_scores(a, b, f, profile)["ssim"] == pytest.approx(theirs(a) + theirs(b), abs=1e-9)


def test_psnr_equals_scikit_image(rng) -> None:
    a, b = (rng.integers(0, 256, (20, 30, 3), np.uint8) for _ in range(2))
    assert psnr_db(a, b) == pytest.approx(peak_signal_noise_ratio(b, a), abs=1e-9)
    assert psnr_db(a[:, ::-1], b[:, ::-1]) == pytest.approx(psnr_db(a, b))
    assert psnr_db(a / 127.5 - 1, b / 127.5 - 1, NETWORK_SPAN) == pytest.approx(psnr_db(a, b))
    assert psnr_db(a, a) == inf
    assert psnr_db(np.full_like(a, 10), np.full_like(a, 20)) == pytest.approx(20 * log10(25.5))


def test_luma_equals_pillow(rng) -> None:
    picture = rng.integers(0, 256, (400, 500, 3), np.uint8)
    assert np.array_equal(luma(picture), np.asarray(Image.fromarray(picture).convert("L")))
    assert np.array_equal(
        luma(picture[:, :, ::-1]), np.asarray(Image.fromarray(picture[:, :, ::-1].copy()).convert("L"))
    )
    assert np.array_equal(luma(picture[:, :, :1]), picture[:, :, 0])


def test_golden_values() -> None:
    scores = fusion_scores(*pair())
    assert list(scores) == KEYS
    golden = {
        "mi": 5.6183524,
        "vif": 0.2089452,
        "qabf": 0.4177231,
        "nabf": 0.0110125,
        "ssim": 0.9362251,
        "scd": 1.1535682,
        "en": 5.8530822,
        "sd": 43.9603023,
        "sf": 32.9830144,
        "ag": 12.3793245,
    }
    assert scores == pytest.approx(golden, abs=1e-6)


def test_golden_values_of_other_libraries() -> None:
    a, b, f = pair(192, 208)
    # sewar 0.4.10: vifp(a, f), vifp(b, f); pytorch-msssim 1.0.0: ms_ssim(f, b, data_range=255), its window in float32.
    assert information_fidelity(*floats(a, f)) == pytest.approx(0.207185889115, abs=1e-9)
    assert information_fidelity(*floats(b, f)) == pytest.approx(0.058120415205, abs=1e-9)
    assert ms_ssim(f, b) == pytest.approx(0.48958684, abs=2e-6)


def test_a_copy_of_equal_sources_is_perfect() -> None:
    a = pair()[0]
    scores = fusion_scores(a, a, a)
    assert scores["mi"] == pytest.approx(2 * scores["en"])
    assert scores["vif"] == pytest.approx(2, abs=1e-6)
    assert scores["ssim"] == pytest.approx(2)
    assert scores["nabf"] == 0
    # Equal strengths count as that strength, far up the curve, and not as 1, which would give 0.9748.
    assert scores["qabf"] == pytest.approx(0.9994 * curve(1, 0.9879, 22, 0.8), abs=1e-6)
    assert scores["scd"] == 0  # the fused picture adds nothing to either source
    assert ms_ssim(*[pair(MS_SSIM_SMALLEST, MS_SSIM_SMALLEST)[1]] * 2) == pytest.approx(1)


def test_swapping_the_sources_changes_nothing() -> None:
    a, b, f = pair()
    assert fusion_scores(a, b, f) == pytest.approx(fusion_scores(b, a, f), rel=1e-12)


def test_colour_counts_by_its_luma_only(rng) -> None:
    a, b, f = (rng.integers(0, 256, (SMALLEST, 50, 3), np.uint8) for _ in range(3))
    assert fusion_scores(a, b, f) == fusion_scores(luma(a), luma(b), luma(f))
    assert ssim(a, b) == ssim(luma(a), luma(b))


def test_profiles_differ_in_ssim_and_artefacts_only() -> None:
    strict, paper = (fusion_scores(*pair(), profile) for profile in ("strict", "paper"))
    assert {key for key in KEYS if strict[key] != paper[key]} == {"ssim", "nabf"}
    assert paper["ssim"] < strict["ssim"]


def test_closed_forms() -> None:
    halves = np.repeat(np.array([[0, 255]], np.uint8), 8, axis=0).repeat(4, axis=1)
    assert entropy_bits(halves) == 1
    assert deviation(halves) == 127.5
    assert spatial_frequency(halves) == pytest.approx(255 / sqrt(7))  # one step of seven, none downwards
    ramp = np.tile(np.arange(0, 40, 2, dtype=np.uint8), (10, 1))
    assert average_gradient(ramp) == pytest.approx(2 / sqrt(2) * 10 * 20 / (9 * 19))
    assert mutual_information_bits(halves, 255 - halves) == 1
    assert mutual_information_bits(halves, halves.T) == 0  # independent


def test_contrast_raises_vif_and_noise_lowers_it(rng) -> None:
    a = rng.normal(128, 10, (64, 64)).clip(0, 255)
    assert information_fidelity(a, 128 + 2 * (a - 128)) > 1
    assert information_fidelity(a, a + rng.normal(0, 10, a.shape)) < 0.5
    assert information_fidelity(a, 255 - a) == pytest.approx(0, abs=1e-6)


def test_an_invented_edge_is_an_artefact_and_a_kept_one_is_none() -> None:
    a, b = (np.full((48, 48), 60.0) for _ in range(2))
    a[:, :10] = 100
    kept, invented = a.copy(), a.copy()
    invented[:, 20:] += 50
    assert edge_artefacts(a, b, kept) == 0
    assert edge_artefacts(a, b, invented) > 0
    assert edge_artefacts(a, b, invented, "paper") == 0  # nothing lies under it: edges of no weight in that profile
    assert edge_preservation(a, b, kept) > edge_preservation(a, b, b)


def test_flat_pictures_have_numbers() -> None:
    flat, other = np.full((48, 48), 9, np.uint8), np.full((48, 48), 200, np.uint8)
    scores = fusion_scores(flat, flat, other)
    assert (scores["mi"], scores["vif"], scores["scd"], scores["sd"], scores["nabf"]) == (0, 2, 0, 0, 0)
    assert all(np.isfinite(value) for value in scores.values())


def flicker(*frames: tuple[np.ndarray, np.ndarray, np.ndarray]) -> FlickerMeter:
    meter = FlickerMeter()
    for frame in frames:
        meter.add(*frame)
    return meter


def noisy_frames(rng: np.random.Generator, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    shape = (count, 2, 20, 30)
    frames = rng.integers(0, 250, shape[1:], np.uint8)[None] + rng.integers(0, 6, shape, np.uint8)
    return [(infrared, visible) for infrared, visible in frames]


@pytest.mark.parametrize("fusion", [np.maximum, np.minimum, lambda a, b: a, lambda a, b: b])
def test_pixelwise_choices_do_not_flicker(rng, fusion) -> None:
    meter = flicker(*((a, b, fusion(a, b)) for a, b in noisy_frames(rng, 4)))
    assert meter.levels == 0
    assert 0 < (meter.still_percent or 0) < 100


def test_flicker_equals_its_definition(rng) -> None:
    frames = [(a, b, rng.integers(0, 256, a.shape, np.uint8)) for a, b in noisy_frames(rng, 3)]
    excess = []
    for one, next_one in pairwise(frames):
        for at in np.ndindex(20, 30):
            d_a, d_b, d_f = (abs(int(x[at]) - int(y[at])) for x, y in zip(next_one, one, strict=True))
            if max(d_a, d_b) <= STILL_LEVELS:
                excess.append(max(0, d_f - max(d_a, d_b)))
    meter = flicker(*frames)
    assert meter.levels == pytest.approx(np.mean(excess))
    assert meter.still_percent == pytest.approx(100 * len(excess) / (2 * 20 * 30))


def test_flicker_of_one_frame_and_of_movement_is_unknown() -> None:
    a = np.zeros((4, 4), np.uint8)
    assert (flicker((a, a, a)).levels, flicker((a, a, a)).still_percent) == (None, None)
    moving = flicker((a, a, a), (a + 200, a, a))
    assert (moving.levels, moving.still_percent) == (None, 0)


def test_refusals() -> None:
    a, b, f = pair()
    with pytest.raises(SizeMismatchError, match="infrared is 48x56, visible is 48x56, fused is 40x56; scores need one"):
        fusion_scores(a, b, f[:40])
    with pytest.raises(OptionError, match="visible is float64 of shape"):
        fusion_scores(a, b / 255, f)
    with pytest.raises(OptionError, match="40x56; VIF needs 41 pixels a side"):
        fusion_scores(a[:40], b[:40], f[:40])
    with pytest.raises(OptionError, match="profile is 'loose'; there are strict and paper"):
        fusion_scores(a, b, f, "loose")
    with pytest.raises(OptionError, match="MS-SSIM needs 176"):
        ms_ssim(a, b)
    with pytest.raises(SizeMismatchError, match=r"has shape \(48, 56\), its reference \(20, 56\); PSNR needs one"):
        psnr_db(a, b[:20])
    meter = flicker((a, b, f))
    with pytest.raises(SizeMismatchError, match="frame is 40x56, frame_before is 48x56"):
        meter.add(a[:40], b[:40], f[:40])
