"""Recipes that change a preset, the candidates of the search, and what the search reads and writes."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

from benchmarks import search  # noqa: E402
from cled_edge.errors import CledEdgeError, DataError  # noqa: E402
from cled_edge.network.presets import PRESETS  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from training.recipe import Recipe, model_of, read_recipe  # noqa: E402

ROOT = Path(search.__file__).parent.parent
BASE = search.tomllib.loads((ROOT / "training" / "recipes" / "nano.toml").read_text())
CANDIDATES = search.read_candidates(ROOT / "benchmarks" / "candidates.toml", [])


def recipe(**changes) -> Recipe:
    return Recipe.model_validate({**BASE, **changes})


def test_a_recipe_without_changes_is_the_preset() -> None:
    assert model_of(recipe()) == PRESETS["nano"]


def test_a_recipe_changes_fields_of_the_preset() -> None:
    changed = model_of(recipe(unet={"widths": [16, 16]}, fusion={"mix": False}, schedule="diffuir", default_steps=2))
    assert changed.unet.widths == (16, 16)
    assert changed.unet.unshuffle == PRESETS["nano"].unet.unshuffle
    assert not changed.fusion.mix
    assert (changed.schedule, changed.default_steps) == ("diffuir", 2)


def test_an_unknown_field_and_two_patch_sizes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[unet\] has no field 'width'"):
        model_of(recipe(unet={"width": 3}))
    with pytest.raises(CledEdgeError, match="must be the same"):
        model_of(recipe(unet={"unshuffle": 2}))


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda c: c.slug)
def test_every_candidate_is_a_recipe_that_makes_a_model(candidate, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(search.recipe_text(BASE, candidate, 7, 50))
    read = read_recipe(path)
    assert read.restore.iterations == (7 if candidate.stage == "restore" else 1)
    assert read.data == recipe().data
    config = model_of(read)
    assert config.schedule == (candidate.schedule or PRESETS["nano"].schedule)
    assert config.default_steps == (candidate.default_steps or PRESETS["nano"].default_steps)
    CledFusion(config)


def test_an_unknown_candidate_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="has no candidate 'nothing'; it has nano"):
        search.read_candidates(ROOT / "benchmarks" / "candidates.toml", ["nothing"])


def test_a_candidate_is_trained_once(tmp_path: Path, monkeypatch) -> None:
    ran = []

    def run(module: str, *arguments: str) -> None:
        ran.append(module)
        if module == "export.to_onnx":
            Path(arguments[1]).mkdir(exist_ok=True)

    monkeypatch.setattr(search, "_run", run)
    for text in ("a", "a", "b"):
        search.train_and_export(CANDIDATES[0], text, tmp_path, tmp_path / "work")
    assert ran == ["training.train", "export.to_onnx"] * 2


def test_quality_is_the_last_validation_or_the_last_losses(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [{"stage": "restore", "visible_gain_1": 1.0}, {"stage": "restore", "visible_gain_1": 2.5, "other": 1}]
    lines += [
        {"stage": "fuse", "intensity": i, "gradient": 2 * i, "color": 0.5} for i in (9.0, 1.0, 1.0, 1.0, 1.0, 2.0)
    ]
    log.write_text("\n".join(map(json.dumps, lines)))
    assert search.quality(log, "restore") == {"visible_gain_1": 2.5}
    assert search.quality(log, "fuse") == {"intensity": 1.2, "gradient": 2.4, "color": 0.5}


def test_a_failing_program_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ended with 15: error: .*nowhere"):
        search._run("training.train", "nowhere.toml", "--data", "x", "--out", str(tmp_path))
