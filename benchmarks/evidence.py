"""How often the named evidence of `cled_edge.evidence` is right, on simulated and on real images.

    python -m benchmarks.evidence --data DATA [--update]

Simulated: pairs that training held out, degraded by `ems.py`, which neither the networks nor the evidence were fitted
to, and by four kinds that EMS has not. Each image comes clean, with each kind, and with mixtures. Real: images whose
kind their owners state, against clean ones. A row tells of a kind against the rest: the area under its curve and, where
the shares of kinds are those of the simulation, the expected calibration error over ten bins.

Left open, as neither there nor absent: noise under stripes, rows and low light, whose simulators add it, and low light
in a visible image that is dark by itself. Confusion: of images with one kind, which is likeliest.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks import ems
from benchmarks.held_out import Scene, read_scenes
from benchmarks.result import Out, Row, Update, check_target, new_result, save
from cled_edge.decoder import IMAGE_SUFFIXES
from cled_edge.errors import DataError, one_line_errors
from cled_edge.evidence.judging import area_under_curve, calibration_error
from cled_edge.evidence.likelihood import KINDS, Modality, likely_kinds
from cled_edge.evidence.signs import signs_of
from cled_edge.image import Uint8, grey_from_any, read_any_depth, read_image
from cled_edge.pairing import open_pair

FOLDERS = ("msrs", "roadscene", "m3fd", "llvip")
PARTS = ("simulated", "confusion", "real", "intervention")
NONE = "none"
DARK_BELOW = 60.0  # mean luma
OWN_NOISE = {"stripes", "low_light", "strong_stripes", "rows"}
ALIASES = {"strong_stripes": "stripes"}
FRAMES_APART = 30
Rng = np.random.Generator


def rows(image: Uint8, rng: Rng) -> Uint8:
    """Add one offset to each row, as `ems.stripes` does to columns."""
    return np.ascontiguousarray(ems.stripes(np.ascontiguousarray(image.T), rng).T)


def dead_pixels(image: Uint8, rng: Rng) -> Uint8:
    """Make 0.1 to 0.5 % of the pixels black or white."""
    dead = rng.random(image.shape) < rng.uniform(0.001, 0.005)
    return np.where(dead, 255 * rng.integers(0, 2, image.shape), image).astype(np.uint8)


def shading(image: Uint8, rng: Rng) -> Uint8:
    """Add a vignette of 15 to 40 levels between the middle and the corners, brighter or darker."""
    height, width = image.shape
    rows_, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    field = (rows_**2 + columns**2) / 2
    return np.clip(image + rng.choice((-1, 1)) * rng.uniform(15, 40) * field, 0, 255).round().astype(np.uint8)


def jpeg(image: Uint8, rng: Rng) -> Uint8:
    """Code as JPEG of quality 20 to 60."""
    quality = int(rng.integers(20, 60))
    _, coded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)[:, :, ::-1])


SIMULATORS: dict[Modality, dict[str, Callable[[Uint8, Rng], Uint8]]] = {
    "infrared": {**ems.INFRARED, "rows": rows, "dead_pixels": dead_pixels, "shading": shading},
    "visible": {**ems.VISIBLE, "jpeg": jpeg},
}
MIXTURES: dict[Modality, tuple[tuple[str, ...], ...]] = {
    "infrared": (("stripes", "noise"), ("low_contrast", "stripes"), ("blur", "dead_pixels")),
    "visible": (("haze", "noise"), ("low_light", "noise"), ("haze", "rain"), ("blur", "jpeg")),
}


class Sample(NamedTuple):
    """An image by what is in it: `there`, and what is left open; and what the evidence says of it."""

    there: frozenset[str]
    left_open: frozenset[str]
    told: dict[str, float]


def image_of(scene: Scene, modality: Modality) -> Uint8:
    """Return a scene's image of a modality."""
    return scene.infrared if modality == "infrared" else scene.visible


def simulated(scenes: list[Scene], modality: Modality) -> Iterator[Sample]:
    """Yield every image clean, with each kind and with each mixture."""
    cases = ((), *((name,) for name in SIMULATORS[modality]), *MIXTURES[modality])
    for scene in scenes:
        clean = image_of(scene, modality)
        is_dark = modality == "visible" and float(signs_of(clean)["mean"]) < DARK_BELOW
        for case in cases:
            rng = np.random.default_rng([*scene.seed, *"+".join(case).encode()])
            image = clean
            for name in case:
                image = SIMULATORS[modality][name](image, rng)
            left_open = ({"noise"} if OWN_NOISE & set(case) else set()) | ({"low_light"} if is_dark else set())
            there = frozenset(ALIASES.get(name, name) for name in case)
            yield Sample(there, frozenset(left_open) - there, likely_kinds(signs_of(image), modality))


def kind_row(samples: list[Sample], modality: Modality, kind: str) -> Row:
    """Return how well a kind is told from the rest."""
    known = [sample for sample in samples if kind not in sample.left_open]
    labels = np.array([kind in sample.there for sample in known])
    told = np.array([sample.told[kind] for sample in known])
    return {
        "part": "simulated",
        "modality": modality,
        "kind": kind,
        "positives": int(labels.sum()),
        "negatives": int((~labels).sum()),
        "auc": round(area_under_curve(told, labels), 4),
        "calibration_error": round(calibration_error(told, labels), 4),
    }


def confusion_rows(samples: list[Sample], modality: Modality, least: float = 0.5) -> Iterator[Row]:
    """Yield, for each single kind and for clean images, how often which kind is likeliest; none if all are unlikely."""
    counts: dict[str, Counter[str]] = {}
    for sample in samples:
        if len(sample.there) <= 1:
            known = sample.told.keys() - sample.left_open
            likeliest = max(sorted(known), key=lambda kind: sample.told[kind])
            named = likeliest if sample.told[likeliest] >= least else NONE
            counts.setdefault(next(iter(sample.there), NONE), Counter())[named] += 1
    for kind, told in sorted(counts.items()):
        total = sum(told.values())
        shares = {name: round(told[name] / total, 3) for name in (*KINDS[modality], NONE) if told[name]}
        yield {"part": "confusion", "modality": modality, "kind": kind, "images": total, **shares}


def intervention_rows(scenes: list[Scene], modality: Modality) -> Iterator[Row]:
    """Yield, for each kind put into clean images, how far its own evidence moves, and how often it moves most."""
    moved: dict[str, list[dict[str, float]]] = {}
    for scene in scenes:
        clean = image_of(scene, modality)
        before = likely_kinds(signs_of(clean), modality)
        for name, simulate in SIMULATORS[modality].items():
            rng = np.random.default_rng([*scene.seed, *name.encode()])
            after = likely_kinds(signs_of(simulate(clean, rng)), modality)
            moved.setdefault(name, []).append({kind: after[kind] - before[kind] for kind in after})
    for name, found in moved.items():
        kind = ALIASES.get(name, name)
        left_out = {kind} | ({"noise"} if name in OWN_NOISE else set())
        others = [max(moves for other, moves in each.items() if other not in left_out) for each in found]
        yield {
            "part": "intervention",
            "modality": modality,
            "put_in": name,
            "images": len(found),
            "own_evidence_moves": round(float(np.mean([each[kind] for each in found])), 3),
            "another_moves_at_most": round(float(np.mean(others)), 3),
            "own_moves_most": round(
                float(np.mean([each[kind] >= o for each, o in zip(found, others, strict=True)])), 3
            ),
        }


class RealSet(NamedTuple):
    """Real images with a kind, and real images without it."""

    name: str
    modality: Modality
    kind: str
    positives: list[Uint8]
    negatives: list[Uint8]


def images_in(folder: Path, modality: Modality, every: int = 1) -> list[Uint8]:
    """Read every nth image of a folder; infrared of 16 bit is stretched. DataError if there is none."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)[::every]
    if not paths:
        raise DataError(f"{folder} holds no images; point --data at the folder whose README tells of it")
    if modality == "visible":
        return [read_image(path, color=True) for path in paths]
    return [grey_from_any(read_any_depth(path), "BGR") for path in paths]


def frames_of(clip: Path) -> list[Uint8]:
    """Read every FRAMES_APARTth visible frame of a clip."""
    with open_pair(str(clip / "infrared.mp4"), str(clip / "visible.mp4")) as pairs:
        return [
            np.ascontiguousarray(
                pair.visible.image[:, :, ::-1] if pair.visible.color_order == "BGR" else pair.visible.image
            )
            for index, pair in enumerate(pairs)
            if index % FRAMES_APART == 0
        ]


def real_sets(data: Path, scenes: list[Scene]) -> Iterator[RealSet]:
    """Yield the real sets, in turn."""
    lol, drmf, raw = data / "restoration/lol", data / "restoration/drmf", data / "thermal_raw"
    clean = [scene.infrared for scene in scenes]
    yield RealSet("LOL", "visible", "low_light", images_in(lol / "low", "visible"), images_in(lol / "high", "visible"))
    both = (images_in(drmf / side / "visible", "visible") for side in ("degraded", "reference"))
    yield RealSet("DRMF", "visible", "low_light", *both)
    degraded, reference = (images_in(drmf / side / "infrared", "infrared") for side in ("degraded", "reference"))
    yield RealSet("DRMF", "infrared", "stripes", degraded, reference)
    yield RealSet("DRMF", "infrared", "low_contrast", degraded, reference)
    fixed = images_in(raw / "fixed_pattern_8bit", "infrared")
    yield RealSet("fixed pattern", "infrared", "stripes", fixed, clean)
    shutter = images_in(raw / "shutter_frames_640x480", "infrared")
    yield RealSet("closed shutter", "infrared", "stripes", shutter, clean)
    yield RealSet("closed shutter", "infrared", "dead_pixels", shutter, clean)
    clips = sorted(path for path in (data / "sequences").iterdir() if path.is_dir())
    pairs: tuple[tuple[Modality, str, str], ...] = (
        ("infrared", "stripes", "infrared_noise"),
        ("visible", "blur", "visible_blur"),
    )
    for modality, kind, name in pairs:
        worse = [image for clip in clips for image in images_in(clip / name, modality, 4)]
        better = [image for clip in clips for image in images_in(clip / modality, modality, 4)]
        yield RealSet("M3SVD sequences", modality, kind, worse, better)
    videos = sorted(path for path in (data / "video").iterdir() if path.is_dir())
    smoke = [frame for clip in videos if clip.name == "0117_1620" for frame in frames_of(clip)]
    clear = [frame for clip in videos if clip.name != "0117_1620" for frame in frames_of(clip)]
    yield RealSet("M3SVD smoke", "visible", "haze", smoke, clear)


def real_row(real: RealSet) -> Row:
    """Return how well a real set's kind is told from the images without it."""
    images = [*real.positives, *real.negatives]
    told = np.array([likely_kinds(signs_of(image), real.modality)[real.kind] for image in images])
    labels: NDArray[np.bool_] = np.arange(len(images)) < len(real.positives)
    return {
        "part": "real",
        "set": real.name,
        "modality": real.modality,
        "kind": real.kind,
        "positives": len(real.positives),
        "negatives": len(real.negatives),
        "auc": round(area_under_curve(told, labels), 4),
        "positives_told": round(float(told[labels].mean()), 3),
        "negatives_told": round(float(told[~labels].mean()), 3),
    }


def mean_row(part: str, found: list[Row]) -> Row:
    """Return the means over the kinds of a part."""
    means = {"part": part, "kind": "mean", "auc": round(float(np.mean([row["auc"] for row in found])), 4)}
    errors = [row["calibration_error"] for row in found if "calibration_error" in row]
    return {**means, **({"calibration_error": round(float(np.mean(errors)), 4)} if errors else {})}


def main(
    data: Annotated[Path, typer.Option(metavar="DIR", help="the shared data, with pairs/ in it")],
    only: Annotated[str, typer.Option(metavar="A,B", help=f"of {','.join(PARTS)}")] = ",".join(PARTS),
    count: Annotated[int, typer.Option(min=0, help="pairs of each folder, 0 is all")] = 0,
    out: Out = None,
    update: Update = False,
) -> None:
    """Measure, and print a line for each row."""
    with one_line_errors():
        check_target(out, update)
        if unknown := [part for part in only.split(",") if part not in PARTS]:
            raise DataError(f"--only has {unknown[0]!r}; it must list some of {','.join(PARTS)}")
        scenes = [scene for name in FOLDERS for scene in read_scenes(data / "pairs", name, count)]
        rows_: list[Row] = []
        for part in only.split(","):
            for row in part_rows(part, data, scenes):
                rows_.append(row)
                print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        result = new_result("evidence", "", rows_, packages=["evidence"], settings={"scenes": len(scenes)})
        save(result, out, update)


def part_rows(part: str, data: Path, scenes: list[Scene]) -> Iterator[Row]:
    """Yield the rows of a part, and their mean."""
    if part == "real":
        found = [real_row(real) for real in real_sets(data, scenes)]
        yield from (*found, mean_row(part, found))
        return
    both: tuple[Modality, Modality] = ("infrared", "visible")
    simulated_rows: list[Row] = []
    for modality in both:
        if part == "intervention":
            yield from intervention_rows(scenes, modality)
            continue
        samples = list(simulated(scenes, modality))
        if part == "confusion":
            yield from confusion_rows(samples, modality)
        else:
            simulated_rows += [kind_row(samples, modality, kind) for kind in KINDS[modality]]
    yield from simulated_rows
    if simulated_rows:
        yield mean_row(part, simulated_rows)


if __name__ == "__main__":
    typer.run(main)
