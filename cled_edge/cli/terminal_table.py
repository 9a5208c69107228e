"""Tables on standard output that lose nothing: whole where no terminal limits them, folded where one does."""

from rich.console import Console
from rich.table import Table

_WIDEST = 10_000  # columns of a file


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table. Into a file or a pipe it is as wide as it needs; on a terminal long cells take more lines."""
    console = console or Console()
    for column in table.columns:
        column.overflow = "fold"
    if not console.is_terminal:
        wanted = console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
        console = Console(file=console.file, width=max(wanted, console.width))
    console.print(table)
