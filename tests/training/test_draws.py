"""Random numbers of several processes."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from tests.fakes.training import draws  # noqa: E402


def test_processes_draw_the_parts_of_one_batch() -> None:
    whole = draws(6)
    parts = [draws(2, rank=rank, processes=3) for rank in range(3)]
    for draw in (lambda d: d.uniform(2), lambda d: d.normal(1, 3)):
        torch.testing.assert_close(torch.cat([draw(part) for part in parts]), draw(whole))
    assert len({tuple(part.shared(4)) for part in (*parts, whole)}) == 1
