"""`cled-edge score`: folders in, a table or JSON out, and its refusals."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from cled_edge.cli.app import app
from cled_edge.errors import (
    NoPairsError,
    OptionError,
    OutputError,
    SizeMismatchError,
    SourceMissingError,
    SourceUnreadableError,
    UnmatchedStemsError,
)
from cled_edge.image import read_image, write_png
from cled_edge.metrics.folders import match_stems
from cled_edge.metrics.fused import fusion_scores
from cled_edge.metrics.luma import luma
from cled_edge.metrics.psnr import psnr_db
from cled_edge.metrics.reference import ms_ssim, ssim

STEMS = "a", "b"
SIZE = 48, 64


def score(infrared: object, visible: object, fused: object, *more: object) -> Result:
    sides = "--infrared", infrared, "--visible", visible, "--fused", fused
    return CliRunner().invoke(app, ["score", *map(str, (*sides, *more))], env={"COLUMNS": "80"})


def values_of(result: Result) -> dict:
    assert result.exception is None, result.exception
    return json.loads(result.stdout, parse_constant=pytest.fail)


@pytest.fixture
def folders(write_pairs, tmp_path: Path, rng) -> tuple[Path, Path, Path]:
    """Write infrared, visible and noise called fused."""
    infrared, visible = write_pairs(STEMS, SIZE)
    fused = tmp_path / "fused"
    fused.mkdir()
    for stem in STEMS:
        write_png(fused / f"{stem}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
    return infrared, visible, fused


def read(folder: Path, stem: str) -> np.ndarray:
    return read_image(folder / f"{stem}.png", color="infrared" not in str(folder.relative_to(folder.parents[1])))


def test_json_holds_every_image_and_the_means(folders, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    values = values_of(score(*folders, "--profile", "paper", "--json", "--out", out))
    assert json.loads(out.read_text()) == values
    assert (values["profile"], values["pictures"], [row["stem"] for row in values["rows"]]) == ("paper", 2, ["a", "b"])
    assert values["against"] == {"infrared": "input", "visible": "input"}
    for row in values["rows"]:
        infrared, visible, fused = (read(folder, row["stem"]) for folder in folders)
        assert row["fused"] == fusion_scores(infrared, visible, fused, "paper")
        assert row["visible copy"] == fusion_scores(infrared, visible, visible, "paper")
        assert row["maximum"] == fusion_scores(infrared, visible, np.maximum(infrared, luma(visible)), "paper")
        assert len(row) == 4
    assert values["means"]["fused"]["mi"] == pytest.approx(np.mean([row["fused"]["mi"] for row in values["rows"]]))


def test_the_table_shows_the_baselines_and_fits(folders) -> None:
    result = score(*folders)
    assert result.exception is None, result.exception
    lines = result.stdout.splitlines()
    assert lines[0] == "2 images, profile strict, against the infrared input and the visible input"
    assert lines[1].split() == ["mean", "MI", "VIF", "Qabf", "Nabf", "SSIM", "SCD", "EN", "SD", "SF", "AG"]
    assert [line.split()[0] for line in lines[2:5]] == ["fused", "maximum", "visible"]
    assert "reward copying" in lines[5]
    assert max(map(len, lines)) <= 80
    assert "…" not in result.stdout


def test_references_take_the_place_of_the_inputs(folders, tmp_path: Path, rng) -> None:
    infrared, visible, fused = folders
    clean, restored = tmp_path / "clean", tmp_path / "restored" / "visible"
    for folder in (clean, restored):
        folder.mkdir(parents=True)
        for stem in STEMS:
            write_png(folder / f"{stem}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
    shutil.copy(clean / "b.png", restored / "b.png")
    options = "--reference-visible", clean, "--restored", restored.parent
    values = values_of(score(*folders, *options, "--json"))
    assert values["against"] == {"infrared": "input", "visible": "reference"}
    row = values["rows"][0]
    i, v, f, c, r = (read(folder, "a") for folder in (infrared, visible, fused, clean, restored))
    assert row["fused"] == fusion_scores(i, c, f)
    assert row["maximum"] == fusion_scores(i, c, np.maximum(i, luma(v)))
    assert row["clean maximum"] == fusion_scores(i, c, np.maximum(i, luma(c)))
    assert row["visible input"] == {"psnr_db": psnr_db(v, c), "ssim": ssim(v, c), "ms_ssim": None}
    assert row["visible restored"] == {"psnr_db": psnr_db(r, c), "ssim": ssim(r, c), "ms_ssim": None}
    assert values["rows"][1]["visible restored"]["psnr_db"] is None  # identical
    assert values["means"]["visible restored"]["psnr_db"] == row["visible restored"]["psnr_db"]
    assert "PSNR leaves out 1 image that equals its reference" in score(*folders, *options).stdout


def test_large_images_have_ms_ssim(tmp_path: Path, rng) -> None:
    folders = [tmp_path / name for name in ("infrared", "visible", "fused", "restored/infrared", "reference")]
    for folder in folders:
        folder.mkdir(parents=True)
        write_png(folder / "a.png", rng.integers(0, 256, (176, 180), np.uint8))
    *sides, restored, reference = folders
    more = "--restored", restored.parent, "--reference-infrared", reference
    row = values_of(score(*sides, *more, "--json"))["rows"][0]
    for name, folder in (("infrared input", sides[0]), ("infrared restored", restored)):
        pictures = [cv2.imread(str(f / "a.png"), cv2.IMREAD_GRAYSCALE) for f in (folder, reference)]
        assert row[name]["ms_ssim"] == ms_ssim(*pictures)


def test_single_images_need_no_common_stem(folders) -> None:
    infrared, visible, fused = folders
    values = values_of(score(infrared / "a.png", visible / "b.png", fused / "a.png", "--json"))
    assert [row["stem"] for row in values["rows"]] == ["a"]
    assert values["means"]["fused"] == fusion_scores(read(infrared, "a"), read(visible, "b"), read(fused, "a"))


def test_a_sequence_has_its_flicker_in_natural_order(tmp_path: Path) -> None:
    for side in ("infrared", "visible", "fused"):
        (tmp_path / side).mkdir()
        for k in (8, 9, 10):
            level = 40 + 5 * (k == 10) if side == "fused" else 30
            write_png(tmp_path / side / f"frame_{k}.png", np.full(SIZE, level, np.uint8))
    sides = tmp_path / "infrared", tmp_path / "visible", tmp_path / "fused"
    values = values_of(score(*sides, "--sequence", "--json"))
    assert [row["stem"] for row in values["rows"]] == ["frame_8", "frame_9", "frame_10"]
    assert values["flicker"] == {"levels": 2.5, "still_percent": 100}
    assert "flicker: 2.500 grey levels" in score(*sides, "--sequence").stdout
    assert "flicker" not in values_of(score(*sides, "--json"))
    one = [f"{side}/frame_8.png" for side in sides]
    assert "none can be told" in score(*one, "--sequence").stdout


def test_raw_thermal_counts_are_stretched_as_the_fuser_does(folders, rng) -> None:
    infrared, visible, fused = folders
    counts = rng.integers(28000, 31000, SIZE, np.uint16)
    cv2.imwrite(str(infrared / "a.png"), counts)
    values = values_of(score(*(folder / "a.png" for folder in folders), "--json"))
    grey = read_image(infrared / "a.png", color=False)
    assert values["rows"][0]["fused"] == fusion_scores(grey, read(visible, "a"), read(fused, "a"))
    cv2.imwrite(str(fused / "a.png"), counts)
    assert isinstance(score(*folders).exception, OptionError)


def test_refusals(folders, tmp_path: Path) -> None:
    infrared, visible, fused = folders

    def refused(kind: type[Exception], words: str, *arguments: object) -> None:
        error = score(*arguments).exception
        assert type(error) is kind, error
        assert words in str(error)

    refused(SourceMissingError, "nowhere does not exist", infrared, visible, tmp_path / "nowhere")
    refused(OptionError, "no reference", *folders, "--restored", tmp_path)
    refused(OptionError, "profile is 'loose'", *folders, "--profile", "loose")
    refused(OutputError, "is a folder", *folders, "--out", tmp_path)
    refused(SourceMissingError, "visible does not", *folders, "--reference-visible", visible, "--restored", fused)
    video = tmp_path / "fused.mp4"
    video.touch()
    refused(OptionError, "take a video apart first", infrared, visible, video)
    (fused / "a.png").rename(fused / "c.png")
    refused(UnmatchedStemsError, "1 not in infrared: c; 1 not in visible: c; 1 not in fused: a", *folders)
    (fused / "c.png").unlink()
    write_png(fused / "a.png", np.zeros((48, 60), np.uint8))
    refused(SizeMismatchError, "image a: infrared is 48x64, visible is 48x64, fused is 48x60", *folders)
    write_png(fused / "a.png", np.zeros((40, 64), np.uint8))
    (fused / "b.png").write_bytes(b"no picture")
    refused(SourceUnreadableError, "b.png is not a whole picture", *(f"{folder}/b*" for folder in folders))
    for path in fused.iterdir():
        path.unlink()
    refused(NoPairsError, "holds no pictures", *folders)


def test_small_images_are_named(write_pairs) -> None:
    infrared, visible = write_pairs(STEMS, (40, 56))
    error = score(infrared, visible, visible).exception
    assert isinstance(error, OptionError)
    assert "image a: the image is 40x56; VIF needs 41" in str(error)


def test_a_stem_twice_in_a_source_is_refused() -> None:
    with pytest.raises(UnmatchedStemsError, match=r"fused stem 'a' occurs twice: a\.jpg and a\.png"):
        match_stems({"infrared": [Path("a.png")], "fused": [Path("a.jpg"), Path("a.png")]})


def test_an_error_is_one_line_and_help_needs_no_opencv(tmp_path: Path) -> None:
    here = tmp_path / "none"
    done = subprocess.run(
        [sys.executable, "-m", "cled_edge.cli", "score", "--infrared", here, "--visible", here, "--fused", here],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    code = "import sys, cled_edge.cli.app; print({'cv2', 'skimage', 'cled_edge.metrics.fused'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "set()"
