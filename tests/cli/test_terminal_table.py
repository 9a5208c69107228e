"""Tables lose nothing, whatever the width."""

import io

from rich.console import Console
from rich.table import Table

from cled_edge.cli.terminal_table import print_table


def printed(width: int, *, is_terminal: bool) -> list[str]:
    table = Table("backend", "path")
    table.add_row("onnxruntime 1.32.0 cpu fp32", "a/" * 60)
    file = io.StringIO()
    print_table(table, Console(file=file, width=width, force_terminal=is_terminal, color_system=None))
    return file.getvalue().splitlines()


def test_a_file_gets_rows_on_one_line_whatever_is_in_them() -> None:
    rows = [line for line in printed(80, is_terminal=False) if "onnxruntime" in line]
    assert "a/" * 60 in rows[0]
    assert "onnxruntime 1.32.0 cpu fp32" in rows[0]


def test_a_narrow_terminal_gets_more_lines_and_no_dots() -> None:
    lines = printed(60, is_terminal=True)
    assert max(map(len, lines)) <= 60
    assert "…" not in "".join(lines)
    assert sum(line.count("a/") for line in lines) == 60
