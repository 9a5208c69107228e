"""On the robot: pairs of two sizes become one, what one camera does not see is known, and drift is told."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from cled_edge.contract import Controls
from cled_edge.errors import OptionError, SizeMismatchError
from cled_edge.frame import ORDER, Frame, FramePair, FusedFrame
from cled_edge.registration.border import bordered
from cled_edge.registration.calibration import Calibration, distance_map
from cled_edge.registration.drift import DriftWatch
from cled_edge.registration.lens import PixelMap
from cled_edge.registration.warp import Registrar

# The infrared sees the middle of the visible: 60x80 pixels, each two visible pixels wide, from (100, 40) on.
INFRARED, VISIBLE = (60, 80), (200, 320)
MAP = PixelMap(np.array([[0.5, 0, -50], [0, 0.5, -20], [0, 0, 1]]))
CALIBRATION = Calibration(
    mode="points",
    infrared_size=INFRARED,
    visible_size=VISIBLE,
    maps=(distance_map(MAP, "similarity", VISIBLE, 0.3, 0.9),),
)


def pair_of(infrared: np.ndarray, visible: np.ndarray) -> FramePair:
    return FramePair(Frame(infrared, 0, ORDER, 0, "i"), Frame(visible, 0, ORDER, 0, "v", name="first"))


def street(seed: int, size: tuple[int, int], shift: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    image = np.full((size[0], size[1] + 40), 90, np.uint8)
    for _ in range(60):
        y, x = random.integers(0, size[0] - 12), random.integers(0, size[1] + 20)
        image[y : y + random.integers(6, 30), x : x + random.integers(6, 30)] = random.integers(0, 255)
    return np.ascontiguousarray(image[:, 20 - shift : 20 - shift + size[1]])


def test_the_infrared_lies_where_the_map_says_and_the_visible_stays() -> None:
    infrared, visible = np.zeros(INFRARED, np.uint8), street(0, VISIBLE)[:, :, None].repeat(3, axis=2)
    infrared[30:34, 40:44] = 255  # from visible pixel (180, 100) on
    seen = Registrar(CALIBRATION)(pair_of(infrared, visible))
    assert seen.infrared.image.shape == VISIBLE
    assert np.shares_memory(seen.visible.image, visible)
    rows, columns = np.nonzero(seen.infrared.image > 128)
    assert (rows.mean(), columns.mean()) == (pytest.approx(103, abs=0.6), pytest.approx(183, abs=0.6))
    assert seen.name == "first"


@pytest.mark.parametrize("coarser", [2.3, 4.1, 7.2])
def test_a_coarse_camera_warped_by_cells_is_as_if_each_pixel_were_looked_up(coarser: float, rng) -> None:
    size, turn = (251, 423), np.deg2rad(2)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 3], [np.sin(turn), np.cos(turn), -9], [0, 0, coarser]]) / coarser
    small = (round(200 / coarser), round(400 / coarser))
    found = distance_map(PixelMap(matrix), "similarity", size, 0.3, 0.9)
    calibration = Calibration(mode="points", infrared_size=small, visible_size=size, maps=(found,))
    infrared = cv2.GaussianBlur(rng.integers(0, 256, small).astype(np.uint8), (0, 0), 1)
    registrar = Registrar(calibration)
    seen = registrar(pair_of(infrared, np.zeros(size, np.uint8))).infrared.image
    wanted = cv2.warpPerspective(
        infrared, matrix, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    apart = cv2.absdiff(seen, wanted)[registrar.validity[:, :, 0] > 0]
    assert apart.max() < 0.1 * np.ptp(infrared)
    assert apart.mean() < 0.015 * np.ptp(infrared)


@pytest.mark.parametrize(("degraded", "lost"), [("infrared lost", 0), ("visible lost", 1)])
def test_a_lost_camera_is_valid_nowhere_whatever_size_its_blank_frame_has(degraded: str, lost: int) -> None:
    blanks = np.zeros((7, 9), np.uint8), np.zeros((7, 9, 3), np.uint8)
    images = [street(0, INFRARED), street(0, VISIBLE)[:, :, None].repeat(3, axis=2)]
    images[lost] = blanks[lost]
    registrar = Registrar(CALIBRATION)
    seen = registrar(replace(pair_of(*images), degraded=degraded, number=5))
    assert seen.infrared.image.shape == seen.visible.image.shape[:2] == VISIBLE
    assert not seen.validity[:, :, lost].any()
    assert (seen.validity[:, :, 1 - lost] == registrar.validity[:, :, 1 - lost]).all()
    assert (seen.degraded, seen.name) == (degraded, "000005")
    assert (registrar.validity[100, 180] == 255).all()


def test_validity_is_whole_inside_nothing_outside_and_soft_between() -> None:
    validity = Registrar(CALIBRATION).validity
    assert validity.shape == (*VISIBLE, 2)
    assert (validity[:, :, 1] == 255).all()
    ours = validity[:, :, 0]
    assert (ours[60:140, 120:240] == 255).all()
    assert not ours[:39].any()
    assert not ours[:, :99].any()
    ramp = ours[100, 100:112].astype(int)
    assert (np.diff(ramp) >= 0).all()
    assert 0 < ramp[1] < 255
    assert Registrar(CALIBRATION).covered == pytest.approx(119 * 159 / 64000, abs=0.01)


def test_counts_of_16_bit_become_grey_and_another_size_is_scaled() -> None:
    infrared = np.full(INFRARED, 30_000, np.uint16)
    infrared[:, 40:] = 30_100
    seen = Registrar(CALIBRATION, size=(100, 160))(pair_of(infrared, street(1, VISIBLE)))
    assert seen.infrared.image.dtype == np.uint8
    assert seen.infrared.image.shape == seen.visible.image.shape == (100, 160)
    assert seen.infrared.image[50, 60] < 50
    assert seen.infrared.image[50, 110] > 200


def test_a_size_of_another_aspect_takes_the_middle() -> None:
    visible = np.zeros(VISIBLE, np.uint8)
    visible[:, 160:] = 200
    seen = Registrar(CALIBRATION, size=(100, 100))(pair_of(np.zeros(INFRARED, np.uint8), visible))
    assert seen.visible.image[:, 48].max() < 100 < seen.visible.image[:, 52].min()


def test_the_other_way_the_visible_is_warped_and_the_infrared_stays() -> None:
    visible = np.zeros((*VISIBLE, 3), np.uint8)
    visible[40:160, 180:260, 1] = 240  # the right half of what the infrared sees
    infrared = street(2, INFRARED)
    registrar = Registrar(CALIBRATION, "infrared")
    seen = registrar(pair_of(infrared, visible))
    assert np.array_equal(seen.infrared.image, infrared)
    assert seen.visible.image.shape == (*INFRARED, 3)
    assert seen.visible.image[30, 30].max() < 20
    assert seen.visible.image[30, 50, 1] > 200
    assert (registrar.validity == 255).all()


def test_other_cameras_and_options_are_refused() -> None:
    with pytest.raises(SizeMismatchError, match="the infrared camera gives 120x160"):
        Registrar(CALIBRATION)(pair_of(np.zeros((120, 160), np.uint8), np.zeros(VISIBLE, np.uint8)))
    with pytest.raises(OptionError, match="frame is 'thermal'; needed one of infrared, visible"):
        Registrar(CALIBRATION, "thermal")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="distance_m is 0"):
        Registrar(CALIBRATION, distance_m=0.0)


def test_beyond_the_border_the_other_camera_is_shown_alone() -> None:
    random = np.random.default_rng(0)
    fused = FusedFrame(
        random.integers(0, 255, (*VISIBLE, 3), np.uint8),
        random.integers(0, 255, VISIBLE, np.uint8),
        random.integers(0, 255, (*VISIBLE, 3), np.uint8),
        Controls(),
    )
    validity = Registrar(CALIBRATION).validity
    before = fused.picture.copy()
    shown = bordered(replace(fused, picture=before.copy()), validity)
    outside, inside = validity[:, :, 0] == 0, validity[:, :, 0] == 255
    assert np.array_equal(shown.picture[outside], fused.visible[outside])
    assert np.array_equal(shown.picture[inside], before[inside])
    flipped = bordered(fused, validity[:, :, ::-1])
    assert np.array_equal(flipped.picture[outside], fused.infrared[outside][:, None].repeat(3, axis=1))
    assert shown.validity is validity
    whole = np.full((*VISIBLE, 2), 255, np.uint8)
    assert bordered(fused, whole).picture is fused.picture


@pytest.mark.parametrize("shift", [0, 3, 8])
def test_drift_is_the_shift_between_both(shift: int) -> None:
    watch = DriftWatch(np.full(VISIBLE, 255, np.uint8), every=1)
    assert watch.drift_px is None
    for _ in range(3):
        watch.look(255 - street(3, VISIBLE), street(3, VISIBLE, shift))  # the other polarity
    assert watch.drift_px == pytest.approx(shift, abs=0.7)


def test_drift_of_two_scenes_is_not_told_and_looks_are_rare() -> None:
    watch = DriftWatch(np.full(VISIBLE, 255, np.uint8), every=5)
    random = np.random.default_rng(1)
    for _ in range(20):
        watch.look(random.integers(0, 255, VISIBLE, np.uint8), random.integers(0, 255, VISIBLE, np.uint8))
    assert watch.drift_px is None
    rare = DriftWatch(np.full(VISIBLE, 255, np.uint8), every=30)
    rare.look(street(3, VISIBLE), street(3, VISIBLE))
    rare.look(street(3, VISIBLE), street(3, VISIBLE, 8))
    assert rare.drift_px == pytest.approx(0, abs=0.7)
