"""`cled-edge inspect --cost`: a table for people, JSON for machines, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

pytest.importorskip("onnx", reason="needs onnx: pip install onnx")

from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.cli.app import app
from cled_edge.errors import OptionError

BUNDLE = str(shipped_bundle())


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["inspect", *arguments])
    if result.exception:
        raise result.exception
    return result.output


def test_the_json_holds_each_graph_its_limits_and_their_sources() -> None:
    values = json.loads(run(BUNDLE, "--cost", "--size", "64x64", "--json"))
    assert [graph["name"] for graph in values["graphs"]] == [*Bundle.open().manifest.graphs]
    for graph in values["graphs"]:
        assert graph["kernels"] > graph["layout_kernels"] > 0
        assert graph["traffic_mb"] == pytest.approx(graph["read_mb"] + graph["written_mb"])
        assert [limit["device"] for limit in graph["limits"]] == [device["name"] for device in values["devices"]]
    assert values["rules"]


def test_the_table_says_counts_limits_and_rules() -> None:
    text = run(BUNDLE, "--cost", "--size", "64x64")
    for words in ("kernels after fusion", "longest chain", "GFLOP", "MB of traffic", "Orin Nano 8 GB", "H100 SXM"):
        assert words in text
    assert "dense" in text
    assert "- What does not depend on the inputs is folded" in text


def test_a_size_without_cost_is_refused() -> None:
    with pytest.raises(OptionError, match="--size is given without --cost"):
        run(BUNDLE, "--size", "64x64")


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="must be HEIGHTxWIDTH"):
        run(BUNDLE, "--cost", "--size", "64")
