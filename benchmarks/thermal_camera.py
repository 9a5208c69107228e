"""What real thermal cameras do to an image, and how far restoration and fusion bear it.

    python -m benchmarks.thermal_camera --data DATA --update

Held-out pairs, whole images, by `Fuser` with all that it does before the network. Each number is a mean over the pairs:

    dead pixels    so many black or white ones: PSNR of the infrared to the clean one, gained
    low contrast   pressed together around its mean, which is kept for the most part: the same
    another AGC    another gain and level: PSNR of the fused luma to the one without
    hot target     pressed together, 70 levels on the hottest hundredth: images in which the fused target is darker than
                   its surroundings
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from benchmarks.baselines import luma_of
from benchmarks.held_out import Scene, read_scenes
from benchmarks.measures import PairFuser, capped_db
from benchmarks.result import Out, Row, Update, check_target, new_result, save
from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.opener import open_backend
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import one_line_errors
from cled_edge.fuser import Fuser
from cled_edge.image import Float32, Uint8

FOLDERS = ("msrs", "roadscene", "m3fd", "llvip")
SHARES = (0.0005, 0.002, 0.01)
AGC_GAIN, AGC_LEVEL = (0.3, 0.6), (30.0, 140.0)
HOT_GAIN, HOT_SHARE, HOT_LEVELS = (0.2, 0.45), 0.01, 70.0
PRESSED_GAIN, PRESSED_LEVEL = (0.25, 0.45), (0.7, 1.0)
_TARGET_PX, _NEAR_PX, _FAR_PX = 30, 5, 21  # smallest target; sides of the squares that a ring lies between


def rounded(x: Float32) -> Uint8:
    """Return the bytes of an image in grey levels."""
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def with_dead_pixels(infrared: Uint8, share: float, rng: np.random.Generator) -> Uint8:
    """Make a share of the pixels black or white."""
    draw = rng.random(infrared.shape)
    return np.where(draw < share, np.where(draw < share / 2, 0, 255), infrared).astype(np.uint8)


def with_contrast(infrared: Uint8, gain: float, level: float) -> Float32:
    """Return the image with so much of its contrast, around a level, in grey levels; not rounded."""
    values = infrared.astype(np.float32)
    return (values - values.mean()) * np.float32(gain) + np.float32(level)


def with_hot_target(infrared: Uint8, gain: float, level: float) -> tuple[Uint8, Uint8]:
    """Return the pressed image with a target 70 levels above it, and where the target is, 1 there."""
    hot = (infrared >= np.quantile(infrared, 1 - HOT_SHARE)).astype(np.uint8)
    return rounded(with_contrast(infrared, gain, level) + np.float32(HOT_LEVELS) * hot), hot


def darker_targets(luma: Uint8, seen: Uint8, hot: Uint8) -> int:
    """Return how many targets stand out in the infrared that was seen, and are darker than around them in a luma."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hot)
    darker = 0
    for label in range(1, count):
        if stats[label, cv2.CC_STAT_AREA] < _TARGET_PX:
            continue
        target = (labels == label).astype(np.uint8)
        near, far = (cv2.dilate(target, np.ones((side, side), np.uint8)) for side in (_NEAR_PX, _FAR_PX))
        ring = (far > near) & (hot == 0)
        if not ring.any():
            continue
        contrasts = [float(x[target > 0].mean()) - float(x[ring].mean()) for x in (seen, luma)]
        darker += contrasts[0] > 0 > contrasts[1]
    return darker


def rows_of(fuser: PairFuser, scene: Scene) -> Iterator[Row]:
    """Yield the case and the value of everything that is measured of a pair."""
    rng = np.random.default_rng((*scene.seed, 5))
    infrared, visible = scene.infrared, scene.visible
    for share in SHARES:
        dead = with_dead_pixels(infrared, share, rng)
        gain = _gain(fuser(dead, visible).infrared, dead, infrared)
        yield {"case": f"dead pixels {share:.2%}", "value": gain}
    pressed = rounded(
        with_contrast(infrared, rng.uniform(*PRESSED_GAIN), infrared.mean() * rng.uniform(*PRESSED_LEVEL))
    )
    gain = _gain(fuser(pressed, visible).infrared, pressed, infrared)
    yield {"case": "low contrast", "value": gain}
    other = rounded(with_contrast(infrared, rng.uniform(*AGC_GAIN), rng.uniform(*AGC_LEVEL)))
    plain = luma_of(fuser(infrared, visible).picture)
    yield {"case": "another AGC", "value": capped_db(luma_of(fuser(other, visible).picture), plain)}
    seen, hot = with_hot_target(infrared, rng.uniform(*HOT_GAIN), rng.uniform(*AGC_LEVEL))
    darker = darker_targets(luma_of(fuser(seen, visible).picture), seen, hot)
    yield {"case": "hot target", "value": float(darker > 0)}


def _gain(restored: Uint8, before: Uint8, wanted: Uint8) -> float:
    return capped_db(restored, wanted) - capped_db(before, wanted)


NEEDED = {"low contrast": 6.0, "another AGC": 35.0, "hot target": 0.0} | {f"dead pixels {s:.2%}": 10.0 for s in SHARES}
UNITS = {"another AGC": "dB", "hot target": "images in which one is darker"}


def summary(found: list[Row]) -> list[Row]:
    """Return a row for each case: its mean, the lowest of all pairs, what is needed; of hot targets the number."""
    rows = []
    for case in dict.fromkeys(row["case"] for row in found):
        values = np.array([row["value"] for row in found if row["case"] == case])
        is_count = case == "hot target"
        rows.append({
            "case": case, "unit": UNITS.get(case, "dB gained"), "images": len(values),
            "value": round(float(values.sum() if is_count else values.mean()), 2),
            "lowest": None if is_count else round(float(values.min()), 2), "needed": NEEDED[case],
        })  # fmt: skip
    return rows


def main(
    data: Annotated[Path, typer.Option(metavar="DIR", help="the shared data, with pairs/ in it")],
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="bundle; the shipped one unless given")] = None,
    backend: Annotated[str, typer.Option(help="what runs it")] = "onnxruntime",
    count: Annotated[int, typer.Option(min=1, help="pairs of each folder")] = 15,
    out: Out = None,
    update: Update = False,
) -> None:
    """Measure, and print a line for each case."""
    with one_line_errors():
        check_target(out, update)
        opened = Bundle.open(bundle)
        found: list[Row] = []
        with Fuser(opened, open_backend(BackendChoice.parse(backend), opened)) as fuser:
            for folder in FOLDERS:
                for scene in read_scenes(data / "pairs", folder, count):
                    found += rows_of(fuser, scene)
        rows = summary(found)
        for row in rows:
            print(", ".join(f"{key} {value}" for key, value in row.items()))
        if out or update:
            save(new_result("thermal", opened.manifest.name, rows, (opened,), {"backend": backend}), out, update)


if __name__ == "__main__":
    typer.run(main)
