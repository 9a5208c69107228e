"""Evidence: a measure follows what it is named after, and an intervention moves the evidence of its own kind most."""

import json
from importlib.resources import files

import cv2
import numpy as np
import pytest

from cled_edge.evidence.judging import area_under_curve, calibration_error
from cled_edge.evidence.likelihood import KINDS, MODEL_SIGNS, likely_kinds, summary_line
from cled_edge.evidence.removal import removal_of
from cled_edge.evidence.signs import signs_of

SIZE = (240, 320)


@pytest.fixture(scope="module")
def street() -> tuple[np.ndarray, np.ndarray]:
    """An infrared and a visible image of the rendered street, less noise, with more contrast and light."""
    from cled_edge.scene.night_street import night_street

    frame = next(iter(night_street(1, SIZE)))
    smooth = cv2.GaussianBlur(frame.infrared, (0, 0), 0.7).astype(float)
    return as_bytes((smooth - 20) * 1.5 + 10), np.clip(frame.visible_clean.astype(float) * 1.6 + 10, 0, 255).astype(
        np.uint8
    )


def as_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [2.0, 8.0, 25.0])
def test_noise_is_measured_in_levels(rng, sigma: float) -> None:
    signs = signs_of(as_bytes(128 + rng.normal(0, sigma, SIZE)))
    assert signs["sigma"] == pytest.approx(sigma, rel=0.06)
    assert signs["sigma_haar"] == pytest.approx(sigma, rel=0.06, abs=0.25)  # a median of whole levels
    assert signs["sigma_flat"] == pytest.approx(sigma, rel=0.3)


@pytest.mark.parametrize("levels", [2.0, 10.0])
def test_patterns_are_measured_along_their_own_axis(rng, levels: float) -> None:
    noise = 128 + rng.normal(0, 4, SIZE)
    columns = signs_of(as_bytes(noise + rng.normal(0, levels, (1, SIZE[1]))))
    assert columns["columns"] == pytest.approx(levels, rel=0.15)
    assert columns["rows"] < 0.6
    rows = signs_of(as_bytes(noise + rng.normal(0, levels, (SIZE[0], 1))))
    assert rows["rows"] == pytest.approx(levels, rel=0.15)
    assert rows["columns"] < 0.6


def test_dead_pixels_are_counted_and_edges_are_none(rng) -> None:
    image = np.full(SIZE, 100, np.uint8)
    image[:, 160:] = 200
    assert signs_of(image)["dead"] == 0
    places = rng.choice(image.size, 76, replace=False)
    image.reshape(-1)[places] = 255
    assert signs_of(image)["dead"] == pytest.approx(76 / image.size, rel=0.15)


def test_streaks_are_bright_lines_that_share_a_direction(rng, street) -> None:
    _, visible = street
    drops = (rng.random(SIZE) < 0.004).astype(np.float32)
    line = np.eye(25, dtype=np.float32)
    rainy = as_bytes(visible + 90 * np.minimum(cv2.filter2D(drops, -1, line), 1)[:, :, None])
    dry, wet = signs_of(visible), signs_of(rainy)
    assert wet["ridges"] > dry["ridges"] * 1.05
    assert wet["ridges_aligned"] > 0.4


def test_blur_takes_the_finest_detail_most(street) -> None:
    sharp, soft = (signs_of(image) for image in (street[1], cv2.GaussianBlur(street[1], (0, 0), 1.5)))
    assert soft["detail_2"] / sharp["detail_2"] < soft["detail_16"] / sharp["detail_16"] * 0.6


def test_a_veil_raises_the_dark_channel_and_takes_transmission_and_saturation(street) -> None:
    clear, hazy = (signs_of(image) for image in (street[1], as_bytes(street[1] * 0.4 + 125)))
    assert hazy["dark"] > clear["dark"] + 30
    assert hazy["transmission"] < clear["transmission"]
    assert hazy["saturation"] < clear["saturation"] / 2


def test_blocks_of_jpeg_stand_out(street) -> None:
    _, coded = cv2.imencode(".jpg", street[1], [cv2.IMWRITE_JPEG_QUALITY, 10])
    assert signs_of(cv2.imdecode(coded, cv2.IMREAD_COLOR))["blocks"] > signs_of(street[1])["blocks"] * 1.15


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (16, 16), (33, 47)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_any_image_has_finite_measures(rng, size, channels) -> None:
    for image in (np.zeros((*size, *channels), np.uint8), rng.integers(0, 256, (*size, *channels), np.uint8)):
        signs = signs_of(image)
        assert all(np.isfinite(value) for value in signs.values())
        kinds = likely_kinds(signs, "visible" if channels else "infrared")
        assert all(0 <= p <= 1 for p in kinds.values())


def test_the_coefficients_are_of_these_measures_and_kinds() -> None:
    kept = json.loads(files("cled_edge.evidence").joinpath("likelihood.json").read_text("utf-8"))
    assert tuple(kept["signs"]) == MODEL_SIGNS
    for modality, kinds in KINDS.items():
        assert tuple(kept[modality]["kinds"]) == kinds
        assert all(len(entry["weights"]) == 2 * len(MODEL_SIGNS) for entry in kept[modality]["kinds"].values())


def change(kind: str, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put one degradation into an image."""
    height, width = image.shape[:2]
    planes = image.reshape(height, width, -1).astype(float)
    if kind == "blur":
        return cv2.GaussianBlur(image, (0, 0), 2.0)
    if kind == "jpeg":
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 15])[1], cv2.IMREAD_COLOR)
    if kind == "rain":
        drops = (rng.random((height, width)) < 0.005).astype(np.float32)
        line = cv2.warpAffine(
            np.pad(np.ones((41, 1), np.float32), ((0, 0), (20, 20))),
            cv2.getRotationMatrix2D((20, 20), 15, 1),
            (41, 41),
        )
        return as_bytes(planes * 0.92 + 80 * np.minimum(cv2.filter2D(drops, -1, line), 1)[:, :, None])
    changed = {
        "noise": lambda: planes + rng.normal(0, 18, planes.shape),
        "stripes": lambda: planes + rng.normal(0, 12, (1, width, 1)),
        "rows": lambda: planes + rng.normal(0, 12, (height, 1, 1)),
        "dead_pixels": lambda: np.where(
            rng.random((height, width, 1)) < 0.006, 255 * rng.integers(0, 2, planes.shape), planes
        ),
        "low_contrast": lambda: 110 + 0.2 * (planes - planes.mean()),
        "haze": lambda: planes * 0.35 + 0.65 * 215,
        "overexposure": lambda: 255 * (planes / 255) ** 0.55 * 1.7 + 15,
        "low_light": lambda: 255 * (planes / 255) ** 1.8 * 0.2 + rng.normal(0, 2, planes.shape),
    }[kind]()
    return as_bytes(changed).reshape(image.shape)


@pytest.mark.parametrize(
    ("modality", "kind"),
    [
        (m, k) for m, kinds in KINDS.items() for k in kinds if k != "shading"
    ],  # whose evidence is weak, see the benchmark
)
def test_one_degradation_put_in_moves_its_own_evidence_most(modality: str, kind: str, street) -> None:
    clean = street[0 if modality == "infrared" else 1]
    changed = change(kind, clean, np.random.default_rng(3))
    before, after = (likely_kinds(signs_of(image), modality) for image in (clean, changed))
    moved = {name: after[name] - before[name] for name in before}
    assert max(moved, key=lambda name: moved[name]) == kind, moved
    assert after[kind] > 0.5


def test_the_line_names_the_likely_kinds_first() -> None:
    assert (
        summary_line({"haze": 0.71, "noise": 0.24, "rain": 0.1, "low_light": 0.97}) == "low light 1, haze .7, noise .2"
    )
    assert summary_line({"haze": 0.1}) == "none"


def test_removal_finds_the_law_of_a_veil(street, rng) -> None:
    clean = street[1]
    hazy = as_bytes(clean * 0.5 + 100 + rng.normal(0, 5, clean.shape))
    residual = (hazy.astype(np.float32) - clean).mean(axis=2)
    done = removal_of(hazy, clean, residual)
    assert done.contrast == pytest.approx(0.5, abs=0.02)
    assert done.veil_levels == pytest.approx(100, abs=3)
    assert done.noise_levels == pytest.approx(5 / np.sqrt(3), rel=0.2)  # of the mean of three colours
    assert np.isnan(removal_of(hazy, np.full_like(clean, 90), residual).contrast)


def test_area_and_calibration_agree_with_slow_obvious_ones(rng) -> None:
    labels = rng.random(300) < 0.3
    scores = np.round(np.clip(labels * 0.3 + rng.random(300) * 0.7, 0, 1), 2)
    pairs = [(s > t) + 0.5 * (s == t) for s in scores[labels] for t in scores[~labels]]
    assert area_under_curve(scores, labels) == pytest.approx(np.mean(pairs))
    assert np.isnan(area_under_curve(scores, np.ones(300, bool)))
    told = np.full(1000, 0.25)
    assert calibration_error(told, np.arange(1000) % 4 == 0) == pytest.approx(0)
    assert calibration_error(told, np.zeros(1000, bool)) == pytest.approx(0.25)
