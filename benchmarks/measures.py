"""What is measured of images: a scene and a fuser in, a row for each image and method out.

A row is flat: what was measured on (folder, stem, light, case, method) and the numbers.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import BASELINES, LumaFusion, luma_of, maximum
from benchmarks.ems import Case
from benchmarks.held_out import Box, Scene, contrast
from benchmarks.result import Row
from cled_edge.contract import Controls
from cled_edge.cpu import usable_cores
from cled_edge.frame import FusedFrame
from cled_edge.image import Uint8
from cled_edge.metrics.fused import fusion_scores
from cled_edge.metrics.psnr import psnr_db
from cled_edge.metrics.reference import ssim

OURS, CEILING = "ours", "max of the clean pair"
CLEAN, NINE = "clean", "nine single degradations"  # cases: nothing is degraded; nine cases together
DEGRADED_FOLDERS = ("pairs/msrs", "pairs/roadscene")  # sharp, with little noise of their own
SHORT = ("mi", "vif", "qabf", "nabf", "ssim")  # scores kept of degraded pairs
EQUAL_DB = 99.0  # stands for the infinite PSNR of equal images


class PairFuser(Protocol):
    """What is measured: `cled_edge.fuser.Fuser`, or anything that is called like it."""

    def __call__(
        self, infrared: NDArray[Any], visible: NDArray[Any], controls: Controls | None = None, /
    ) -> FusedFrame:
        """Fuse a pair."""


def capped_db(image: Uint8, wanted: Uint8) -> float:
    """Return the PSNR, `EQUAL_DB` of equal images."""
    return min(EQUAL_DB, psnr_db(image, wanted))


class Scorer:
    """Scores fused lumas against their clean sources on all cores; `rows` waits for what was added since."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._waiting: list[tuple[Row, Future[Row]]] = []

    def add(self, tags: Row, sources: tuple[Uint8, Uint8], fused: Uint8, both_profiles: bool = False) -> None:
        """Score a fused luma."""
        self._waiting.append((tags, self._pool.submit(_scores, sources, fused, both_profiles)))

    def add_baselines(
        self, tags: Row, sources: tuple[Uint8, Uint8], inputs: tuple[Uint8, Uint8], both_profiles: bool = False
    ) -> None:
        """Score every baseline's fusion of two lumas."""
        for name, fusion in BASELINES.items():
            job = self._pool.submit(_baseline_scores, sources, inputs, fusion, both_profiles)
            self._waiting.append(({**tags, "method": name}, job))

    def rows(self) -> list[Row]:
        """Return the rows in the order in which they were added."""
        found = [{**tags, **job.result()} for tags, job in self._waiting]
        self._waiting.clear()
        return found


@contextmanager
def scorer() -> Iterator[Scorer]:
    """Open a scorer with a thread for each core: OpenCV and NumPy let go of the interpreter's lock."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        yield Scorer(pool)


def clean_rows(fuser: PairFuser, scene: Scene, score: Scorer) -> list[Row]:
    """Return the scores of the clean pair fused by ours and by the baselines, both profiles."""
    sources = scene.infrared, luma_of(scene.visible)
    fused = fuser(scene.infrared, scene.visible)
    score.add({**_tags(scene), "method": OURS}, sources, luma_of(fused.picture), both_profiles=True)
    score.add_baselines(_tags(scene), sources, sources, both_profiles=True)
    return score.rows()


def degraded_rows(
    fuser: PairFuser, scene: Scene, cases: Iterable[Case], score: Scorer | None
) -> tuple[list[Row], list[Row]]:
    """Return the scores of what was fused from each degraded pair, and what became of each degraded image.

    Scores are against the clean pair, none without a scorer. The images' rows have PSNR and SSIM against the clean
    image before and after restoration. Those of the case CLEAN tell what restoration does to a clean image.
    """
    sources = scene.infrared, luma_of(scene.visible)
    clean = fuser(scene.infrared, scene.visible)
    images = [
        image_row({**_tags(scene), "case": CLEAN, "modality": modality}, reference, restored, reference)
        for modality, reference, restored in _modalities(scene, clean)
    ]
    if score:
        score.add({**_tags(scene), "case": CLEAN, "method": CEILING}, sources, maximum(*sources))
    for case in cases:
        infrared, visible = case(scene.infrared, scene.visible, scene.seed)
        fused = fuser(infrared, visible)
        tags = {**_tags(scene), "case": case.name}
        degraded = {"infrared": infrared, "visible": visible}
        for modality, reference, restored in _modalities(scene, fused):
            if getattr(case, modality):
                images.append(image_row({**tags, "modality": modality}, degraded[modality], restored, reference))
        if score:
            score.add({**tags, "method": OURS}, sources, luma_of(fused.picture))
            score.add_baselines(tags, sources, (infrared, luma_of(visible)))
    return (score.rows() if score else []), images


def image_row(tags: Row, degraded: Uint8, restored: Uint8, reference: Uint8) -> Row:
    """Return PSNR in dB and SSIM of a degraded and a restored image against the reference."""
    row = dict(tags)
    for name, image in {"before": degraded, "after": restored}.items():
        value = psnr_db(image, reference)
        row[f"psnr_{name}_db"] = EQUAL_DB if value == inf else value
        row[f"ssim_{name}"] = ssim(image, reference)
    return row


def reference_row(fuser: PairFuser, folder: str, name: str, degraded: Uint8, reference: Uint8) -> Row:
    """Return the row of a real degraded image, RGB or grey. It stands for both: restoration looks at one alone."""
    modality, _, stem = name.partition(" ")
    fused = fuser(luma_of(degraded), degraded)
    restored = fused.infrared if modality == "infrared" else fused.visible
    return image_row({"folder": folder, "stem": stem, "modality": modality}, degraded, restored, reference)


def balance_rows(fuser: PairFuser, scene: Scene) -> list[Row]:
    """Return the SSIM of the fused luma with the restored image that each end of the balance stands for."""
    rows = []
    for balance, modality in ((0.0, "visible"), (1.0, "infrared")):
        fused = fuser(scene.infrared, scene.visible, Controls(balance=balance))
        value = ssim(luma_of(fused.picture), luma_of(getattr(fused, modality)))
        rows.append({**_tags(scene), "balance": balance, "modality": modality, "ssim": value})
    return rows


def people_rows(fuser: PairFuser, scene: Scene, boxes: list[Box]) -> list[Row]:
    """Return by how many 8-bit levels each person stands out in the infrared image and in the lumas of all fusions."""
    sources = scene.infrared, luma_of(scene.visible)
    lumas = {"infrared": scene.infrared, OURS: luma_of(fuser(scene.infrared, scene.visible).picture)}
    lumas |= {name: fusion(*sources) for name, fusion in BASELINES.items()}
    return [
        {**_tags(scene), "box": " ".join(map(str, box))} | {name: contrast(luma, box) for name, luma in lumas.items()}
        for box in boxes
    ]


def _tags(scene: Scene) -> Row:
    return {"folder": scene.folder, "stem": scene.stem, "light": scene.light}


def _modalities(scene: Scene, fused: FusedFrame) -> tuple[tuple[str, Uint8, Uint8], tuple[str, Uint8, Uint8]]:
    """Return name, clean and restored image of both modalities."""
    return ("infrared", scene.infrared, fused.infrared), ("visible", scene.visible, fused.visible)


def _scores(sources: tuple[Uint8, Uint8], fused: Uint8, both_profiles: bool) -> Row:
    row: Row = dict(fusion_scores(*sources, fused, profile="strict"))
    if not both_profiles:
        return {name: row[name] for name in SHORT}
    paper = fusion_scores(*sources, fused, profile="paper")
    # The profiles differ in these two.
    return row | {f"paper_{name}": paper[name] for name in ("nabf", "ssim")}


def _baseline_scores(
    sources: tuple[Uint8, Uint8], inputs: tuple[Uint8, Uint8], fusion: LumaFusion, both_profiles: bool
) -> Row:
    return _scores(sources, np.ascontiguousarray(fusion(*inputs)), both_profiles)
