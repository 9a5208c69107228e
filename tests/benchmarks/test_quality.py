"""The quality benchmark: what degrades and what fuses trivially, boxes, means, shares, bars, and the program."""

import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import (
    ablation,
    baselines,
    ems,
    held_out,
    measures,
    medical,
    quality,
    result,
    summary,
    tables_paper,
    tables_quality,
)
from benchmarks.ems import CASES, INFRARED, SINGLE, VISIBLE, Case
from benchmarks.held_out import Box, Scene
from benchmarks.result import Result
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.contract import Controls
from cled_edge.data.datasets import DataSet, pairs_of_set
from cled_edge.data.split import NAMED_PATIENTS, is_held_out
from cled_edge.errors import DataError, OptionError
from cled_edge.frame import FusedFrame
from cled_edge.image import Uint8, write_png
from cled_edge.metrics.psnr import psnr_db

SIZE = (72, 96)
NAMED = [("infrared", n) for n in INFRARED] + [("visible", n) for n in VISIBLE]
MEDICAL_RECIPE = Path(__file__).parents[2] / "training/recipes/nano-medical.toml"


def picture(seed: int, channels: int = 0, size: tuple[int, int] = SIZE) -> Uint8:
    """Return a smooth picture with some texture, of about half brightness."""
    rng = np.random.default_rng(seed)
    shape = (*size, channels) if channels else size
    coarse = cv2.resize(rng.uniform(30, 200, (6, 8, *shape[2:])), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 3, shape), 0, 255).astype(np.uint8)


def scene(seed: int = 0, brightness: float = 1.0) -> Scene:
    visible = (picture(seed + 1, 3) * brightness).astype(np.uint8)
    return Scene("pairs/a", f"s{seed}", picture(seed), visible)


class FakeFuser:
    """Restores by `restore`, fuses by maximum, and leans to the modality that the balance names."""

    def __init__(self, restore: Any = lambda x: x) -> None:
        self.restore = restore
        self.calls = 0

    def __call__(self, infrared: Uint8, visible: Uint8, controls: Controls | None = None) -> FusedFrame:
        self.calls += 1
        balance = (controls or Controls()).balance
        infrared, visible = self.restore(infrared), self.restore(visible)
        luma = baselines.luma_of(visible)
        chosen = luma if balance == 0 else infrared if balance == 1 else np.maximum(infrared, luma)
        return FusedFrame(np.repeat(chosen[:, :, None], 3, axis=2), infrared, visible)


@pytest.mark.parametrize(("modality", "name"), NAMED)
def test_a_degradation_changes_the_picture_and_keeps_its_form(modality: str, name: str) -> None:
    degrade = {"infrared": INFRARED, "visible": VISIBLE}[modality][name]
    for channels in (0, 3):
        clean = picture(5, channels)
        before = clean.copy()
        degraded = degrade(clean, np.random.default_rng(1))
        assert degraded.shape == clean.shape
        assert degraded.dtype == np.uint8
        assert np.array_equal(clean, before)
        assert 3 < psnr_db(degraded, clean) < 45


def test_degradations_do_what_they_are_called() -> None:
    rng = np.random.default_rng(0)
    grey = np.full((120, 160), 128, np.uint8)
    assert ems.low_light(grey, rng).mean() < 80
    assert ems.overexposure(grey, rng).mean() > 190
    striped = ems.stripes(grey, rng).astype(float)
    assert striped.mean(axis=0).std() > 2.5
    assert striped.mean(axis=1).std() < 0.8
    assert ems.strong_stripes(grey, rng).std() > 3 * striped.std()
    squeezed = ems.low_contrast(picture(1), rng)
    assert squeezed.std() < 0.6 * picture(1).std()
    hazy = ems.haze(np.zeros((480, 640), np.uint8), rng).astype(float)
    assert hazy[80:160, 280:360].mean() > 120
    assert hazy[-40:, :40].mean() < 60
    sharp = np.tile(np.repeat(np.array((0, 255), np.uint8), 4), (64, 8))
    assert ems.blur(sharp, rng).std() < 0.95 * sharp.std()
    # Rain is long in one direction: a column of the picture changes slowly along a streak, quickly across it.
    wet = ems.rain(np.full((240, 240), 100, np.uint8), np.random.default_rng(3)).astype(float)
    assert np.abs(np.diff(wet, axis=0)).mean() < 0.9 * np.abs(np.diff(wet, axis=1)).mean()
    noisy = ems.noise(grey, rng).astype(float)
    # 10 levels, and the shot noise of 40 counts.
    assert noisy.std() == pytest.approx(np.hypot(10, 128 / np.sqrt(40)), rel=0.1)
    assert ems.infrared_noise(grey, rng).std() > 1.2 * noisy.std()


def test_a_case_depends_on_its_name_and_seed_only() -> None:
    infrared, visible = picture(1), picture(2, 3)
    case = Case(infrared=("stripes", "noise"), visible=("low_light",))
    assert case.name == "infrared stripes+noise, visible low_light"
    once, again, other = (case(infrared, visible, (seed,)) for seed in (1, 1, 2))
    assert np.array_equal(once[0], again[0])
    assert np.array_equal(once[1], again[1])
    assert not np.array_equal(once[0], other[0])
    assert Case(visible=("rain",))(infrared, visible, (1,))[0] is infrared


def test_the_cases_are_nine_single_ones_and_more() -> None:
    assert len(SINGLE) == 9
    assert all(len(case.infrared) + len(case.visible) == 1 for case in SINGLE)
    assert len({case.name for case in CASES}) == len(CASES)
    assert sum(len(case.infrared) + len(case.visible) > 1 for case in CASES) >= 4


def test_baselines_of_flat_images_are_known() -> None:
    dark, light = np.full((64, 64), 50, np.uint8), np.full((64, 64), 100, np.uint8)
    values = {name: int(fusion(light, dark)[32, 32]) for name, fusion in baselines.BASELINES.items()}
    assert values["average"] == 75
    assert values["max"] == 100
    assert values["copy of visible"] == 50
    assert values["Laplacian max"] == 75
    assert len(values) == 5


def test_the_pyramid_keeps_the_stronger_detail_of_each_place() -> None:
    plain = np.full((64, 64), 100, np.uint8)
    left, right = plain.copy(), plain.copy()
    left[20:40, 10:12] = 200
    right[20:40, 50:52] = 200
    fused = baselines.laplacian_maximum(left, right).astype(int)
    assert fused[30, 10] > 170
    assert fused[30, 50] > 170
    assert np.array_equal(baselines.laplacian_maximum(left, left), left)


def test_enhancing_lifts_contrast_and_not_noise() -> None:
    soft = np.clip(110 + np.outer(np.linspace(-15, 15, 96), np.ones(128)), 0, 255)
    noisy = np.clip(soft + np.random.default_rng(0).normal(0, 4, soft.shape), 0, 255).astype(np.uint8)
    enhanced = baselines.enhanced(noisy).astype(float)
    assert enhanced.mean(axis=1).std() > 1.2 * soft.std()
    assert np.diff(enhanced, axis=1).std() < np.diff(noisy.astype(float), axis=1).std()


def test_colours_are_those_of_the_visible() -> None:
    visible = picture(3, 3)
    assert np.abs(baselines.with_color(baselines.luma_of(visible), visible).astype(int) - visible).max() <= 2


def test_a_spread_has_both_ends() -> None:
    assert held_out.spread(list("abcdefg"), 3) == ["a", "d", "g"]
    assert held_out.spread(["a"], 3) == ["a"]
    assert held_out.spread(["a", "b"], 0) == ["a", "b"]


def write_data(root: Path, count: int = 2) -> list[str]:
    """Write held-out pairs and one that is not; return the stems of the held-out ones."""
    stems = [s for s in (f"n{k}" for k in range(200)) if zlib.crc32(s.encode()) % 10 == 0][:count]
    for k, stem in enumerate([*stems, "n1"]):
        for modality, channels in (("infrared", 0), ("visible", 3)):
            (root / "pairs/a" / modality).mkdir(parents=True, exist_ok=True)
            write_png(root / "pairs/a" / modality / f"{stem}.png", picture(10 * k + channels, channels))
    return sorted(stems)


def test_pairs_are_held_out_ones_unless_all(tmp_path: Path) -> None:
    stems = write_data(tmp_path)
    assert [s.stem for s in held_out.read_scenes(tmp_path, "pairs/a", 0)] == stems
    assert len(held_out.find_pairs(tmp_path, "pairs/a", 0, everything=True)) == 3
    with pytest.raises(DataError, match=r"pairs/b is not a folder"):
        held_out.find_pairs(tmp_path, "pairs/b", 0, everything=True)


def test_large_images_are_scaled_and_medical_scans_found(tmp_path: Path) -> None:
    for modality, channels in (("mri", 0), ("pet", 3)):
        (tmp_path / "medical/pet-mri" / modality).mkdir(parents=True)
        write_png(tmp_path / "medical/pet-mri" / modality / "1001.png", picture(1, channels, (500, 800)))
    (only,) = held_out.read_scenes(tmp_path, "medical/pet-mri", 0, everything=True)
    assert only.infrared.shape == (400, 640)
    assert only.visible.shape == (400, 640, 3)


def test_a_patient_is_held_out_as_a_whole_as_training_does(tmp_path: Path) -> None:
    for modality, channels in (("mri", 0), ("pet", 3)):
        (tmp_path / "medical/pet-mri" / modality).mkdir(parents=True)
        for patient in range(1, 41):
            for at in (7, 8):
                name = f"{patient}{at:03d}.png"
                write_png(tmp_path / "medical/pet-mri" / modality / name, picture(1, channels, (8, 8)))
    recipe = pytest.importorskip("training.recipe", reason="needs torch: make test installs it")
    pairs = pairs_of_set(tmp_path, DataSet(layout="harvard", root="medical"))
    named = NAMED_PATIENTS["pet-mri"]
    (pet,) = (s for s in recipe.read_recipe(MEDICAL_RECIPE).data.sets if s.part == "pet")
    assert pet.held_out == named
    held = {pair.infrared for pair in pairs if is_held_out(pair.unit, named)}
    assert 0 < len(held) < len(pairs) == 80
    assert {infrared for _, infrared, _ in held_out.find_pairs(tmp_path, "medical/pet-mri", 0, False)} == held


def test_references_are_found_in_both_layouts(tmp_path: Path) -> None:
    for folder in ("lol/low", "lol/high"):
        (tmp_path / folder).mkdir(parents=True)
        write_png(tmp_path / folder / "1.png", picture(1, 3))
    for side in ("degraded", "reference"):
        for modality, channels in (("infrared", 0), ("visible", 3)):
            (tmp_path / "drmf" / side / modality).mkdir(parents=True)
            write_png(tmp_path / "drmf" / side / modality / "2.png", picture(2, channels))
    assert [name for name, *_ in held_out.read_references(tmp_path, "lol", True)] == ["visible 1"]
    found = [(name, a.ndim) for name, a, _ in held_out.read_references(tmp_path, "drmf", True)]
    assert found == [("infrared 2", 2), ("visible 2", 3)]
    assert not list(held_out.read_references(tmp_path, "lol", False))


def test_a_label_is_a_box_of_people_only(tmp_path: Path) -> None:
    write_data(tmp_path)
    (tmp_path / "pairs/a/labels").mkdir()
    (tmp_path / "pairs/a/labels/n1.txt").write_text("2 0.5 0.5 0.9 0.9\n0 0.25 0.5 0.5 0.25\n")
    (tmp_path / "pairs/a/labels/gone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    ((found, boxes),) = held_out.labelled_people(tmp_path, "pairs/a")
    assert found.stem == "n1"
    assert boxes == [Box(27, 0, 45, 48)]


def test_contrast_is_the_box_above_its_ring() -> None:
    luma = np.full((90, 90), 40, np.uint8)
    luma[30:60, 30:60] = 140
    luma[:10] = 255  # outside the ring
    assert held_out.contrast(luma, Box(30, 30, 60, 60)) == pytest.approx(100)
    assert held_out.contrast(255 - luma, Box(30, 30, 60, 60)) == pytest.approx(-100)
    assert held_out.contrast(luma, Box(0, 0, 90, 90)) == 0


def test_warm_people_are_found_and_a_hot_window_is_not() -> None:
    still = np.full((480, 640), 30, np.uint8)
    still[40:100, 400:480] = 220
    frame = np.roll(still, 6, axis=1)  # the camera was touched
    frame[200:240, 100:130] = 230  # a head
    frame[270:350, 95:135] = 200  # legs; a cold jacket between
    frame[300:330, 400:480] = 200  # a car: wider than high
    frame[400:410, 300:305] = 200  # too small
    (box,) = held_out.warm_blobs(frame, still)
    assert box == Box(200, 95, 350, 135)


def test_smoke_frames_are_every_thirtieth(tmp_path: Path) -> None:
    for name in ("infrared", "visible"):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (96, 72))
        for k in range(61):
            writer.write(np.full((72, 96, 3), 40 + k, np.uint8))
        writer.release()
    assert [s.stem for s, _ in held_out.smoke_frames(tmp_path)] == ["000000", "000030", "000060"]


def test_a_fuser_that_does_nothing_gains_nothing_and_max_is_max() -> None:
    fuser = FakeFuser()
    with measures.scorer() as score:
        fused, images = measures.degraded_rows(fuser, scene(), CASES[:2], score)
    assert fuser.calls == 3
    assert {row["method"] for row in fused} == {measures.OURS, measures.CEILING, *baselines.BASELINES}
    by = {(row["case"], row["method"]): row for row in fused}
    assert by["visible low_light", "ours"]["vif"] == by["visible low_light", "max"]["vif"]
    with measures.scorer() as score:
        clean = {row["method"]: row for row in measures.clean_rows(fuser, scene(), score)}
    assert by["clean", measures.CEILING]["vif"] == clean["max"]["vif"] != by["visible low_light", "max"]["vif"]
    assert [(r["case"], r["modality"]) for r in images] == [
        *(("clean", modality) for modality in ("infrared", "visible")),
        *((case.name, "visible") for case in CASES[:2]),
    ]
    assert all(row["psnr_before_db"] == row["psnr_after_db"] for row in images)
    assert images[0]["psnr_after_db"] == measures.EQUAL_DB
    assert 3 < images[2]["psnr_after_db"] < 30


def test_without_a_scorer_only_single_images_are_measured() -> None:
    fused, images = measures.degraded_rows(FakeFuser(), scene(), CASES[:1], None)
    assert fused == []
    assert len(images) == 3


def test_clean_rows_have_both_profiles() -> None:
    with measures.scorer() as score:
        rows = measures.clean_rows(FakeFuser(), scene(), score)
    assert [row["method"] for row in rows] == ["ours", *baselines.BASELINES]
    assert {"scd", "en", "paper_ssim", "paper_nabf"} <= rows[0].keys()
    assert rows[0]["paper_ssim"] != rows[0]["ssim"]


def test_balance_and_references_look_at_the_right_modality() -> None:
    low, high = measures.balance_rows(FakeFuser(), scene())
    assert (low["modality"], high["modality"]) == ("visible", "infrared")
    assert low["ssim"] == pytest.approx(1)
    assert high["ssim"] == pytest.approx(1)
    grey = picture(4)
    row = measures.reference_row(FakeFuser(lambda x: 255 - x), "f", "infrared 1", grey, 255 - grey)
    assert row["psnr_after_db"] == measures.EQUAL_DB
    assert row["stem"] == "1"


def test_people_are_compared_with_the_infrared() -> None:
    pair = scene()
    pair.infrared[:] = 40
    pair.infrared[20:50, 40:60] = 240
    pair.visible[:] = 140
    found = summary.people_means(measures.people_rows(FakeFuser(), pair, [Box(20, 40, 50, 60)]))
    ratios = {row["method"]: row["ratio"] for row in found}
    assert ratios["infrared"] == 1
    assert ratios["ours"] == ratios["max"] == pytest.approx(0.5)
    assert ratios["copy of visible"] == 0


def test_means_come_for_each_light_only_where_there_are_two() -> None:
    lights = (("day", 1.0), ("night", 3.0), ("day", 2.0))
    rows = [{"case": "a", "stem": str(x), "light": light, "x": x} for light, x in lights]
    found = summary.means([*rows, {"case": "b", "light": "day", "x": 5.0}], ("case",))
    assert [(r["case"], r["light"], r["images"], r["x"]) for r in found] == [
        ("a", "all", 3, 2.0),
        ("a", "day", 2, 1.5),
        ("a", "night", 1, 3.0),
        ("b", "all", 1, 5.0),
        ("b", "day", 1, 5.0),
    ]


def fused_row(case: str, method: str, value: float, light: str = "day") -> dict[str, Any]:
    scores = dict.fromkeys(measures.SHORT, value)
    return {"folder": "pairs/msrs", "stem": "s", "light": light, "case": case, "method": method, **scores}


def test_a_share_is_of_the_way_from_max_to_the_ceiling() -> None:
    rows = [fused_row("clean", measures.CEILING, 1.0)]
    for case, low, ours in (("visible haze", 0.5, 0.75), ("visible rain", 0.99, 0.5), ("infrared blur", 0.0, 1.0)):
        rows += [fused_row(case, "max", low), fused_row(case, "ours", ours)]
    found = {row["case"]: row for row in summary.shares(summary.degraded_means(rows)) if row["light"] == "day"}
    assert found["visible haze"]["vif"] == 0.5
    assert found["visible rain"]["vif"] is None  # the way is too short
    # The blur of the infrared is not one of the nine: (0.625 - 0.745) / (1 - 0.745).
    assert found[measures.NINE]["ssim"] == pytest.approx(-0.471, abs=1e-3)


def image_of(case: str, modality: str, gain: float, light: str = "day", before: float = 10.0) -> dict[str, Any]:
    tags = {"folder": "pairs/msrs", "stem": f"{gain}", "light": light, "case": case, "modality": modality}
    return {**tags, "psnr_before_db": before, "psnr_after_db": before + gain, "ssim_before": 0.5, "ssim_after": 0.5}


def restored_rows() -> list[dict[str, Any]]:
    rows = [image_of(f"visible {name}", "visible", 6.5) for name in ("low_light", "overexposure", "haze", "noise")]
    rows += [image_of("visible low_light", "visible", -9.0, "night"), image_of("visible rain", "visible", 1.9)]
    rows += [image_of(case, "infrared", 5.9 + k, "night") for k, case in enumerate(summary.INFRARED_CASES)]
    return [*rows, image_of("clean", "visible", 0.0, before=39.0), image_of("clean", "infrared", 0.0, before=37.0)]


def test_targets_judge_daylight_visible_and_all_infrared() -> None:
    restored = summary.image_means(restored_rows())
    met = {row["target"]: (row["met"], row["measured"]) for row in summary.targets({"restored": restored})}
    assert met["restored visible, low light, overexposure, haze, noise: mean gain in dB"] == (True, 6.5)
    assert met["restored visible rain: gain in dB"] == (False, 1.9)
    assert met["restored infrared stripes: gain in dB"] == (False, 5.9)
    assert met["restored infrared noise: gain in dB"] == (True, 7.9)
    assert met["restored, the least gain of all 9 (visible of visible rain), dB"] == (True, 1.9)
    assert met["clean visible, PSNR of the restored against itself in dB, the worst image"] == (True, 39.0)
    assert met["clean infrared, PSNR of the restored against itself in dB, mean"] == (False, 37.0)


def test_the_other_targets_take_ours_and_name_the_peers() -> None:
    clean = [
        {"folder": f"pairs/{s}", "method": "ours", "light": "all", "images": 3, "vif": 0.9, "qabf": 0.6}
        for s in ("msrs", "mine")
    ]
    people = [
        {"method": m, "boxes": 3, "images": 2, "contrast_levels": 1.0, "ratio": r}
        for m, r in (("max", 2.0), ("ours", 0.7))
    ]
    balance = [{"balance": 0.0, "modality": "visible", "light": "all", "images": 1, "ssim": 0.96}]
    share = [{"case": measures.NINE, "light": "day", "images": 9, "vif": 0.51, "qabf": 0.4, "ssim": None}]
    found = summary.targets({"clean": clean, "people": people, "smoke": people, "balance": balance, "share": share})
    assert [(row["needed"], row["measured"], row["met"]) for row in found] == [
        (0.5, 0.51, True),
        (0.5, 0.4, False),
        (0.5, None, False),
        (0.974, 0.9, False),
        (0.669, 0.6, False),
        (1.0, 0.7, False),
        (0.6, 0.7, True),
        (0.95, 0.96, True),
    ]


def test_gains_are_parted_by_set_without_clean_and_dark_images() -> None:
    rows = [
        image_of("visible rain", "visible", gain) | {"folder": folder}
        for folder, gain in (("a", 2), ("a", 4), ("b", -1))
    ]
    rows += [image_of("visible rain", "visible", 90.0, "night"), image_of("clean", "visible", 0.0)]
    found = {row["folder"]: (row["gain_db"], row["images"]) for row in summary.gains_by_set(rows)}
    assert found == {"a": (3, 2), "b": (-1, 1)}


def run(*arguments: Any, of: Any = quality.main) -> Any:
    app = typer.Typer()
    app.command()(of)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_program_measures_the_shipped_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path, 1)
    monkeypatch.setattr(quality, "CASES", CASES[:2])
    folders = ["--folders", "pairs/a", "--degraded-folders", "pairs/a"]
    done = run("--data", tmp_path, *folders, "--out", tmp_path / "q.json")
    assert done.exit_code == 0, done.output
    for part in ("references", "people", "smoke"):
        assert f"without {part}: " in done.output
    found = Result.read(tmp_path / "q.json")
    assert found.provenance.bundles == {"nano": result.bundle_hash(Bundle.open().manifest)}
    assert found.file_name.startswith("quality-nano-")
    parts = {row["part"] for row in found.rows}
    assert parts == {"target", "clean", "degraded", "share", "restored", "restored_set", "balance"}
    assert [row for row in found.rows if row["part"] == "target" and "balance" in row["target"]]
    for table in (tables_quality.FUSED, tables_quality.NINE_DEGRADED, tables_quality.RESTORED, tables_paper.TABLE_1):
        assert len(table.lines(found)) > 2


def test_the_program_refuses_unknown_parts_and_folders_without_held_out_pairs(tmp_path: Path) -> None:
    write_data(tmp_path, 0)
    assert isinstance(run("--data", tmp_path, "--only", "x").exception, OptionError)
    error = run("--data", tmp_path, "--folders", "pairs/a", "--only", "balance").exception
    assert isinstance(error, DataError)
    assert "no pair is held out from training; --all takes every pair" in str(error)
    partly = run("--data", tmp_path, "--only", "balance", "--update").exception
    assert "--update with a part of the measurement; needed all of --only and --count 14 or more" in str(partly)


def test_variants_are_scored_on_the_papers_sets(tmp_path: Path) -> None:
    write_data(tmp_path, 1)
    for name in ("m3fd", "llvip"):
        shutil.copytree(tmp_path / "pairs/a", tmp_path / f"pairs/{name}")
    done = run(shipped_bundle(), "--data", tmp_path, "--out", tmp_path / "a.json", of=ablation.main)
    assert done.exit_code == 0, done.output
    rows = Result.read(tmp_path / "a.json").rows
    assert [(row["method"], row["folder"]) for row in rows] == [("nano", "pairs/m3fd"), ("nano", "pairs/llvip")]
    assert rows[0]["iterations"] > 0
    assert re.search(r"\| nano \| \d+ \| 1 and 1 \|", done.output)
    assert "| paper: one stage | - | the paper's | 3.720 / 0.715 / 0.436 / 0.030 / 0.850 | 1.733" in done.output


def test_medical_slices_are_scored_by_kind(tmp_path: Path) -> None:
    for kind, patient in {"ct": "37", "pet": "30", "spect": "29"}.items():
        for modality, channels in (("mri", 0), (kind, 3)):
            (tmp_path / f"medical/{kind}-mri" / modality).mkdir(parents=True)
            write_png(tmp_path / f"medical/{kind}-mri" / modality / f"{patient}001.png", picture(1, channels))
    renamed = tmp_path / "renamed"
    shutil.copytree(shipped_bundle(), renamed)
    manifest = json.loads((renamed / "manifest.json").read_text())
    (renamed / "manifest.json").write_text(json.dumps({**manifest, "name": "other"}))
    done = run(shipped_bundle(), renamed, "--data", tmp_path, "--out", tmp_path / "m.json", of=medical.main)
    assert done.exit_code == 0, done.output
    found = Result.read(tmp_path / "m.json")
    assert set(found.provenance.bundles) == {"nano", "other"}
    by = {(row["folder"], row["method"]): row for row in found.rows if row["part"] == "clean"}
    kinds = [by[folder, "max"]["vif"] for folder in medical.FOLDERS]
    assert by["all", "max"]["vif"] == pytest.approx(np.mean(kinds), abs=1e-4)
    assert by["all", "max"]["images"] == 3
    restored = [row for row in found.rows if row["part"] == "restored"]
    assert {row["case"] for row in restored} == {"clean", *(case.name for case in medical.CASES)}
    assert {row["method"] for row in restored} == {"nano", "other"}
    assert by["all", "nano"] == {**by["all", "other"], "method": "nano"}
    assert "| pet-mri | 1 | max |" in done.output
    twice = run(shipped_bundle(), shipped_bundle(), "--data", tmp_path, of=medical.main).exception
    assert "two bundles are named 'nano'" in str(twice)
