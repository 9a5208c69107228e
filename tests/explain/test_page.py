"""The report: a page that needs nothing else, whose numbers are those of the NPZ, and honest sentences."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cled_edge.cli.app import app
from cled_edge.contract import Controls
from cled_edge.errors import CledEdgeError, NoPairsError, OptionError, SizeMismatchError
from cled_edge.explain import explain
from cled_edge.explain.page import steps_sentence, write_report
from cled_edge.image import write_png
from cled_edge.registration.calibration import Calibration, distance_map
from cled_edge.registration.lens import PixelMap
from tests.fakes.noisy_loop import noisy_fuser

SIZE = (64, 96)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    from cled_edge.scene.night_street import night_street

    frame = next(iter(night_street(1, SIZE)))
    folder = tmp_path_factory.mktemp("report")
    with noisy_fuser() as fuser:
        told = explain(fuser, frame.infrared, frame.visible_clean, Controls(steps=2), seeds=2)
    written = write_report(told, folder, "a <b>")
    assert len(written.verdicts) >= 4
    return folder


def numbers_in(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="numbers">(.*?)</script>', page, re.DOTALL)[1])


def test_its_numbers_equal_the_npz(report: Path) -> None:
    numbers = numbers_in((report / "index.html").read_text())
    assert numbers == json.loads((report / "numbers.json").read_text())
    with np.load(report / "explanation.npz") as kept:
        for name, values in numbers.items():
            if name in kept.files:
                found = kept[name]
                if found.dtype.kind == "f":
                    assert np.array_equal(np.array(values, float), found, equal_nan=True), name
                else:
                    assert found.tolist() == values, name
            else:
                assert values == pytest.approx(float(kept[name.removesuffix("_mean")].mean(dtype=float))), name
        assert {"removed_share", "term_rms_levels", "kinds_visible_probability", "origin_own_mean"} <= numbers.keys()
        # What a reader sees in the table is the same number.
        shown = f"<td>{kept['removed_share'][0, 1]:.4f}</td><td>{kept['change_rms_levels'][0, 1]:.3f}</td>"
    assert shown in (report / "index.html").read_text()


def test_the_page_needs_nothing_else_and_escapes_names(report: Path) -> None:
    page = (report / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "a &lt;b&gt;" in page
    assert "<b>" not in page


def test_panels_and_the_animation_are_pictures(report: Path) -> None:
    panels = {path.stem for path in (report / "panels").iterdir()}
    steps = {f"{kind}-{name}" for kind in ("steps", "split") for name in ("infrared", "visible")}
    assert panels == {"overview", "origin", "spread"} | steps
    for path in (report / "panels").iterdir():
        with Image.open(path) as image:
            assert min(image.size) > 200
    with Image.open(report / "trajectory.webp") as film:
        assert film.n_frames == 3  # as it came, and two steps


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([[0.995, 0.99], [0.005, 0.01]], "change hardly anything: this network does its work in one pass"),
        ([[0.95, 0.99], [0.05, 0.01]], "The first step does nearly all"),
        ([[0.6, 0.7], [0.4, 0.3]], "The later steps matter here"),
        ([[1.0, np.nan]], "One step ran"),
        ([[np.nan, 0.99], [np.nan, 0.01]], "change hardly anything"),
        ([[1.5, 0.99], [-0.5, 0.01]], "The later steps matter here"),  # and put something back
    ],
)
def test_the_sentence_of_the_steps_is_honest(shares, words: str) -> None:
    assert words in steps_sentence({"removed_share": np.array(shares)})


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if isinstance(done.exception, CledEdgeError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_explains_a_pair_of_a_folder_and_curves_of_all(write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a", "b", "c"), SIZE)
    out = tmp_path / "report"
    sources = ("--infrared", infrared, "--visible", visible)
    told = json.loads(run("explain", *sources, "--out", out, "--pair", 1, "--seeds", 0, "--json"))
    assert told == json.loads((out / "numbers.json").read_text())
    assert "spread_levels_mean" not in told
    with (out / "over_time.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["a", "b", "c"]
    assert [float(rows[1][f"visible_{kind}"]) for kind in told["kinds_visible"]] == told["kinds_visible_probability"][0]
    assert "What was done to pair b" in (out / "index.html").read_text()
    text = run("explain", *sources, "--out", out, "--every", 2, "--max-frames", 1, "--seeds", 0)
    assert text.endswith(f"wrote {out / 'index.html'}\n")
    with pytest.raises(NoPairsError, match="pair 7 is to be explained, but there are 3, from 0"):
        run("explain", *sources, "--out", out, "--pair", 7, "--seeds", 0)


def test_bad_input_is_one_error_with_its_own_exit_code(write_pairs, tmp_path: Path, rng) -> None:
    infrared, visible = write_pairs(("a",), SIZE)
    sources = ("--infrared", infrared, "--visible", visible, "--out", tmp_path / "report")
    for words, named in ((("--balance", 2), "balance is 2"), (("--balance", "nan"), "balance is nan")):
        with pytest.raises(OptionError, match=named):
            run("explain", *sources, *words)
    with pytest.raises(OptionError, match="seeds is -3"):
        run("explain", *sources, "--seeds", -3)
    write_png(visible / "a.png", rng.integers(0, 256, (32, 32, 3), np.uint8))
    with pytest.raises(SizeMismatchError, match="infrared is 64x96, visible 32x32"):
        run("explain", *sources)


def test_it_takes_a_run_s_areas_controls_and_calibration(tmp_path: Path, rng) -> None:
    """An infrared of half the size is warped onto the visible; on the left nothing of it is restored."""
    found = PixelMap(np.array([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 1]]), None, None)
    each = distance_map(found, "homography", (64, 96), 0.5, 0.9)
    made = Calibration(mode="scene", infrared_size=(32, 48), visible_size=(64, 96), maps=(each,))
    (tmp_path / "calibration.yaml").write_text(made.text())
    (tmp_path / "robot.toml").write_text(
        f'[cameras]\ncalibration = "{tmp_path / "calibration.yaml"}"\n[controls]\nsteps = 2\nbalance = 0.3\n'
        "[[areas]]\nshare = 0.0\npolygon = [[0, 0], [0, 0.5], [1, 0.5], [1, 0]]\n"
    )
    write_png(tmp_path / "i.png", rng.integers(60, 90, (32, 48), np.uint8))
    write_png(tmp_path / "v.png", rng.integers(60, 90, (64, 96, 3), np.uint8))
    sources = ("--infrared", tmp_path / "i.png", "--visible", tmp_path / "v.png", "--seeds", 0)
    out = tmp_path / "report"
    run("explain", *sources, "--out", out, "--config", tmp_path / "robot.toml", "--steps", 1)
    with np.load(out / "explanation.npz") as kept:
        assert kept["residuals"].shape == (1, 2, 3, 64, 96), "the command line's steps win over the file's"
        before = np.rint((kept["x_in"][1] + 1) * 127.5).transpose(1, 2, 0)
        changed = np.abs(kept["restored_visible"].astype(float) - before).max(axis=2)
    assert changed[:, :47].max() == 0
    assert changed[:, 49:].mean() > 1
    assert "balance 0.3" in (out / "index.html").read_text()
    run("explain", *sources, "--out", out, "--calibration", tmp_path / "calibration.yaml")
    with pytest.raises(SizeMismatchError, match="infrared is 32x48, visible 64x96"):
        run("explain", *sources, "--out", out)


def test_a_schedule_without_noise_says_that_none_was_tried() -> None:
    rng = np.random.default_rng(0)
    with noisy_fuser() as fuser:
        manifest = fuser.bundle.manifest
        schedule = manifest.schedule.model_copy(update={"name": "rddm09-noiseless"})
        fuser.bundle = replace(fuser.bundle, manifest=manifest.model_copy(update={"schedule": schedule}))
        images = rng.integers(0, 256, (32, 32), np.uint8), rng.integers(0, 256, (32, 32, 3), np.uint8)
        told = explain(fuser, *images, Controls(steps=1), seeds=3)
    assert (told.seeds, told.spread_levels) == (0, None)
    assert any("starts without noise" in note for note in told.fused.notes)
