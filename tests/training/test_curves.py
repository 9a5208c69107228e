"""Curves of finished runs."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from cled_edge.errors import DataError  # noqa: E402
from training import curves  # noqa: E402


def test_curves_go_on_from_run_to_run_and_tell_gains(tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    lines = [
        {"stage": "restore", "time_s": 1.0, "iteration": 50, "loss": 0.4},
        {"stage": "restore", "time_s": 2.0, "iteration": 100, "visible_rain_input": 20.0, "visible_rain_1": 23.0},
        {"stage": "fuse", "time_s": 3.0, "iteration": 50, "loss": 5.0, "held_out_clean_color": 0.1},
    ]
    first.write_text("".join(json.dumps(line) + "\n" for line in lines))
    second.write_text(json.dumps({**lines[0], "loss": 0.2}) + "\n")
    found = curves.read_curves([first, second])
    assert found["restore"].logged["loss"] == [(50, 0.4), (150, 0.2)]
    assert (found["restore"].begins, found["restore"].iterations) == ([0, 100], 150)
    assert curves.gains(found["restore"]) == {"visible rain": [(100, 3.0)]}
    assert found["fuse"].begins == [0]
    assert curves.thinned([(k, float(k)) for k in range(1, 201)], 200)[0] == (1.5, 1.5)
    curves.main([first, second], tmp_path / "both.svg")
    drawn = (tmp_path / "both.svg").read_text()
    assert drawn.startswith("<?xml")
    assert drawn == curves.draw(found)  # the same bytes each time: it is committed
    (tmp_path / "none.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"none\.jsonl is no log\.jsonl of a run"):
        curves.read_curves([tmp_path / "none.jsonl"])
    second.write_text("")
    with pytest.raises(DataError, match="hold no iteration"):
        curves.main([second], tmp_path / "none.svg")
    second.write_text(json.dumps(lines[1]) + "\n")  # too short to log a loss
    with pytest.raises(DataError, match="hold no iteration that was logged"):
        curves.main([second], tmp_path / "none.svg")
