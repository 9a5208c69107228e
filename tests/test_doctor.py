"""The doctor: it names what is there, tells the ways of missing apart, and never fails."""

import json
import sys

import pytest

from cled_edge import doctor
from cled_edge.backend.opener import available_backends, precisions_here
from cled_edge.backend.openvino import OpenVinoBackend
from cled_edge.cli.app import main
from cled_edge.errors import BackendError

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


def test_it_tells_which_extras_and_which_windows_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_is_there", lambda name: name not in ("mcap", "uvicorn"))
    found = doctor._extras()
    assert found["installed"] == ["report", "rerun", "sign"]
    assert found["todo"] == "pip install 'cled-edge[bags,serve]'"
    for framework, todo in (("", "pip uninstall opencv-python-headless && pip install opencv-python"), ("QT5", None)):
        monkeypatch.setattr("cled_edge.output.window.window_toolkit", lambda made_with=framework: made_with)
        assert doctor._window()["todo"] == todo


def test_it_begins_with_its_verdict_and_warns_of_a_release_that_users_found_wrong(monkeypatch, capsys) -> None:
    monkeypatch.setattr(doctor, "probe_tensorrt", lambda: {"version": "10.3.0", "facts": {"gpu": "Orin", "sm": "87"}})
    monkeypatch.setattr(sys, "argv", ["cled-edge", "doctor"])
    with pytest.raises(SystemExit):
        main()
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("verdict: onnxruntime, ")
    assert "tensorrt will work here; not onnxruntime-" in first
    assert "warning: TensorRT 10.3, of JetPack 6.1 and 6.2, gave results on an Orin that changed" in first
    assert doctor.describe_tensorrt({"version": "10.16.1.11"}, [])["warning"] is None
    assert doctor.describe_tensorrt({"version": "10.30.0"}, [])["warning"] is None
    assert doctor.verdict([{"name": "a", "works": False}], {}).startswith("nothing will work here")


@pytest.mark.parametrize("binding", ["raises", "returns"])
def test_tensorrt_without_a_driver_is_told_and_auto_takes_another(binding, monkeypatch, tmp_path) -> None:
    """cuda-bindings of 12.6 raise where libcuda is not there, later ones return an error."""
    packages = tmp_path / "packages"
    (packages / "cuda" / "bindings").mkdir(parents=True)
    for name in ("cuda", "cuda/bindings"):
        (packages / name / "__init__.py").touch()
    words = (
        'raise RuntimeError("Failed to dlopen libcuda.so")' if binding == "raises" else "return Insufficient(35), None"
    )
    (packages / "cuda/bindings/runtime.py").write_text(
        "class Insufficient(int):\n    name = 'cudaErrorInsufficientDriver'\n\n"
        f"def cudaRuntimeGetVersion():\n    return Insufficient(0), 12060\n\ndef cudaGetDeviceCount():\n    {words}\n"
    )
    (packages / "tensorrt.py").write_text("__version__ = '10.16.1.11'\n")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.syspath_prepend(str(packages))
    for name in ("tensorrt", "cuda", "cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = doctor.examine()
    assert found["tensorrt"]["state"] == "no device"
    assert "install or update the NVIDIA driver" in found["tensorrt"]["todo"]
    names = {choice.name for choice in available_backends()}
    assert "onnxruntime" in names
    assert "tensorrt" not in names


def test_an_sdk_that_raises_what_it_likes_is_left_out(monkeypatch) -> None:
    def broken(name: str) -> tuple[str, ...]:
        raise ZeroDivisionError("half\ninstalled")

    monkeypatch.setattr(OpenVinoBackend, "precisions", broken)
    assert {choice.name for choice in available_backends()} == {"onnxruntime"}
    with pytest.raises(BackendError, match=r"backend openvino: half installed; pip install 'cled-edge\[openvino\]'"):
        precisions_here("openvino")
