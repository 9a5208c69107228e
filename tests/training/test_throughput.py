"""How the time of an iteration is measured."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from cled_edge.errors import DataError, OutputError  # noqa: E402
from tests.fakes.training import data_recipe  # noqa: E402
from training import throughput  # noqa: E402
from training.batches import FusionBatch  # noqa: E402
from training.pairs import FusionBatches  # noqa: E402


def test_throughput_tells_data_from_network_and_sees_batches_that_differ(train_only: Path, monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def passing(seconds: float) -> list:
        clock[0] += seconds
        return []

    times = throughput.measure(lambda k: passing(0.003), lambda batch: passing(0.006), 10, (0,))
    assert {len(of_turns) for of_turns in times.values()} == {throughput.ROUNDS}
    assert throughput.summary(times, (0,)) == pytest.approx(
        {"data_ms": 3, "network_ms": 6, "together_0_workers_ms": 9, "network_share_0_workers": 0.667}
    )
    make = FusionBatches(train_only, data_recipe(), 2, 32, 0)
    throughput.refuse_other_batches(make, 3, 2)
    with pytest.raises(DataError, match="batch 0 of 2 workers differs"):
        throughput.refuse_other_batches(lambda k: FusionBatch(*[torch.full((1,), float(os.getpid()))] * 4), 3, 2)


def test_throughput_is_kept(train_only: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(throughput, "ROUNDS", 1)
    stages = "\n".join(
        f"[{name}]\niterations = 1\nbatch = 2\ncrop = 32\nlearning_rate = 1e-3" for name in ("restore", "fuse")
    )
    path, out = tmp_path / "mine.toml", tmp_path / "throughput-fuse-m.json"
    path.write_text(f'preset = "one-pass"\n[data]\npairs = ["set"]\n{stages}\n')
    throughput.main(path, train_only, "fuse", iterations=1, workers=1, out=out)
    assert len(json.loads(out.read_text())["rounds_ms"]["network_ms"]) == 1
    with pytest.raises(OutputError, match="cannot be written"):
        throughput.main(path, train_only, "fuse", iterations=1, workers=1, out=tmp_path / "absent" / "x.json")
