"""Degradations, losses and datasets by their definitions, and a run that really trains, stops and goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import numpy as np  # noqa: E402

from cled_edge.errors import CheckpointError, DataError  # noqa: E402
from cled_edge.image import write_png  # noqa: E402
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from cled_edge.network.presets import PRESETS  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from training.degradations import KINDS, degrade, draw_kinds  # noqa: E402
from training.losses import balanced_target, fusion_losses, sobel  # noqa: E402
from training.pairs import FusionPairs, RestorationPictures, find_pairs, is_held_out  # noqa: E402
from training.recipe import RestoreRecipe, read_recipe  # noqa: E402
from training.train import Noising, fusion_targets  # noqa: E402

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


@pytest.mark.parametrize(("modality", "kind"), [(m, k) for m, kinds in KINDS.items() for k in kinds])
def test_every_degradation_changes_the_picture_and_repeats_by_its_seed(modality, kind: str, rng) -> None:
    channels = 1 if modality == "infrared" else 3
    clean = rng.uniform(0.1, 0.9, (48, 64, channels)).astype(np.float32)
    first, second = (degrade(clean, modality, (kind,), np.random.default_rng(5)) for _ in range(2))
    other = degrade(clean, modality, (kind,), np.random.default_rng(6))
    assert first.shape == clean.shape
    assert first.dtype == np.float32
    assert 0 <= first.min() <= first.max() <= 1
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert np.abs(first - clean).mean() > 0.003


def test_what_degradations_do(rng) -> None:
    clean = rng.uniform(0.2, 0.8, (64, 64, 3)).astype(np.float32)
    assert degrade(clean, "visible", ("low_light",), rng).mean() < 0.7 * clean.mean()
    assert degrade(clean, "visible", ("overexposure",), rng).mean() > 1.1 * clean.mean()
    assert degrade(clean, "visible", ("blur",), rng).std() < clean.std()
    grey = clean[:, :, :1]
    assert degrade(grey, "infrared", ("low_contrast",), rng).std() < 0.8 * grey.std()
    striped = degrade(np.full_like(grey, 0.5), "infrared", ("stripes",), rng)
    assert np.ptp(striped, axis=0).max() == 0
    assert np.ptp(striped, axis=1).max() > 0.01
    assert np.array_equal(degrade(clean, "visible", (), rng), clean)


def test_kinds_are_drawn_in_their_shares(rng) -> None:
    counts = [len(draw_kinds("infrared", rng, clean=0.2, mixed=0.3)) for _ in range(4000)]
    for count, share in ((0, 0.2), (1, 0.5), (2, 0.3)):
        assert counts.count(count) / len(counts) == pytest.approx(share, abs=0.03)


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


def test_sobel_of_a_ramp_is_eight_times_its_slope() -> None:
    ramp = torch.arange(8.0).repeat(1, 1, 8, 1) * 0.1
    along, across = sobel(ramp)
    torch.testing.assert_close(along[0, 0, 1:-1, 1:-1], torch.full((6, 6), 0.8))
    assert across.abs().max() < 1e-6
    assert torch.equal(sobel(-ramp)[0], along)


def test_states_follow_eq_12() -> None:
    model = CledFusion(PRESETS["nano"])
    recipe = RestoreRecipe(iterations=1, batch=1, crop=32, learning_rate=1, start_share=0, rollout_share=0)
    x_in, clean = torch.rand(64, 3, 16, 16) * 2 - 1, torch.rand(64, 3, 16, 16) * 2 - 1
    noising = Noising(model, recipe)
    x_t, t = noising.draw(x_in, clean, torch.Generator().manual_seed(0))
    a, b, d = noising.table[:, t].reshape(3, -1, 1, 1, 1)
    noise = (x_t - clean - a * (x_in - clean) + d * x_in) / b.clamp(min=1e-4)
    spread = noise.std(dim=(1, 2, 3))
    silent = spread < 0.05
    assert 0.3 < silent.float().mean() < 0.7
    assert spread[~silent].mean() == pytest.approx(1, abs=0.05)
    always = Noising(model, recipe.model_copy(update={"start_share": 1.0}))
    assert (always.draw(x_in, clean, torch.Generator().manual_seed(0))[1] == 999).all()


def test_fusion_targets_keep_the_degradation_that_strength_leaves() -> None:
    infrared, infrared_clean, visible = (torch.rand(2, 3, 8, 8) for _ in range(3))
    bright, dark = torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), -0.9)
    batch = [infrared, infrared_clean, visible, torch.cat([bright, dark])]
    residuals = (torch.zeros_like(infrared), torch.full_like(visible, 0.3))
    none = fusion_targets(batch, residuals, torch.zeros(2, 2), 0.28)
    assert torch.equal(none[0], infrared)
    assert torch.equal(none[1], visible)
    full = fusion_targets(batch, residuals, torch.ones(2, 2), 0.28)
    torch.testing.assert_close(full[0], infrared_clean)
    torch.testing.assert_close(full[1][:1], bright)
    torch.testing.assert_close(full[1][1:], visible[1:] - 0.3)


def test_datasets_repeat_by_index_and_never_mix_the_held_out(data: Path, recipe_file: Path) -> None:
    recipe = read_recipe(recipe_file)
    one, other = (RestorationPictures(data, recipe.data, 32, 8, seed=3) for _ in range(2))
    for index in (0, 1, 5):
        assert all(np.array_equal(a, b) for a, b in zip(one[index], other[index], strict=True))
    assert not np.array_equal(one[0][0], one[2][0])
    assert one[0][0].shape == (3, 32, 32)
    assert -1 <= one[1][0].min() < one[1][0].max() <= 1
    train, held = (find_pairs(data, ("set",), held_out) for held_out in (False, True))
    assert {p.infrared.stem for p in train}.isdisjoint({p.infrared.stem for p in held})
    assert all(is_held_out(p.infrared.stem) for p in held)
    assert len(train) + len(held) == 24
    assert [x.shape for x in FusionPairs(data, recipe.data, 128, 4, 0)[0]] == [(3, 128, 128)] * 4


def test_bad_data_and_recipes_are_named(data: Path, tmp_path: Path) -> None:
    (data / "set" / "visible" / "003.png").unlink()
    with pytest.raises(DataError, match="1 stems have one half only, first '003'"):
        find_pairs(data, ("set",), held_out=False)
    with pytest.raises(DataError, match="is not a folder"):
        find_pairs(data, ("nowhere",), held_out=False)
    path = tmp_path / "bad.toml"
    path.write_text(RECIPE.format(iterations=4) + "\nlearning_rat = 1\n")
    with pytest.raises(DataError, match=r"fuse\.learning_rat: Extra inputs"):
        read_recipe(path)
    with pytest.raises(DataError, match="No such file"):
        read_recipe(tmp_path / "none.toml")


def train(recipe: Path, data: Path, out: Path, *more: str) -> None:
    arguments = [sys.executable, "-m", "training.train", str(recipe), "--data", str(data), "--out", str(out), *more]
    done = subprocess.run([*arguments, "--workers", "0"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_resumed_run_equals_an_uninterrupted_one(data: Path, recipe_file: Path, tmp_path: Path, monkeypatch) -> None:
    from training import train as program

    monkeypatch.setattr(program, "SAVE_EVERY", 2)
    recipe = read_recipe(recipe_file)

    def weights(out: Path, stops: tuple[int, ...]) -> dict[str, torch.Tensor]:
        out.mkdir()
        for stop in stops:
            torch.manual_seed(0)
            model = CledFusion(PRESETS["nano"])
            stage = recipe.restore.model_copy(update={"warmup": 1})
            items = RestorationPictures(data, recipe.data, 32, stage.iterations * 2, recipe.seed)
            noising = Noising(model, stage)

            def loss_of(batch, generator, model=model, noising=noising, stop=stop, seen=[0]):  # noqa: B006
                seen[0] += 1
                if seen[0] > stop:
                    raise KeyboardInterrupt
                x_t, t = noising.draw(*batch, generator)
                return (model.unet(x_t, batch[0], noising.time(t)) - batch[0] + batch[1]).abs().mean(), {}

            try:
                program.Stage("restore", stage, 3, out, "fp32", 0).run(model.unet, items, loss_of, dict)
            except KeyboardInterrupt:
                continue
        return model.unet.state_dict()

    whole = weights(tmp_path / "whole", (99,))
    resumed = weights(tmp_path / "resumed", (3, 99))
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, atol=0, rtol=0)


def test_both_stages_train_and_leave_a_checkpoint(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(recipe_file, data, out)
    model, training = load_checkpoint(out / "model.safetensors")
    assert training["last_stage"] == "fuse"
    assert training["recipe"]["preset"] == "nano"
    fresh = CledFusion(PRESETS["nano"])
    assert any(not torch.equal(a, b) for a, b in zip(model.fusion.parameters(), fresh.fusion.parameters(), strict=True))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"restore", "fuse"} <= {line["stage"] for line in lines}
    assert any("visible_3_db" in line for line in lines)


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
    save_checkpoint(model, {"commit": "abc"}, tmp_path / "own.safetensors")
    loaded, training = load_checkpoint(tmp_path / "own.safetensors")
    assert training == {"commit": "abc"}
    assert loaded.config == model.config
