"""The program as a user runs it."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from cled_edge.errors import CheckpointError  # noqa: E402
from cled_edge.network.checkpoint import load_checkpoint  # noqa: E402
from cled_edge.network.presets import PRESETS  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from tests.fakes.recipes import RECIPE  # noqa: E402
from tests.fakes.training import train  # noqa: E402
from training.origin import starting_model  # noqa: E402
from training.recipe import read_recipe  # noqa: E402


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
    assert training["recipe"]["preset"] == "one-pass"
    fresh = CledFusion(PRESETS["one-pass"])
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
