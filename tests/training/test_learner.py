"""The average of a network's weights."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from training.learner import warmed_average  # noqa: E402


def test_the_average_is_young_at_first() -> None:
    averaged = [torch.zeros(3)]
    for n in range(1, 200):
        warmed_average(0.999)(averaged, [torch.ones(3)], torch.tensor(n))
    assert (1 - averaged[0]).max() < 1e-3
    warmed_average(0.5)(averaged, [torch.full((3,), 3.0)], torch.tensor(10_000))
    torch.testing.assert_close(averaged[0], torch.full((3,), 2.0), atol=1e-3, rtol=0)
