"""Per-stage latency samples and their percentiles; the age of the process."""

import os
import sys
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil

# A frame's path. `network` stands for steps and fusion where a bundle has them in one graph. `wait` is what the fusing
# thread idled, and no part of a frame's own time.
STAGES = ("wait", "decode", "pair", "register", "prepare", "steps", "fusion", "network", "output", "write")
IDLE = "wait"
PERCENTILES = (50, 90, 99)
KEPT_FRAMES = 10_000  # a robot runs for days
_START_TICKS = 19  # field 22 of /proc/PID/stat, of which the process's name is the second


class LatencyLog:
    """Collects nanoseconds by stage over the last 10,000 frames; `total` is a frame's sum of stages, less its wait."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=KEPT_FRAMES))

    def add(self, frame_ns: Mapping[str, int]) -> None:
        """Add one frame."""
        for stage, value in frame_ns.items():
            self._samples[stage].append(value)
        self._samples["total"].append(sum(value for stage, value in frame_ns.items() if stage != IDLE))

    def summary_ms(self) -> dict[str, dict[str, float]]:
        """Return stage -> {p50, p90, p99, max} in milliseconds, stages in the order of the frame's path."""
        table = {}
        for stage in (*STAGES, "total"):
            if stage in self._samples:
                values = np.array(list(self._samples[stage])) / 1e6  # list(): another thread may add
                row = {f"p{p}": round(float(np.percentile(values, p)), 3) for p in PERCENTILES}
                table[stage] = {**row, "max": round(float(values.max()), 3)}
        return table


def process_age_s() -> float:
    """Return the seconds since this process was started, the interpreter's own start included."""
    if sys.platform != "linux":
        return time.time() - psutil.Process().create_time()
    # psutil 7.2 adds the boot time, which Linux gives in whole seconds: it may be wrong by one.
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started_s = int(after_name[_START_TICKS]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
