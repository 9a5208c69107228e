"""Golden pairs verify a bundle again where it runs, and tell the ways of being wrong apart."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save
from typer.testing import CliRunner

from cled_edge.bundle.manifest import GOLDEN_NAME
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.cli.app import app
from cled_edge.contract import Controls
from cled_edge.errors import BackendError, BundleCorruptError, BundleMissingError, OptionError, ParityError
from cled_edge.fuser import Fuser
from cled_edge.verify import Case, judge, judge_kinds, read_golden, verify, worst, write_golden
from tests.bundle.test_reader import edit_manifest


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return read_golden(Bundle.open())


def test_the_shipped_bundle_verifies_here(cases) -> None:
    checks = verify(Bundle.open(), "onnxruntime", cases)
    assert len({check.size for check in checks}) >= 3
    assert {check.form for check in checks} == {"step by step", "one graph"}
    assert all(check.verdict == "OK" and check.psnr_db >= 60 for check in checks)


def test_golden_pairs_survive_being_written(cases) -> None:
    content = write_golden(cases)
    assert content == write_golden(cases)
    arrays = load(content)
    assert len([name for name in arrays if name.endswith(".infrared") and name.startswith("pair")]) < len(cases)
    assert all(case.positions.keys() == case.expected.keys() for case in cases)


@pytest.mark.parametrize(
    ("value", "verdict"), [(float("nan"), "NONFINITE"), (float("inf"), "NONFINITE"), (0.5, "CONSTANT")]
)
def test_verdicts_are_told_apart(value: float, verdict: str) -> None:
    needed = np.linspace(-1, 1, 12, dtype=np.float32)
    assert judge(np.full(12, value, np.float32), needed)[0] == verdict
    assert judge(needed, needed) == ("OK", 200.0)
    assert judge(np.full(12, 0.5, np.float32), np.full(12, 0.5, np.float32)) == ("OK", 200.0)
    assert judge(needed + 0.02, needed)[1] == pytest.approx(40.0, abs=0.01)  # over a range of 2
    assert judge(np.array([10], np.uint8), np.array([11], np.uint8))[1] == pytest.approx(48.13, abs=0.01)


class Wrong:
    """A backend whose outputs are changed on the way."""

    def __init__(self, inner, change) -> None:
        self.inner, self.change, self.choice = inner, change, inner.choice
        self.facts, self.runs = inner.facts, inner.runs
        self.opsets = inner.opsets
        self.in_use = inner.in_use

    def run(self, graph, inputs):
        return [self.change(x) for x in self.inner.run(graph, inputs)]

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda x: x + np.float32(0.01) if x.dtype == np.float32 else x, "TOLERANCE"),
        (lambda x: np.full_like(x, np.nan) if x.dtype == np.float32 else x, "NONFINITE"),
        (lambda x: np.full_like(x, 0) if x.ndim > 2 else x, "CONSTANT"),  # images, not the logits of kinds
    ],
)
def test_a_wrong_backend_is_found(cases, monkeypatch, change, verdict: str) -> None:
    from cled_edge import verify as module

    opened = module.open_backend
    monkeypatch.setattr(
        module, "open_backend", lambda choice, bundle, **options: Wrong(opened(choice, bundle, **options), change)
    )
    checks = verify(Bundle.open(), "onnxruntime", cases[:1])
    assert verdict in {check.verdict for check in checks if check.form == "step by step"}


def test_the_command_prints_what_it_found_and_exits_13_where_it_fails(tmp_path: Path) -> None:
    runner = CliRunner()
    fine = runner.invoke(app, ["verify", "--backend", "onnxruntime", "--json"])
    assert fine.exit_code == 0
    assert {row["verdict"] for row in json.loads(fine.stdout)} == {"OK"}
    # A bundle whose golden pairs are of another network.
    copy = Path(shutil.copytree(shipped_bundle(), tmp_path / "copy"))
    cases = read_golden(Bundle.open())
    for case in cases:
        case.expected["fused"] *= -1
    replace_file(copy, "golden.safetensors", write_golden(cases))
    wrong = runner.invoke(app, ["verify", str(copy), "--backend", "onnxruntime"])
    assert isinstance(wrong.exception, ParityError)
    assert "TOLERANCE: " in str(wrong.exception)
    assert "first fused on onnxruntime:fp32" in str(wrong.exception)


def replace_file(bundle: Path, name: str, content: bytes) -> None:
    import hashlib

    (bundle / name).write_bytes(content)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit_manifest(bundle, files=files)


def test_verifying_nothing_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    from cled_edge import verify as module

    done = CliRunner().invoke(app, ["verify", "--backend", "onnxruntime:fp16"])
    assert isinstance(done.exception, BackendError)
    assert "has no fp16 graphs for every size, only fp32" in str(done.exception)
    monkeypatch.setattr(module, "read_golden", lambda bundle: [])
    done = CliRunner().invoke(app, ["verify", "--backend", "onnxruntime"])
    assert isinstance(done.exception, ParityError)
    assert "no golden pair was run" in str(done.exception)


def test_golden_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shipped_bundle(), tmp_path / "copy"))
    good = (copy / "golden.safetensors").read_bytes()
    arrays = load(good)
    wrong_shape = {**arrays, "pair0.infrared": arrays["pair0.infrared"].reshape(-1)}
    header = {"cases": json.dumps([])}
    for content in (b"", b"nothing", good[:-4], save(arrays), save(wrong_shape, described(good)), b"\xff" * 64):
        replace_file(copy, "golden.safetensors", content)
        with pytest.raises(BundleCorruptError, match="not as export writes it"):
            read_golden(Bundle.open(copy))
    replace_file(copy, "golden.safetensors", save(arrays, header))
    assert read_golden(Bundle.open(copy)) == []
    files = json.loads((copy / "manifest.json").read_text())["files"]
    del files["golden.safetensors"]
    edit_manifest(copy, files=files)
    with pytest.raises(BundleMissingError, match="has no golden"):
        read_golden(Bundle.open(copy))


def described(content: bytes) -> dict[str, str]:
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]


@pytest.mark.parametrize(
    ("count", "size", "said"), [(257, (16, 16), "257 cases, over 256"), (1, (640, 704), "640x704")]
)
def test_golden_data_that_take_all_day_or_all_memory_are_refused(count: int, size: tuple[int, int], said: str) -> None:
    """The shipped bundle has graphs for 512x640 at most: larger images would take memory that nobody foresaw."""
    infrared, visible = np.zeros(size, np.uint8), np.zeros((*size, 3), np.uint8)
    case = Case(infrared, visible, Controls(1), {"picture": visible}).sampled(0)
    bundle = replace(Bundle.open(), _contents={GOLDEN_NAME: write_golden([case] * count)})
    with pytest.raises(BundleCorruptError, match=said):
        read_golden(bundle)


def test_a_binding_to_cuda_is_of_tensorrt_alone() -> None:
    done = CliRunner().invoke(app, ["verify", "--backend", "onnxruntime", "--cuda-binding", "pycuda"])
    assert isinstance(done.exception, OptionError)
    assert "options of CUDA are given for backend onnxruntime" in str(done.exception)


def test_a_bundle_without_the_graphs_that_a_backend_runs_says_how_to_get_them() -> None:
    with pytest.raises(
        BackendError,
        match=r"has no fp16 graphs for every size, only fp32; take one of those, or a bundle with graphs in fp16",
    ):
        Fuser.load(backend="onnxruntime:fp16")
    assert Controls().steps is None


def test_kinds_count_as_equal_where_their_probabilities_are_near() -> None:
    needed = np.array([[3.0, -4.0, 0.0]], np.float32)
    assert judge_kinds(needed + np.float32(0.3), needed) == ("OK", 200.0)
    assert judge_kinds(needed * np.float32(2), needed) == ("OK", 200.0), "both are all but sure"
    verdict, psnr_db = judge_kinds(needed + np.array([0, 0, 1.1], np.float32), needed)
    assert (verdict, round(psnr_db, 1)) == ("TOLERANCE", 16.8)
    assert judge_kinds(needed * np.float32(np.nan), needed)[0] == "NONFINITE"
    assert worst({"kinds": (needed + 5, needed), "fused": (needed, needed)}) == (
        "TOLERANCE",
        pytest.approx(6.6, abs=2),
        "kinds",
    )
