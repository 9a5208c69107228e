"""Batches: the same at each call, never of held-out images, degraded as the recipe says; what is skipped."""

import logging
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from cled_edge.data.datasets import find_pairs  # noqa: E402
from cled_edge.data.split import is_held_out  # noqa: E402
from cled_edge.errors import DataError  # noqa: E402
from cled_edge.image import write_png  # noqa: E402
from cled_edge.monochrome import tinted  # noqa: E402
from cled_edge.network.presets import KINDS  # noqa: E402
from tests.fakes.training import data_recipe, flat_images  # noqa: E402
from training.batches import RestorationBatch  # noqa: E402
from training.degradations import DEGRADATIONS  # noqa: E402
from training.image_cache import GIB, ImageCache  # noqa: E402
from training.loader import prepared  # noqa: E402
from training.pairs import FusionBatches, RestorationBatches  # noqa: E402
from training.recipe import DataRecipe, read_recipe  # noqa: E402


def test_batches_repeat_by_iteration_and_never_mix_the_held_out(data: Path, recipe_file: Path) -> None:
    recipe = read_recipe(recipe_file)
    one, other = (RestorationBatches(data, recipe.data, 4, 32, seed=3) for _ in range(2))
    other(1)
    for iteration in (5, 0):
        assert all(torch.equal(a, b) for a, b in zip(one(iteration), other(iteration), strict=True))
    x_in, clean, kinds, _ = one(0)
    assert kinds.shape == (4, len(KINDS))
    untouched = (x_in == clean).all(dim=(1, 2, 3))
    assert torch.equal(kinds.sum(1) == 0, untouched)
    assert x_in.shape == clean.shape == (4, 3, 32, 32)
    assert x_in.dtype == clean.dtype == torch.uint8
    assert x_in.min() < 80
    assert x_in.max() > 200
    assert torch.equal(clean[::2, :1].expand(-1, 3, -1, -1), clean[::2])
    assert not torch.equal(clean[1, 0], clean[1, 1])
    assert not torch.equal(x_in, one(1)[0])
    train, held = (find_pairs(data, recipe.data.all_sets, part) for part in ("train", "report"))
    assert {p.infrared.stem for p in train}.isdisjoint({p.infrared.stem for p in held})
    assert all(is_held_out(p.infrared.stem) for p in held)
    assert len(train) + len(held) + len(find_pairs(data, recipe.data.all_sets, "choose")) == 24
    assert [x.shape for x in FusionBatches(data, recipe.data, 2, 128, 0)(0)] == [(2, 3, 128, 128)] * 4


def test_references_bring_their_own_degradation(data: Path, recipe_file: Path, rng) -> None:
    for name, value in (("low", 20), ("high", 200)):
        folder = data / name
        folder.mkdir()
        for k in range(12):
            write_png(folder / f"{k}.png", np.full((64, 64, 3), value, np.uint8))
    entry = {"degraded": "low", "reference": "high", "modality": "visible"}
    values = {**read_recipe(recipe_file).data.model_dump(), "references": [entry], "reference_share": 1.0}
    x_in, clean, kinds, _ = RestorationBatches(data, DataRecipe.model_validate(values), 4, 32, seed=0)(0)
    assert kinds[1::2].isnan().all()  # nobody knows what a real picture suffers from
    assert not kinds[::2].isnan().any()
    assert (x_in[1::2] == 20).all()
    assert (clean[1::2] == 200).all()
    assert not torch.equal(x_in[::2], clean[::2])


def test_night_images_keep_their_exposure(data: Path, recipe_file: Path) -> None:
    flat_images(data, infrared=90, visible=140)
    values = read_recipe(recipe_file).data.model_dump()
    for path in sorted((data / "set" / "visible").iterdir())[::2]:
        write_png(path, np.full((200, 200, 3), 10, np.uint8))
    always = DataRecipe.model_validate({**values, "night_share": 1.0, "clean_share": 0.0, "mixed_share": 0.0})
    batches = RestorationBatches(data, always, 16, 32, 0)
    assert batches.night
    for iteration in range(4):
        x_in, clean, *_ = (x[1::2] for x in batches(iteration))
        assert (clean == 10).all()
        assert (
            x_in.float().mean((1, 2, 3)) >= 10 - 1.275
        ).all()  # haze, rain and noise add light; nothing has taken any
    fusion = FusionBatches(data, always, 32, 128, 0)(0)
    dark = (fusion[3].float().mean((1, 2, 3)) < 25).nonzero().flatten()
    assert 0 < len(dark) < 32


def test_a_batch_of_the_paper_has_one_image_of_each_kind(data: Path, recipe_file: Path, monkeypatch) -> None:
    from training import pairs as module

    seen: list[str] = []
    monkeypatch.setattr(module, "degrade", lambda x, modality, kinds, generator: seen.extend(kinds[0]) or x)
    values = {**read_recipe(recipe_file).data.model_dump(), "cycle_kinds": True}
    RestorationBatches(data, DataRecipe.model_validate(values), 12, 32, 0)(0)
    own = {modality: sorted(kinds.keys() & set(KINDS)) for modality, kinds in DEGRADATIONS.items()}
    assert sorted(seen[1::2]) == own["visible"]
    assert set(seen[::2]) == set(own["infrared"])
    seen.clear()
    small = RestorationBatches(data, DataRecipe.model_validate(values), 2, 32, 0)
    for iteration in range(len(own["visible"])):
        small(iteration)
    assert sorted(seen[1::2]) == own["visible"]
    with pytest.raises(ValueError, match=r"kinds_infrared has no 'rain'; known: blur, low_contrast"):
        DataRecipe.model_validate({**values, "kinds_infrared": ["rain"]})


def test_images_too_dark_for_targets_are_named(data: Path, recipe_file: Path) -> None:
    values = {**read_recipe(recipe_file).data.model_dump(), "min_target_luma": 0.99}
    with pytest.raises(DataError, match=r"no visible image has a mean of 0\.99 or more"):
        RestorationBatches(data, DataRecipe.model_validate(values), 4, 32, 0)


def test_plain_pairs_and_sets_are_the_same(train_only: Path) -> None:
    listed = find_pairs(train_only, data_recipe(pairs=[], sets=[{"root": "set"}]).all_sets, "train")
    assert listed == find_pairs(train_only, data_recipe().all_sets, "train")
    assert len(listed) == 20


def test_corrupt_images_are_named_skipped_and_counted_or_refused(train_only: Path, caplog) -> None:
    broken, deep = sorted((train_only / "set" / "visible").iterdir())[:2]
    broken.write_bytes(broken.read_bytes()[:60])
    deep.write_bytes(cv2.imencode(".png", np.zeros((48, 56), np.uint16))[1].tobytes())
    with caplog.at_level(logging.INFO, "training"):
        batches = RestorationBatches(train_only, data_recipe(), 4, 32, 0)
    assert len(batches.pairs) == 18
    assert not {broken.stem, deep.stem} & {pair.infrared.stem for pair in batches.pairs}
    assert [f"skipped: {broken} is not a whole picture" in r.message for r in caplog.records].count(True) == 1
    assert [f"skipped: {deep}: visible pictures must be 8 bit" in r.message for r in caplog.records].count(True) == 1
    assert caplog.records[-1].message == "pairs: 18 read, 2 skipped"
    with pytest.raises(DataError, match=rf"{broken} is not a whole picture.* train without strict reading"):
        FusionBatches(train_only, data_recipe(), 4, 32, 0, strict=True)
    for path in (train_only / "set" / "infrared").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of 20 pairs can be read"):
        FusionBatches(train_only, data_recipe(), 4, 32, 0)


def test_unequal_sizes_are_refused(train_only: Path) -> None:
    write_png(train_only / "set" / "visible" / "5.png", np.full((48, 40, 3), 200, np.uint8))
    with pytest.raises(DataError, match=r"visible/5\.png is 48x40, .*infrared/5\.png is 48x56; .*one size"):
        RestorationBatches(train_only, data_recipe(), 4, 32, 0)


@pytest.mark.parametrize("kind", [RestorationBatches, FusionBatches])
def test_batches_do_not_depend_on_threads_or_processes(train_only: Path, kind) -> None:
    make = kind(train_only, data_recipe(), 4, 32, 0, images=ImageCache(20 * 48 * 56 / GIB))
    alone = [make(k) for k in range(4)]
    for workers in (0, 3):
        for a, b in zip(alone, prepared(make, range(4), workers), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    parts = [kind(train_only, data_recipe(), 2, 32, 0, rank=rank)(3) for rank in (0, 1)]
    for whole, *halves in zip(alone[3], *parts, strict=True):
        assert torch.equal(whole, torch.cat(halves))
    assert not torch.equal(alone[3][0][:2], alone[3][0][2:])
    assert alone[3]._fields == parts[0]._fields


def test_ems_references_take_the_place_of_simulated_degradations(tmp_path: Path) -> None:
    for half, value in (("Infrared", 120), ("Infrared_gt", 120), ("Visible", 30), ("Visible_gt", 180)):
        folder = tmp_path / "set" / "Low_light" / "train" / half
        folder.mkdir(parents=True)
        for k in range(12):
            shape = (40, 40) if "Infrared" in half else (40, 40, 3)
            write_png(folder / f"{k}.png", np.full(shape, value, np.uint8))
    ems = data_recipe(
        pairs=[], sets=[{"layout": "ems", "root": "set"}], clean_share=0, mixed_share=0, reference_share=1
    )
    batch = FusionBatches(tmp_path, ems, 6, 32, 0)(0)
    assert batch.visible.unique().tolist() == [30]
    assert batch.visible_clean.unique().tolist() == [180]
    assert batch.infrared_clean.unique().tolist() == [120]
    assert batch.infrared.float().std() > 0.1275  # the reference repeats the image, so it is degraded as others are
    restoration = RestorationBatches(tmp_path, ems, 4, 32, 0)
    assert restoration.references["infrared"] == []
    made = restoration(0)
    assert made.degraded[1::2].unique().tolist() == [30]
    assert made.clean[1::2].unique().tolist() == [180]


def clean_batch(data: Path, recipe_file: Path, **changes: object) -> RestorationBatch:
    """Return a batch of clean items of the recipe's data with these changes."""
    values = {**read_recipe(recipe_file).data.model_dump(), "clean_share": 1.0, "mixed_share": 0.0}
    recipe = DataRecipe.model_validate({**values, "reference_share": 0, **changes})
    return RestorationBatches(data, recipe, 6, 32, 5, holds=True)(3)


@pytest.mark.parametrize("look", ["grey_share", "black_hot_share", "border_share"])
def test_looks_change_the_image_and_its_target_alike(data: Path, recipe_file: Path, look: str) -> None:
    plain, changed = (clean_batch(data, recipe_file, **{look: share}) for share in (0.0, 1.0))
    assert torch.equal(changed.degraded, changed.clean)
    rows = {"grey_share": slice(1, None, 2), "black_hot_share": slice(0, None, 2), "border_share": slice(None)}[look]
    kept = torch.ones(6, dtype=torch.bool)
    kept[rows] = False
    assert torch.equal(changed.clean[kept], plain.clean[kept])
    if look == "grey_share":
        assert torch.equal(changed.clean[rows, 0], changed.clean[rows, 2])
    else:
        assert not torch.equal(changed.clean[rows], plain.clean[rows])


def test_grey_images_of_a_model_that_needs_a_tint_have_that_of_the_camera(data: Path, recipe_file: Path) -> None:
    grey, tint = (clean_batch(data, recipe_file, grey_share=1.0, grey_is_tinted=each) for each in (False, True))
    wanted = tinted(grey.clean[1, 0].numpy(), "RGB").transpose(2, 0, 1).astype(int)
    assert np.abs(tint.clean[1].numpy() - wanted).max() <= 1
    assert np.ptp(tinted(np.full((32, 32), 90, np.uint8), "RGB")) > 3, "the noise of these images leaves them less"
    assert torch.equal(tint.clean[0], grey.clean[0]), "an infrared image is what it was"


@pytest.mark.parametrize("modality", ["infrared", "visible"])
def test_one_modality_alone_fills_every_row(data: Path, recipe_file: Path, modality: str) -> None:
    clean = clean_batch(data, recipe_file, modalities=(modality,)).clean
    assert {torch.equal(image[0], image[2]) for image in clean} == {modality == "infrared"}


def test_nights_that_are_brightened_come_with_the_same_night_without_its_noise(data: Path, recipe_file: Path) -> None:
    plain, lit = (clean_batch(data, recipe_file, lit_share=share) for share in (0.0, 1.0))
    assert torch.equal(lit.clean[::2], plain.clean[::2]), "an infrared image is what it was"
    assert lit.kinds[1::2].isnan().all()
    degraded, clean = (x[1::2].float() for x in (lit.degraded, lit.clean))
    assert 0.5 < (degraded - clean).abs().mean() < 40
    assert (degraded.mean((1, 2, 3)) - clean.mean((1, 2, 3))).abs().max() < 20


def test_a_reference_of_low_light_is_brightened_and_its_target_is_not(data: Path, recipe_file: Path) -> None:
    for name, value in (("low", 20), ("high", 150)):
        (data / name).mkdir()
        for k in range(12):
            write_png(data / name / f"{k}.png", np.full((64, 64, 3), value, np.uint8))
    entry = {"degraded": "low", "reference": "high", "modality": "visible"}
    lit = clean_batch(data, recipe_file, lit_share=1.0, references=[entry], reference_share=1.0)
    assert (lit.clean[1::2] == 150).all()
    assert lit.degraded[1::2].min() > 40


def test_a_kind_may_be_simulated_and_not_told(data: Path, recipe_file: Path) -> None:
    values = {**read_recipe(recipe_file).data.model_dump(), "kinds_infrared": ["noise", "hot_target"]}
    told, untold = (DataRecipe.model_validate({**values, "untold": names}) for names in ((), ("hot_target",)))
    assert told.kinds == (*untold.kinds, "hot_target")
    only = DataRecipe.model_validate(
        {**values, "kinds_infrared": ["hot_target"], "untold": ["hot_target"], "clean_share": 0.0, "mixed_share": 0.0}
    )
    x_in, clean, kinds, _ = RestorationBatches(data, only, 4, 32, seed=0)(0)
    assert not torch.equal(x_in[::2], clean[::2])
    assert (kinds[::2] == 0).all()
    for wrong in ("noise", "rows"):  # one that every model tells, one that is not drawn
        with pytest.raises(ValueError, match=f"untold has '{wrong}'; needed a kind that is simulated"):
            DataRecipe.model_validate({**values, "untold": [wrong]})


def test_held_items_are_those_of_the_named_kinds_and_those_without_a_simulation(data: Path, recipe_file: Path) -> None:
    def made(**changes: object) -> RestorationBatch:
        return clean_batch(data, recipe_file, **changes)

    assert made(held=["low_light"]).held.tolist() == [0.0] * 6, "what is clean is its own target"
    alone = {"clean_share": 0.0, "kinds_infrared": ["noise"], "kinds_visible": ["low_light"]}
    assert made(**alone).held.tolist() == [0.0] * 6, "a recipe that holds nothing"
    plain = made(held=["low_light"], **alone)
    assert plain.held.tolist() == [0.0, 1.0] * 3
    assert torch.equal(plain.clean[1::2], plain.degraded[1::2]), "what the network was shown"
    assert made(held=["low_light"], lit_share=1.0).held.tolist() == [0.0, 1.0] * 3
    grey = made(held=["low_light"], grey_share=1.0, **alone)
    assert grey.held.tolist() == [0.0, 2.0] * 3
    assert torch.equal(grey.clean, plain.clean), "what the network was shown is in colour"
    assert torch.equal(grey.degraded[1::2, 0], grey.degraded[1::2, 2])
    mixed = {**alone, "kinds_visible": ["low_light", "noise"], "mixed_share": 1.0}
    assert made(held=["low_light"], **mixed).held.tolist() == [0.0] * 6
    values = {**read_recipe(recipe_file).data.model_dump(), "held": ["low_light"], **alone, "mixed_share": 0.0}
    fitted = RestorationBatches(data, DataRecipe.model_validate(values), 6, 32, 5)(3)
    assert not fitted.held.any(), "what is fitted to errors needs the clean images"
    with pytest.raises(ValueError, match="held has 'fog'; needed a kind that is simulated"):
        made(held=["fog"])
