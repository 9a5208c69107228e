"""Which infrared picture belongs to which visible one. Pure functions over names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cled_edge.errors import NoPairsError, UnmatchedStemsError

_NAMED = 3  # stems that an error names before it only counts


def pair_by_stem(infrared: Sequence[Path], visible: Sequence[Path]) -> list[tuple[str, Path, Path]]:
    """Return (stem, infrared, visible), sorted by stem.

    NoPairsError if one side is empty, UnmatchedStemsError if a stem lacks its other half or occurs twice.
    """
    halves = {"infrared": _by_stem(infrared, "infrared"), "visible": _by_stem(visible, "visible")}
    for name, half in halves.items():
        if not half:
            raise NoPairsError(
                f"no pictures on the {name} side; check the path, or name a folder that holds PNG or JPEG files"
            )
    only = {
        "infrared": sorted(halves["infrared"].keys() - halves["visible"].keys()),
        "visible": sorted(halves["visible"].keys() - halves["infrared"].keys()),
    }
    lonely = [f"{len(stems)} only in {name}: {listed(stems)}" for name, stems in only.items() if stems]
    if lonely:
        raise UnmatchedStemsError(
            f"stems differ, {'; '.join(lonely)}; rename or remove them so that every stem has both"
        )
    return [(stem, path, halves["visible"][stem]) for stem, path in sorted(halves["infrared"].items())]


def _by_stem(paths: Sequence[Path], name: str) -> Mapping[str, Path]:
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise UnmatchedStemsError(
                f"{name} stem {path.stem!r} occurs twice: {stems[path.stem]} and {path}; keep one"
            )
        stems[path.stem] = path
    return stems


def listed(stems: Sequence[str]) -> str:
    """Return the first stems by name and the count of the others."""
    more = f" and {len(stems) - _NAMED} more" if len(stems) > _NAMED else ""
    return ", ".join(stems[:_NAMED]) + more
