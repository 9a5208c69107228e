"""Batches that are made ahead."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from cled_edge.errors import DataError  # noqa: E402
from training.loader import prepared  # noqa: E402


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_while_a_batch_is_made_stays_one_line(workers: int) -> None:
    def make(iteration: int) -> tuple[torch.Tensor, ...]:
        if iteration == 1:
            raise DataError("gone.png: it was there before; put it back")
        return (torch.full((1,), float(iteration)),)

    batches = prepared(make, range(4), workers)
    assert next(batches)[0].item() == 0
    with pytest.raises(DataError) as caught:
        next(batches)
    assert str(caught.value) == "gone.png: it was there before; put it back"
