"""An iteration recorded as a CUDA graph, on a fake of torch's: each replay reads the same memory."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

from training import cuda_graph  # noqa: E402
from training.fuse_stage import FusionInputs  # noqa: E402


class FakeGraphs:
    """Calls a recorded function again at each replay, as a GPU repeats its kernels: with the tensors of then."""

    def __init__(self) -> None:
        self.replays = 0
        self.recording = False
        self.CUDAGraph = lambda: SimpleNamespace(replay=self._replay)
        self.Stream = lambda: SimpleNamespace(wait_stream=lambda _: None)

    def current_stream(self) -> SimpleNamespace:
        return self.Stream()

    def stream(self, _) -> nullcontext:
        return nullcontext()

    @contextmanager
    def graph(self, _, capture_error_mode: str):
        self.recording = True
        yield
        self.recording = False

    def _replay(self) -> None:
        self.replays += 1
        self.again()


def inputs(value: float) -> FusionInputs:
    return FusionInputs(*[torch.full((2,), value + k) for k in range(6)])


def test_a_recorded_iteration_reads_new_inputs_in_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, seen, total = FakeGraphs(), [], torch.zeros(())
    monkeypatch.setattr(cuda_graph.torch, "cuda", fake)

    def iteration(given: FusionInputs) -> dict:
        assert given.infrared_residual is None
        seen.append((fake.recording, given))

        def compute() -> None:
            total.copy_(given.infrared.sum() + given.balance.sum())

        fake.again = compute
        compute()
        return {"loss": total}

    recorded = cuda_graph.Recorded(iteration)
    losses = [recorded(inputs(value))["loss"].item() for value in (0.0, 1.0, 2.0, 3.0, 4.0)]
    assert losses == [2 * value + 2 * (value + 5) for value in (0.0, 1.0, 2.0, 3.0, 4.0)]
    assert [is_recording for is_recording, _ in seen] == [False] * cuda_graph.UNRECORDED + [True]
    assert fake.replays == 2
    assert len({given.infrared.data_ptr() for _, given in seen}) == 1
