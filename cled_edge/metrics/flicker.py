"""Temporal flicker: how much a fused video changes where neither of its sources does."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.metrics.luma import check_sizes, luma

STILL_LEVELS = 3  # grey levels from frame to frame, of either source: sensor noise, not movement


class FlickerMeter:
    """Takes the frames of a video in their order; says how many grey levels it flickers.

    With d the change of a luma from one frame to the next, the flicker is the mean of
    max(0, |d fused| - max(|d infrared|, |d visible|)) over all pixels of all steps where both sources are still:
    |d infrared| and |d visible| at most `STILL_LEVELS`. What a source flickers by itself is not counted, so that the
    maximum, the mean and either source have exactly 0; amplified noise and networks that jump do not.
    """

    def __init__(self) -> None:
        self._last: list[NDArray[np.int16]] | None = None
        self._excess = 0
        self._still = 0
        self._pixels = 0

    def add(self, infrared: NDArray[Any], visible: NDArray[Any], fused: NDArray[Any]) -> None:
        """Take the next frame: uint8, grey (H, W) or RGB (H, W, 3). SizeMismatchError if sizes differ."""
        check_sizes(infrared=infrared, visible=visible, fused=fused)
        frame = [luma(x).astype(np.int16) for x in (infrared, visible, fused)]
        if self._last is not None:
            check_sizes(frame=frame[0], frame_before=self._last[0])
            d_infrared, d_visible, d_fused = (np.abs(x - y) for x, y in zip(frame, self._last, strict=True))
            allowed = np.maximum(d_infrared, d_visible)
            still = allowed <= STILL_LEVELS
            self._excess += int(np.maximum(d_fused - allowed, 0)[still].sum(dtype=np.int64))
            self._still += int(still.sum())
            self._pixels += still.size
        self._last = frame

    @property
    def levels(self) -> float | None:
        """The flicker, grey levels; None before a pixel was still for two frames."""
        return self._excess / self._still if self._still else None

    @property
    def still_percent(self) -> float | None:
        """How much of the video was still, and so judged; None before the second frame."""
        return 100 * self._still / self._pixels if self._pixels else None
