"""How many threads are worth it: a container's share of the CPU counts, however it is told."""

from pathlib import Path

import pytest

from cled_edge import cpu
from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.openvino import _properties
from cled_edge.backend.ort import OnnxRuntimeBackend
from cled_edge.bundle.reader import Bundle

V2 = "0::/docker/abc\n"
V1 = "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        (V2, {"docker/abc/cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"cpu.max": "200000 100000\n"}, 2.0),  # a container sees its group as the root
        (V2, {"docker/cpu.max": "100000 100000", "docker/abc/cpu.max": "max 100000"}, 1.0),  # of a group above
        (V2, {"docker/cpu.max": "400000 100000", "docker/abc/cpu.max": "50000 100000"}, 0.5),
        (V2, {"docker/abc/cpu.max": "max 100000\n"}, None),
        (V2, {}, None),
        ("0::/../../elsewhere\n", {"cpu.max": "300000 100000"}, 3.0),
        (V1, {f"cpu,cpuacct/docker/abc/{QUOTA}": "50000", f"cpu,cpuacct/docker/abc/{PERIOD}": "25000"}, 2.0),
        (V1, {f"cpu/{QUOTA}": "100000\n", f"cpu/{PERIOD}": "100000\n"}, 1.0),
        (V1, {f"cpu/{QUOTA}": "-1\n", f"cpu/{PERIOD}": "100000\n"}, None),
        ("", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_a_quota_is_read(groups: str, files: dict[str, str], cores: float | None, tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpu.quota_cores(tmp_path) == cores


def test_where_nothing_tells_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu.quota_cores(tmp_path) is None


def test_threads_keep_to_the_quota(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    monkeypatch.setattr(cpu, "_ROOT", tmp_path)
    monkeypatch.setattr(cpu.psutil, "cpu_count", lambda logical: 8)
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert cpu.usable_cores() == 8
    assert "INFERENCE_NUM_THREADS" not in _properties("CPU", "f32", 0)
    for quota, cores in (("150000", 1), ("50000", 1), ("300000", 3), ("1600000", 8)):
        (tmp_path / "sys/fs/cgroup/cpu.max").write_text(f"{quota} 100000")
        assert cpu.usable_cores() == cores
        assert OnnxRuntimeBackend(Bundle.open(), BackendChoice.parse("onnxruntime")).facts.threads == cores
        assert _properties("CPU", "f32", 0)["INFERENCE_NUM_THREADS"] == cores
    assert _properties("CPU", "f32", 5)["INFERENCE_NUM_THREADS"] == 5
