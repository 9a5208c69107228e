"""calibration.yaml: it says what it holds, is refused in one line, and is refused for cameras of other sizes."""

from pathlib import Path

import numpy as np
import pytest

from cled_edge.errors import CalibrationError, SizeMismatchError
from cled_edge.registration.calibration import Calibration, distance_map, read_calibration
from cled_edge.registration.lens import Lens, PixelMap, grid_points
from cled_edge.scene.two_lenses import TwoLenses

RIG = TwoLenses()


def calibration(*distances: float) -> Calibration:
    maps = tuple(distance_map(RIG.map(d), "rig", RIG.visible.size, 0.5, 0.9, d) for d in distances)
    return Calibration(mode="board", infrared_size=RIG.infrared.size, visible_size=RIG.visible.size, maps=maps)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "calibration.yaml"
    path.write_text(text)
    return path


def test_a_lens_is_undone_and_never_folds_back_into_the_image() -> None:
    lens = Lens((500.0, 510.0), (319.5, 239.5), (-0.3, 0.05, 0.001, -0.002, 0.0))
    points = grid_points((480, 640))
    assert np.abs(lens.bent(lens.straightened(points)) - points).max() < 1e-3
    far = np.array([[319.5 + r, 239.5] for r in range(0, 5000, 50)])
    assert (np.diff(lens.bent(far)[:, 0]) > 0).all()


def test_the_file_holds_what_was_found(tmp_path: Path) -> None:
    made = calibration(2.0, 5.0)
    assert read_calibration(written(tmp_path, made.text())) == made
    points = grid_points(RIG.visible.size)
    assert np.abs(made.infrared_points(points, 5.0) - RIG.map(5.0).infrared_points(points)).max() < 0.01


def test_the_file_is_yaml_as_others_read_it() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    made = calibration(2.0, 5.0)
    assert Calibration.model_validate(yaml.safe_load(made.text())) == made


def test_between_distances_the_place_goes_with_their_inverse() -> None:
    points = grid_points(RIG.visible.size)
    near_and_far = calibration(2.0, 20.0)
    for distance in (3.0, 6.0, 12.0):
        right = RIG.map(distance).infrared_points(points)
        assert np.abs(near_and_far.infrared_points(points, distance) - right).max() < 0.2
    at_two = near_and_far.infrared_points(points, 2.0)
    assert np.array_equal(near_and_far.infrared_points(points, 1.0), at_two)
    assert np.abs(near_and_far.visible_points(at_two, 2.0) - points).max() < 0.2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema_version: 1", "schema_version: 2", "schema_version is 2, needed 1"),
        ("mode: board", "mode: bored", "mode: .*'scene', 'board' or 'points'"),
        ("mode: board\n", "", "mode: is missing"),
        ("mode: board", "mode: board\nmode: board", "line 6 has mode a second time"),
        ("mode: board", "mode = board", "line 5 is 'mode = board', needed `key: value`"),
        ("mode: board", "mode: board\nname: x", "name: is unknown"),
        ("confidence: 0.9", "confidence: .nan", "line .* has the value '.nan'"),
        ("confidence: 0.9", "confidence: 9e999", "line .* 9e999 is not a finite number"),
        ("confidence: 0.9", "confidence: 1.1", "maps.0.confidence"),
        ("distance_m: 5.0", "distance_m: 1.0", "several maps need distances that increase"),
        ("distance_m: 5.0", "distance_m: null", "several maps need distances that increase"),
        ("infrared_size: [512, 640]", "infrared_size: [512]", "infrared_size"),
        ("maps:", "maps: []\nrest:", "rest: is unknown|maps"),
    ],
)
def test_what_is_wrong_is_one_line(old: str, new: str, words: str, tmp_path: Path) -> None:
    text = calibration(2.0, 5.0).text()
    assert old in text
    with pytest.raises(CalibrationError, match=words) as caught:
        read_calibration(written(tmp_path, text.replace(old, new)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"[" * 60_000, b"#" * 70_000, b"a: " + b"[" * 5000])
def test_what_is_no_text_of_ours_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "calibration.yaml"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match="calibration"):
        read_calibration(path)
    with pytest.raises(CalibrationError, match="does not exist"):
        read_calibration(tmp_path / "none.yaml")


def test_a_matrix_without_an_inverse_is_refused(tmp_path: Path) -> None:
    text = calibration(2.0).text()
    row = next(line for line in text.splitlines() if "infrared_from_visible" in line)
    flat = "    infrared_from_visible: [[1, 0, 0], [2, 0, 0], [0, 0, 1]]"
    with pytest.raises(CalibrationError, match="has no inverse"):
        read_calibration(written(tmp_path, text.replace(row, flat)))


def test_other_cameras_are_refused_by_their_sizes() -> None:
    made = calibration(2.0)
    made.check_sizes((512, 640), (720, 1280))
    with pytest.raises(SizeMismatchError, match="infrared camera gives 120x160, the calibration is of 512x640"):
        made.check_sizes((120, 160), (720, 1280))
    with pytest.raises(SizeMismatchError, match="visible camera gives 480x640, the calibration is of 720x1280"):
        made.check_sizes((512, 640), (480, 640))


def test_a_comment_and_a_line_by_hand_are_read(tmp_path: Path) -> None:
    text = calibration(2.0).text().replace("mode: board", 'mode: "board"  # by hand\n\n# next')
    assert read_calibration(written(tmp_path, text)) == calibration(2.0)
    assert PixelMap(np.eye(3)).infrared_px_per_visible_px((10, 10)) == pytest.approx(1)
