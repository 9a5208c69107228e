"""Areas of a picture, as maps: where degradation is removed, which image counts more, what a camera does not show."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

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
_SIZES = 4  # whose maps are kept


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

    def read_mask(self) -> Uint8 | None:
        """Return the picture of its mask, grey (H, W); None without one. SourceUnreadableError if it cannot be read."""
        if self.mask is None:
            return None
        if not self.mask.is_file():
            raise SourceUnreadableError(f"the mask {self.mask} is no file; needed a picture; correct its name")
        return read_image(self.mask, color=False)

    def inside(self, size: Size, margin_px: int = 0, picture: Uint8 | None = None) -> "Part":
        """Return what of a picture of a size lies inside, and that far around it.

        picture: of its mask, see `read_mask`; None reads it.
        """
        height, width = size
        everywhere = slice(0, height), slice(0, width)
        picture = self.read_mask() if picture is None else picture
        if picture is not None:
            resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
            return Part(everywhere, np.asarray(resized, np.uint8))
        if not self.polygon:
            return Part(everywhere, np.full(size, 255, np.uint8))
        # Pixel centres lie at half numbers of the picture's edges, and at whole ones of OpenCV's.
        corners = np.array([[column * width - 0.5, row * height - 0.5] for row, column in self.polygon])
        low = np.maximum(np.floor(corners.min(axis=0)).astype(int) - margin_px, 0)
        high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + margin_px + 1, (width, height))
        inside = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillPoly(
            inside,
            [np.rint((corners - low) * _PARTS).astype(np.int32)],
            255,
            lineType=cv2.LINE_8,
            shift=_PARTS.bit_length() - 1,
        )
        return Part((slice(low[1], high[1]), slice(low[0], high[0])), inside)


class Part(NamedTuple):
    """A rectangle of a picture, and what lies in the area there: uint8, 255 inside, 0 outside."""

    place: tuple[slice, slice]
    inside: Uint8


class Areas:
    """Areas laid over one another: where two have a share and overlap, the later one holds. Elsewhere it is 1.

    So it is with two that have an attention; elsewhere that is 0. The maps for a size are kept for the next pair of
    that size. Areas do not change: to have others, give a fuser others, `fuser.areas = Areas(...)`, at any time and
    from any thread; they hold for the pairs that begin later. Masks are read once, here: SourceUnreadableError and
    SourceMissingError.

    below: lie under these areas, with masks that are read already.
    """

    def __init__(self, areas: Iterable[Area], below: "Areas | None" = None) -> None:
        own, under = tuple(areas), () if below is None else below.areas
        self.areas: Sequence[Area] = (*under, *own)
        self._masks: list[Uint8 | None] = [
            *(() if below is None else below._masks),
            *(area.read_mask() for area in own),
        ]
        laid = list(zip(self.areas, self._masks, strict=True))
        self._shares = [(area, area.share, mask) for area, mask in laid if area.share is not None]
        self._attended = [(area, area.attention, mask) for area, mask in laid if area.attention is not None]
        self._unseen = [(area, mask) for area, mask in laid if not area.valid]
        self._strengths, self._attentions, self._validities = (_Kept() for _ in range(3))
        self._joined: tuple[Uint8, Uint8] | None = None

    def strength_map(self, size: Size) -> Uint8 | None:
        """Return uint8 (H, W, 2), infrared and visible, 255 is all of the strength; None where it is so everywhere."""
        if all(share == 1 for _, share, _ in self._shares):
            return None
        return self._strengths.of(size, self._drawn)

    def attention(self, size: Size) -> Float32 | None:
        """Return float32 (H, W), -1 to 1, soft at the edges of areas; None where it is 0 everywhere."""
        if not any(attention for _, attention, _ in self._attended):
            return None
        return self._attentions.of(size, self._leaning)

    def validity(self, size: Size, other: Uint8 | None = None) -> Uint8 | None:
        """Return uint8 (H, W, 2), infrared and visible: 255 where that camera shows the scene, 0 where it does not.

        other: another such map, of the pair. It holds too, and where the other camera shows nothing by it, an area does
        not count: one image is better than none. The same array gives the same result again. None if all is seen.
        """
        if not self._unseen:
            return other
        own: Uint8 = self._validities.of(size, self._seen)
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
        for area, attention, mask in self._attended:
            place, inside = area.inside(size, SOFT_PX, mask)
            soft = cv2.blur(inside, (SOFT_PX + 1,) * 2).astype(np.float32) / 255
            found[place] += soft * (np.float32(attention) - found[place])
        return found

    def _seen(self, size: Size) -> Uint8:
        seen = np.full((*size, 2), 255, np.uint8)
        kernel = np.ones((SOFT_PX + 1,) * 2, np.uint8)  # grown by half of it, then blurred by as much
        for area, mask in self._unseen:
            place, inside = area.inside(size, 2 * SOFT_PX, mask)
            hidden = cv2.blur(cv2.dilate(inside, kernel), kernel.shape)
            plane = seen[(*place, ("infrared", "visible").index(area.modality))]
            np.minimum(plane, 255 - hidden, out=plane)
        return seen

    def _drawn(self, size: Size) -> Uint8:
        shares = np.full((*size, 2), 1, np.float32)
        for area, share, mask in self._shares:
            place, inside = area.inside(size, 0, mask)
            part = inside.astype(np.float32) / 255
            for index, modality in enumerate(("infrared", "visible")):
                if area.modality in ("both", modality):
                    plane = shares[(*place, index)]
                    plane += part * (np.float32(share) - plane)
        return np.asarray(np.rint(shares * 255), np.uint8)


class _Kept:
    """The maps of the last few sizes, which nobody may write to."""

    def __init__(self) -> None:
        self._maps: dict[Size, NDArray[Any]] = {}

    def of(self, size: Size, draw: Callable[[Size], NDArray[Any]]) -> NDArray[Any]:
        key = int(size[0]), int(size[1])
        found = self._maps.get(key)
        if found is None:
            found = draw(key)
            found.setflags(write=False)
            self._maps = dict([*list(self._maps.items())[1 - _SIZES :], (key, found)])
        return found
