"""Per-stage latency samples and their percentiles; the age of the process."""

import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

# A frame's path. `network` stands for steps and fusion where a bundle has them in one graph. `doubt` is there where a
# sample or the uncertainty is asked for. `wait` is what the fusing thread idled, and no part of a frame's own time.
STAGES = ("wait", "decode", "pair", "register", "prepare", "steps", "doubt", "fusion", "network", "output", "write")
NETWORK_STAGES = ("steps", "doubt", "fusion", "network")
IDLE = "wait"
PERCENTILES = (50, 90, 99)
KEPT_FRAMES = 10_000  # a robot runs for days
_START_TICKS = 19  # field 22 of /proc/PID/stat, of which the process's name is the second


class SampleLog:
    """Collects nanoseconds by name over the last 10,000 samples of each. Any thread may ask for the summary.

    All the memory that a name takes is taken at its first sample: what fills for half an hour looks like a leak.
    """

    def __init__(self) -> None:
        self._samples: dict[str, NDArray[np.int64]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, sample_ns: Mapping[str, int]) -> None:
        """Add one sample of each name."""
        for name, value in sample_ns.items():
            if name not in self._samples:
                self._samples[name] = np.full(KEPT_FRAMES, value, np.int64)
            self._samples[name][self._counts[name] % KEPT_FRAMES] = value
            self._counts[name] += 1

    def summary_ms(self) -> dict[str, dict[str, float]]:
        """Return name -> {p50, p90, p99, max} in milliseconds."""
        table = {}
        for name, samples in tuple(self._samples.items()):
            values = samples[: max(1, self._counts[name])] / 1e6
            row = {f"p{p}": round(float(np.percentile(values, p)), 3) for p in PERCENTILES}
            table[name] = {**row, "max": round(float(values.max()), 3)}
        return table


class LatencyLog(SampleLog):
    """Collects a frame's nanoseconds by stage; `total` is their sum, less its wait."""

    def add(self, frame_ns: Mapping[str, int]) -> None:
        """Add one frame."""
        super().add({**frame_ns, "total": sum(value for stage, value in frame_ns.items() if stage != IDLE)})

    def summary_ms(self) -> dict[str, dict[str, float]]:
        """Return stage -> {p50, p90, p99, max} in milliseconds, stages in the order of the frame's path."""
        table = super().summary_ms()
        return {stage: table[stage] for stage in (*STAGES, "total") if stage in table}


class Stopwatch:
    """Times the stages of one frame, from when it is made. laps_ns: nanoseconds by stage."""

    def __init__(self) -> None:
        self.laps_ns: dict[str, int] = {}
        self._last = time.perf_counter_ns()

    def lap(self, name: str) -> None:
        """End a stage; the next one begins."""
        now = time.perf_counter_ns()
        self.laps_ns[name] = now - self._last
        self._last = now


def process_age_s() -> float:
    """Return the seconds since this process was started, the interpreter's own start included."""
    if sys.platform != "linux":
        return time.time() - psutil.Process().create_time()
    # psutil 7.2 adds the boot time, which Linux gives in whole seconds: it may be wrong by one.
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started_s = int(after_name[_START_TICKS]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
