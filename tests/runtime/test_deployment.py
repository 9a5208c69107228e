"""What is deployed names things that exist: extras, options, exit codes, and files of the repository."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

from cled_edge import errors
from cled_edge.cli.app import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent.parent
CONTAINERS = sorted((ROOT / "runtime" / "containers").iterdir())
UNIT = ROOT / "runtime" / "service" / "cled-edge.service"


def options_of(command: str) -> set[str]:
    group = typer.main.get_command(app)
    return {option for parameter in group.commands[command].params for option in parameter.opts}


def refuse_unknown(words: list[str]) -> None:
    """Fail for options of `cled-edge COMMAND ...` that do not exist."""
    command, *rest = words
    assert [word for word in rest if word.startswith("--") and word not in options_of(command)] == []


def test_every_extra_that_is_named_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set()
    for path in (*CONTAINERS, *(ROOT / "runtime").rglob("*.md"), *(ROOT / "cled_edge").rglob("*.py")):
        for found in re.findall(r"(?:cled-edge|\.whl\))\[([\w$,-]+)\]", path.read_text()):
            named |= set(found.replace("$EXTRAS", "openvino").split(","))
    assert {"serve", "bags", "rerun", "openvino"} <= named
    assert named - extras.keys() == set()


def test_the_unit_runs_a_command_that_exists_and_gives_up_at_codes_that_exist() -> None:
    unit = UNIT.read_text()
    (command,) = re.findall(r"^ExecStart=\S+/cled-edge (.*)$", unit, re.MULTILINE)
    refuse_unknown(shlex.split(command))
    codes = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.CledEdgeError)}
    (given_up,) = re.findall(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
    assert {int(code) for code in given_up.split()} <= codes
    assert "Type=notify" in unit
    assert re.search(r"^WatchdogSec=\d+$", unit, re.MULTILINE)


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.name)
def test_a_container_runs_a_command_that_exists_as_a_user_of_its_own(path: Path) -> None:
    text = path.read_text()
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    refuse_unknown(eval(command))  # noqa: S307 (our own file)
    assert text.index("\nUSER cled-edge") < text.index("\nENTRYPOINT")
    assert f"-f runtime/containers/{path.name}" in text
