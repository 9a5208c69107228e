"""`fuse --evidence` says once a second what the inputs show, and keeps the last in the report."""

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from cled_edge.cli.app import app
from cled_edge.evidence.likelihood import KINDS
from cled_edge.evidence.live_line import EvidenceLine, evidence_of
from cled_edge.evidence.told import Evidence


def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 256, (40, 56), np.uint8), rng.integers(0, 256, (40, 56, 3), np.uint8)


def test_it_looks_once_a_second_and_not_at_the_pairs_between(rng) -> None:
    said: list[str] = []
    looked: list[float] = []
    at_s = 0.0
    line = EvidenceLine(said.append, now=lambda: round(at_s * 1e9))
    assert line.as_dict() is None
    for at_s in (5.0, 5.04, 5.99, 6.0, 6.5, 9.0, 9.5):
        line.see(lambda: looked.append(at_s) or pair(rng))  # type: ignore[func-returns-value]  # noqa: B023
    assert looked == [5.0, 6.0, 9.0]
    assert len(said) == 3
    assert all(text.startswith("infrared ") and "; visible " in text for text in said)


def test_what_it_keeps_is_the_evidence_of_the_last_pair(rng) -> None:
    line = EvidenceLine(lambda _: None, now=lambda: 0)
    images = pair(rng)
    line.see(lambda: images)
    found = evidence_of(*images)
    kept = line.as_dict()
    assert kept is not None
    for name, kinds in KINDS.items():
        assert kept[name] == {kind: round(getattr(found, name)[kind], 3) for kind in kinds}


def test_what_the_network_says_stands_beside_it_if_its_bundle_tells(rng) -> None:
    said: list[str] = []
    line = EvidenceLine(said.append, now=lambda: 0)
    line.see(lambda: pair(rng), lambda: Evidence({"stripes": 0.91}, {"haze": 0.62, "rain": 0.04}))
    assert said[0].endswith(" (the network: infrared stripes .9; visible haze .6)")
    kept = line.as_dict()
    assert kept is not None
    assert kept["network"] == {"infrared": {"stripes": 0.91}, "visible": {"haze": 0.62, "rain": 0.04}}


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
