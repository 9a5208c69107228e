"""The three parts of all data: to train on, to choose by while training, and to report on.

Stops, mixtures and recipes are chosen by one part, so that what is reported on another is no choice's own luck.
"""

import zlib
from collections.abc import Collection
from typing import Literal

Part = Literal["train", "choose", "report"]
# By folder. The tenth that is reported on has none of the three PET patients: `nano-medical.toml` names this one.
NAMED_PATIENTS: dict[str, tuple[str, ...]] = {"pet-mri": ("30",)}


def part_of(unit: str, named: Collection[str] = ()) -> Part:
    """Return the part of a stem or a patient: a tenth, and those `named`, are reported on; a tenth is chosen by."""
    place = zlib.crc32(unit.encode()) % 10
    if place == 0 or unit in named:
        return "report"
    return "choose" if place == 1 else "train"


def is_held_out(unit: str, named: Collection[str] = ()) -> bool:
    """Return whether a stem or a patient is reported on: no training and no choice sees it."""
    return part_of(unit, named) == "report"
