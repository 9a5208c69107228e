"""Scores of whole folders: every stem read once, scored beside the baselines, and averaged."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.camera.picture_folder import find_pictures
from cled_edge.cpu import usable_cores
from cled_edge.data.naming import Names
from cled_edge.errors import CledEdgeError, OptionError, UnmatchedStemsError
from cled_edge.image import grey_from_any, read_any_depth, swapped
from cled_edge.metrics.flicker import FlickerMeter
from cled_edge.metrics.fused import fusion_scores
from cled_edge.metrics.luma import check_sizes, luma
from cled_edge.metrics.psnr import psnr_db
from cled_edge.metrics.reference import MS_SSIM_SMALLEST, Profile, ms_ssim, ssim
from cled_edge.pairing import listed, match_names
from cled_edge.thermal import WHITE_HOT, Thermal

Scores = dict[str, float | None]
Rows = dict[str, Scores]  # of one image: "fused", "maximum", ... -> scores
Files = dict[str, Path]  # of one stem: source -> file

MODALITIES = "infrared", "visible"


@dataclass(frozen=True)
class Sources:
    """What is scored: each a folder, a glob or an image. `restored` is a folder as `cled-edge fuse` writes.

    Where a reference is given, the fused images are scored against it instead of against the input.
    names: how names are made, see `cled_edge.pairing.pair_by_stem`. thermal: how infrared values become grey.
    """

    infrared: str
    visible: str
    fused: str
    restored: str | None = None
    reference_infrared: str | None = None
    reference_visible: str | None = None
    names: Names | None = None
    thermal: Thermal = WHITE_HOT

    def __post_init__(self) -> None:
        if self.restored is not None and not self.referenced:
            raise OptionError(
                f"restored {self.restored} has no reference; it is scored against clean images; "
                "give reference_infrared, reference_visible or both"
            )

    @property
    def referenced(self) -> tuple[str, ...]:
        """The modalities that have a reference."""
        return tuple(modality for modality in MODALITIES if getattr(self, f"reference_{modality}") is not None)

    def files(self) -> list[tuple[str, Files]]:
        """Return what `match_stems` does; raises its errors and those of `find_pictures`."""
        named = {"infrared": self.infrared, "visible": self.visible, "fused": self.fused}
        for modality in self.referenced:
            named[f"reference_{modality}"] = getattr(self, f"reference_{modality}")
            if self.restored is not None:
                named[f"restored_{modality}"] = str(Path(self.restored) / modality)
        found = {source: _images(address) for source, address in named.items()}
        if all(Path(address).is_file() for address in named.values()):
            return [(Path(self.fused).stem, {source: paths[0] for source, paths in found.items()})]
        return match_stems(found, self.names)


def match_stems(found: Mapping[str, Sequence[Path]], names: Names | None = None) -> list[tuple[str, Files]]:
    """Return (stem, source -> file), frame_9 before frame_10; stems are of the fused images.

    names: see `cled_edge.pairing.match_names`. UnmatchedStemsError if a stem is not in every source, or twice in one.
    """
    matched = match_names(found, names)
    keys = sorted({key for files in matched.values() for key in files}, key=_natural)
    lacking = {source: [key for key in keys if key not in files] for source, files in matched.items()}
    lonely = [f"{len(missing)} not in {source}: {listed(missing)}" for source, missing in lacking.items() if missing]
    if lonely:
        raise UnmatchedStemsError(
            f"stems differ, {'; '.join(lonely)}; every stem needs an image in each source; "
            "remove or rename the others, choose some by a glob, or give templates of names"
        )
    together = ((key, {source: files[key] for source, files in matched.items()}) for key in keys)
    return [(files["fused"].stem if "fused" in files else key, files) for key, files in together]


def score_sources(
    sources: Sources,
    matched: Sequence[tuple[str, Files]],
    profile: Profile,
    *,
    sequence: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the scores of all stems that `sources.files` matched, and their means, as plain values.

    sequence: the images are consecutive frames, and their flicker is scored too. advance: called after each image, for
    flicker once more.
    """
    rows = score_images(matched, profile, advance, sources.thermal)
    values: dict[str, Any] = {
        "profile": profile,
        "pictures": len(rows),
        "sources": {name: value for name, value in vars(sources).items() if isinstance(value, str)},
        "against": {name: "reference" if name in sources.referenced else "input" for name in MODALITIES},
        "means": means([scores for _, scores in rows]),
        "rows": [{"stem": stem, **scores} for stem, scores in rows],
    }
    if sequence:
        meter = flicker_of(matched, advance, sources.thermal)
        values["flicker"] = {"levels": meter.levels, "still_percent": meter.still_percent}
    return values


def score_image(stem: str, files: Files, profile: Profile, thermal: Thermal) -> Rows:
    """Score one fused image, the baselines and the restored images of one stem."""
    images = {
        source: _read(path, thermal if source in ("infrared", "reference_infrared") else None, "infrared" in source)
        for source, path in files.items()
    }
    try:
        check_sizes(**images)
        return _rows(images, profile)
    except CledEdgeError as error:
        raise type(error)(f"image {stem}: {error}") from error


def score_images(
    matched: Sequence[tuple[str, Files]], profile: Profile, advance: Callable[[], None], thermal: Thermal = WHITE_HOT
) -> list[tuple[str, Rows]]:
    """Score every stem, as many at a time as there are cores; `advance` is called after each."""
    pool = ThreadPoolExecutor(usable_cores())
    try:
        rows = []
        for stem, scored in pool.map(lambda item: (item[0], score_image(item[0], item[1], profile, thermal)), matched):
            rows.append((stem, scored))
            advance()
        return rows
    finally:
        pool.shutdown(cancel_futures=True)


def flicker_of(matched: Sequence[tuple[str, Files]], advance: Callable[[], None], thermal: Thermal) -> FlickerMeter:
    """Return the flicker of the fused images, taken for consecutive frames, against what they are scored against."""
    meter = FlickerMeter()
    for _, files in matched:
        infrared = _read(files.get("reference_infrared", files["infrared"]), thermal, True)
        visible = _read(files.get("reference_visible", files["visible"]))
        meter.add(infrared, visible, _read(files["fused"]))
        advance()
    return meter


def means(rows: Sequence[Rows]) -> Rows:
    """Return the mean of every score over the images that have it; identical images have no finite PSNR."""
    return {
        name: {metric: _mean([row[name][metric] for row in rows]) for metric in scores}
        for name, scores in (rows[0] if rows else {}).items()
    }


def _rows(images: Mapping[str, NDArray[Any]], profile: Profile) -> Rows:
    infrared, visible = images["infrared"], images["visible"]
    a, b = (images.get(f"reference_{modality}", images[modality]) for modality in MODALITIES)
    fusions = {
        "fused": images["fused"],
        "maximum": np.maximum(luma(infrared), luma(visible)),
        "visible copy": visible,
    }
    if a is not infrared or b is not visible:
        fusions["clean maximum"] = np.maximum(luma(a), luma(b))
    rows: Rows = {name: dict(fusion_scores(a, b, fusion, profile)) for name, fusion in fusions.items()}
    for modality in MODALITIES:
        if f"restored_{modality}" in images:
            reference = images[f"reference_{modality}"]
            rows[f"{modality} input"] = _full_reference(images[modality], reference)
            rows[f"{modality} restored"] = _full_reference(images[f"restored_{modality}"], reference)
    return rows


def _full_reference(image: NDArray[Any], reference: NDArray[Any]) -> Scores:
    if image.ndim != reference.ndim:  # grey beside RGB
        image, reference = luma(image), luma(reference)
    large = min(image.shape[:2]) >= MS_SSIM_SMALLEST
    return {
        "psnr_db": psnr_db(image, reference),
        "ssim": ssim(image, reference),
        "ms_ssim": ms_ssim(image, reference) if large else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite and any(value is not None for value in values):
        return math.inf
    return math.fsum(finite) / len(finite) if finite else None


def _images(source: str) -> list[Path]:
    found = find_pictures(source)
    if found is None:
        raise OptionError(
            f"{source} is not a folder, glob or image; scores need images; take a video apart first: "
            f"ffmpeg -i VIDEO -start_number 0 DIR/%06d.png"
        )
    return found


def _read(path: Path, thermal: Thermal | None = None, is_grey: bool = False) -> NDArray[Any]:
    """Return an image in 8 bit; values of a thermal camera become grey as the fuser makes them so."""
    image = read_any_depth(path)
    if is_grey:
        if image.dtype == np.uint16 or thermal not in (None, WHITE_HOT):
            return grey_from_any(image, "BGR", thermal or WHITE_HOT)
        return luma(_rgb(image), str(path))
    if image.dtype != np.uint8:
        raise OptionError(f"{path} is {image.dtype}; visible and fused images must be 8 bit; convert it first")
    return _rgb(image)


def _rgb(image: NDArray[Any]) -> NDArray[Any]:
    return swapped(image) if image.ndim == 3 and image.dtype == np.uint8 else image


def _natural(stem: str) -> list[tuple[int, str]]:
    """Return a sort key that counts runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", stem)]
