"""`cled-edge calibrate` writes a calibration that `fuse` takes, or says that it found none."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from cled_edge.cli.app import app
from cled_edge.errors import CalibrationError, CledEdgeError, OptionError, OutputError, SizeMismatchError
from cled_edge.registration.calibration import read_calibration

INFRARED, VISIBLE = (60, 80), (96, 160)
POINTS = "infrared_x,infrared_y,visible_x,visible_y"


def run(*words: str | Path) -> Any:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if isinstance(done.exception, CledEdgeError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def cameras(folder: Path, infrared: tuple[int, int] = INFRARED, visible: tuple[int, int] = VISIBLE) -> list[str | Path]:
    """Write one noisy image of each camera, and return the options that name them."""
    random = np.random.default_rng(0)
    for name, shape in (("infrared", infrared), ("visible", (*visible, 3))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name / "a.png"), random.integers(0, 255, shape, np.uint8))
    return ["--infrared", folder / "infrared", "--visible", folder / "visible"]


def marked(folder: Path, text: str = POINTS) -> Path:
    """Write points of an infrared camera that sees the visible's pixels from (40, 20) on, one by one."""
    path = folder / "points.csv"
    path.write_text("\n".join([text, *(f"{x},{y},{x + 40},{y + 20}" for x in (5, 70) for y in (5, 50))]))
    return path


@pytest.mark.parametrize(
    ("frame", "size", "rest"),
    [("visible", VISIBLE, ()), ("infrared", INFRARED, ()), ("visible", (48, 80), ("--frame-size", "48x80"))],
)
def test_points_make_two_sizes_fusible(
    frame: str, size: tuple[int, int], rest: tuple[str, ...], tmp_path: Path
) -> None:
    sources, out, fused = cameras(tmp_path), tmp_path / "rig.yaml", tmp_path / "fused"
    told = json.loads(run("calibrate", *sources, "--points", marked(tmp_path), "--out", out, "--json").stdout)
    assert told["calibration"] == str(out)
    assert told["maps"][0]["error_px"] < 1e-6
    assert read_calibration(out).mode == "points"
    (overlay,) = told["overlays"]
    assert cv2.imread(overlay).shape == (96, 320, 3)
    done = run("fuse", *sources, "--calibration", out, "--frame", frame, *rest, "--out", fused, "--json")
    assert json.loads(done.stdout)["size"] == list(size)
    assert "register" in json.loads(done.stdout)["latency_ms"]
    assert cv2.imread(str(fused / "a.png")).shape == (*size, 3)


def test_beyond_the_infrared_the_restored_visible_is_shown(tmp_path: Path) -> None:
    sources, out = cameras(tmp_path), tmp_path / "rig.yaml"
    done = run("calibrate", *sources, "--points", marked(tmp_path), "--out", out)
    assert f"fuse both cameras with --calibration {out}" in done.stdout
    fused, restored = tmp_path / "fused", tmp_path / "restored"
    run("fuse", *sources, "--calibration", out, "--out", fused, "--restored", restored)
    picture, visible = (cv2.imread(str(path)) for path in (fused / "a.png", restored / "visible" / "a.png"))
    assert np.array_equal(picture[:19], visible[:19])
    assert np.array_equal(picture[:, 121:], visible[:, 121:])
    assert not np.array_equal(picture[40:60, 60:100], visible[40:60, 60:100])


def test_another_rig_is_refused_when_it_fuses(tmp_path: Path) -> None:
    out = tmp_path / "rig.yaml"
    run("calibrate", *cameras(tmp_path), "--points", marked(tmp_path), "--out", out)
    others = cameras(tmp_path / "others", infrared=(50, 80))
    with pytest.raises(SizeMismatchError, match="pair a: the infrared camera gives 50x80, the calibration is of 60x80"):
        run("fuse", *others, "--calibration", out, "--out", tmp_path / "fused")


def test_what_cannot_be_registered_leaves_overlays_and_the_old_calibration(tmp_path: Path) -> None:
    sources, out = cameras(tmp_path), tmp_path / "rig.yaml"
    out.write_text("an old one")
    with pytest.raises(CalibrationError, match=r"not registered: confidence is 0\.\d\d, needed 0.5; .* is not written"):
        run("calibrate", *sources, "--out", out)
    assert CalibrationError.exit_code == 21
    assert out.read_text() == "an old one"
    assert (tmp_path / "rig-overlays" / "a.png").exists()


def test_no_board_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="4x3 corners is in 0 infrared and 0 visible of 1 images"):
        run("calibrate", *cameras(tmp_path), "--board", "4x3", "--out", tmp_path / "rig.yaml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--board", "9x6", "--points", "p.csv"), "--board and --points are both given"),
        (("--serve", "0", "--points", "p.csv"), "--points and --serve are both given"),
        (("--serve", "0.0.0.0:0"), "needed a token"),
        (("--infrared", "other"), "there are 2 --infrared and 1 --visible"),
        (("--distance-m", "0"), "--distance-m is 0.0; it must be above 0"),
        (("--distance-m", "nan"), "--distance-m is nan; it must be above 0"),
        (("--distance-m", "2", "--distance-m", "2"), "one distance twice"),
        (("--distance-m", "2", "--distance-m", "3"), "there are 2 --distance-m for one scene"),
        (("--points", "p.csv", "--distance-m", "3"), "write a column distance_m"),
        (("--board", "9x6", "--distance-m", "3"), "give --square-mm"),
        (("--board", "9", "--out", "x.yaml"), "--board is '9'; it must be"),
        (("--board", "2x6"), "needed 3 inner corners or more"),
        (("--board", "9x6", "--square-mm", "0"), "--square-mm is 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=message):
        run("calibrate", *cameras(tmp_path), "--out", tmp_path / "rig.yaml", *words)


def test_pairs_of_several_sizes_are_refused_with_their_sizes(tmp_path: Path) -> None:
    sources = cameras(tmp_path)
    for name in ("infrared", "visible"):
        cv2.imwrite(str(tmp_path / name / "b.png"), np.zeros((32, 40), np.uint8))
    seen = "infrared 32x40 with visible 32x40; infrared 60x80 with visible 96x160; needed one size for each camera"
    with pytest.raises(OptionError, match=seen):
        run("calibrate", *sources, "--points", marked(tmp_path), "--out", tmp_path / "rig.yaml")


def test_a_distance_without_a_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="needed a calibration; give --calibration"):
        run("fuse", *cameras(tmp_path), "--distance-m", "3", "--out", tmp_path / "fused")


def test_points_by_hand_are_marked_on_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="needs the extra serve")
    from cled_edge.serve import points_page

    served = points_page.points_application

    def marking(page: points_page.PointsPage) -> Any:
        page.calibrate([[x, y, x + 40, y + 20] for x in (5, 70) for y in (5, 50)])
        page.ended.set()
        return served(page)

    monkeypatch.setattr(points_page, "points_application", marking)
    sources, out = cameras(tmp_path), tmp_path / "rig.yaml"
    told = json.loads(run("calibrate", *sources, "--serve", "0", "--distance-m", "3", "--out", out, "--json").stdout)
    assert (told["mode"], told["calibration"]) == ("points", str(out))
    assert told["maps"][0]["points"] == 4
    assert read_calibration(out).maps[0].distance_m == 3
    monkeypatch.setattr(points_page, "points_application", lambda page: page.ended.set() or served(page))
    with pytest.raises(CalibrationError, match="no points were calibrated"):
        run("calibrate", *sources, "--serve", "0", "--out", tmp_path / "other.yaml")
    assert not (tmp_path / "other.yaml").exists()


def test_a_page_without_its_server_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="needs the extra serve")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(OutputError, match=r"needs the package uvicorn, which .* pip install 'cled-edge\[serve\]'"):
        run("calibrate", *cameras(tmp_path), "--serve", "0", "--out", tmp_path / "rig.yaml")
