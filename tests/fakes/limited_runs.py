"""What a program of several cases took: each in bounds of processor time and memory, in a process of its own.

Processor time and not time on a clock, as other programs may be at work; what the children took counts too.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cled_edge.errors import CledEdgeError

resource = pytest.importorskip("resource", reason="needs limits of POSIX")
if not Path("/proc/self/status").exists():
    pytest.skip("needs Linux, which says how much memory a process took", allow_module_level=True)

LIMIT_S, LIMIT_KB = 5.0, 10**6
_WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def used_s() -> float:
    return sum(t.ru_utime + t.ru_stime for t in map(resource.getrusage, _WHOSE))


def most_kb() -> int:
    """Return the most memory of this process or of a child; ru_maxrss of itself begins with that of its parent."""
    status = Path("/proc/self/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def run_case(name: str, case: Callable[[], object]) -> bool:
    """Run one; print its name before, and what was wrong after. Return whether there is memory to go on."""
    print("case", name, flush=True)
    begin, words = used_s(), ""
    try:
        case()
    except CledEdgeError as error:
        words = str(error)
    except BaseException as error:
        print("WRONG", name, repr(error), flush=True)
    if len(words) > 1000 or not words.isprintable():
        print("WRONG", name, "message", repr(words), flush=True)
    took_s, kb = used_s() - begin, most_kb()
    if took_s > LIMIT_S:
        print("WRONG", name, f"{took_s:.1f} s", flush=True)
    if kb > LIMIT_KB:
        print("WRONG", name, f"{kb} kB", flush=True)
    print(f"{name}: {took_s:.2f} s, {kb} kB so far; {words or 'done'}", flush=True)
    return kb <= LIMIT_KB


def told_by(code: str, folder: Path) -> list[str]:
    """Return the lines that such a program printed, of which none says that something was wrong."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "CLED_EDGE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        cwd=root,
        env=environment,
        check=False,
    )
    print(done.stdout)
    told = done.stdout.splitlines()
    assert done.returncode == 0, f"{told[-1:]}: exit code {done.returncode}\n{done.stderr[-2000:]}"
    assert not [line for line in told if line.startswith("WRONG")]
    return told
