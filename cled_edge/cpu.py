"""What a backend must know of the CPU: its instruction sets, and how many cores are worth a thread."""

import os
import platform
from functools import cache
from pathlib import Path

import psutil

from cled_edge.errors import OptionError

CPUINFO_FIELDS = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # x86, then Arm


@cache
def instruction_sets() -> str:
    """Return what tells this kind of CPU from others: architecture, names and flags.

    The name alone will not do: virtual machines of unlike generations all call themselves "AMD EPYC".
    """
    lines: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = {line for line in cpuinfo.read_text().splitlines() if line.startswith(CPUINFO_FIELDS)}
    return "\n".join((platform.machine(), platform.processor(), *sorted(lines)))


def usable_cores() -> int:
    """Return the physical cores that this process may use, at least 1: two threads on one core gain nothing."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def check_threads(threads: int) -> None:
    """Raise OptionError unless `threads` is 0 or a number of threads that the cores here can run at once."""
    cores = os.cpu_count() or 1
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= cores:
        raise OptionError(
            f"threads is {threads!r}; it must be a whole number from 0 to the {cores} cores here; "
            "0 leaves it to the backend"
        )
