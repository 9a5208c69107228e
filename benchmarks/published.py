"""Numbers of others, to stand beside ours: Tables 1 to 4 of the paper, and fusion networks measured on held-back pairs.

`published.json` holds them and says what each is of.
"""

from functools import cache
from pathlib import Path
from typing import Any

from cled_edge.files import read_json

PAPER_FOLDERS = {"pairs/m3fd": "M3FD", "pairs/llvip": "LLVIP"}  # what Tables 1 and 4 are of


@cache
def published(table: str) -> list[dict[str, Any]]:
    """Return the rows of `table 1` to `table 4`, of `best peers` or of `degraded peers`."""
    return [row for row in read_json(Path(__file__).with_suffix(".json"))["rows"] if row["table"] == table]
