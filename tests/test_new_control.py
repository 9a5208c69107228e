"""A new control is one field of the contract and one line of the network; all else has it from there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")
pytest.importorskip("onnxslim", reason="needs onnxslim: make test installs it")

ROOT = Path(__file__).parents[1]
THE_FIELD = '    warmth: float = control(0.0, -1, 1, "how much brighter the fused image is")\n'
THE_LINE = '        fused = fused + controls["warmth"].reshape(-1, 1, 1, 1)\n'
AFTER_FIELD = "    balance: float = control("
AFTER_LINE = "        fused: Tensor = self.head("

PROGRAM = """
import contextlib, dataclasses, hashlib, io, json, sys
from pathlib import Path

import numpy as np
import onnxruntime

import cled_edge
from cled_edge import Bundle, Controls, Fuser
from cled_edge.cli.app import app
from cled_edge.config import read_config
from cled_edge.contract import CONTROLS
from cled_edge.errors import OptionError
from cled_edge.network.presets import preset
from export import golden, untrained
from export.graphs import GraphSet
from export.to_onnx import export_bundle

golden.SIZES, golden.GOLDEN_SIZES = ((20, 28),), ((16, 24), (24, 16))
tiny = preset("one-pass")
tiny = dataclasses.replace(
    tiny,
    unet=dataclasses.replace(tiny.unet, widths=(8, 8), encoder_blocks=(0, 0), decoder_blocks=(0, 0), unshuffle=4),
    fusion=dataclasses.replace(
        tiny.fusion, widths=(8, 8), blocks=(0, 0), decoder_blocks=(0, 0), heads=(1, 1), windows=(0, 0),
        merges=("concat", "concat"), unshuffle=4, detail=0,
    ),
)
untrained.preset = lambda name: tiny
out, toml = Path(sys.argv[1]), Path(sys.argv[2])
pairs = [golden.noise((20, 28), 1)]
manifest = export_bundle(untrained.untrained("tiny", 0), {}, out, pairs, "noise", GraphSet(steps=(1,)))
names = {"controls": [entry.name for entry in CONTROLS], "home": cled_edge.__file__}
names["manifest"] = {name: [spec.name for spec in graph.inputs] for name, graph in manifest.graphs.items()}
bundle = Bundle.open(out)
sessions = {name: onnxruntime.InferenceSession(bundle.graph(name)) for name in manifest.graphs}
names["graphs"] = {name: [put.name for put in session.get_inputs()] for name, session in sessions.items()}


def fused(fuser, **values):
    steps = {"one graph": 1, "step by step": 2}
    return {
        form: hashlib.sha256(fuser(pairs[0].infrared, pairs[0].visible, Controls(count, **values)).picture).hexdigest()
        for form, count in steps.items()
    }


with Fuser.load(out) as fuser:
    names["neutral"] = fused(fuser)
    if "warmth" in names["controls"]:
        names["turned"] = fused(fuser, warmth=0.25)
with Fuser.load() as fuser:  # the shipped bundle, which has no such control
    names["shipped"] = fused(fuser)
    try:
        names["refused"] = fused(fuser, warmth=0.25) and ""
    except (OptionError, TypeError) as error:
        names["refused"] = str(error)
try:
    names["config"] = read_config(toml).controls
except OptionError as error:
    names["config"] = str(error)
told = io.StringIO()
with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
    app(["fuse", "--help"])
names["help"] = told.getvalue()
print(json.dumps(names))
"""


def started(tree: Path, folder: Path) -> subprocess.Popen[str]:
    """Start the program on a tree of the project; the bundle goes to `folder`."""
    folder.mkdir()
    toml = folder / "robot.toml"
    toml.write_text("[controls]\nwarmth = 0.25\n")
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environment = {"PYTHONPATH": str(tree), "PATH": "", "COLUMNS": "200", "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    return subprocess.Popen(
        [sys.executable, program, folder / "bundle", toml],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen[str]) -> dict:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return json.loads(out.splitlines()[-1])


def copied(tree: Path) -> None:
    """Copy what is exported and run, the bundles by a link."""
    shutil.copytree(ROOT / "cled_edge", tree / "cled_edge", ignore=shutil.ignore_patterns("bundles", "__pycache__"))
    (tree / "cled_edge" / "bundles").symlink_to(ROOT / "cled_edge" / "bundles")
    shutil.copytree(ROOT / "export", tree / "export", ignore=shutil.ignore_patterns("__pycache__"))


def insert(path: Path, after: str, line: str) -> None:
    text = path.read_text()
    start = text.index(after)
    end = text.index("\n", start) + 1
    path.write_text(text[:end] + line + text[end:])


def test_a_control_is_one_field_and_one_line(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    copied(tree)
    insert(tree / "cled_edge" / "contract.py", AFTER_FIELD, THE_FIELD)
    insert(tree / "cled_edge" / "network" / "fusion.py", AFTER_LINE, THE_LINE)
    before, after = started(ROOT, tmp_path / "before"), started(tree, tmp_path / "after")
    old, new = told(before), told(after)
    assert Path(old["home"]).is_relative_to(ROOT)
    assert Path(new["home"]).is_relative_to(tree)

    assert "warmth" not in old["controls"]
    assert "warmth" in new["controls"]
    for names in (new["manifest"], new["graphs"]):
        assert "warmth" not in names["unet_step"]
        assert names["fusion"][-1] == names["fused_loop"][-1] == "warmth"

    assert new["neutral"] == old["neutral"], "at its neutral value it changes no byte"
    for form, picture in new["neutral"].items():
        assert new["turned"][form] != picture, form
    assert new["shipped"] == old["shipped"], "bundles from before run as they did"
    assert (
        "warmth is 0.25, but graph fused_loop-1steps.onnx of this bundle has no such control; leave it at 0"
        in new["refused"]
    )

    assert "--warmth" not in old["help"]
    assert "--warmth" in new["help"]
    assert "how much brighter the fused image is, -1 to 1" in new["help"]
    assert new["config"] == {"warmth": 0.25}
    assert "has 'warmth', which is no control" in old["config"]
