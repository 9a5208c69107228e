"""The progress bar of commands that count pictures or pairs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(words: str, expected: int | None, console: Console) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal; yield the function that advances it."""
    columns = TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(words, total=expected)
        yield lambda: bar.advance(task)
