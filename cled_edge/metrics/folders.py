"""Scores of whole folders: every stem read once, scored beside the trivial fusions, and averaged."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.backend.cpu import usable_cores
from cled_edge.camera.source import find_pictures
from cled_edge.errors import CledEdgeError, OptionError, UnmatchedStemsError
from cled_edge.image import grey_from_any, read_any_depth, swapped
from cled_edge.metrics.flicker import FlickerMeter
from cled_edge.metrics.fused import fusion_scores
from cled_edge.metrics.luma import check_sizes, luma
from cled_edge.metrics.reference import MS_SSIM_SMALLEST, Profile, ms_ssim, psnr_db, ssim
from cled_edge.pairing import listed

Scores = dict[str, float | None]
Rows = dict[str, Scores]  # of one picture: "fused", "maximum", ... -> scores
Files = dict[str, Path]  # of one stem: side -> file

SIDES = "infrared", "visible"


@dataclass(frozen=True)
class Sources:
    """What is scored: each a folder, a glob or a picture. `restored` is a folder as `cled-edge fuse --restored` writes.

    Where a reference is given, the fused pictures are scored against it instead of against the input.
    """

    infrared: str
    visible: str
    fused: str
    restored: str | None = None
    reference_infrared: str | None = None
    reference_visible: str | None = None

    def __post_init__(self) -> None:
        if self.restored is not None and not self.referenced:
            raise OptionError(
                f"restored {self.restored} has no reference; it is scored against clean pictures; "
                "give --reference-infrared, --reference-visible or both"
            )

    @property
    def referenced(self) -> tuple[str, ...]:
        """The sides that have a reference."""
        references = self.reference_infrared, self.reference_visible
        return tuple(side for side, reference in zip(SIDES, references, strict=True) if reference is not None)

    def files(self) -> list[tuple[str, Files]]:
        """Return what `match_stems` does; raises its errors and those of `find_pictures`."""
        named = {"infrared": self.infrared, "visible": self.visible, "fused": self.fused}
        for side in self.referenced:
            named[f"reference_{side}"] = getattr(self, f"reference_{side}")
            if self.restored is not None:
                named[f"restored_{side}"] = str(Path(self.restored) / side)
        found = {side: _pictures(source) for side, source in named.items()}
        if all(Path(source).is_file() for source in named.values()):
            return [(Path(self.fused).stem, {side: paths[0] for side, paths in found.items()})]
        return match_stems(found)


def match_stems(found: Mapping[str, Sequence[Path]]) -> list[tuple[str, Files]]:
    """Return (stem, side -> file), frame_9 before frame_10.

    UnmatchedStemsError if a stem is not on every side, or twice on one.
    """
    by_stem: dict[str, Files] = {}
    for side, paths in found.items():
        for path in paths:
            files = by_stem.setdefault(path.stem, {})
            if side in files:
                raise UnmatchedStemsError(f"{side} stem {path.stem!r} occurs twice: {files[side]} and {path}; keep one")
            files[side] = path
    stems = sorted(by_stem, key=_natural)
    lacking = {side: [stem for stem in stems if side not in by_stem[stem]] for side in found}
    lonely = [f"{len(missing)} not in {side}: {listed(missing)}" for side, missing in lacking.items() if missing]
    if lonely:
        raise UnmatchedStemsError(
            f"stems differ, {'; '.join(lonely)}; every stem needs a picture on all sides; remove or rename the others, "
            "or choose some by a glob"
        )
    return [(stem, by_stem[stem]) for stem in stems]


def score_picture(stem: str, files: Files, profile: Profile) -> Rows:
    """Score one fused picture, the trivial fusions and the restored pictures of one stem."""
    pictures = {side: _read(path, grey="infrared" in side) for side, path in files.items()}
    try:
        check_sizes(**pictures)
        return _rows(pictures, profile)
    except CledEdgeError as error:
        raise type(error)(f"picture {stem}: {error}") from error


def score_pictures(
    matched: Sequence[tuple[str, Files]], profile: Profile, advance: Callable[[], None]
) -> list[tuple[str, Rows]]:
    """Score every stem, as many at a time as there are cores; `advance` is called after each."""
    pool = ThreadPoolExecutor(usable_cores())
    try:
        rows = []
        for stem, scored in pool.map(lambda item: (item[0], score_picture(item[0], item[1], profile)), matched):
            rows.append((stem, scored))
            advance()
        return rows
    finally:
        pool.shutdown(cancel_futures=True)


def flicker_of(matched: Sequence[tuple[str, Files]], advance: Callable[[], None]) -> FlickerMeter:
    """Return the flicker of the fused pictures, taken for consecutive frames, against what they are scored against."""
    meter = FlickerMeter()
    for _, files in matched:
        infrared = _read(files.get("reference_infrared", files["infrared"]), grey=True)
        visible = _read(files.get("reference_visible", files["visible"]), grey=False)
        meter.add(infrared, visible, _read(files["fused"], grey=False))
        advance()
    return meter


def means(rows: Sequence[Rows]) -> Rows:
    """Return the mean of every score over the pictures that have it; identical pictures have no finite PSNR."""
    return {
        name: {metric: _mean([row[name][metric] for row in rows]) for metric in scores}
        for name, scores in (rows[0] if rows else {}).items()
    }


def _rows(pictures: Mapping[str, NDArray[Any]], profile: Profile) -> Rows:
    infrared, visible = pictures["infrared"], pictures["visible"]
    a, b = (pictures.get(f"reference_{side}", pictures[side]) for side in SIDES)
    fusions = {
        "fused": pictures["fused"],
        "maximum": np.maximum(luma(infrared), luma(visible)),
        "visible copy": visible,
    }
    if a is not infrared or b is not visible:
        fusions["clean maximum"] = np.maximum(luma(a), luma(b))
    rows: Rows = {name: dict(fusion_scores(a, b, fusion, profile)) for name, fusion in fusions.items()}
    for side in SIDES:
        if f"restored_{side}" in pictures:
            reference = pictures[f"reference_{side}"]
            rows[f"{side} input"] = _full_reference(pictures[side], reference)
            rows[f"{side} restored"] = _full_reference(pictures[f"restored_{side}"], reference)
    return rows


def _full_reference(picture: NDArray[Any], reference: NDArray[Any]) -> Scores:
    large = min(picture.shape[:2]) >= MS_SSIM_SMALLEST
    return {
        "psnr_db": psnr_db(picture, reference),
        "ssim": ssim(picture, reference),
        "ms_ssim": ms_ssim(picture, reference) if large else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite and any(value is not None for value in values):
        return math.inf
    return math.fsum(finite) / len(finite) if finite else None


def _pictures(source: str) -> list[Path]:
    found = find_pictures(source)
    if found is None:
        raise OptionError(
            f"{source} is not a folder, glob or picture; scores need pictures; take a video apart first: "
            f"ffmpeg -i VIDEO -start_number 0 DIR/%06d.png"
        )
    return found


def _read(path: Path, *, grey: bool) -> NDArray[Any]:
    """Return a picture in 8 bit; raw thermal counts are stretched as the fuser stretches them."""
    picture = read_any_depth(path)
    if grey:
        return grey_from_any(picture, "BGR") if picture.dtype == np.uint16 else luma(_rgb(picture), str(path))
    if picture.dtype != np.uint8:
        raise OptionError(f"{path} is {picture.dtype}; visible and fused pictures must be 8 bit; convert it first")
    return _rgb(picture)


def _rgb(picture: NDArray[Any]) -> NDArray[Any]:
    return swapped(picture) if picture.ndim == 3 and picture.dtype == np.uint8 else picture


def _natural(stem: str) -> list[tuple[int, str]]:
    """Return a sort key that counts runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", stem)]
