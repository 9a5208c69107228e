"""A run that really trains, stops and goes on, and what ends it."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

from accelerate import Accelerator  # noqa: E402

from cled_edge.errors import CheckpointError, DivergedError, OutputError  # noqa: E402
from cled_edge.network.presets import PRESETS  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from tests.fakes.training import restore_task  # noqa: E402
from training import journal  # noqa: E402
from training.batches import from_bytes  # noqa: E402
from training.image_cache import ImageCache  # noqa: E402
from training.pairs import RestorationBatches  # noqa: E402
from training.recipe import model_of, read_recipe  # noqa: E402
from training.restore_stage import restore_stage  # noqa: E402
from training.run import Run  # noqa: E402
from training.stage import Stage, _read_state  # noqa: E402


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
            model = CledFusion(PRESETS["one-pass"])
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
    recipe, model = read_recipe(recipe_file), CledFusion(PRESETS["one-pass"])
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
    recipe, model = read_recipe(recipe_file), CledFusion(PRESETS["one-pass"])
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
        task = restore_task(CledFusion(PRESETS["one-pass"]), recipe.restore, batches)
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
        task = restore_task(CledFusion(PRESETS["one-pass"]), stage, batches)
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
    restore_stage(CledFusion(PRESETS["one-pass"]), run)
    other = recipe.model_copy(update={"default_steps": 3})
    with pytest.raises(CheckpointError, match=r"restore.state.pt was trained with another model; restore that"):
        restore_stage(CledFusion(model_of(other)), replace(run, recipe=other))


@pytest.mark.parametrize("kind", ["text", "pickle", "compressed", "another", "pipe"])
def test_what_is_no_state_of_training_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    if kind == "text":
        path.write_text("not a state")
    elif kind == "pickle":
        path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    elif kind == "compressed":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("state/data.pkl", bytes(10**7))
    elif kind == "another":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        os.mkfifo(path)
    with pytest.raises(CheckpointError, match=r"state of training|is a pipe") as caught:
        _read_state(path)
    assert "\n" not in str(caught.value)
