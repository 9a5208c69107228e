"""What a pair tells beside its pixels: whether it can be fused, which image is flat, how old it is, what is lost."""

import time
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from cled_edge.contract import Controls
from cled_edge.errors import SizeMismatchError
from cled_edge.frame import FramePair, FusedFrame
from cled_edge.image import is_flat
from cled_edge.thermal import COLORED, is_colored

FLAT = "a flat {modality} image, as of a lens cap, a shutter or glare, passes through as it is"


def check_sizes(infrared: tuple[int, ...], visible: tuple[int, ...]) -> None:
    """Raise SizeMismatchError unless both shapes start with the same height and width."""
    if infrared[:2] != visible[:2]:
        (h, w), (other_h, other_w) = infrared[:2], visible[:2]
        raise SizeMismatchError(
            f"infrared is {h}x{w}, visible {other_h}x{other_w} (height x width); they must be registered to the same "
            "pixels: find once how one is warped onto the other with `cled-edge calibrate`, or resize both to one size"
        )


def examined(infrared: NDArray[Any], visible: NDArray[Any], controls: Controls) -> tuple[Controls, tuple[str, ...]]:
    """Return the controls for a pair, with strength 0 for what is flat, and what the user should know of it."""
    notes = [COLORED] if is_colored(infrared) else []
    for modality, image in (("infrared", infrared), ("visible", visible)):
        if is_flat(image):
            notes.append(FLAT.format(modality=modality))
            passing: dict[str, Any] = {f"strength_{modality}": 0.0}
            controls = replace(controls, **passing)
    return controls, tuple(notes)


def are_flat(notes: Collection[str]) -> bool:
    """Say whether notes of `examined` tell that both images are flat."""
    return all(FLAT.format(modality=modality) in notes for modality in ("infrared", "visible"))


def completed(fused: FusedFrame, pair: FramePair) -> FusedFrame:
    """Return the result with what its pair tells, and without the note that a lost camera's image is flat."""
    if pair.degraded:
        lost = FLAT.format(modality=pair.degraded.partition(" ")[0])
        fused = replace(fused, notes=tuple(note for note in fused.notes if note != lost))
    return timed(fused, pair)


def timed(fused: FusedFrame, pair: FramePair) -> FusedFrame:
    """Return the result with what its pair tells: how old both frames are by now, their skew, name, time and notes."""
    infrared_age_ns, visible_age_ns = pair.ages_ns(time.monotonic_ns())
    timestamp_ns, clock = pair.time
    return replace(
        fused,
        infrared_age_ns=infrared_age_ns,
        visible_age_ns=visible_age_ns,
        skew_ns=pair.skew_ns,
        name=pair.name,
        notes=(*pair.infrared.notes, *pair.visible.notes, *fused.notes),
        timestamp_ns=timestamp_ns,
        clock=clock,
        degraded=pair.degraded,
        states=pair.states,
        pair=pair,
    )
