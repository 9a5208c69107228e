"""How far a command is: a bar on a terminal, elsewhere a line of status every 10 s."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PERIOD_S = 10.0


@contextmanager
def progress_bar(
    words: str, expected: int | None, console: Console, period_s: float = PERIOD_S
) -> Iterator[Callable[[], None]]:
    """Show how many of `expected` are done, None if nobody knows; yield the function that counts one more.

    On a terminal that is a bar, elsewhere a line every `period_s` seconds. A quiet console shows nothing.
    """
    if console.is_terminal or console.quiet:
        columns = TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, transient=True, disable=console.quiet) as bar:
            task = bar.add_task(words, total=expected)
            yield lambda: bar.advance(task)
        return
    count = _Count(words, expected)
    with status_lines(count.text, console, period_s):
        yield count.advance


@contextmanager
def status_lines(text: Callable[[], str], console: Console, period_s: float = PERIOD_S) -> Iterator[None]:
    """Print `text()` every `period_s` seconds, on a thread: also while nothing gets done. A quiet console is silent."""
    stop = threading.Event()

    def tell() -> None:
        while not stop.wait(period_s):
            console.print(text(), soft_wrap=True, markup=False, highlight=False)

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
