"""Degradations, losses and datasets by their definitions, and a run that really trains, stops and goes on."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import numpy as np  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from pydantic import ValidationError  # noqa: E402

from cled_edge.data.datasets import find_pairs  # noqa: E402
from cled_edge.data.split import is_held_out  # noqa: E402
from cled_edge.errors import CheckpointError, DataError, DivergedError, OutputError  # noqa: E402
from cled_edge.image import write_png  # noqa: E402
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from cled_edge.network.presets import KINDS, PRESETS  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from training import curves, journal, mix  # noqa: E402
from training.batches import from_bytes  # noqa: E402
from training.degradations import DEGRADATIONS, degrade, draw_kinds  # noqa: E402
from training.draws import Draws  # noqa: E402
from training.fuse_stage import FusionInputs, fuse_stage, fusion_targets  # noqa: E402
from training.image_cache import ImageCache  # noqa: E402
from training.journal import Evaluation  # noqa: E402
from training.learner import warmed_average  # noqa: E402
from training.losses import (  # noqa: E402
    balanced_target,
    fusion_losses,
    kinds_loss,
    pattern_loss,
    residual_loss,
    salient_maximum,
)
from training.optimizers import Muon, Optimizers, as_matrix, is_matrix  # noqa: E402
from training.origin import starting_model  # noqa: E402
from training.pairs import FusionBatches, RestorationBatches  # noqa: E402
from training.recipe import DataRecipe, FuseRecipe, RestoreRecipe, check_crops, model_of, read_recipe  # noqa: E402
from training.restore_stage import States, restore_stage, weights_of  # noqa: E402
from training.run import Run  # noqa: E402
from training.stage import Stage, Task  # noqa: E402
from training.validation import FusionValidation, Validation  # noqa: E402

RECIPE = """
preset = "nano"
seed = 3

[data]
pairs = ["set"]

[restore]
iterations = {iterations}
batch = 2
crop = 32
learning_rate = 1e-3
warmup = 1
held_out_crops = 1

[fuse]
iterations = 2
batch = 1
crop = 128
learning_rate = 1e-3
"""


@pytest.fixture
def data(tmp_path: Path, rng) -> Path:
    for half, channels in (("infrared", ()), ("visible", (3,))):
        folder = tmp_path / "data" / "set" / half
        folder.mkdir(parents=True)
        for k in range(24):
            write_png(folder / f"{k:03d}.png", rng.integers(100, 256, (140, 150, *channels), np.uint8))
    return tmp_path / "data"


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(iterations=4))
    return path


def seeded(seed: int = 5):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("modality", "kind"), [(m, k) for m, kinds in DEGRADATIONS.items() for k in kinds])
def test_every_degradation_changes_its_pictures_alone_and_repeats_by_its_seed(modality, kind: str) -> None:
    clean = 0.1 + 0.8 * torch.rand(3, 1 if modality == "infrared" else 3, 48, 64, generator=seeded())
    kinds = [(kind,), (), (kind,)]
    first, second = (degrade(clean, modality, kinds, seeded(6)) for _ in range(2))
    other = degrade(clean, modality, kinds, seeded(7))
    assert first.shape == clean.shape
    assert first.dtype == torch.float32
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, second)
    assert not torch.equal(first[0], other[0])
    assert torch.equal(first[1], clean[1])
    assert (first - clean)[[0, 2]].abs().mean((1, 2, 3)).min() > 0.002


def test_what_degradations_do() -> None:
    clean = 0.2 + 0.6 * torch.rand(16, 3, 64, 64, generator=seeded())

    def made(kind: str, x=clean, modality="visible"):
        return degrade(x, modality, [(kind,)] * len(x), seeded(1))

    assert (made("low_light").mean((1, 2, 3)) < 0.75 * clean.mean((1, 2, 3))).all()
    assert (made("overexposure").mean((1, 2, 3)) > 1.05 * clean.mean((1, 2, 3))).all()
    assert (made("blur").std((1, 2, 3)) < clean.std((1, 2, 3))).all()
    assert (made("haze").std((1, 2, 3)) < clean.std((1, 2, 3))).float().mean() > 0.9
    assert (made("rain") - 0.88 * clean).amax((1, 2, 3)).min() > 0.05
    grey = clean[:, :1]
    assert (made("low_contrast", grey, "infrared").std((1, 2, 3)) < 0.8 * grey.std((1, 2, 3))).all()
    striped = made("stripes", torch.full_like(grey, 0.5), "infrared")
    columns, noise = striped.mean(dim=2), striped.std(dim=2).mean(dim=-1)
    assert (columns.std(dim=-1) > 0.01).all()
    assert striped.std(dim=3).min() > 0.005
    assert noise.min() < 0.01  # the same in every row, but for a pixel's own noise: none to much
    assert noise.max() > 0.03


def test_blur_keeps_a_flat_picture_and_its_edges() -> None:
    flat = torch.full((8, 1, 40, 40), 0.4)
    blurred = degrade(flat, "infrared", [("blur",)] * 8, seeded())
    torch.testing.assert_close(blurred, flat, atol=1e-3, rtol=0)


def test_kinds_are_drawn_in_their_shares_and_never_two_exposures() -> None:
    generator = seeded()
    drawn = [draw_kinds(list(DEGRADATIONS["visible"]), generator, clean=0.2, mixed=0.3) for _ in range(4000)]
    assert not any({"overexposure", other} <= set(names) for names in drawn for other in ("low_light", "haze"))
    counts = [len(draw_kinds(list(DEGRADATIONS["infrared"]), generator, clean=0.2, mixed=0.3)) for _ in range(4000)]
    for count, share in ((0, 0.2), (1, 0.5), (2, 0.3)):
        assert counts.count(count) / len(counts) == pytest.approx(share, abs=0.03)
    weighted = [draw_kinds(["rain", "rain", "rain", "haze", "overexposure"], generator, 0, 0.5) for _ in range(4000)]
    assert sum(len(kinds) == 2 for kinds in weighted) / 4000 == pytest.approx(0.5, abs=0.03)
    assert all(len(set(kinds)) == len(kinds) for kinds in weighted)
    assert sum(kinds[0] == "rain" for kinds in weighted) / 4000 == pytest.approx(0.6, abs=0.03)
    assert {draw_kinds(["haze", "overexposure"], generator, 0, 1) for _ in range(50)} == {("haze",), ("overexposure",)}


def test_balanced_target_runs_from_visible_over_maximum_to_infrared() -> None:
    infrared, visible = torch.rand(5, 1, 6, 6), torch.rand(5, 1, 6, 6)
    target = balanced_target(infrared, visible, torch.tensor([[0.0], [0.25], [0.5], [0.75], [1.0]]))
    maximum = torch.maximum(infrared, visible)
    torch.testing.assert_close(target[0], visible[0])
    torch.testing.assert_close(target[1], (visible[1] + maximum[1]) / 2)
    torch.testing.assert_close(target[2], maximum[2])
    torch.testing.assert_close(target[3], (infrared[3] + maximum[3]) / 2)
    torch.testing.assert_close(target[4], infrared[4])


def test_fusion_losses_are_zero_at_their_targets_and_see_each_fault() -> None:
    grey = torch.rand(1, 1, 16, 16).repeat(1, 3, 1, 1)
    half = torch.tensor([[0.5]])
    perfect = fusion_losses(grey, grey, grey, half)
    assert all(part.item() < 1e-6 for part in perfect.values())
    assert fusion_losses(grey * 0.5, grey, grey, half)["intensity"] > 0.05
    assert fusion_losses(torch.full_like(grey, 0.5), grey, grey, half)["gradient"] > 0.1
    tinted = grey * torch.tensor([1.2, 1.0, 0.8]).reshape(1, 3, 1, 1)
    assert fusion_losses(tinted, grey, grey, half)["color"] > 0.02


def test_salient_maximum_keeps_the_contrast_of_the_hot_alone() -> None:
    infrared, visible = torch.full((1, 1, 128, 128), 0.2), torch.full((1, 1, 128, 128), 0.5)
    infrared[:, :, 60:68, 60:68] = 0.6  # a person, who the maximum leaves 0.1 above the smoke
    infrared[:, :, 10:18, 10:18] = 0.27  # a warm wall
    maximum = torch.maximum(infrared, visible)
    assert torch.equal(salient_maximum(infrared, visible, 0), maximum)
    target = salient_maximum(infrared, visible, 1)
    person, wall = (slice(0, 1), slice(0, 1), slice(61, 67), slice(61, 67)), (..., slice(11, 17), slice(11, 17))
    assert target[person].mean() - 0.5 == pytest.approx(0.4, abs=0.03)
    assert torch.equal(target[wall], maximum[wall])
    hotter = torch.where(infrared == 0.6, torch.tensor(0.95), infrared)
    assert salient_maximum(hotter, visible, 1)[person].mean() > 0.95
    assert salient_maximum(hotter, visible, 3).max() <= 1
    alone = torch.zeros_like(visible)  # nothing is lost where the infrared rules
    torch.testing.assert_close(salient_maximum(infrared, alone, 1.5), infrared)


def test_a_pattern_is_what_repeats_from_patch_to_patch() -> None:
    place = torch.zeros(1, 3, 4, 4)
    place[:, :, 1, 2] = 0.16  # of each patch; its mean is 0.01
    grid = place.repeat(1, 1, 16, 16)
    assert pattern_loss(grid, 4).item() == pytest.approx((0.15 + 15 * 0.01) / 16, rel=1e-4)
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    noise = torch.randn(1, 3, 64, 64) * 0.05
    assert pattern_loss(torch.full_like(grid, 0.5), 4) < 1e-6
    assert pattern_loss(noise, 4) < 0.3 * noise.abs().mean()
    assert pattern_loss(grid + ramp, 4) > pattern_loss(ramp, 4)


def test_what_is_hot_weighs_where_salience_raises_it_alone() -> None:
    infrared, visible = torch.full((1, 3, 128, 128), 0.2), torch.full((1, 3, 128, 128), 0.5)
    infrared[:, :, 60:68, 60:68] = 0.6
    maximum, half = torch.maximum(infrared, visible), torch.tensor([[0.5]])
    raised = salient_maximum(infrared[:, :1], visible[:, :1], 1).repeat(1, 3, 1, 1)
    assert "hot" not in fusion_losses(maximum, infrared, visible, half)
    assert fusion_losses(raised, infrared, visible, half, 1.0)["hot"] < 1e-6
    left = fusion_losses(maximum, infrared, visible, half, 1.0)
    assert left["hot"].item() == pytest.approx(left["intensity"].item(), rel=0.05)  # all that is missing is hot
    elsewhere = raised.clone()
    elsewhere[:, :, :40] += 0.2
    assert fusion_losses(elsewhere, infrared, visible, half, 1.0)["hot"] < 1e-6
    with pytest.raises(ValidationError, match="weight_hot weighs what salience raises"):
        FuseRecipe(iterations=1, batch=1, crop=32, learning_rate=1.0, weight_hot=1.0)


def test_weighting_by_share_counts_what_is_left_of_each_degradation() -> None:
    residual = torch.stack([torch.full((3, 8, 8), 0.9), torch.zeros(3, 8, 8)])
    predicted = torch.stack([torch.full((3, 8, 8), 0.4), torch.full((3, 8, 8), 0.05)])
    assert residual_loss(predicted, residual).item() == pytest.approx(0.275)
    assert residual_loss(predicted, residual, "share").item() == pytest.approx((0.5 / 1.2 + 0.05 / 0.3) / 2)
    weights = torch.tensor([1.0, 3.0])
    assert residual_loss(predicted, residual, "pixel", weights).item() == pytest.approx((0.5 + 3 * 0.05) / 2)


def test_a_picture_weighs_what_the_heaviest_of_its_kinds_does() -> None:
    kinds = torch.zeros(5, len(KINDS))
    kinds[0, KINDS.index("rain")] = 1
    kinds[1, [KINDS.index(name) for name in ("rain", "haze", "noise")]] = 1
    kinds[2] = torch.nan
    kinds[3, [KINDS.index(name) for name in ("haze", "noise")]] = 1
    weights = weights_of(kinds, KINDS, {"rain": 3.0, "noise": 0.5})
    assert weights.tolist() == [3, 3, 1, 1, 1]
    with pytest.raises(ValidationError, match=r"kind_weights has 'rian'; known: .*rain"):
        RestoreRecipe(iterations=1, batch=1, crop=32, learning_rate=1.0, kind_weights={"rian": 2.0})


def test_kinds_that_nobody_knows_are_left_out() -> None:
    logits = torch.zeros(2, 8)
    logits[0, 3] = 20.0
    known = torch.zeros(2, 8)
    known[0, 3] = 1.0
    right = kinds_loss(logits, known)
    assert right.item() == pytest.approx(15 / 16 * 0.6931, abs=1e-3)
    known[1] = torch.nan
    assert kinds_loss(logits, known).item() == pytest.approx(7 / 8 * 0.6931, abs=1e-3)
    assert kinds_loss(logits, torch.full((2, 8), torch.nan)).item() == 0
    assert set(KINDS) == {kind for kinds in DEGRADATIONS.values() for kind in kinds}


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_muon_moves_dense_weights_alike_in_all_directions_and_the_rest_by_adam(memory) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3), torch.nn.Conv2d(6, 6, 3, groups=6), torch.nn.Linear(4, 4))
    net = net.to(memory_format=memory)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    recipe = restore_recipe(optimizer="muon", matrix_learning_rate=0.01).model_copy(update={"learning_rate": 1e-3})
    optimizer = Optimizers(net, recipe)
    sum(((k + 1) * p).square().sum() for k, p in enumerate(net.parameters())).backward()
    optimizer.set_rates(1.0)
    optimizer.step()
    moved = {name: p.detach() - before[name] for name, p in net.named_parameters()}
    for name, change in moved.items():
        if is_matrix(change):
            strengths = torch.linalg.svdvals(as_matrix(change))
            assert strengths.max() < 2.5 * strengths.min(), name
        else:
            torch.testing.assert_close(change.abs(), torch.full_like(change, 1e-3), atol=2e-5, rtol=0)
    assert {name for name, p in net.named_parameters() if is_matrix(p)} == {"0.weight", "2.weight"}
    optimizer.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_muon_is_that_of_torch_to_rounding() -> None:
    torch.manual_seed(0)
    shapes = [(8, 5), (5, 8), (8, 5), (40, 3), (5, 8)]
    first, second = ([torch.nn.Parameter(p.clone()) for p in start] for start in [[torch.randn(s) for s in shapes]] * 2)
    ours = Muon(first, lr=torch.tensor(0.05), weight_decay=0.1)
    theirs = torch.optim.Muon(second, lr=0.05, weight_decay=0.1)
    before = [p.detach().clone() for p in first]
    for turn in range(4):
        for k, (a, b) in enumerate(zip(first, second, strict=True)):
            a.grad = None if k == turn else torch.randn(a.shape)  # one at a time has none
            b.grad = None if a.grad is None else a.grad.clone()
        ours.step()
        theirs.step()
    for a, b, start in zip(first, second, before, strict=True):
        assert (a - b).norm() < 0.01 * (b - start).norm()
        torch.testing.assert_close(
            ours.state[a]["momentum_buffer"], theirs.state[b]["momentum_buffer"], atol=1e-6, rtol=1e-6
        )
    theirs.load_state_dict(ours.state_dict())
    with pytest.raises(ValueError, match="takes no closure"):
        ours.step(lambda: 0.0)


def test_the_average_is_young_at_first() -> None:
    averaged = [torch.zeros(3)]
    for n in range(1, 200):
        warmed_average(0.999)(averaged, [torch.ones(3)], torch.tensor(n))
    assert (1 - averaged[0]).max() < 1e-3
    warmed_average(0.5)(averaged, [torch.full((3,), 3.0)], torch.tensor(10_000))
    torch.testing.assert_close(averaged[0], torch.full((3,), 2.0), atol=1e-3, rtol=0)


def draws(count: int, seed: int = 0, rank: int = 0, processes: int = 1) -> Draws:
    return Draws(seeded(seed), count, rank, processes)


def test_processes_draw_the_parts_of_one_batch() -> None:
    whole = draws(6)
    parts = [draws(2, rank=rank, processes=3) for rank in range(3)]
    for draw in (lambda d: d.uniform(2), lambda d: d.normal(1, 3)):
        torch.testing.assert_close(torch.cat([draw(part) for part in parts]), draw(whole))
    assert len({tuple(part.shared(4)) for part in (*parts, whole)}) == 1


def restore_recipe(**changes) -> RestoreRecipe:
    return RestoreRecipe(iterations=1, batch=2, crop=32, learning_rate=1, **changes)


def test_random_states_follow_eq_12() -> None:
    states = States(CledFusion(PRESETS["nano"]), restore_recipe(random_share=1))
    x_in, clean = (torch.rand(64, 3, 16, 16, generator=seeded(k)) * 2 - 1 for k in (1, 2))
    x_t, time = states.draw(x_in, clean, draws(64))
    t = (states.table[0][None] * 1000 - time[:, None]).abs().argmin(1)
    a, b, d = states.table[:, t].reshape(3, -1, 1, 1, 1)
    noise = (x_t - clean - a * (x_in - clean) + d * x_in) / b.clamp(min=1e-4)
    spread = noise.std(dim=(1, 2, 3))
    silent = spread < 0.05
    assert 0.3 < silent.float().mean() < 0.7
    assert spread[~silent].mean() == pytest.approx(1, abs=0.05)


def test_states_of_the_loop_are_those_that_inference_visits() -> None:
    model = CledFusion(PRESETS["nano"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded(len(parameter))) * 0.02)
    x_in = torch.rand(2, 3, 32, 32, generator=seeded()) * 2 - 1
    states = States(model, restore_recipe())
    table = model.sampler.schedule.step_table(3)
    visited = [table.start_input * x_in, *(state for state, _ in model.sampler.trajectory(x_in, 3))]
    for step in range(3):
        x_t, time = states.in_loop(x_in, 3, step)
        torch.testing.assert_close(x_t, visited[step], atol=1e-6, rtol=0)
        assert time.item() == pytest.approx(table.time[step])
        assert not x_t.requires_grad
    always = States(model, restore_recipe(random_share=0, start_share=1))
    torch.testing.assert_close(always.draw(x_in, x_in, draws(2, seed=3))[0], visited[0])


def test_fusion_targets_keep_the_degradation_that_strength_leaves() -> None:
    infrared, infrared_clean, visible, visible_clean = images = [torch.rand(2, 3, 8, 8) for _ in range(4)]

    def inputs(strength) -> FusionInputs:
        return FusionInputs(*images, strength, torch.full((2, 1), 0.5))

    none, full = (fusion_targets(inputs(torch.full((2, 2), s))) for s in (0.0, 1.0))
    assert torch.equal(none[0], infrared)
    assert torch.equal(none[1], visible)
    torch.testing.assert_close(full[0], infrared_clean)
    torch.testing.assert_close(full[1], visible_clean)
    half = fusion_targets(inputs(torch.tensor([[1.0, 0.5]])))
    torch.testing.assert_close(half[1], (visible + visible_clean) / 2)
    sources = fusion_targets(inputs(torch.ones(2, 2)), "source")
    assert all(torch.equal(a, b) for a, b in zip(sources, (infrared, visible), strict=True))


def test_batches_repeat_by_iteration_and_never_mix_the_held_out(data: Path, recipe_file: Path) -> None:
    recipe = read_recipe(recipe_file)
    one, other = (RestorationBatches(data, recipe.data, 4, 32, seed=3) for _ in range(2))
    other(1)
    for iteration in (5, 0):
        assert all(torch.equal(a, b) for a, b in zip(one(iteration), other(iteration), strict=True))
    x_in, clean, kinds = one(0)
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
    train, held = (find_pairs(data, recipe.data.all_sets, held_out) for held_out in (False, True))
    assert {p.infrared.stem for p in train}.isdisjoint({p.infrared.stem for p in held})
    assert all(is_held_out(p.infrared.stem) for p in held)
    assert len(train) + len(held) == 24
    assert [x.shape for x in FusionBatches(data, recipe.data, 2, 128, 0)(0)] == [(2, 3, 128, 128)] * 4


def test_references_bring_their_own_degradation(data: Path, recipe_file: Path, rng) -> None:
    for name, value in (("low", 20), ("high", 200)):
        folder = data / name
        folder.mkdir()
        for k in range(12):
            write_png(folder / f"{k}.png", np.full((64, 64, 3), value, np.uint8))
    entry = {"degraded": "low", "reference": "high", "modality": "visible"}
    values = {**read_recipe(recipe_file).data.model_dump(), "references": [entry], "reference_share": 1.0}
    x_in, clean, kinds = RestorationBatches(data, DataRecipe.model_validate(values), 4, 32, seed=0)(0)
    assert kinds[1::2].isnan().all()  # nobody knows what a real picture suffers from
    assert not kinds[::2].isnan().any()
    assert (x_in[1::2] == 20).all()
    assert (clean[1::2] == 200).all()
    assert not torch.equal(x_in[::2], clean[::2])


def flat_pictures(data: Path, infrared: int, visible: int) -> None:
    for half, shape, level in (("infrared", (200, 200), infrared), ("visible", (200, 200, 3), visible)):
        for path in (data / "set" / half).iterdir():
            write_png(path, np.full(shape, level, np.uint8))


def test_validation_of_an_untrained_network_gains_nothing(data: Path, recipe_file: Path) -> None:
    flat_pictures(data, infrared=140, visible=140)
    model, recipe = CledFusion(PRESETS["nano"]).eval(), read_recipe(recipe_file).data
    result = Validation(data, recipe, ImageCache(1), count=1)(model).numbers
    assert result["visible_clean_input"] == result["visible_clean_1"] == 60
    assert result["infrared_stripes_input"] < 40
    for name in ("visible_gain_1", "infrared_gain_3"):
        assert abs(result[name]) < 0.1


def test_fusion_validation_knows_the_rule_that_an_untrained_network_is(data: Path, recipe_file: Path) -> None:
    flat_pictures(data, infrared=180, visible=90)
    model = CledFusion(PRESETS["nano"]).eval()
    result = FusionValidation(data, read_recipe(recipe_file).data, ImageCache(1), crop=128)(model)
    assert result.numbers["held_out_clean_intensity"] < 1e-6
    assert result.numbers["held_out_degraded_intensity"] > 1e-3
    assert [x.shape for x in result.samples["clean-0"]] == [(3, 128, 128)] * 4


def test_night_pictures_keep_their_exposure(data: Path, recipe_file: Path) -> None:
    flat_pictures(data, infrared=90, visible=140)
    values = read_recipe(recipe_file).data.model_dump()
    for path in sorted((data / "set" / "visible").iterdir())[::2]:
        write_png(path, np.full((200, 200, 3), 10, np.uint8))
    always = DataRecipe.model_validate({**values, "night_share": 1.0, "clean_share": 0.0, "mixed_share": 0.0})
    batches = RestorationBatches(data, always, 16, 32, 0)
    assert batches.night
    for iteration in range(4):
        x_in, clean, _ = (x[1::2] for x in batches(iteration))
        assert (clean == 10).all()
        assert (
            x_in.float().mean((1, 2, 3)) >= 10 - 1.275
        ).all()  # haze, rain and noise add light; nothing has taken any
    fusion = FusionBatches(data, always, 32, 128, 0)(0)
    dark = (fusion[3].float().mean((1, 2, 3)) < 25).nonzero().flatten()
    assert 0 < len(dark) < 32


def test_a_batch_of_the_paper_has_one_picture_of_each_kind(data: Path, recipe_file: Path, monkeypatch) -> None:
    from training import pairs as module

    seen: list[str] = []
    monkeypatch.setattr(module, "degrade", lambda x, modality, kinds, generator: seen.extend(kinds[0]) or x)
    values = {**read_recipe(recipe_file).data.model_dump(), "cycle_kinds": True}
    RestorationBatches(data, DataRecipe.model_validate(values), 12, 32, 0)(0)
    assert sorted(seen[1::2]) == sorted(DEGRADATIONS["visible"])
    assert set(seen[::2]) == set(DEGRADATIONS["infrared"])
    seen.clear()
    small = RestorationBatches(data, DataRecipe.model_validate(values), 2, 32, 0)
    for iteration in range(len(DEGRADATIONS["visible"])):
        small(iteration)
    assert sorted(seen[1::2]) == sorted(DEGRADATIONS["visible"])
    with pytest.raises(ValueError, match=r"kinds_infrared has no 'rain'; known: blur, low_contrast"):
        DataRecipe.model_validate({**values, "kinds_infrared": ["rain"]})


def test_pictures_too_dark_for_targets_are_named(data: Path, recipe_file: Path) -> None:
    values = {**read_recipe(recipe_file).data.model_dump(), "min_target_luma": 0.99}
    with pytest.raises(DataError, match=r"no visible image has a mean of 0\.99 or more"):
        RestorationBatches(data, DataRecipe.model_validate(values), 4, 32, 0)


def test_bad_recipes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(RECIPE.format(iterations=4) + "\nlearning_rat = 1\n")
    with pytest.raises(DataError, match=r"fuse\.learning_rat: Extra inputs"):
        read_recipe(path)
    with pytest.raises(DataError, match="No such file"):
        read_recipe(tmp_path / "none.toml")


def train(recipe: Path, data: Path, out: Path, *more: str, launcher: tuple[str, ...] = ()) -> None:
    program = [sys.executable, *launcher, "-m", "training.train", str(recipe), "--data", str(data), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*program, "--device", "cpu", "--precision", "fp32", *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


def restore_task(model: CledFusion, recipe: RestoreRecipe, batches: RestorationBatches, stop: int = 99) -> Task:
    states, seen = States(model, recipe), [0]

    def inputs_of(batch, draws):
        seen[0] += 1
        if seen[0] > stop:
            raise KeyboardInterrupt
        return [*batch[:2], *states.draw(*batch[:2], draws)]

    def loss_of(network, inputs):
        x_in, clean, x_t, time = inputs
        return residual_loss(network(x_t, x_in, time), x_in - clean), {}

    return Task(model.unet, batches, inputs_of, loss_of, Evaluation)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    data: Path, recipe_file: Path, tmp_path: Path, monkeypatch, optimizer: str
) -> None:
    from training import stage as module

    monkeypatch.setattr(module, "SAVE_EVERY", 2)
    recipe = read_recipe(recipe_file)

    def weights(out: Path, stops: tuple[int, ...], workers: int) -> dict[str, torch.Tensor]:
        out.mkdir()
        for stop in stops:
            torch.manual_seed(0)
            model = CledFusion(PRESETS["nano"])
            batches = RestorationBatches(data, recipe.data, 2, 32, recipe.seed)
            kind = recipe.restore.model_copy(update={"optimizer": optimizer})
            stage = Stage("restore", kind, 3, out, Accelerator(cpu=True), workers=workers)
            try:
                stage.run(restore_task(model, recipe.restore, batches, stop))
            except KeyboardInterrupt:
                continue
        return model.unet.state_dict()

    whole = weights(tmp_path / "whole", (99,), workers=0)
    resumed = weights(tmp_path / "resumed", (3, 99), workers=2)
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, atol=0, rtol=0)


@pytest.mark.parametrize("faulty", ["loss nan", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run_and_keeps_its_batch(
    data: Path, recipe_file: Path, tmp_path: Path, faulty: str
) -> None:
    recipe, model = read_recipe(recipe_file), CledFusion(PRESETS["nano"])
    batches = RestorationBatches(data, recipe.data, 2, 32, recipe.seed)
    task = restore_task(model, recipe.restore, batches)

    def loss_of(network, inputs):
        loss, _ = task.loss(network, inputs)
        if torch.equal(inputs[0], from_bytes(batches(1))[0]):
            nothing = sum(weights.sum() for weights in network.parameters()) * 0
            # The root's slope at 0 is infinite.
            loss = loss * torch.nan if faulty == "loss nan" else loss + nothing.abs().sqrt()
        return loss, {"gradient": torch.ones(())}  # as stage 2 has a part of that name

    stage = Stage("restore", recipe.restore, 3, tmp_path, Accelerator(cpu=True))
    with pytest.raises(DivergedError, match=rf"{faulty}.* is not finite at iteration 1; its batch is in .*restore-div"):
        stage.run(replace(task, loss=loss_of))
    kept = torch.load(tmp_path / "restore-diverged-1-0.pt", weights_only=True)
    assert kept["iteration"] == 1
    assert torch.equal(kept["batch"]["degraded"], batches(1).degraded)
    assert all(p.isfinite().all() for p in model.unet.parameters())
    assert not (tmp_path / "restore.state.pt").exists()


def test_a_full_disk_ends_a_run_in_one_line_and_keeps_what_was_saved(
    data: Path, recipe_file: Path, tmp_path: Path, monkeypatch
) -> None:
    recipe, model = read_recipe(recipe_file), CledFusion(PRESETS["nano"])
    state = tmp_path / "restore.state.pt"

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    def run(iterations: int) -> None:
        stage = recipe.restore.model_copy(update={"iterations": iterations})
        batches = RestorationBatches(data, recipe.data, 2, 32, recipe.seed)
        task = restore_task(model, stage, batches)
        Stage("restore", stage, 3, tmp_path, Accelerator(cpu=True)).run(task)

    run(2)
    before = state.read_bytes()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"No space left on device.*the restore.state.pt of before is untouched"):
        run(4)
    assert state.read_bytes() == before
    assert not state.with_suffix(".partial").exists()


def test_a_log_that_takes_no_more_ends_a_run_in_one_line(
    data: Path, recipe_file: Path, tmp_path: Path, monkeypatch
) -> None:
    from training import stage as module

    monkeypatch.setattr(module, "LOG_EVERY", 1)
    recipe = read_recipe(recipe_file)

    def run() -> None:
        batches = RestorationBatches(data, recipe.data, 2, 32, recipe.seed)
        task = restore_task(CledFusion(PRESETS["nano"]), recipe.restore, batches)
        Stage("restore", recipe.restore, 3, tmp_path / "out", Accelerator(cpu=True)).run(task)

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "out/log.jsonl").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(journal.SummaryWriter, "close", full)  # what ends the run is told, not what comes of it
        with pytest.raises(OutputError, match=r"log.jsonl: Is a directory; make room"):
            run()
    (tmp_path / "out/log.jsonl").rmdir()
    monkeypatch.setattr(journal.SummaryWriter, "add_scalar", full)
    with pytest.raises(OutputError, match=r"curves: No space left on device; make room"):
        run()


def test_a_run_is_continued_on_the_same_data_alone(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_file)
    stage = recipe.restore.model_copy(update={"iterations": 1})

    def run(precision: str = "fp32", **beside: object) -> int:
        batches = RestorationBatches(data, recipe.data, 2, 32, recipe.seed)
        task = restore_task(CledFusion(PRESETS["nano"]), stage, batches)
        return Stage("restore", stage, 3, tmp_path, Accelerator(cpu=True), precision, beside=beside).run(task)

    assert run(data=["a"]) == 1
    assert run(data=["a"]) == 0
    with pytest.raises(CheckpointError, match=r"trained with another data; restore that, or choose another folder"):
        run(data=["b"])
    with pytest.raises(CheckpointError, match=r"with another precision \(fp32 then, bf16 now\) and data; restore"):
        run("bf16", data=["b"])


def test_an_unfinished_run_of_another_preset_is_refused(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_file)
    run = Run(recipe, data, tmp_path, Accelerator(cpu=True), ImageCache(1))
    restore_stage(CledFusion(PRESETS["nano"]), run)
    other = recipe.model_copy(update={"default_steps": 3})
    with pytest.raises(CheckpointError, match=r"restore.state.pt was trained with another model; restore that"):
        restore_stage(CledFusion(model_of(other)), replace(run, recipe=other))


def test_a_checkpoint_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    model, path = CledFusion(PRESETS["nano"]), tmp_path / "none" / "model.safetensors"
    with pytest.raises(OutputError, match=r"none/model\.safetensors cannot be written: .*; make room, then run"):
        save_checkpoint(model, {}, path)


def test_a_broken_held_out_picture_is_refused_if_strict(data: Path, recipe_file: Path) -> None:
    held = next(path for path in sorted((data / "set/visible").iterdir()) if is_held_out(path.stem))
    held.write_bytes(b"no picture")
    recipe = read_recipe(recipe_file).data
    for validation in (partial(Validation, count=1), partial(FusionValidation, crop=128)):
        validation(data, recipe, images=ImageCache(1))
        with pytest.raises(DataError, match=held.name):
            validation(data, recipe, images=ImageCache(1), strict=True)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")
def test_two_processes_train_as_one_with_twice_the_batch(data: Path, tmp_path: Path) -> None:
    runs = {}
    for name, batch, launcher in (
        ("one", 4, ()),
        ("two", 2, ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")),
    ):
        path, out = tmp_path / f"{name}.toml", tmp_path / name
        text = RECIPE.format(iterations=50).replace("batch = 1", f"batch = {batch // 2}")
        path.write_text(text.replace("batch = 2\n", f"batch = {batch}\nweight_kinds = 0.1\nweight_pattern = 2.0\n", 1))
        train(path, data, out, launcher=launcher)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        runs[name] = load_checkpoint(out / "model.safetensors")[0], lines
    logged = [[line["loss"] for line in lines if "loss" in line] for _, lines in runs.values()]
    assert len(logged[0]) == 1
    assert logged[0] == pytest.approx(logged[1], abs=1e-3)
    one, two = (model for model, _ in runs.values())
    for network, most in (("unet", 1e-2), ("fusion", 1e-4)):  # two iterations of fusion move a weight by 2e-3
        pairs = zip(getattr(one, network).parameters(), getattr(two, network).parameters(), strict=True)
        assert max((a - b).abs().max() for a, b in pairs) < most


def test_both_stages_train_and_leave_a_checkpoint(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(recipe_file, data, out, "--precision", "bf16")
    model, training = load_checkpoint(out / "model.safetensors")
    assert training["last_stage"] == "fuse"
    assert training["recipe"]["preset"] == "nano"
    fresh = CledFusion(PRESETS["nano"])
    assert any(not torch.equal(a, b) for a, b in zip(model.fusion.parameters(), fresh.fusion.parameters(), strict=True))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"restore", "fuse"} <= {line["stage"] for line in lines}
    assert any("visible_gain_3" in line for line in lines)
    assert [record["last_stage"] for record in training["earlier"]] == ["restore"]
    begun, earlier = starting_model(tmp_path / "none", read_recipe(recipe_file), "fuse", out / "model.safetensors")
    assert torch.equal(begun.unet.gain.weight, model.unet.gain.weight)
    assert [record["last_stage"] for record in earlier] == ["restore", "fuse"]
    train(recipe_file, data, out, "--precision", "bf16")  # nothing is left to do, so there is nothing to record
    assert load_checkpoint(out / "model.safetensors")[1] == training
    other = read_recipe(recipe_file).model_copy(update={"preset": "edge"})
    with pytest.raises(CheckpointError, match=r"is not the model of the recipe, 'edge' .*another model to start"):
        starting_model(tmp_path / "none", other, "all", out / "model.safetensors")


def test_precision_is_measured_not_read_off_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from training import train as program

    cpu = torch.device("cpu")
    assert program.pick_precision("bf16", cpu) == "bf16"
    for slower, wanted in ((torch.float32, "bf16"), (torch.bfloat16, "fp32")):
        clock = {"now": 0.0, "step": 0.0}
        ones = torch.ones

        def made(*shape, dtype, device, clock=clock, slower=slower, ones=ones):
            clock["step"] = 2.0 if dtype == slower else 1.0
            return ones(2, 2, dtype=dtype)

        def tick(clock=clock) -> float:
            clock["now"] += clock["step"]
            return clock["now"]

        monkeypatch.setattr(torch, "ones", made)
        monkeypatch.setattr(program.time, "perf_counter", tick)
        assert program.pick_precision("auto", cpu) == wanted
        monkeypatch.undo()


def test_one_stage_trains_both_networks_at_once(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(RECIPE.format(iterations=1) + "one_stage = true\nweight_color = 0\n")
    train(path, data, tmp_path / "run")
    model, record = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert record["recipe"]["fuse"]["one_stage"]
    assert not record["earlier"]
    assert model.unet.offset.weight.abs().max() > 0  # zeros at the start
    assert model.fusion.head.correction.weight.abs().max() > 0
    assert list((tmp_path / "run" / "samples").glob("fuse-clean-0-*.png"))
    assert list((tmp_path / "run" / "curves").iterdir())
    path.write_text(RECIPE.format(iterations=1).replace("1e-3", "1e-12") + "one_stage = true\nfresh = true\n")
    train(path, data, tmp_path / "fresh", "--stage", "fuse", "--init", str(tmp_path / "run" / "model.safetensors"))
    model, record = load_checkpoint(tmp_path / "fresh" / "model.safetensors")
    assert len(record["earlier"]) == 1
    assert model.unet.offset.weight.abs().max() < 1e-9
    assert model.fusion.head.correction.weight.abs().max() < 1e-9


def test_a_mixture_has_its_share_of_each_network_and_both_records(tmp_path: Path) -> None:
    models = []
    for name, earlier in (("first", [{"run": 1}]), ("second", [])):
        torch.manual_seed(len(models))
        models.append(CledFusion(PRESETS["nano"]))
        save_checkpoint(models[-1], {"run": len(earlier) + 1, "earlier": earlier}, tmp_path / name)
    out = tmp_path / "new/mixed"
    mix.main(tmp_path / "first", tmp_path / "second", out, unet=0.75, fusion=0.0)
    mixed, record = load_checkpoint(out)
    first, second = (model.unet.state_dict() for model in models)
    for name, weights in mixed.unet.state_dict().items():
        torch.testing.assert_close(weights, 0.75 * first[name] + 0.25 * second[name])
    for name, weights in mixed.fusion.state_dict().items():
        assert torch.equal(weights, models[1].fusion.state_dict()[name])
    shares = {"unet": 0.75, "fusion": 0.0}
    assert record == {"run": 2, "mixed": [shares], "earlier": [{"run": 1}]}
    mix.main(out, tmp_path / "second", tmp_path / "again", unet=0.75, fusion=0.0)
    assert load_checkpoint(tmp_path / "again")[1] == {**record, "mixed": [shares, shares]}
    save_checkpoint(CledFusion(PRESETS["edge"]), {}, tmp_path / "edge")
    with pytest.raises(CheckpointError, match=r"first is a 'nano' and .*edge a 'edge'.*; mix two of the same"):
        mix.main(tmp_path / "first", tmp_path / "edge", tmp_path / "out")


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


def test_fusion_may_learn_from_pairs_of_its_own(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    (data / "set").rename(data / "other")
    recipe_file.write_text(recipe_file.read_text() + '[[fuse.sets]]\nroot = "other"\n')
    run = Run(read_recipe(recipe_file), data, tmp_path, Accelerator(cpu=True), ImageCache(1))
    assert fuse_stage(CledFusion(PRESETS["nano"]), run) == 2


def test_checkpoints_that_cannot_be_trusted_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "none.safetensors")
    pickled = tmp_path / "pickled.safetensors"
    torch.save({"weights": torch.ones(2)}, pickled)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(pickled)
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="says format None"):
        load_checkpoint(tmp_path / "foreign.safetensors")
    model = CledFusion(PRESETS["nano"])
    weights = {**model.state_dict(), "sampler.step.unet.offset.weight": torch.ones(1)}
    metadata = {"format": "cled-edge-checkpoint-1", "config": json.dumps(model.config.as_dict()), "training": "{}"}
    save_file(weights, tmp_path / "older.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"does not fit its own configuration, first at '.*offset\.weight'"):
        load_checkpoint(tmp_path / "older.safetensors")
    save_checkpoint(model, {"commit": "abc"}, tmp_path / "own.safetensors")
    loaded, training = load_checkpoint(tmp_path / "own.safetensors")
    assert training == {"commit": "abc"}
    assert loaded.config == model.config


def test_curves_go_on_from_run_to_run_and_tell_gains(tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    lines = [
        {"stage": "restore", "time_s": 1.0, "iteration": 50, "loss": 0.4},
        {"stage": "restore", "time_s": 2.0, "iteration": 100, "visible_rain_input": 20.0, "visible_rain_1": 23.0},
        {"stage": "fuse", "time_s": 3.0, "iteration": 50, "loss": 5.0, "held_out_clean_color": 0.1},
    ]
    first.write_text("".join(json.dumps(line) + "\n" for line in lines))
    second.write_text(json.dumps({**lines[0], "loss": 0.2}) + "\n")
    found = curves.read_curves([first, second])
    assert found["restore"].logged["loss"] == [(50, 0.4), (150, 0.2)]
    assert (found["restore"].begins, found["restore"].iterations) == ([0, 100], 150)
    assert curves.gains(found["restore"]) == {"visible rain": [(100, 3.0)]}
    assert found["fuse"].begins == [0]
    assert curves.thinned([(k, float(k)) for k in range(1, 201)], 200)[0] == (1.5, 1.5)
    curves.main([first, second], tmp_path / "both.svg")
    drawn = (tmp_path / "both.svg").read_text()
    assert drawn.startswith("<?xml")
    assert drawn == curves.draw(found)  # the same bytes each time: it is committed
    (tmp_path / "none.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"none\.jsonl is no log\.jsonl of a run"):
        curves.read_curves([tmp_path / "none.jsonl"])
    second.write_text("")
    with pytest.raises(DataError, match="hold no iteration"):
        curves.main([second], tmp_path / "none.svg")
    second.write_text(json.dumps(lines[1]) + "\n")  # too short to log a loss
    with pytest.raises(DataError, match="hold no iteration that was logged"):
        curves.main([second], tmp_path / "none.svg")
