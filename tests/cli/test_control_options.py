"""Commands get an option for each control of the contract."""

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from cled_edge.cli.control_options import control_options
from cled_edge.contract import CONTROLS, Controls
from cled_edge.errors import OptionError

app = typer.Typer()
seen: list[object] = []


@app.command()
@control_options
def fuse(out: Annotated[str, typer.Option(help="where to")], controls: Controls, rate_hz: float = 1.0) -> None:
    seen.append((out, controls, rate_hz))


@app.command()
@control_options
def live(given_controls: dict[str, float]) -> None:
    seen.append(given_controls)


def run(*words: object):
    seen.clear()
    return CliRunner().invoke(app, [str(word) for word in words])


def test_every_control_is_an_option_with_its_range_and_default() -> None:
    told = " ".join(run("fuse", "--help").stdout.replace("│", " ").split())
    for entry in CONTROLS:
        assert f"--{entry.name.replace('_', '-')} " in told
        assert entry.bounds() in told
    assert "0 to 2147483647" in told, "a seed's bounds are written out"
    assert "[default: 0.5]" in told
    assert "[default: the bundle's]" in told
    assert "(0.5)" not in told


def test_a_command_gets_one_controls() -> None:
    run("fuse", "--out", "x", "--strength-visible", 0.5, "--steps", 2, "--rate-hz", 3)
    assert seen == [("x", Controls(steps=2, strength_visible=0.5), 3.0)]
    run("fuse", "--out", "x")
    assert seen == [("x", Controls(), 1.0)]


def test_or_what_was_given_alone_to_lay_over_a_file() -> None:
    run("live", "--balance", 0.5, "--steps", 2)
    assert seen == [{"balance": 0.5, "steps": 2}]


def test_values_outside_the_range_are_refused() -> None:
    done = run("fuse", "--out", "x", "--balance", 1.5)
    assert isinstance(done.exception, OptionError)
    assert str(done.exception) == "balance is 1.5; it must lie between 0 and 1"
    assert not seen


def test_other_commands_are_refused_while_they_are_written() -> None:
    with pytest.raises(StopIteration):
        control_options(lambda out: None)
