"""The loop of light steps as it is trained: every step learns, and from the states that it meets."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

from pathlib import Path  # noqa: E402

from accelerate import Accelerator  # noqa: E402

from cled_edge.errors import CheckpointError  # noqa: E402
from cled_edge.monochrome import TINT  # noqa: E402
from cled_edge.network.blocks import LUMA, images_from_patches, patches_from_images  # noqa: E402
from cled_edge.network.checkpoint import save_checkpoint  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from cled_edge.schedule import Schedule  # noqa: E402
from tests.fakes.networks import pictures, randomised  # noqa: E402
from tests.network.test_experts import EXPERTS  # noqa: E402
from training.batches import RestorationBatch  # noqa: E402
from training.draws import Draws  # noqa: E402
from training.image_cache import ImageCache  # noqa: E402
from training.origin import starting_model  # noqa: E402
from training.recipe import Recipe, model_of  # noqa: E402
from training.restore_stage import restore_stage  # noqa: E402
from training.rollout import Rollout, RolloutTask  # noqa: E402
from training.run import Run  # noqa: E402

COLD, LATE, LONG = 0.9, 0.0, 0.15  # the first number of a plan
FIRST = ("coarse_gain", "coarse_offset", "coarse_global_gain", "coarse_global_offset")
SECOND = ("gain", "offset", "global_gain", "global_offset")


def recipe(**restore) -> Recipe:
    values = {"iterations": 40, "batch": 4, "crop": 32, "learning_rate": 3e-3, "warmup": 1, "held_out_crops": 1}
    unet = {"form": "experts", "inner": (8, 12)}
    return Recipe.model_validate(
        {
            "preset": "nano",
            "unet": unet,
            "data": {"pairs": ["set"]},
            "restore": {**values, "weighting": "share", "weight_kinds": 0.1, "weight_pattern": 1.0, **restore},
            "fuse": {"iterations": 1, "batch": 1, "crop": 128, "learning_rate": 1e-3},
        }
    )


def rollout(**restore) -> Rollout:
    unet = randomised(CledFusion(EXPERTS)).unet
    return Rollout(unet, Schedule.named(EXPERTS.schedule), recipe(**restore).restore)


def touched(network: Rollout, loss) -> set[str]:
    """Return the parts of the network that a loss has a gradient for: `experts.0` and `experts.1`, and the others."""
    network.zero_grad()
    loss.backward()
    named = [(name.removeprefix("unet."), p) for name, p in network.named_parameters() if p.grad is not None]
    return {".".join(name.split(".")[: 2 if name.startswith("experts") else 1]) for name, p in named if p.grad.any()}


def test_a_cold_loop_scores_each_step_and_a_step_leaves_the_one_before_alone() -> None:
    network, (x_in, clean) = rollout(step_shares=(0, 0, 1, 0), step_weight=0.5), pictures(2, (32, 32))
    estimates = network(x_in, clean, [COLD, 0.5, 0.5, 0.5], torch.ones(1, 4))
    assert estimates.shares == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    first, _, third = estimates.lights
    assert touched(network, third.sum()) >= {"experts.0", "encoder", "stem_input", "decoder"}
    assert not touched(network, network(x_in, clean, [COLD, 0.5, 0.5, 0.5], torch.ones(1, 4)).lights[2].sum()) & {
        "experts.1",
        *FIRST,
        *SECOND,
    }
    residual = network.unet(x_in, x_in, torch.tensor([1000.0]))
    torch.testing.assert_close(patches_from_images(x_in + 1 - residual, 2), first, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("number", "steps"), [(0.05, 1), (0.2, 2), (0.5, 3), (0.95, 4)])
def test_lengths_are_drawn_by_their_shares(number: float, steps: int) -> None:
    network, (x_in, clean) = rollout(step_shares=(1, 2, 4, 3)), pictures(2, (32, 32))
    assert len(network(x_in, clean, [COLD, number, 0.5, 0.5], torch.ones(1, 4)).lights) == steps


def test_a_late_step_starts_from_a_better_state() -> None:
    """With heads that find nothing, what it gives is the state: the true one, or one with half of the error left."""
    network, (x_in, clean) = rollout(late_share=0.1), pictures(2, (32, 32))
    for cell in network.unet.experts:
        for parameter in (*cell.gain.parameters(), *cell.offset.parameters()):
            torch.nn.init.zeros_(parameter)
    truth, light = (patches_from_images(x + 1, 2) for x in (clean, x_in))
    given = network.unet.context(light).light.detach()  # less what its rows are too bright by

    def told(*numbers: float):
        return network(x_in, clean, [LATE, 0.3, 0.5, 0.1], torch.tensor([numbers])).lights[0]

    torch.testing.assert_close(told(0.1, 0.1, 0.5, 0.9), truth)
    torch.testing.assert_close(told(0.1, 0.9, 0.5, 0.9), ((truth + given) / 2).clamp(0, 2))
    torch.testing.assert_close(told(0.1, 0.9, 0.5, 0.1), truth.roll((-1, 1), (2, 3)))
    torch.testing.assert_close(told(0.9, 0.1, 0.5, 0.1), given.clamp(0, 2))


def test_a_long_loop_scores_its_last_two_steps() -> None:
    network, (x_in, clean) = rollout(late_share=0.1, long_share=0.2), pictures(2, (32, 32))
    estimates = network(x_in, clean, [LONG, 0.99, 0.5, 0.5], torch.ones(1, 4))
    assert len(estimates.lights) == 2
    assert touched(network, estimates.lights[1].sum()) >= {"experts.1"}


def test_images_that_have_nothing_to_remove_weigh_as_the_recipe_says() -> None:
    x, other = pictures(2, (32, 32))
    batch = RestorationBatch(torch.cat([x, x]), torch.cat([x, other]), torch.zeros(2, 8), torch.zeros(2))
    task = RolloutTask(recipe(clean_weight=3.0).restore, CledFusion(EXPERTS))
    inputs = task.inputs(batch, Draws(torch.Generator().manual_seed(1), 2))
    assert inputs.weights.tolist() == [3.0, 1.0]
    grey = x[:, :1].expand(-1, 3, -1, -1)
    batch = RestorationBatch(torch.cat([grey, x]), torch.cat([grey, x]), torch.zeros(2, 8), torch.zeros(2))
    task = RolloutTask(recipe(clean_weight=1.5, clean_weight_infrared=4.0).restore, CledFusion(EXPERTS))
    assert task.inputs(batch, Draws(torch.Generator().manual_seed(1), 2)).weights.tolist() == [4.0, 1.5]


def test_what_is_held_has_the_result_of_the_network_before_the_stage_as_its_target() -> None:
    x, other = pictures(2, (32, 32))
    model = randomised(CledFusion(EXPERTS))
    with torch.no_grad():
        before = x - model.sampler(x, model.config.default_steps)
    task = RolloutTask(recipe().restore, model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)  # the model learns on, what is held does not move with it
    luma = torch.tensor(LUMA)[:, None, None]
    grey = 2 * (((x + 1) / 2 * luma).sum(1, keepdim=True) * torch.tensor(TINT)[:, None, None]).clamp_max(1) - 1
    held = torch.tensor([0.0, 1.0, 2.0])
    batch = RestorationBatch(torch.cat([x, x, grey]), torch.cat([other, x, x]), torch.zeros(3, 8), held)
    with torch.no_grad():
        inputs = task.inputs(batch, Draws(torch.Generator().manual_seed(1), 3))
    assert torch.equal(inputs.clean[:1], other)
    torch.testing.assert_close(inputs.clean[1:2], before)
    assert not torch.allclose(before, x)
    wanted = ((before + 1) * luma).sum(1, keepdim=True) * torch.tensor(TINT)[:, None, None] - 1
    torch.testing.assert_close(inputs.clean[2:], wanted.clamp_max(1), atol=1e-2, rtol=0)
    assert torch.equal(batch.clean[1:2], x), "the batch itself stays"


def test_a_run_learns_through_the_loop(data: Path, tmp_path: Path) -> None:
    wanted = recipe()
    torch.manual_seed(0)
    model = CledFusion(model_of(wanted))
    run = Run(wanted, data, tmp_path, Accelerator(cpu=True), ImageCache(1))
    assert restore_stage(model, run) == 40
    moved = [cell.offset.weight.abs().max() for cell in model.unet.experts]
    assert all(value > 1e-4 for value in moved)
    assert min(head.weight.abs().max() for head in (model.unet.offset, model.unet.coarse_offset)) > 1e-4


def test_a_refinement_begins_as_a_one_pass_model_and_keeps_its_estimate(data: Path, tmp_path: Path) -> None:
    wanted = recipe(learns="refinement", weight_gain=0.3, iterations=3, optimizer="muon", adam_for=("gain", "offset"))
    config = model_of(wanted)
    one_pass = randomised(CledFusion(replace(config, unet=replace(config.unet, form="patch", inner=()))))
    save_checkpoint(one_pass, {"run": 1}, tmp_path / "one-pass")
    model, records = starting_model(tmp_path / "none", wanted, "restore", tmp_path / "one-pass")
    assert records == [{"run": 1}]
    light = patches_from_images(pictures(1, (64, 64))[0] + 1, 4)
    images = images_from_patches(light, 4) - 1

    def second(network: CledFusion):
        return network.unet.context(light).whole.detach()

    residual = one_pass.unet(one_pass.unet.start_input * images, images, torch.tensor([1000.0]))
    told = patches_from_images(1 + images - residual, 4).clamp(0, 2)
    torch.testing.assert_close(second(model), told.detach(), atol=1e-5, rtol=0)
    before = {name: weights.clone() for name, weights in model.unet.state_dict().items()}
    estimate = second(model)
    assert restore_stage(model, Run(wanted, data, tmp_path, Accelerator(cpu=True), ImageCache(1))) == 3
    moved = {name.split(".")[0] for name, weights in model.unet.state_dict().items() if (weights != before[name]).any()}
    assert moved == {*FIRST, "experts", "time", "kinds"}
    torch.testing.assert_close(second(model), estimate, atol=1e-3, rtol=0)


def test_there_is_no_refinement_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"restore\.learns is refinement.*; give a model to start from"):
        starting_model(tmp_path / "none", recipe(learns="refinement"), "restore", None)
