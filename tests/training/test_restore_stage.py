"""Stage 1: the states that it trains on, and what an image weighs."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

from pydantic import ValidationError  # noqa: E402

from cled_edge.network.presets import KINDS, PRESETS  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from tests.fakes.training import draws, restore_recipe, seeded  # noqa: E402
from training.recipe import RestoreRecipe  # noqa: E402
from training.restore_stage import States, weights_of  # noqa: E402


def test_a_image_weighs_what_the_heaviest_of_its_kinds_does() -> None:
    kinds = torch.zeros(5, len(KINDS))
    kinds[0, KINDS.index("rain")] = 1
    kinds[1, [KINDS.index(name) for name in ("rain", "haze", "noise")]] = 1
    kinds[2] = torch.nan
    kinds[3, [KINDS.index(name) for name in ("haze", "noise")]] = 1
    weights = weights_of(kinds, KINDS, {"rain": 3.0, "noise": 0.5})
    assert weights.tolist() == [3, 3, 1, 1, 1]
    with pytest.raises(ValidationError, match=r"kind_weights has 'rian'; known: .*rain"):
        RestoreRecipe(iterations=1, batch=1, crop=32, learning_rate=1.0, kind_weights={"rian": 2.0})


def test_random_states_follow_eq_12() -> None:
    states = States(CledFusion(PRESETS["one-pass"]), restore_recipe(random_share=1))
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
    model = CledFusion(PRESETS["one-pass"])
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
