"""`fuse --evidence` says once a second what the inputs show, and keeps the last in the report."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cled_edge.cli.app import app
from cled_edge.cli.watching import Watch
from cled_edge.errors import OptionError
from cled_edge.evidence.likelihood import KINDS
from cled_edge.evidence.live_line import EvidenceLine, evidence_of
from cled_edge.evidence.told import Evidence
from cled_edge.frame import ORDER, Frame, FramePair, FusedFrame


def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 256, (40, 56), np.uint8), rng.integers(0, 256, (40, 56, 3), np.uint8)


def fused_of(infrared: np.ndarray, visible: np.ndarray) -> FusedFrame:
    frames = (Frame(image, 0, ORDER, 0, "test") for image in (infrared, visible))
    return FusedFrame(visible, infrared, visible, pair=FramePair(*frames))


def test_it_looks_once_a_second_and_not_at_the_pairs_between(rng) -> None:
    said: list[str] = []
    looked: list[float] = []
    at_s = 0.0
    line = EvidenceLine(said.append, now=lambda: round(at_s * 1e9))
    assert line.as_dict() is None
    for at_s in (5.0, 5.04, 5.99, 6.0, 6.5, 9.0, 9.5):
        if line.is_due():
            looked.append(at_s)
            line.look(pair(rng))
    assert looked == [5.0, 6.0, 9.0]
    assert len(said) == 3
    assert all(text.startswith("infrared ") and "; visible " in text for text in said)


def test_what_it_keeps_is_the_evidence_of_the_last_pair(rng) -> None:
    line = EvidenceLine(lambda _: None, now=lambda: 0)
    images = pair(rng)
    line.look(images)
    found = evidence_of(*images)
    kept = line.as_dict()
    assert kept is not None
    for name, kinds in KINDS.items():
        assert kept[name] == {kind: round(getattr(found, name)[kind], 3) for kind in kinds}


def test_what_the_network_says_stands_beside_it_if_its_bundle_tells(rng) -> None:
    said: list[str] = []
    line = EvidenceLine(said.append, now=lambda: 0)
    line.look(pair(rng), Evidence({"stripes": 0.91}, {"haze": 0.62, "rain": 0.04}))
    assert said[0].endswith(" (the network: infrared stripes .9; visible haze .6)")
    kept = line.as_dict()
    assert kept is not None
    assert kept["network"] == {"infrared": {"stripes": 0.91}, "visible": {"haze": 0.62, "rain": 0.04}}


def test_a_look_is_beside_the_loop_and_its_end_is_waited_for(rng) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(EvidenceLine):
        def look(self, images, told=None) -> None:
            begun.set()
            assert go_on.wait(20)
            super().look(images, told)

    now_s, said = [0.0], []
    with Watch(Slow(said.append, now=lambda: round(now_s[0] * 1e9)), lambda _: None) as watch:
        for now_s[0] in (0.0, 5.0, 10.0):  # the loop goes on, and what comes meanwhile is not looked at
            watch.show(fused_of(*pair(rng)))
            assert begun.wait(20)
        go_on.set()
        assert watch.as_dict() is not None
    assert len(said) == 1


def test_a_look_that_fails_is_not_silent(rng) -> None:
    infrared, visible = pair(rng)
    with Watch(EvidenceLine(lambda _: None), lambda _: None) as watch:
        watch.show(fused_of(infrared.astype(np.float64), visible))
        with pytest.raises(OptionError):
            watch.as_dict()


def test_fuse_says_it_if_asked_alone(write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs()
    words = ["fuse", "--infrared", str(infrared), "--visible", str(visible), "--out", str(tmp_path / "out"), "--json"]
    asked = CliRunner().invoke(app, [*words, "--evidence"])
    assert asked.exit_code == 0, asked.output
    assert asked.stderr.count("evidence: infrared ") == 1  # two pairs within a second
    assert set(json.loads(asked.stdout)["evidence"]) >= {"infrared", "visible"}
    plain = CliRunner().invoke(app, words)
    assert "evidence" not in plain.stderr
    assert "evidence" not in json.loads(plain.stdout)
