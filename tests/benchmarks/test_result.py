"""Results: what they say of themselves, where they may be written, and the programs that measure a machine."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import latency, peaks, result
from benchmarks.result import Provenance, Result, check_target, new_result, results_of, save, slug
from cled_edge.bench.project import UNKNOWN, project_commit
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import OptionError, ResultError
from tests.fakes.bench import fake_record

MADE = {"bundles": {}, "checkpoints": {}, "device": "NVIDIA H200", "date": "2026-11-28", "versions": {}}


def made(commit: str | None = "abc1234", **changed: object) -> Result:
    provenance = Provenance.model_validate({**MADE, "commit": commit, **changed})
    return Result(measurement="gpu", of="nano", provenance=provenance, settings={}, rows=[{"form": "a", "p50_ms": 2.5}])


def test_a_result_says_what_computed_it() -> None:
    bundle = Bundle.open()
    found = new_result("latency", "nano", [{"p50_ms": 1.0}], [bundle])
    assert found.provenance.bundles == {"nano": result.bundle_hash(bundle.manifest)}
    assert len(found.provenance.checkpoints["nano"]) == 64
    assert found.provenance.commit == project_commit()
    assert found.provenance.command
    assert "numpy" in found.provenance.versions
    assert new_result("gpu", "nano", [], device="NVIDIA H200").file_name == "gpu-nano-nvidia-h200.json"


def test_a_checkpoint_is_named_only_if_the_bundle_was_exported_from_it() -> None:
    manifest = Bundle.open().manifest
    assert result.checkpoint_hash(manifest.model_copy(update={"training": {}})) is None
    assert result.checkpoint_hash(manifest.model_copy(update={"name": "another"})) is None


def test_a_bundle_with_more_graphs_has_the_same_hash() -> None:
    manifest = Bundle.open().manifest
    files = {name: spec for name, spec in manifest.files.items() if name != "fused_loop.onnx"}
    assert result.bundle_hash(manifest.model_copy(update={"files": files})) == result.bundle_hash(manifest)
    changed = {**manifest.files, "fusion.onnx": manifest.files["golden.safetensors"]}
    assert result.bundle_hash(manifest.model_copy(update={"files": changed})) != result.bundle_hash(manifest)


def test_files_are_named_by_the_device_that_computed() -> None:
    assert made().file_name == "gpu-nano-nvidia-h200.json"
    line = "AMD EPYC (family 26, model 2, AMX), 2 cores of a virtual machine"
    assert slug(line) == "amd-epyc-26-2-amx-2-cores"


def test_a_result_is_written_where_it_was_asked_for_and_read_again(tmp_path: Path) -> None:
    save(made(), None, update=False, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    save(made(), tmp_path / "mine.json", update=True, folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.json", "gpu-nano-nvidia-h200.json"}
    text = (tmp_path / "mine.json").read_text()
    assert '{ "form": "a", "p50_ms": 2.5 }' in text
    assert Result.read(tmp_path / "mine.json") == made()
    assert [found for _, found in results_of("gpu", tmp_path)] == [made()]


def test_an_unknown_commit_is_refused_in_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "commit_at_start", lambda: UNKNOWN)
    with pytest.raises(ResultError, match="the project's commit is unknown, needed for benchmarks/results; run in a"):
        check_target(None, update=True)
    with pytest.raises(ResultError, match="commit is unknown"):
        save(made(), None, update=True, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    check_target(tmp_path / "mine.json", update=False)
    assert new_result("gpu", "nano", []).provenance.commit == UNKNOWN


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": [{"a": [1]}]}, "rows.0.a"),
        ({"mine": 1}, "mine: is unknown"),
        ({"provenance": {**MADE}}, "provenance: needs one of commit and recorded_in"),
        ({"provenance": {**MADE, "commit": "a", "recorded_in": "b"}}, "needs one of commit and recorded_in"),
    ],
)
def test_files_that_are_no_result_are_refused(change: dict[str, object], words: str, tmp_path: Path) -> None:
    path = tmp_path / "gpu-x.json"
    path.write_text(json.dumps({**json.loads(made().to_json()), **change}))
    with pytest.raises(ResultError, match=f"{words}.*needed a result of schema 1; measure again"):
        Result.read(path)


def test_the_commit_is_that_of_the_clone_and_says_if_files_differ(tmp_path: Path) -> None:
    assert project_commit(tmp_path) == UNKNOWN
    run = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("a")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "a"]):
        subprocess.run([*run, *words], check=True)
    commit = project_commit(tmp_path)
    assert len(commit) == 7
    (tmp_path / "new").write_text("not tracked")
    assert project_commit(tmp_path) == commit
    (tmp_path / "file").write_text("b")
    assert project_commit(tmp_path) == f"{commit}-dirty"
    (tmp_path / "below").mkdir()
    assert project_commit(tmp_path / "below") == UNKNOWN


def test_peaks_are_the_best_of_what_is_installed() -> None:
    rows = peaks.measure_gemm((64,), 0.01, ("fp32", "int8"))
    assert {"onnxruntime"} <= {row["library"] for row in rows if row["precision"] == "fp32"}
    best = peaks.best(rows)
    assert best["fp32_gflop_s"] == max(row["gflop_s"] for row in rows if row["precision"] == "fp32") > 0
    assert best["bf16_gflop_s"] is None
    assert peaks.measure_copy(0.01, bytes_copied=1 << 20) > 0


def test_a_latency_is_of_one_device_which_is_the_gpu_where_one_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert latency.accelerator_of(["CPU", "CPU Intel(R) Xeon(R) Processor"]) is None
    assert latency.accelerator_of(["GPU NVIDIA H200"]) == "NVIDIA H200"
    monkeypatch.setattr(latency, "device_name", lambda: "NVIDIA L4")
    assert latency.accelerator_of(["GPU"]) == "NVIDIA L4"
    with pytest.raises(
        OptionError, match="compute on CPU and GPU NVIDIA H200; a result is of one device; run them apart"
    ):
        latency.accelerator_of(["CPU", "GPU NVIDIA H200"])


def test_a_row_of_latency_has_percentiles_and_one_of_a_camera_what_was_missed() -> None:
    record = fake_record({"a": [[20.0] * 100]})
    row = latency.row_of(record.backends[0], None)
    assert (row["p50_ms"], row["p99_ms"], row["network_p50_ms"]) == (20.0, 20.0, 20.0)
    assert latency.settings_of(record)["size"] == (480, 640)
    (late,) = fake_record({"a": [[20.0] * 50 + [80.0] * 50]}, rate_hz=30).backends
    row = latency.row_of(late, 30.0)
    assert (row["missed_percent"], row["late"], row["age_p99_ms"]) == (50.0, 50, 80.0)
    assert "p50_ms" not in row
