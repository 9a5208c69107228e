"""`fuse --uncertainty` and `--start-noise`: what is written, and what a bundle without the graph is told."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from cled_edge.image import read_image
from tests.fakes.doubting_bundle import LEVELS, doubting_bundle, doubtless_bundle


def fuse(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cled_edge.cli", "fuse", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_uncertainty_is_written_as_levels_and_pictures_and_told_in_json(write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a", "b"), (44, 60))
    bundle, doubt = doubting_bundle(tmp_path / "bundle").path, tmp_path / "doubt"
    given = ("--infrared", infrared, "--visible", visible, "--bundle", bundle, "--out", tmp_path / "out")
    done = fuse(*given, "--uncertainty", doubt, "--start-noise", 0.5, "--seed", 3, "--json")
    assert done.returncode == 0, done.stderr
    with np.load(doubt / "b.npz") as kept:
        levels = {name: kept[name] for name in kept.files}
    grey = read_image(infrared / "b.png", color=False)
    assert {(name, x.shape, x.dtype.name) for name, x in levels.items()} == {
        ("infrared", (44, 60), "float32"), ("visible", (44, 60), "float32"),
    }  # fmt: skip
    assert np.abs(levels["infrared"] - LEVELS * (0.5 + grey / 255.0)).max() < 1e-3
    for name in ("infrared", "visible"):
        assert sorted(path.name for path in (doubt / name).iterdir()) == ["a.png", "b.png"]
        assert read_image(doubt / name / "b.png", color=True).shape == (44, 60, 3)
    report = json.loads(done.stdout)
    told = report["uncertainty_levels"]
    assert LEVELS * 0.9 < told["infrared"]["mean"] < LEVELS * 1.1
    assert told["infrared"]["mean"] < told["infrared"]["p95"] <= LEVELS * 1.5
    assert list(report["latency_ms"])[2:6] == ["prepare", "steps", "doubt", "fusion"]
    assert [output["shows"] for output in report["outputs"][2:]] == ["infrared-uncertainty", "visible-uncertainty"]


def test_a_bundle_without_the_graph_is_told_in_one_line(write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a",))
    bundle = doubtless_bundle(tmp_path / "bundle").path
    given = ("--infrared", infrared, "--visible", visible, "--bundle", bundle, "--out", tmp_path / "out")
    done = fuse(*given, "--start-noise", 0.5)
    assert done.returncode == 2
    assert "start_noise is 0.5, but" in done.stderr
    assert "has no doubt graph in fp32; leave it out, or" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
