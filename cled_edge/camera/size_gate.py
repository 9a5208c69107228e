"""Which of two live cameras is left out because it changed its size, and no pair can be made of it."""

from collections.abc import Sequence

from cled_edge.size import Size


class SizeGate:
    """Compares the sizes that two cameras give with those of the pairs before. Sizes are (height, width).

    paired: sizes of a whole pair, infrared first; None before the first, and then nothing is left out. keeps: both must
    keep them, as with a calibration; else both may go over to new ones that fit each other, and one alone to any,
    but not to those that were refused: whatever cannot be fused is left out until a size that can is back.
    crop_rows: see `cropped`. unfit: which camera is left out, infrared first.
    """

    def __init__(self, crop_rows: tuple[int, int] = (0, 0)) -> None:
        self.crop_rows = crop_rows
        self.keeps = False
        self.paired: tuple[Size, Size] | None = None
        self.unfit = (False, False)
        self._now: list[Size | None] = [None, None]
        self._fused: tuple[Size, Size] | None = None
        self._refused: set[tuple[Size | None, Size | None]] = set()  # infrared first, None of one that was not there

    def see(self, index: int, size: Size, is_alone: bool) -> bool:
        """Take the size of a camera's next frame; return whether no frame of before fits the next ones.

        is_alone: the other camera is lost.
        """
        before = self.unfit, tuple(self._now)
        self._now[index] = size
        self.unfit = self._judged(index, is_alone)
        return self.paired is not None and before != (self.unfit, tuple(self._now))

    def prove(self, sizes: tuple[Size, Size]) -> None:
        """Take it that a pair of these sizes was fused."""
        self._fused = sizes

    def refuse(self, indexes: Sequence[int]) -> None:
        """Take it that a pair of the newest sizes cannot be fused, of these cameras: 0 infrared, 1 visible."""
        self._refused.add(self._of(*indexes))
        self.paired = self._fused
        self.unfit = 0 in indexes or self.unfit[0], 1 in indexes or self.unfit[1]

    def _judged(self, index: int, is_alone: bool) -> tuple[bool, bool]:
        infrared, visible = self._now
        is_refused_alone = self._of(index) in self._refused
        if self.paired is None:
            return (is_refused_alone, self.unfit[1]) if index == 0 else (self.unfit[0], is_refused_alone)
        if not self.keeps and infrared and visible and self._fit(infrared, visible):
            self.paired = infrared, visible
        wrong = [now is not None and now != size for now, size in zip(self._now, self.paired, strict=True)]
        if is_alone and not self.keeps:
            wrong[index] = is_refused_alone
        return wrong[0], wrong[1]

    def _of(self, *indexes: int) -> tuple[Size | None, Size | None]:
        return self._now[0] if 0 in indexes else None, self._now[1] if 1 in indexes else None

    def _fit(self, infrared: Size, visible: Size) -> bool:
        heights = infrared[0], infrared[0] - sum(self.crop_rows)
        return infrared[1] == visible[1] and visible[0] in heights and (infrared, visible) not in self._refused
