"""Recipes: those that are shipped, and those that are refused."""

import json
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from cled_edge.data.datasets import DataSet  # noqa: E402
from cled_edge.errors import DataError, OutputError  # noqa: E402
from tests.fakes.recipes import RECIPE  # noqa: E402
from training.journal import Journal  # noqa: E402
from training.recipe import check_crops, model_of, read_recipe  # noqa: E402


def test_bad_recipes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(RECIPE.format(iterations=4) + "\nlearning_rat = 1\n")
    with pytest.raises(DataError, match=r"fuse\.learning_rat: is unknown"):
        read_recipe(path)
    with pytest.raises(DataError, match="does not exist"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.toml")), ids=str)
def test_recipes_are_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert model_of(recipe).name == recipe.preset


def test_crops_that_do_not_fit_are_named(recipe_file: Path) -> None:
    recipe = read_recipe(recipe_file)
    for stage, crop in (("restore", 40), ("fuse", 100)):
        odd = recipe.model_copy(update={stage: getattr(recipe, stage).model_copy(update={"crop": crop})})
        with pytest.raises(DataError, match=rf"{stage}\.crop is {crop}, needed a multiple of 32"):
            check_crops(odd)
    small = recipe.fuse.model_copy(update={"crop": 32, "weight_information": 0.5})
    with pytest.raises(DataError, match=r"fuse\.crop is 32, needed 41 for weight_information"):
        check_crops(recipe.model_copy(update={"fuse": small}))


def test_recipes_name_sets(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    stages = "\n".join(
        f"[{name}]\niterations = 1\nbatch = 2\ncrop = 32\nlearning_rate = 1e-3" for name in ("restore", "fuse")
    )
    sets = '[[data.sets]]\nlayout = "harvard"\nroot = "medical"\npart = "ct"\n'
    path.write_text(f'preset = "one-pass"\n[data]\nkeep_gib = 0.5\n{sets}{stages}\n')
    assert read_recipe(path).data.sets == (DataSet(layout="harvard", root="medical", part="ct"),)
    path.write_text(f'preset = "one-pass"\n[data]\n{stages}\n')
    with pytest.raises(DataError, match=r"data: .*name images in pairs or \[\[data\.sets\]\]"):
        read_recipe(path)


def test_what_is_no_text_of_a_recipe_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "latin.toml").write_bytes(b"preset = '\xe9'")
    (tmp_path / "deep.toml").write_text("x = " + "[" * 100_000)
    for name, said in (("pipe", "is a pipe"), ("latin", "utf-8"), ("deep", "deep.toml: "), ("none", "does not exist")):
        with pytest.raises(DataError, match=said):
            read_recipe(tmp_path / f"{name}.toml")


def test_a_log_is_not_written_through_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "log.jsonl").symlink_to("victim")
    with Journal("restore", tmp_path, active=True) as journal:
        with pytest.raises(OutputError, match=r"log\.jsonl: "):
            journal.write(1, {"loss": 1.0})
        (tmp_path / "log.jsonl").unlink()
        journal.write(1, {"loss": 1.0})
    assert json.loads((tmp_path / "log.jsonl").read_text())["loss"] == 1.0
