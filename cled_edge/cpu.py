"""What a backend must know of the CPU: its instruction sets, and how many cores are worth a thread."""

import os
import platform
from functools import cache
from pathlib import Path

import psutil

from cled_edge.errors import OptionError

_ROOT = Path("/")
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
    """Return the physical cores that this process may use, at least 1: two threads on one core gain nothing.

    Of a quota only whole cores count: a thread more would be stopped for the rest of each period.
    """
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    quota = quota_cores()
    return max(1, min(physical, allowed, physical if quota is None else int(quota)))


def quota_cores(root: Path | None = None) -> float | None:
    """Return how many cores' time the control groups of this process allow, 1.5 say, or None if they set no limit.

    The least of its group's and of those above it. A container may see its own group as the root of all, whatever
    /proc/self/cgroup calls it. root: holds /proc and /sys.
    """
    root = root or _ROOT
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux, or /proc is not mounted
        return None
    limits = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        names = (controllers, "cpu") if controllers else ("", "unified")  # of version 1; of 2, and of 2 beside 1
        steps = [step for step in path.split("/") if step not in ("", "..")]
        for name in names:
            folder = root / "sys/fs/cgroup" / name
            limits += [_limit(folder.joinpath(*steps[:count])) for count in range(len(steps) + 1)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(group: Path) -> float | None:
    """Return the cores that one control group allows, None if it sets no limit or is not there."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = (float(word) for file in files for word in (group / file).read_text().split())
        except (OSError, ValueError):  # absent; "max" is no number
            continue
        if quota > 0 and period > 0:  # -1 is no limit
            return quota / period
    return None


def check_threads(threads: int) -> None:
    """Raise OptionError unless `threads` is 0 or a number of threads that the cores here can run at once."""
    cores = os.cpu_count() or 1
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= cores:
        raise OptionError(
            f"threads is {threads!r}; it must be a whole number from 0 to the {cores} cores here; "
            "0 leaves it to the backend"
        )
