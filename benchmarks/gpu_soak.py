"""A long run in which every frame is checked against its own inputs: no stale frame, no stale control, no memory lost.

Every frame is another: pictures alternate and are stamped with the frame's number. Its strengths are others too: by
turns infrared's or visible's is 0, the other one is drawn, as the balance is. Where the strength is 0, the restored
picture is the input, byte for byte. So a picture of an earlier frame differs by its stamp, and a strength of the frame
before, which was not 0, by what it removed; that it removes something is looked at first. All three outputs come out of
one launch; each frame looks at one, and the next at the other.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.timing import percentiles_ms
from cled_edge.backend.protocol import Array

SIDES = ("infrared", "visible")
PICTURES = 7  # an odd number: every picture meets both turns
MEMORY_SAMPLES = 100
SETTLED = 0.05  # of the frames, until memory is looked at: pools fill at first
_KEPT_EVERY = 20  # latencies that stay in the result
Run = Callable[[Mapping[str, Array]], Sequence[Array]]
Memory = Callable[[], tuple[int, int]]  # bytes in use of the GPU, and of this process on the host


class Stamped:
    """Frames of a loop, written into the arrays that it takes, (1, H, W, 1), (1, H, W, 3), (2,) and (1,).

    written: what the two pictures are now, by side, in arrays of its own.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays, self._rng = arrays, np.random.default_rng(0)
        self._pictures = [
            {side: self._rng.integers(0, 256, arrays[side].shape, np.uint8) for side in SIDES} for _ in range(PICTURES)
        ]
        self.written = self._pictures[0]

    def write(self, index: int, strengths: tuple[float, float] | None = None) -> str:
        """Write frame `index`; return the side whose strength is 0, unless `strengths` are given."""
        turn = index % 2
        self.written = self._pictures[index % PICTURES]
        for side, picture in self.written.items():
            picture.reshape(-1)[:8] = np.frombuffer(np.uint64(index).tobytes(), np.uint8)
            self._arrays[side][...] = picture
        drawn = self._rng.uniform(0.25, 1.0)
        self._arrays["strength"][...] = strengths or ((0.0, drawn) if turn == 0 else (drawn, 0.0))
        self._arrays["balance"][...] = self._rng.uniform(0.0, 1.0)
        return SIDES[turn]

    def is_own(self, side: str, outputs: Sequence[Array]) -> bool:
        """Say whether outputs (fused, infrared, visible) are of this frame, by the side whose strength is 0."""
        return np.array_equal(outputs[1 + SIDES.index(side)], self.written[side])


def soak(
    run: Run,
    arrays: Mapping[str, Array],
    frames: int,
    memory: Memory,
    clock_s: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Run so many frames; return how many were stale, what memory grew by, and latencies of `run` alone.

    sees_strengths: whether strength 1 changes both pictures, without which a stale strength could not be seen.
    """
    stamped = Stamped(arrays)
    stamped.write(0, (1.0, 1.0))
    outputs = run(arrays)
    sees_strengths = not any(stamped.is_own(side, outputs) for side in SIDES)
    stale: list[int] = []
    times_ms = np.empty(frames)
    taken: list[tuple[int, int, int]] = []
    settled, every = round(frames * SETTLED), max(1, frames // MEMORY_SAMPLES)
    for index in range(frames):
        side = stamped.write(index + 1)
        begin_s = clock_s()
        outputs = run(arrays)
        times_ms[index] = (clock_s() - begin_s) * 1e3
        if not stamped.is_own(side, outputs):
            stale.append(index)
        if index >= settled and (index - settled) % every == 0:
            taken.append((index, *memory()))
    taken.append((frames, *memory()))
    return {
        "frames": frames,
        "sees_strengths": sees_strengths,
        "stale": len(stale),
        "first_stale": stale[:10],
        "gpu_grown_bytes": taken[-1][1] - taken[0][1],
        "host_grown_bytes": taken[-1][2] - taken[0][2],
        "memory": taken,
        "host_ms": percentiles_ms(times_ms),
        "samples_ms": [round(float(value), 4) for value in times_ms[::_KEPT_EVERY]],
    }
