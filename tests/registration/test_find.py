"""Calibration finds the right map, or says that it found none: by a scene, by a warm board, by points."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge.errors import CalibrationError
from cled_edge.registration.board import Board, agreeing, find_board
from cled_edge.registration.board_rig import rig_of
from cled_edge.registration.lens import PixelMap, Points, grid_points, projected
from cled_edge.registration.overlay import overlay
from cled_edge.registration.patches import Votes
from cled_edge.registration.points import MarkedPoints, map_of, read_points
from cled_edge.registration.scene_match import match
from cled_edge.scene.two_lenses import TwoLenses, camera

GRID = (9, 6)
RIG = TwoLenses(camera((120, 160), 50, (-0.1, 0.0, 0.0, 0.0, 0.0)), camera((180, 320), 60, (-0.05, 0.0, 0.0, 0.0, 0.0)))


def wall(seed: int) -> dict[str, np.ndarray]:
    """Return boxes on a wall, in other tones and polarities in each band."""
    random = np.random.default_rng(seed)
    infrared, visible = np.full((360, 640), 90, np.uint8), np.full((360, 640, 3), 120, np.uint8)
    for _ in range(90):
        y, x = random.integers(0, 340), random.integers(0, 620)
        height, width = random.integers(10, 60, 2)
        infrared[y : y + height, x : x + width] = random.integers(40, 200)
        visible[y : y + height, x : x + width] = random.integers(0, 255, 3)
    return {"infrared": infrared, "visible": visible}


def miss_px(found: PixelMap, rig: TwoLenses, distance_m: float) -> np.ndarray:
    """Return how far a map is off, in visible pixels, over all that both cameras see."""
    points = grid_points(rig.visible.size)
    at = rig.map(distance_m).infrared_points(points)
    height, width = rig.infrared.size
    inside = (at >= 0).all(axis=1) & (at <= (width - 1, height - 1)).all(axis=1)
    return np.linalg.norm(found.visible_points(at[inside]) - points[inside], axis=1)


def grey_pairs(rig: TwoLenses, seeds: list[int], noise_levels: float = 3.0) -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = [rig.frames(wall(seed), 5.0, noise_levels, seed) for seed in seeds]
    return [(infrared, cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY)) for infrared, visible in pairs]


def test_a_scene_registers_two_sizes_and_says_how_well() -> None:
    found, _, evidence = match(grey_pairs(RIG, [0]))
    misses = miss_px(found, RIG, 5.0)
    assert misses.mean() < 1.0
    assert evidence.is_sure
    assert misses.mean() < evidence.error_px + 0.5 < 4


def test_a_scene_is_placed_between_the_pixels_of_a_coarse_infrared_image() -> None:
    coarse = camera((120, 160), 50, (-0.25, 0.06, 0.0, 0.0, 0.0))
    rig = TwoLenses(coarse, camera((360, 640), 70, (-0.12, 0.02, 0.0, 0.0, 0.0)))
    found, _, _ = match(grey_pairs(rig, [0], noise_levels=6.0))
    assert miss_px(found, rig, 5.0).mean() < 0.38, "a fifth of an infrared pixel is 0.5 px here"


def test_a_patch_that_fits_has_more_to_say_than_two_that_fit_half_as_well() -> None:
    surfaces = np.zeros((3, 5, 5), np.float32)
    surfaces[0, 2, 2], surfaces[1:, 2, 3] = 0.8, 0.4
    votes = Votes(PixelMap(np.eye(3)), np.zeros((3, 2)), surfaces, 1.0, (9, 9), (9, 9))
    assert votes.surfaces[0, 2, 2] == pytest.approx(votes.surfaces[1:, 2, 3].sum())
    likely = votes.as_likelihoods().surfaces
    assert likely[0, 2, 2] > 2 * likely[1:, 2, 3].sum()
    assert likely.max(axis=(1, 2)).mean() == pytest.approx(surfaces.max(axis=(1, 2)).mean())


def test_two_scenes_are_not_registered() -> None:
    (infrared, _), (_, visible) = grey_pairs(RIG, [2, 3])
    assert not match([(infrared, visible)])[2].is_sure


def test_a_mirrored_image_is_not_registered() -> None:
    ((infrared, visible),) = grey_pairs(RIG, [2])
    assert not match([(np.ascontiguousarray(infrared[:, ::-1]), visible)])[2].is_sure


def test_the_bend_of_both_lenses_is_found_by_a_scene() -> None:
    bent = TwoLenses(camera((120, 160), 50, (-0.3, 0.0, 0.0, 0.0, 0.0)), RIG.visible)
    found, model, evidence = match(grey_pairs(bent, [0, 1]))
    assert model == "lenses"
    assert found.infrared is not None
    assert found.infrared.distortion[0] < -0.1
    assert miss_px(found, bent, 5.0).mean() < 0.6
    assert evidence.is_sure


def test_images_without_structure_are_not_registered() -> None:
    flat = np.full((120, 160), 7, np.uint8), np.full((180, 320), 9, np.uint8)
    assert not match([flat])[2].is_sure


def board_view(matrix: np.ndarray, size: tuple[int, int], squares: tuple[int, int] = (10, 7)) -> np.ndarray:
    """Return a chessboard, 0 and 1 on a margin of 1, seen by a homography of its squares from an inner corner on."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    at = projected(np.linalg.inv(matrix), np.stack([x.ravel(), y.ravel()], -1)) + 1
    inside = ((at >= 0) & (at < squares)).all(axis=1)
    colors = np.where(inside, np.floor(at).sum(axis=1) % 2, 1.0).reshape(size)
    return cv2.GaussianBlur(colors, (0, 0), 1.0)


TILTED = np.array([[34.0, 6.0, 130.0], [-4.0, 35.0, 120.0], [0.004, 0.006, 1.0]])


def warmed(view: np.ndarray) -> np.ndarray:
    """Return 16-bit counts: a lamp's glow of 6,000 counts, squares of 60, noise of 8, and dead pixels."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[: view.shape[0], : view.shape[1]]
    glow = 6000 * np.exp(-((x - 260) ** 2 + (y - 200) ** 2) / 2 / 120**2)
    counts = 20_000 + glow + 60 * view + random.normal(0, 8, view.shape)
    counts[random.integers(0, view.shape[0], 30), random.integers(0, view.shape[1], 30)] = 0
    return counts.astype(np.uint16)


def corners(matrix: np.ndarray) -> Points:
    y, x = np.mgrid[: GRID[1], : GRID[0]].astype(np.float64)
    return projected(matrix, np.stack([x.ravel(), y.ravel()], -1))


def test_a_warm_board_is_found_where_opencv_alone_finds_none() -> None:
    counts = warmed(board_view(TILTED, (400, 560)))
    stretched = cv2.normalize(counts, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    assert not cv2.findChessboardCornersSB(stretched, GRID, flags=cv2.CALIB_CB_EXHAUSTIVE)[0]
    board = find_board(counts, GRID)
    assert board is not None
    right = corners(TILTED).reshape(6, 9, 2)
    assert board.seen.sum() > 40
    turned = min((board.turned(k) for k in (0, 2)), key=lambda b: np.abs(b.points - right).max())
    assert np.abs(turned.points[turned.seen] - right[turned.seen]).max() < 1.0


def test_a_board_that_the_border_cuts_off_keeps_its_place() -> None:
    cut = TILTED.copy()
    cut[0, 2] = -50.0
    right = corners(cut).reshape(6, 9, 2)
    view = (board_view(cut, (400, 560)) * 200).astype(np.uint8)
    board = find_board(view, GRID)
    assert board is not None
    turned = min((board.turned(k) for k in (0, 2)), key=lambda b: np.abs(b.points - right).max())
    assert 30 <= turned.seen.sum() < 54
    assert not turned.seen[:, 0].any()
    assert np.abs(turned.points[turned.seen] - right[turned.seen]).max() < 0.6


def test_a_board_of_another_size_is_not_found() -> None:
    larger = (board_view(TILTED @ np.diag([0.8, 0.8, 1]), (400, 560), (13, 9)) * 200).astype(np.uint8)
    assert find_board(larger, GRID) is None


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_no_board(seed: int) -> None:
    assert find_board(np.random.default_rng(seed).integers(0, 255, (48, 64), np.uint8), (4, 3)) is None


def board_pairs(rig: TwoLenses, count: int, noise_px: float) -> list[tuple[Board, Board]]:
    """Return boards of 30 mm squares held before a rig, with noise on every corner."""
    random = np.random.default_rng(4)
    y, x = np.mgrid[: GRID[1], : GRID[0]]
    places = np.stack([x.ravel() - 4, y.ravel() - 2.5, np.zeros(54)], -1) * 0.03
    pairs = []
    while len(pairs) < count:
        turn = cv2.Rodrigues(random.uniform(-0.6, 0.6, 3))[0]
        held = places @ turn.T + random.uniform((-0.1, -0.12, 0.7), (0.15, 0.12, 1.3))
        boards = []
        for each, at in ((rig.infrared, held @ rig.rotation.T + rig.baseline_m), (rig.visible, held)):
            seen = each.lens.bent(projected(each.lens.matrix, at[:, :2] / at[:, 2:])) + random.normal(
                0, noise_px, (54, 2)
            )
            inside = ((seen > 2) & (seen < np.array(each.size[::-1]) - 3)).all(axis=1)
            boards.append(Board(seen.reshape(6, 9, 2), inside.reshape(6, 9), 1.0))
        if min(board.seen.sum() for board in boards) > 40:
            pairs.append((boards[0], boards[1]))
    return pairs


def test_boards_tell_both_lenses_and_the_map_at_any_distance() -> None:
    rig = TwoLenses(baseline_m=(0.3, 0.02, 0.0), turn_deg=(0.5, -14.0, 0.8))
    pairs = board_pairs(rig, 14, 0.1)
    found = rig_of(pairs, rig.infrared.size, rig.visible.size, 0.03)
    assert np.linalg.norm(found.shift) == pytest.approx(0.3, abs=0.01)
    assert found.confidence > 0.9
    for distance in (0.8, 1.0, 1.3):
        assert np.median(miss_px(found.at(distance), rig, distance)) < 1.0


def test_the_corners_of_both_cameras_come_in_one_order() -> None:
    ((infrared, visible),) = board_pairs(RIG_NEAR, 1, 0.0)
    for times in range(4):
        assert np.array_equal(agreeing(infrared.turned(times), visible).points, infrared.points)


RIG_NEAR = TwoLenses(turn_deg=(0.5, -14.0, 0.8))


def test_one_board_gives_a_homography_and_none_is_refused() -> None:
    pairs = board_pairs(RIG_NEAR, 1, 0.05)
    found = rig_of(pairs, RIG_NEAR.infrared.size, RIG_NEAR.visible.size)
    assert found.planar is not None
    assert found.error_px < 0.5
    blind = Board(pairs[0][0].points, np.zeros((6, 9), bool), 1.0)
    with pytest.raises(CalibrationError, match="no board is seen by both cameras"):
        rig_of([(blind, pairs[0][1])], RIG_NEAR.infrared.size, RIG_NEAR.visible.size)


def points_file(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "points.csv"
    path.write_text("\n".join(lines))
    return path


MARKED = "infrared_x,infrared_y,visible_x,visible_y"


def test_points_by_hand_give_a_map_for_each_distance(tmp_path: Path) -> None:
    lines = [
        f"{x},{y},{2 * x + 10 * shift},{2 * y},{d}" for d, shift in ((9, 1), (2, 5)) for x in (5, 90) for y in (5, 80)
    ]
    near, far = read_points(points_file(tmp_path, f"{MARKED},distance_m", *lines))
    assert (near.distance_m, far.distance_m) == (2, 9)
    found = map_of(near, (100, 100), (200, 300))
    assert found.found.visible_points(np.array([[50.0, 40.0]])) == pytest.approx(np.array([[150, 80]]))
    assert found.error_px < 1e-6
    assert found.confidence > 0.99


def test_a_point_that_is_off_is_named_and_lowers_the_confidence() -> None:
    infrared = grid_points((100, 100), 4, 3)
    visible = infrared * 2
    visible[5] += 60
    found = map_of(MarkedPoints(infrared, visible), (100, 100), (400, 400))
    assert found.worst[0] == 6
    assert found.confidence < 0.5


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("x,y,u,v", "1,2,3,4"), "begins with 'x,y,u,v', needed the names of its columns"),
        ((MARKED, "1,2,3"), "line 2 is '1,2,3', needed"),
        ((MARKED, "1,2,3,nan"), "line 2 is"),
        ((f"{MARKED},distance_m", "1,2,3,4,0"), "line 2 is"),
        ((MARKED,), "has no point"),
        ((), "begins with ''"),
    ],
)
def test_a_file_of_points_that_is_wrong_names_its_line(lines: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=words):
        read_points(points_file(tmp_path, *lines))


@pytest.mark.parametrize(
    ("infrared", "words"),
    [
        ([[1, 1], [2, 2], [3, 3]], "there are 3 points, needed 4"),
        ([[1, 1], [2, 2], [3, 3], [400, 4]], r"point 4 is at \(400, 4\), outside the infrared image"),
        ([[1, 1], [1, 1], [1, 1], [1, 1], [1, 1], [1, 1]], "lie in a line or on one spot"),
        ([[1, 1], [2, 2], [3, 3], [4, 4], [5, 5], [6, 6]], "lie in a line or on one spot"),
    ],
)
def test_points_that_tell_nothing_are_refused(infrared: list[list[float]], words: str) -> None:
    points = np.array(infrared, np.float64)
    with pytest.raises(CalibrationError, match=words):
        map_of(MarkedPoints(points, np.minimum(points, 90)), (100, 100), (100, 100))


def test_an_overlay_is_grey_where_both_fit() -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (100, 200), np.uint8), (0, 0), 3)
    shown = overlay(image, image, PixelMap(np.eye(3)), "error 0.0 px")
    assert shown.shape == (100, 400, 3)
    after = shown[30:, 200:].astype(int)
    assert np.abs(after[:, :, 0] - after[:, :, 1]).mean() < 3
