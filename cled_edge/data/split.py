"""The held-out split: which stems and patients training never sees and every benchmark measures on."""

import zlib
from collections.abc import Collection

# By folder. The tenth that `is_held_out` takes has none of the three PET patients: `nano-medical.toml` names this one.
NAMED_PATIENTS: dict[str, tuple[str, ...]] = {"pet-mri": ("30",)}


def is_held_out(unit: str, named: Collection[str] = ()) -> bool:
    """Return whether a stem or a patient is held out: it belongs to the tenth that always is, or is `named`."""
    return zlib.crc32(unit.encode()) % 10 == 0 or unit in named
