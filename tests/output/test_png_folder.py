"""A folder of PNGs: names stay inside it, and frames without a name do not replace each other."""

import os
from pathlib import Path

import numpy as np
import pytest

from cled_edge.errors import OutputError
from cled_edge.frame import FusedFrame
from cled_edge.output.sink import open_output

IMAGES = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)


def test_frames_without_a_name_are_counted(tmp_path: Path) -> None:
    with open_output(str(tmp_path / "out")) as output:
        for name in ("", "a", ""):
            output.write(FusedFrame(*IMAGES, name=name))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.png", "000002.png", "a.png"]


@pytest.mark.parametrize("name", ["../escaped", "a/b", "/etc/x", ".."])
def test_a_name_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with (
        open_output(str(tmp_path / "out")) as output,
        pytest.raises(OutputError, match="needed a name without folders"),
    ):
        output.write(FusedFrame(*IMAGES, name=name))
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def test_pngs_of_earlier_runs_stay_and_are_said(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(b"older")
    with open_output(str(tmp_path)) as output:
        output.write(FusedFrame(*IMAGES, name="a"))
    (note,) = output.notes
    assert "also holds 2 PNGs of earlier runs, such as b.png" in note
    assert (tmp_path / "b.png").read_bytes() == b"older"


@pytest.mark.skipif(os.name == "nt", reason="nothing is locked there")
def test_a_second_writer_of_one_folder_is_refused(tmp_path: Path) -> None:
    with open_output(str(tmp_path)), pytest.raises(OutputError, match="another run is writing into"):
        open_output(str(tmp_path)).__enter__()
    with open_output(str(tmp_path)):
        pass
