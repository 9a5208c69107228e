"""Which of two live cameras is left out because it changed its size, and no pair can be made of it."""

from cled_edge.size import Size


class SizeGate:
    """Compares the sizes that two cameras give with those of the pairs before. Sizes are (height, width).

    paired: sizes of a whole pair, infrared first; None before the first, and then nothing is left out. keeps: both must
    keep them, as with a calibration; else both may go over to new ones that fit each other, and one alone to any.
    crop_rows: see `cropped`. unfit: which camera is left out, infrared first.
    """

    def __init__(self, crop_rows: tuple[int, int] = (0, 0)) -> None:
        self.crop_rows = crop_rows
        self.keeps = False
        self.paired: tuple[Size, Size] | None = None
        self.unfit = (False, False)
        self._now: list[Size | None] = [None, None]

    def see(self, index: int, size: Size, is_alone: bool) -> bool:
        """Take the size of a camera's next frame; return whether no frame of before fits the next ones.

        is_alone: the other camera is lost.
        """
        before = self.unfit, tuple(self._now)
        self._now[index] = size
        self.unfit = self._judged(index, is_alone)
        return self.paired is not None and before != (self.unfit, tuple(self._now))

    def _judged(self, index: int, is_alone: bool) -> tuple[bool, bool]:
        infrared, visible = self._now
        if self.paired is None:
            return False, False
        if not self.keeps and infrared and visible and self._fit(infrared, visible):
            self.paired = infrared, visible
        wrong = [now is not None and now != size for now, size in zip(self._now, self.paired, strict=True)]
        if is_alone and not self.keeps:
            wrong[index] = False
        return wrong[0], wrong[1]

    def _fit(self, infrared: Size, visible: Size) -> bool:
        heights = infrared[0], infrared[0] - sum(self.crop_rows)
        return infrared[1] == visible[1] and visible[0] in heights
