"""A new kind of degradation: old checkpoints load as they were, new models tell it apart, runs go on from either."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

from accelerate import Accelerator  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from cled_edge.errors import CheckpointError, OptionError  # noqa: E402
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from cled_edge.network.presets import KINDS, PRESETS, ModelConfig  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from training.degradations import DEGRADATIONS  # noqa: E402
from training.image_cache import ImageCache  # noqa: E402
from training.origin import starting_model, with_kinds  # noqa: E402
from training.pairs import RestorationBatches  # noqa: E402
from training.recipe import Recipe, model_of  # noqa: E402
from training.restore_stage import restore_stage  # noqa: E402
from training.run import Run  # noqa: E402

WEIGHTS = Path(__file__).parents[2] / "training" / "weights"
# Means of the three images that `outputs` returns, as the release before models named their kinds computed them.
BEFORE = {
    "one-pass": (0.13978, -0.14341, -0.01241),
    "edge": (0.01170, -0.11318, -0.08297),
    "nano-medical": (-0.17595, -0.29020, -0.25137),
}
VALUES = {
    "preset": "one-pass",
    "data": {"pairs": ["set"]},
    "restore": {
        "iterations": 1,
        "batch": 2,
        "crop": 32,
        "learning_rate": 1e-3,
        "warmup": 1,
        "weight_kinds": 1.0,
        "held_out_crops": 1,
    },
    "fuse": {"iterations": 1, "batch": 1, "crop": 128, "learning_rate": 1e-3},
}


@pytest.fixture
def snow(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register another degradation, as training/degradations.py would have it."""
    monkeypatch.setitem(DEGRADATIONS["visible"], "snow", lambda x, _: x + 0.1)
    return "snow"


def recipe(**changes) -> Recipe:
    return Recipe.model_validate({**VALUES, **changes})


def outputs(model: CledFusion) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    infrared, visible = (torch.rand(1, 3, 64, 64, generator=generator) * 2 - 1 for _ in range(2))
    with torch.no_grad():
        return model(infrared, visible)


@pytest.mark.parametrize("name", BEFORE)
def test_shipped_checkpoints_name_no_kinds_and_load_as_they_were(name: str, snow: str) -> None:
    with safe_open(WEIGHTS / f"{name}.safetensors", framework="pt") as file:
        assert "kinds" not in json.loads(file.metadata()["config"])
    model, _ = load_checkpoint(WEIGHTS / f"{name}.safetensors")
    assert model.config.kinds == KINDS
    assert model.unet.kinds.out_features == 8
    before = outputs(model)
    assert [round(image.mean().item(), 5) for image in before] == pytest.approx(BEFORE[name], abs=2e-5)
    more = with_kinds(model, replace(model.config, kinds=(*KINDS, snow)))
    assert all(torch.equal(a, b) for a, b in zip(outputs(more), before, strict=True))


def test_a_model_of_a_new_kind_trains_saves_and_loads(data: Path, tmp_path: Path, snow: str) -> None:
    wanted = recipe(data={"pairs": ["set"], "kinds_visible": [snow], "clean_share": 0.0, "mixed_share": 0.0})
    model = CledFusion(model_of(wanted))
    assert model.config.kinds == (*KINDS, snow)
    told = RestorationBatches(data, wanted.data, 2, 32, 0)(0).kinds
    assert told[1].tolist() == [0] * 8 + [1]  # the second image is a visible one
    before = model.unet.kinds.weight.detach().clone()
    assert restore_stage(model, Run(wanted, data, tmp_path, Accelerator(cpu=True), ImageCache(1))) == 1
    assert (model.unet.kinds.weight.detach() - before).abs().amax(dim=1).min() > 1e-4
    save_checkpoint(model, {}, tmp_path / "model.safetensors")
    loaded, _ = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    assert all(torch.equal(weights, model.state_dict()[name]) for name, weights in loaded.state_dict().items())


def test_a_run_starts_from_a_model_of_other_kinds(tmp_path: Path, snow: str) -> None:
    old = WEIGHTS / "one-pass.safetensors"
    with_snow = recipe(data={"pairs": ["set"], "kinds_visible": [snow]})
    shipped, _ = load_checkpoint(old)
    grown, records = starting_model(tmp_path / "none", with_snow, "restore", old)
    assert records
    assert grown.config.kinds == (*KINDS, snow)
    assert torch.equal(grown.unet.kinds.weight[:-1], shipped.unet.kinds.weight)
    assert torch.equal(grown.unet.kinds.bias[:-1], shipped.unet.kinds.bias)
    assert all(torch.equal(a, b) for a, b in zip(outputs(grown), outputs(shipped), strict=True))
    save_checkpoint(grown, {}, tmp_path / "grown.safetensors")
    DEGRADATIONS["visible"].pop(snow)
    back, _ = starting_model(tmp_path / "none", recipe(), "restore", tmp_path / "grown.safetensors")
    assert all(torch.equal(back.state_dict()[name], x) for name, x in shipped.state_dict().items())


def test_a_checkpoint_of_other_kinds_is_refused_where_it_cannot_fit(tmp_path: Path) -> None:
    model = CledFusion(PRESETS["one-pass"])
    metadata = {"format": "cled-edge-checkpoint-1", "training": "{}"}
    claimed = replace(model.config, kinds=(*KINDS, "snow"))
    save_file(model.state_dict(), tmp_path / "odd.safetensors", {**metadata, "config": json.dumps(claimed.as_dict())})
    with pytest.raises(CheckpointError, match=r"does not fit its own configuration, first at '.*unet\.kinds\.bias'"):
        load_checkpoint(tmp_path / "odd.safetensors")
    save_checkpoint(CledFusion(replace(PRESETS["one-pass"], default_steps=2)), {}, tmp_path / "steps.safetensors")
    with pytest.raises(CheckpointError, match="is not the model of the recipe"):
        starting_model(tmp_path / "none", recipe(), "restore", tmp_path / "steps.safetensors")
    with pytest.raises(OptionError, match="kinds has 'haze' twice"):
        replace(PRESETS["one-pass"], kinds=("haze", "rain", "haze"))


def test_a_state_that_names_no_kinds_is_continued_and_one_of_other_kinds_is_not(
    data: Path, tmp_path: Path, snow: str
) -> None:
    DEGRADATIONS["visible"].pop(snow)
    run = Run(recipe(), data, tmp_path, Accelerator(cpu=True), ImageCache(1))
    restore_stage(CledFusion(model_of(run.recipe)), run)
    state = torch.load(tmp_path / "restore.state.pt", weights_only=True)
    state["recipe"]["model"].pop("kinds")  # as earlier releases wrote it
    torch.save(state, tmp_path / "restore.state.pt")
    longer = replace(run, recipe=recipe(restore={**VALUES["restore"], "iterations": 2}))
    assert restore_stage(CledFusion(model_of(longer.recipe)), longer) == 1
    DEGRADATIONS["visible"][snow] = lambda x, _: x
    other = replace(run, recipe=recipe(data={"pairs": ["set"], "kinds_visible": [snow]}))
    with pytest.raises(CheckpointError, match=r"restore.state.pt was trained with another model"):
        restore_stage(CledFusion(model_of(other.recipe)), other)


def test_a_configuration_survives_json_with_its_kinds() -> None:
    config = replace(PRESETS["edge"], kinds=("haze", "snow"))
    assert ModelConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    values = PRESETS["edge"].as_dict()
    del values["kinds"]
    assert ModelConfig.from_dict(values) == PRESETS["edge"]
