"""Areas of a picture, as maps: where degradation is removed, which image counts more, what a camera does not show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np

from cled_edge.attention import attending
from cled_edge.errors import OptionError, SourceUnreadableError
from cled_edge.frame import FusedFrame
from cled_edge.image import Float32, Uint8, read_image
from cled_edge.registration.border import bordered
from cled_edge.size import Size

AreaModality = Literal["both", "infrared", "visible"]
Point = tuple[float, float]
SOFT_PX = 16  # over which validity falls to 0 beside what a camera does not show, and attention at an area's edge
_PARTS = 16  # of a pixel, to which OpenCV draws a polygon


@dataclass(frozen=True)
class Area:
    """A part of the picture and what holds there: a share, an attention or both, or that a camera is not valid.

    OptionError for what is not allowed.

    share: 0 leaves the part as it is, 1 removes all that `strength_infrared` and `strength_visible` ask for; None says
        nothing of it.
    modality: whose strength it is, or whose pixels.
    valid: False says that this camera shows nothing of the scene there, as where it sees the robot itself or has text
        in its picture: the fused image is the other one's. Such an area has no share, no attention and one modality.
        With a calibration it lies in the registered picture. Where neither camera is valid the infrared is shown.
    polygon: its corners, (row, column), each 0 at the top or left edge of the picture and 1 at the other.
    mask: a picture file instead, enlarged to the pair: white is inside, black outside, and grey lies between.
    Neither: all of the picture.
    attention: how far the fused image leans on one of the restored ones there, beyond what `balance` gives: -1 is the
        visible, 1 the infrared, 0 neither; None says nothing of it. It has no modality.
    """

    share: float | None = None
    modality: AreaModality = "both"
    polygon: tuple[Point, ...] = ()
    mask: Path | None = None
    valid: bool = True
    attention: float | None = None

    def __post_init__(self) -> None:
        """Check all values."""
        if self.attention is not None and not -1 <= self.attention <= 1:
            raise OptionError(
                f"the attention of an area is {self.attention}; it must lie between -1 (the visible) and 1 (the "
                "infrared)"
            )
        if self.share is not None and not 0 <= self.share <= 1:
            raise OptionError(f"the share of an area is {self.share}; it must lie between 0 and 1")
        if self.modality not in get_args(AreaModality):
            known = ", ".join(get_args(AreaModality))
            raise OptionError(f"the modality of an area is {self.modality!r}; known: {known}; choose one")
        says = [name for name in ("share", "attention") if getattr(self, name) is not None]
        if not self.valid and (self.modality == "both" or says):
            raise OptionError(
                f"an area that is not valid has the modality {self.modality!r} and {' and '.join(says) or 'no share'}; "
                "needed one camera, infrared or visible, and neither share nor attention; give two areas where both "
                "see nothing"
            )
        if self.valid and not says:
            raise OptionError("an area says nothing; needed a share, an attention, or valid = false; give one")
        if self.polygon and self.mask:
            raise OptionError("an area has a polygon and a mask; needed one of them; remove the other")
        if 0 < len(self.polygon) < 3:
            raise OptionError(f"the polygon of an area has {len(self.polygon)} corners; it needs 3 or more")
        for corner in self.polygon:
            if not all(0 <= value <= 1 for value in corner):
                raise OptionError(
                    f"a corner of an area is {corner}; it must be (row, column), each between 0 and 1 of the picture"
                )

    @classmethod
    def box(
        cls,
        top: float,
        left: float,
        bottom: float,
        right: float,
        share: float | None = None,
        modality: str = "both",
        valid: bool = True,
        attention: float | None = None,
    ) -> "Area":
        """Return the area of a box, such as a detector's: its sides as parts of the picture, 0 to 1."""
        if not (top < bottom and left < right):
            raise OptionError(f"a box goes from {(top, left)} to {(bottom, right)}; needed top < bottom, left < right")
        corners = ((top, left), (top, right), (bottom, right), (bottom, left))
        return cls(share, modality, corners, valid=valid, attention=attention)  # type: ignore[arg-type]  # checked there

    def inside(self, size: Size) -> Uint8:
        """Return uint8 (H, W): 255 inside, 0 outside. SourceUnreadableError if the mask cannot be read."""
        height, width = size
        if self.mask is not None:
            picture = read_image(self.mask, color=False)
            return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        if not self.polygon:
            return np.full(size, 255, np.uint8)
        inside = np.zeros(size, np.uint8)
        # Pixel centres lie at half numbers of the picture's edges, and at whole ones of OpenCV's.
        corners = np.array([[column * width - 0.5, row * height - 0.5] for row, column in self.polygon])
        cv2.fillPoly(
            inside,
            [np.rint(corners * _PARTS).astype(np.int32)],
            255,
            lineType=cv2.LINE_8,
            shift=_PARTS.bit_length() - 1,
        )
        return inside


class Areas:
    """Areas laid over one another: where two have a share and overlap, the later one holds. Elsewhere it is 1.

    So it is with two that have an attention; elsewhere that is 0. The maps for a size are kept for the next pair of
    that size. Areas do not change: to have others, give a fuser others, `fuser.areas = Areas(...)`, at any time and
    from any thread; they hold for the pairs that begin later. Masks are read once, here: SourceUnreadableError and
    SourceMissingError.
    """

    def __init__(self, areas: Iterable[Area]) -> None:
        self.areas: Sequence[Area] = tuple(areas)
        for area in self.areas:
            if area.mask is not None and not area.mask.is_file():
                raise SourceUnreadableError(f"the mask {area.mask} is no file; needed a picture; correct its name")
            area.inside((1, 1))
        self._shares = [(area, area.share) for area in self.areas if area.share is not None]
        self._attended = [(area, area.attention) for area in self.areas if area.attention is not None]
        self._unseen = [area for area in self.areas if not area.valid]
        self._strength, self._validity = lru_cache(maxsize=4)(self._drawn), lru_cache(maxsize=4)(self._seen)
        self._attention = lru_cache(maxsize=4)(self._leaning)
        self._joined: tuple[Uint8, Uint8] | None = None

    def strength_map(self, size: Size) -> Uint8 | None:
        """Return uint8 (H, W, 2), infrared and visible, 255 is all of the strength; None without areas of a share."""
        return self._strength((int(size[0]), int(size[1]))) if self._shares else None

    def attention(self, size: Size) -> Float32 | None:
        """Return float32 (H, W), -1 to 1, soft at the edges of areas; None without areas of an attention."""
        return self._attention((int(size[0]), int(size[1]))) if self._attended else None

    def validity(self, size: Size, other: Uint8 | None = None) -> Uint8 | None:
        """Return uint8 (H, W, 2), infrared and visible: 255 where that camera shows the scene, 0 where it does not.

        other: another such map, of the pair. It holds too, and where the other camera shows nothing by it, an area does
        not count: one image is better than none. The same array gives the same result again. None if all is seen.
        """
        if not self._unseen:
            return other
        own = self._validity((int(size[0]), int(size[1])))
        if other is None:
            return own
        joined = self._joined
        if joined is None or joined[0] is not other:
            shown = np.where(other[:, :, ::-1] > 0, np.minimum(own, other), other)
            joined = self._joined = other, np.asarray(shown, np.uint8)
        return joined[1]

    def finished(
        self, fused: FusedFrame, validity: Uint8 | None = None, attention: Float32 | None = None
    ) -> FusedFrame:
        """Return a result as attention asks, with the other camera's restored image where one shows nothing.

        validity: of the pair, see the method. attention: instead of the areas'.
        """
        size = fused.picture.shape[0], fused.picture.shape[1]
        asked, seen = self.attention(size) if attention is None else attention, self.validity(size, validity)
        if asked is not None:
            fused = attending(fused, asked)
        return fused if seen is None else bordered(fused, seen)

    def _leaning(self, size: Size) -> Float32:
        found = np.zeros(size, np.float32)
        for area, attention in self._attended:
            soft = cv2.blur(area.inside(size), (SOFT_PX + 1,) * 2).astype(np.float32) / 255
            found += soft * (np.float32(attention) - found)
        found.setflags(write=False)
        return found

    def _seen(self, size: Size) -> Uint8:
        seen = np.full((*size, 2), 255, np.uint8)
        kernel = np.ones((SOFT_PX + 1,) * 2, np.uint8)  # grown by half of it, then blurred by as much
        for area in self._unseen:
            hidden = cv2.blur(cv2.dilate(area.inside(size), kernel), kernel.shape)
            place = ("infrared", "visible").index(area.modality)
            seen[:, :, place] = np.minimum(seen[:, :, place], 255 - hidden)
        seen.setflags(write=False)
        return seen

    def _drawn(self, size: Size) -> Uint8:
        shares = np.full((*size, 2), 1, np.float32)
        for area, share in self._shares:
            inside = area.inside(size).astype(np.float32) / 255
            for place, modality in enumerate(("infrared", "visible")):
                if area.modality in ("both", modality):
                    shares[:, :, place] += inside * (np.float32(share) - shares[:, :, place])
        drawn = np.rint(shares * 255).astype(np.uint8)
        drawn.setflags(write=False)
        return drawn
