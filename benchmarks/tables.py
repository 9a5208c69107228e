"""Generate the tables of benchmarks/RESULTS.md from the JSON under benchmarks/results.

    python -m benchmarks.tables             rewrites what stands between the markers
    python -m benchmarks.tables --check     exits 1 if that would change anything

A page names its tables in a marker, `<!-- tables: live, peaks -->`, and ends them with `<!-- end -->`. A table whose
results are absent is left out with its heading.
"""

import re
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.sections import TABLES
from benchmarks.timing import RESULTS
from cled_edge.errors import OptionError, one_line_errors

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "benchmarks" / "RESULTS.md",)
_BLOCK = re.compile(r"(<!-- tables: ([\w, -]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str, results: Path = RESULTS) -> str:
    """Return a page with the part between its markers replaced; a table that is not known is an OptionError."""

    def block(found: re.Match[str]) -> str:
        parts = []
        for name in found[2].split(", "):
            if name not in TABLES:
                raise OptionError(f"table {name!r} is unknown; known: {', '.join(TABLES)}")
            parts.append(TABLES[name](results))
        content = "".join(f"\n{part}" for part in parts if part)
        return f"{found[1]}{content}\n{found[3]}" if content else f"{found[1]}{found[3]}"

    return _BLOCK.sub(block, text)


def main(
    check: Annotated[bool, typer.Option("--check", help="only tell whether the pages are current")] = False,
) -> None:
    """Rewrite the pages."""
    stale = False
    with one_line_errors():
        for page in PAGES:
            text = page.read_text()
            current = with_tables(text)
            stale |= text != current
            if not check:
                page.write_text(current)
    raise typer.Exit(int(check and stale))


if __name__ == "__main__":
    typer.run(main)
