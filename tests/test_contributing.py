"""What CONTRIBUTING shows as a camera and an output of one's own works: its code, its registry lines, one command."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import cled_edge

ROOT = Path(cled_edge.__file__).parent.parent


def add(package: Path, page: str, scheme: str, registry: str, opening: str) -> None:
    """Put the page's code for a scheme into a copy of the package, and its line into the registry."""
    (line,) = re.findall(rf'("{scheme}": "cled_edge\.([\w.]+):\w+",)', page)
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if f"`{scheme}:" in code[:100])
    assert len(code.splitlines()) < 30
    module = package / (line[1].replace(".", "/") + ".py")
    assert not module.exists()
    module.write_text(code)
    path = package / registry
    text = path.read_text()
    assert text.count(opening) == 1
    path.write_text(text.replace(opening, f"{opening}\n    {line[0]}"))


def test_a_camera_and_an_output_are_one_file_and_one_line_each(tmp_path: Path) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    package = tmp_path / "cled_edge"
    shutil.copytree(ROOT / "cled_edge", package, ignore=shutil.ignore_patterns("__pycache__"))
    add(package, page, "ramp", "camera/source.py", "CAMERAS = {  # scheme -> module:class")
    add(package, page, "npy", "output/sink.py", "OUTPUTS = {  # scheme -> module:class")
    cameras = ["--infrared", "ramp:480x640", "--visible", "ramp:480x640"]
    outputs = ["--out", "npy:arrays", "--out", "infrared=npy:restored", "--out", "pictures"]
    done = subprocess.run(
        [sys.executable, "-m", "cled_edge.cli", "fuse", *cameras, *outputs, "--max-frames", "2"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "arrays" / "000001.npy").shape == (480, 640, 3)
    assert np.load(tmp_path / "restored" / "000000.npy").shape == (480, 640)
    assert len(list((tmp_path / "pictures").iterdir())) == 2
