"""A bundle is what its manifest says, or it is refused before anything parses it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.errors import BundleCorruptError, BundleMissingError, BundleVersionError
from cled_edge.schedule import Schedule


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_bundle(), tmp_path / "bundle"))


def edit_manifest(bundle: Path, **values: object) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_shipped_bundle_opens_and_says_what_it_is() -> None:
    manifest = Bundle.open().manifest
    assert manifest.name == "nano"
    assert [t.name for t in manifest.graphs["unet_step"].inputs] == ["x_t", "x_in", "t", "coef"]
    assert [t.name for t in manifest.graphs["unet_step"].outputs] == ["x_prev", "residual", "kinds"]
    assert [t.name for t in manifest.graphs["fusion"].inputs] == [
        "infrared",
        "infrared_residual",
        "visible",
        "visible_residual",
        "strength",
        "balance",
    ]
    assert [t.name for t in manifest.graphs["fusion"].outputs] == ["fused"]
    assert manifest.verification.min_psnr_db >= 60
    assert manifest.training["commit"]


def test_the_shipped_schedule_is_the_one_of_the_code() -> None:
    spec = Bundle.open().manifest.schedule
    schedule = Schedule.named(spec.name)
    assert sorted(spec.tables) == list(range(1, 11))
    for steps, rows in spec.tables.items():
        table = schedule.step_table(steps)
        np.testing.assert_allclose(rows.time, table.time, rtol=1e-12)
        np.testing.assert_allclose(rows.coef, table.coef, rtol=1e-12, atol=1e-15)


def test_graphs_have_the_inputs_of_the_manifest() -> None:
    ort = pytest.importorskip("onnxruntime")
    bundle = Bundle.open()
    for name, spec in bundle.manifest.graphs.items():
        session = ort.InferenceSession(bundle.graph(name), providers=["CPUExecutionProvider"])
        assert [i.name for i in session.get_inputs()] == [t.name for t in spec.inputs]
        assert [o.name for o in session.get_outputs()] == [t.name for t in spec.outputs]


def test_missing_folder_manifest_and_graph(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleMissingError, match=r"manifest\.json does not exist"):
        Bundle.open(tmp_path / "none")
    (copy / "fusion.onnx").unlink()
    with pytest.raises(BundleMissingError, match=r"fusion\.onnx does not exist"):
        Bundle.open(copy)


def test_a_truncated_file_is_told_from_an_altered_one(copy: Path) -> None:
    graph = copy / "unet_step.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[:-100])
    with pytest.raises(BundleCorruptError, match=rf"has {len(content) - 100} bytes, its manifest says {len(content)}"):
        Bundle.open(copy)
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleCorruptError, match="has SHA-256"):
        Bundle.open(copy)


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_unknown_versions_are_refused(copy: Path, version: object) -> None:
    edit_manifest(copy, schema_version=version)
    with pytest.raises(BundleVersionError, match="needed 2; upgrade cled-edge, or get a bundle of that version"):
        Bundle.open(copy)


def test_unknown_keys_and_broken_json_are_refused(copy: Path) -> None:
    edit_manifest(copy, surprise=1)
    with pytest.raises(BundleVersionError, match="surprise"):
        Bundle.open(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(BundleCorruptError, match="is not JSON"):
        Bundle.open(copy)


def test_manifests_that_would_fail_later_are_refused_now(copy: Path) -> None:
    values = json.loads((copy / "manifest.json").read_text())
    short = {**values["schedule"], "tables": {k: v for k, v in values["schedule"]["tables"].items() if k != "7"}}
    other = {**values["preprocessing"], "pixels": "x = byte / 255"}
    one = {"fusion": values["graphs"]["fusion"]}
    for words, change in (
        ("tables", {"schedule": short}),
        ("pixels", {"preprocessing": other}),
        ("unet_step", {"graphs": one}),
    ):
        edit_manifest(copy, **{**values, **change})
        with pytest.raises(BundleVersionError, match=words):
            Bundle.open(copy)


def test_files_outside_the_bundle_are_not_opened(copy: Path) -> None:
    values = json.loads((copy / "manifest.json").read_text())
    values["files"]["../secret"] = {"bytes": 1, "sha256": "0" * 64}
    edit_manifest(copy, files=values["files"])
    with pytest.raises(BundleCorruptError, match="own folder"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("size_multiple",), 10**6),
        (("schedule", "start_input"), 1e30),
        (("schedule", "tables", "1", "time", 0), -1.0),
        (("schedule", "tables", "1", "coef", 0, 2), 1e30),
        (("schedule", "tables", "11"), {"time": [], "coef": []}),
        (("graphs", "fusion", "opset"), 10**6),
        (("graphs", "fusion", "size"), [0, 64]),
        (("graphs", "fusion", "outputs", 0, "dtype"), "uint8"),
        (("graphs", "fusion", "outputs", 0, "name"), "residual"),
        (("graphs", "fusion", "inputs", 4, "shape", 0), "x"),
        (("graphs", "fusion", "inputs", 4, "shape", 0), 7),
        (("graphs", "fusion", "outputs", 0, "shape", 1), 4),
        (("files", "fusion.onnx", "sha256"), "0" * 63 + "x"),
    ],
)
def test_a_value_of_the_manifest_beyond_its_use_is_refused(copy: Path, path: tuple[str | int, ...], value: Any) -> None:
    node = values = json.loads((copy / "manifest.json").read_text())
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (copy / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(BundleVersionError, match=r"manifest.json: .*get the bundle again"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["../out", "a/b", "..", ""])
def test_a_graph_of_a_name_that_is_a_path_is_refused(copy: Path, name: str) -> None:
    values = json.loads((copy / "manifest.json").read_text())
    edit_manifest(copy, graphs={**values["graphs"], name: values["graphs"]["fusion"]})
    with pytest.raises(BundleCorruptError, match="must be a plain one"):
        Bundle.open(copy)
