"""Modules: each has a name of its own, and a program that misses a package says in one line what installs it."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLACES = ("cled_edge", "training", "export", "runtime", "benchmarks")


def test_no_module_name_stands_twice() -> None:
    found = defaultdict(list)
    for place in PLACES:
        for path in (ROOT / place).rglob("*.py"):
            if not path.stem.startswith("__"):
                found[path.stem].append(str(path.relative_to(ROOT)))
    assert len(found) > 100
    assert [paths for paths in found.values() if len(paths) > 1] == []


@pytest.mark.parametrize(
    ("program", "extras"),
    [("export.to_onnx", "export"), ("training.train", "train"), ("benchmarks.gpu_torch", "benchmarks,train")],
)
def test_a_program_without_its_packages_names_the_extra_in_one_line(program: str, extras: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        check=False,
    )
    stage = program.partition(".")[0]
    expected = f"error: {stage} needs the package torch, which is not installed; in the repository: pip install"
    assert (done.returncode, done.stdout, done.stderr) == (12, "", f"{expected} '.[{extras}]'\n")
