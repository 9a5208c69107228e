"""How far a command is: a line of status now and then without a terminal, nothing where quiet."""

import io
import re
import threading

from rich.console import Console

from cled_edge.progress import progress_bar, status_lines


class Lines(io.StringIO):
    """A file that lets a test wait for what is printed into it."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        self.came.set()
        return count


def test_without_a_terminal_a_line_says_how_far_it_is() -> None:
    file = Lines()
    with progress_bar("fusing", 100, Console(file=file), period_s=0.01) as advance:
        for _ in range(3):
            advance()
        assert file.came.wait(10)
    first = file.getvalue().splitlines()[0]
    assert re.fullmatch(r"fusing: \d of 100, \d+\.\d/s(, \d+ s left)?", first)


def test_a_line_comes_also_while_nothing_gets_done() -> None:
    file = Lines()
    with progress_bar("fusing", None, Console(file=file), period_s=0.01):
        assert file.came.wait(10)
    assert file.getvalue().splitlines()[0] == "fusing: 0, 0.0/s"


def test_a_quiet_console_shows_nothing_and_a_period_that_has_not_passed_neither() -> None:
    file, asked = Lines(), []
    for console, period_s in ((Console(file=file, quiet=True), 0.001), (Console(file=file), 3600)):
        with (
            status_lines(lambda: str(asked.append(1)), console, period_s),
            progress_bar("fusing", 2, console, period_s) as advance,
        ):
            advance()
    assert (file.getvalue(), asked) == ("", [])
