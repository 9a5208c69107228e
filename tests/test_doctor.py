"""The doctor: it names what is there, tells the ways of missing apart, and never fails."""

import json
import sys

import pytest

from cled_edge import doctor
from cled_edge.cli.app import main

LIBRARY = "/usr/lib/aarch64-linux-gnu/libnvinfer.so.{}"


@pytest.mark.parametrize(
    ("probe", "libraries", "state", "todo"),
    [
        ({"absent": "No module named 'tensorrt'"}, [], "not installed", "pip install 'cled-edge[tensorrt]'"),
        ({"broken": "ImportError: libnvinfer.so.10: cannot open"}, [], "library missing", "JetPack"),
        ({"broken": "importing it ended the process with code -11"}, ["8.6.2"], "library missing", "JetPack"),
        (
            {"broken": "ImportError: libnvinfer.so.10: cannot open"},
            ["8.6.2"],
            "another major",
            "bindings want libnvinfer 10, here is 8",
        ),
        ({"version": "7.2.1"}, ["7.2.1"], "another major", "needed one of 8, 10, 11"),
        ({"version": "10.3.0", "device": "no NVIDIA GPU"}, ["10.3.0"], "no device", "no NVIDIA GPU"),
        ({"version": "10.3.0", "facts": {"gpu": "Orin"}}, ["10.3.0"], "works", None),
    ],
)
def test_the_ways_of_missing_tensorrt_are_told_apart(
    probe: dict[str, object], libraries: list[str], state: str, todo: str | None
) -> None:
    found = doctor.describe_tensorrt(probe, [LIBRARY.format(version) for version in libraries])
    assert found["state"] == state
    assert found["todo"] is None if todo is None else todo in found["todo"]


def test_every_gpu_is_listed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"gpu": "Orin", "sm": "87"}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor._gpus({}) == []
    assert doctor._gpus(facts) == ["for TensorRT: Orin, SM 87"]
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\necho 'GPU 1: NVIDIA L4 (UUID: GPU-2)'\n")
    program.chmod(0o755)
    assert doctor._gpus(facts) == ["GPU 0: NVIDIA H200", "GPU 1: NVIDIA L4", "for TensorRT: Orin, SM 87"]


def test_the_command_prints_and_never_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("half\ninstalled")

    monkeypatch.setattr(doctor, "_openvino", broken)
    for words in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["cled-edge", "doctor", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        out = capsys.readouterr().out
        if words:
            values = json.loads(out)
            assert values["openvino"] == {"broken": "half installed"}
            rows = {row["name"]: row for row in values["backends"]}
            assert rows["onnxruntime"]["works"]
            assert all(row["works"] or row["missing"] for row in rows.values())
        else:
            assert "backend onnxruntime works: cled-edge fuse --backend onnxruntime" in out
            assert "backend tensorrt" in out
