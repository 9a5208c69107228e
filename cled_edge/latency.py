"""Per-stage latency samples and their percentiles."""

from collections import defaultdict, deque
from collections.abc import Mapping

import numpy as np

STAGES = ("read", "prepare", "steps", "fusion", "output", "write")
PERCENTILES = (50, 90, 99)
KEPT_FRAMES = 10_000  # a robot runs for days


class LatencyLog:
    """Collects nanoseconds by stage over the last 10,000 frames; `total` is the sum of a frame's stages."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=KEPT_FRAMES))

    def add(self, frame_ns: Mapping[str, int]) -> None:
        """Add one frame."""
        for stage, value in frame_ns.items():
            self._samples[stage].append(value)
        self._samples["total"].append(sum(frame_ns.values()))

    def summary_ms(self) -> dict[str, dict[str, float]]:
        """Return stage -> {p50, p90, p99, max} in milliseconds, stages in the order of the frame's path."""
        table = {}
        for stage in (*STAGES, "total"):
            if stage in self._samples:
                values = np.array(self._samples[stage]) / 1e6
                row = {f"p{p}": round(float(np.percentile(values, p)), 3) for p in PERCENTILES}
                table[stage] = {**row, "max": round(float(values.max()), 3)}
        return table
