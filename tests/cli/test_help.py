"""The help of every command: short options, groups, examples that the command takes, and a start that does not wait."""

import os
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cled_edge.cli.app import app
from cled_edge.cli.examples import _EXAMPLES
from cled_edge.cli.options import told_to
from cled_edge.errors import OptionError

ROOT_COMMAND = typer.main.get_command(app)


def command_of(name: str) -> Any:
    found: Any = ROOT_COMMAND
    for word in name.split():
        found = found.commands[word]
    return found


def help_of(name: str, option: str = "-h") -> str:
    done = CliRunner().invoke(app, [*name.split(), option], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0
    return done.stdout


def all_commands() -> list[str]:
    names = list(ROOT_COMMAND.commands)  # type: ignore[attr-defined]
    return [*names, *(f"bench {name}" for name in command_of("bench").commands)]


@pytest.mark.parametrize("name", all_commands())
def test_every_help_has_groups_defaults_and_two_examples(name: str) -> None:
    told = help_of(name)
    assert told == help_of(name, "--help")
    end = told[told.index("Examples:") :]
    assert [line.strip() for line in end.splitlines() if line.strip()][1:] == list(_EXAMPLES[name])
    assert "[default: (" not in told


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in _EXAMPLES.items() for line in lines])
def test_an_example_is_one_that_the_command_takes(name: str, line: str) -> None:
    words = shlex.split(line)
    assert words[: 1 + len(name.split())] == ["cled-edge", *name.split()]
    command_of(name).make_context(name, words[1 + len(name.split()) :])


def test_commands_and_their_many_options_stand_in_groups() -> None:
    assert {"Images", "This machine", "Bundles"} <= groups_of("")
    assert {"Cameras and outputs", "Controls", "Model", "Run", "Report"} <= groups_of("fuse")
    assert {"What to build", "How it is built", "How long", "Report"} <= groups_of("build")
    assert {"Controls", "Model", "Inputs", "How long", "Report"} <= groups_of("bench")


def groups_of(name: str) -> set[str]:
    return {line.strip("╭─╮+- ") for line in help_of(name).splitlines() if line.startswith(("╭", "+"))}


@pytest.mark.parametrize("words", [["--version"], ["-h"], ["fuse", "-h"], ["bench", "-h"]])
def test_help_and_version_load_no_library_of_arrays(words: list[str]) -> None:
    program = (
        "import sys\n"
        "from cled_edge.cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'cv2', 'onnxruntime', 'openvino', 'av'} & sys.modules.keys()\n"
        "print(f'loaded: {sorted(heavy)}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_the_completion_of_a_shell_is_installed_and_completes(tmp_path: Any) -> None:
    program = "import sys; sys.argv[0] = 'cled-edge'; from cled_edge.cli.app import app; app(prog_name='cled-edge')"
    home = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    line = [sys.executable, "-c", program]
    done = subprocess.run([*line, "--install-completion", "bash"], env=home, capture_output=True, text=True, check=True)
    assert "bash completion installed" in done.stdout
    assert "cled-edge" in "".join(path.read_text() for path in tmp_path.rglob("cled-edge*"))
    asked = {"_CLED_EDGE_COMPLETE": "complete_bash", "COMP_WORDS": "cled-edge fuse --str", "COMP_CWORD": "2"}
    done = subprocess.run(line, env={**home, **asked}, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == {"--strength-infrared", "--strength-visible"}


def test_both_of_verbose_and_quiet_are_refused() -> None:
    with pytest.raises(OptionError, match="--verbose and --quiet are given together; needed one at most"):
        told_to(verbose=True, quiet=True)
    assert told_to(quiet=True).quiet
