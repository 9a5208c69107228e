"""What a command says: a line as it is, and how far it is, as a bar or, without a terminal, a line every 10 s."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

PERIOD_S = 10.0


def print_line(console: Console, text: str) -> None:
    """Print a line as it is: not wrapped, and without rich's marks and colours."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def progress_bar(
    words: str, expected: int | None, console: Console, period_s: float = PERIOD_S
) -> Iterator[Callable[[], None]]:
    """Show how many of `expected` are done, None if nobody knows; yield the function that counts one more.

    On a terminal that is a bar, elsewhere a line every `period_s` seconds. A quiet console shows nothing.
    """
    count = _Count(words, expected)
    with _bar_or_lines(words, expected, count.text, (MofNCompleteColumn(),), console, period_s) as advance:

        def one_more() -> None:
            count.advance()
            advance(1)

        yield one_more


@contextmanager
def seconds_bar(words: str, total_s: float, console: Console, period_s: float) -> Iterator[Callable[[float], None]]:
    """Show how many of so many seconds have passed, as `progress_bar` does; yield the function that adds to them."""
    done_s = 0.0

    def text() -> str:
        return f"{words}: {done_s:.0f} of {total_s:.0f} s"

    with _bar_or_lines(words, total_s, text, (), console, period_s) as advance:

        def add(seconds: float) -> None:
            nonlocal done_s
            done_s += seconds
            advance(seconds)

        yield add


@contextmanager
def _bar_or_lines(
    words: str,
    total: float | None,
    text: Callable[[], str],
    columns: tuple[ProgressColumn, ...],
    console: Console,
    period_s: float,
) -> Iterator[Callable[[float], None]]:
    """Show a bar with these columns on a terminal, elsewhere the text; yield what moves the bar, if there is one."""
    if not console.is_terminal and not console.quiet:
        with status_lines(text, console, period_s):
            yield lambda _: None
        return
    shown = (TextColumn(words), BarColumn(), *columns, TimeRemainingColumn())
    with Progress(*shown, console=console, transient=True, disable=console.quiet) as bar:
        task = bar.add_task(words, total=total)
        yield lambda more: bar.advance(task, more)


@contextmanager
def status_lines(text: Callable[[], str], console: Console, period_s: float = PERIOD_S) -> Iterator[None]:
    """Print `text()` every `period_s` seconds, on a thread: also while nothing gets done. A quiet console is silent."""
    stop = threading.Event()

    def tell() -> None:
        while not stop.wait(period_s):
            print_line(console, text())

    thread = threading.Thread(target=tell, name="status", daemon=True)
    if not console.quiet:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if not console.quiet:
            thread.join()


class _Count:
    """Counts, and tells how many there are, how many a second since the last time, and what is left."""

    def __init__(self, words: str, expected: int | None) -> None:
        self._words, self._expected = words, expected
        self._done = 0
        self._told, self._told_s = 0, time.monotonic()

    def advance(self) -> None:
        self._done += 1

    def text(self) -> str:
        done, now_s = self._done, time.monotonic()
        rate_hz = (done - self._told) / max(now_s - self._told_s, 1e-9)
        self._told, self._told_s = done, now_s
        text = f"{self._words}: {done}{'' if self._expected is None else f' of {self._expected}'}, {rate_hz:.1f}/s"
        if self._expected is not None and rate_hz > 0:
            text += f", {max(self._expected - done, 0) / rate_hz:.0f} s left"
        return text
