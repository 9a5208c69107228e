"""Every command block (```sh) of every document is run as written, in a copy of the project beside small data.

A line that needs what a test has not says so itself, in its comment: `# needs a GPU`, `# takes minutes`. Only such a
line is skipped. The lines of a page run in order, in one world: what one writes, the next may read.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fakes.house import PAGES, ROOT, write_house

_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"#.*?\b(needs (?:a GPU|the network|root|a screen|your [\w ]+)|takes (?:a minute|minutes|hours))")


@dataclass(frozen=True)
class Command:
    """Lines that bash takes as one command. reason: why a test cannot run it, in the page's own words."""

    text: str
    line: int
    reason: str | None


def blocks_of(text: str) -> list[list[Command]]:
    """Return the commands of each block of a page."""
    return [_commands(found[1], text[: found.start(1)].count("\n") + 1) for found in _BLOCK.finditer(text)]


def _commands(block: str, first: int) -> list[Command]:
    commands, lines = [], []
    for number, line in enumerate(block.splitlines(), first):
        if not lines and (not line.strip() or line.startswith("#")):
            continue
        lines.append(line)
        text = "\n".join(lines)
        if line.endswith("\\") or not _is_whole(text):
            continue
        mark = _MARK.search(text)
        commands.append(Command(text, number - len(lines) + 1, mark[1] if mark else None))
        lines = []
    assert not lines, f"bash cannot read: {lines}"
    return commands


def _is_whole(text: str) -> bool:
    """Return whether bash reads the text to its end: a loop ends with its `done`."""
    if text.split(maxsplit=1)[0] not in ("for", "if", "while"):
        return True
    return subprocess.run(["bash", "-nc", text], capture_output=True, check=False).returncode == 0


def lack_of(command: Command) -> str | None:
    """Return what a command needs that is not installed here: torch, which a robot has not."""
    needs_torch = re.search(r"-m (training|export)\.", command.text)
    return "needs torch" if needs_torch and find_spec("torch") is None else None


def failure_of(command: Command, house: Path, within_s: float = 120) -> str | None:
    """Run a command in the house; return what went wrong, None if nothing did."""
    programs = os.pathsep.join((str(house / "bin"), str(Path(sys.executable).parent)))
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((programs, os.environ["PATH"])),
        "PYTHONPATH": str(house),
        "CLED_EDGE_CACHE": str(house.parent / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    line = ["bash", "-euo", "pipefail", "-c", command.text]
    with tempfile.TemporaryFile("w+") as said:
        # A group of its own: what a command started ends with it, also after the time is up.
        started = subprocess.Popen(
            line, cwd=house, env=environment, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
        try:
            code: object = started.wait(within_s)
        except subprocess.TimeoutExpired:
            code = f"none within {within_s} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        said.seek(0)
        return f"exit code {code}\n{said.read()[-2000:]}" if code else None


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_commands_of_a_page_run_as_written(page: Path, tmp_path: Path) -> None:
    house = write_house(tmp_path)
    blocks = blocks_of(page.read_text())
    assert all(blocks), "a block holds no command"
    for command in (command for block in blocks for command in block):
        place = f"{page.relative_to(ROOT)}:{command.line}"
        reason = command.reason or lack_of(command)
        print(f"{place}: {f'left out, it {reason}' if reason else 'run'}: {command.text}")
        if not reason:
            failure = failure_of(command, house)
            assert failure is None, f"{place}: {command.text}\n{failure}"


def test_a_command_that_fails_is_seen(tmp_path: Path) -> None:
    ((good, bad, _),) = blocks_of("```sh\ntrue\nfalse | cat\nfalse  # needs a GPU\n```\n")
    assert failure_of(good, tmp_path) is None
    assert (failure_of(bad, tmp_path) or "").startswith("exit code 1")


def test_a_command_that_takes_for_ever_is_seen(tmp_path: Path) -> None:
    ((command,),) = blocks_of("```sh\nsleep 600\n```\n")
    assert (failure_of(command, tmp_path, within_s=0.1) or "").startswith("exit code none within 0.1 s")


def test_what_a_command_started_ends_with_it(tmp_path: Path) -> None:
    ((command,),) = blocks_of("```sh\nfor n in 1; do sleep 600 & echo $! > pid; false; done\n```\n")
    assert (failure_of(command, tmp_path) or "").startswith("exit code 1")
    number = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{number}").exists() and Path(f"/proc/{number}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_commands_are_read_as_bash_reads_them() -> None:
    text = "x\n```sh\n# words\na \\\n  b   # needs a GPU\n\nfor n in 1 2; do\n  echo $n\ndone\n```\n"
    ((first, second),) = blocks_of(text)
    assert (first.text, first.line, first.reason) == ("a \\\n  b   # needs a GPU", 4, "needs a GPU")
    assert (second.text, second.line, second.reason) == ("for n in 1 2; do\n  echo $n\ndone", 7, None)
