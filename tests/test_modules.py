"""Every module has a name of its own: a file that is opened by its name is the one that was meant."""

from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACES = ("cled_edge", "training", "export", "runtime", "benchmarks")


def test_no_module_name_stands_twice() -> None:
    found = defaultdict(list)
    for place in PLACES:
        for path in (ROOT / place).rglob("*.py"):
            if not path.stem.startswith("__"):
                found[path.stem].append(str(path.relative_to(ROOT)))
    assert len(found) > 100
    assert [paths for paths in found.values() if len(paths) > 1] == []
