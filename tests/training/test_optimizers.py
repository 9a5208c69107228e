"""Muon: directions of equal strength, and torch's own to rounding."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from tests.fakes.training import restore_recipe  # noqa: E402
from training.optimizers import Muon, Optimizers, as_matrix, is_matrix  # noqa: E402


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


def test_a_matrix_that_the_recipe_names_is_moved_by_adam_and_what_is_frozen_by_none() -> None:
    net = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in ("body", "gain", "kept")})
    net["kept"].requires_grad_(False)
    recipe = restore_recipe(optimizer="muon").model_copy(update={"adam_for": ("gain",)})
    adam, muon = (part for part, _, _ in Optimizers(net, recipe).parts)
    counts = [sum(len(group["params"]) for group in part.param_groups) for part in (adam, muon)]
    assert counts == [3, 1]  # two biases and the named matrix; the body's matrix


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
