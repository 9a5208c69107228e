"""Whether two cameras are registered: a rig whose right map is known, landmarks, boards, and pairs of two scenes.

    python -m benchmarks.registration --data DATA [--update]      takes minutes

`rig`: two lenses 30 cm apart, before a rendered street on a wall, with three draws of noise, and before boards.
`landmarks`: the mean distance between where a map has the landmarks of the infrared image and where they are. `board`:
of how many images of each camera the board is found in. `others`: the infrared image of each pair of landmarks with the
visible ones of the others; `sure` must be false. Distances are in visible pixels.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.result import Out, Row, Update, check_target, new_result, save
from cled_edge.errors import DataError, one_line_errors
from cled_edge.image import read_any_depth, read_image
from cled_edge.registration.board import Board, find_board
from cled_edge.registration.board_rig import rig_of
from cled_edge.registration.lens import PixelMap, grid_points, projected
from cled_edge.registration.scene_match import Evidence, match
from cled_edge.scene.night_street import night_street
from cled_edge.scene.two_lenses import TwoLenses, camera

PARTS = ("rig", "landmarks", "board", "others")
GRID, SQUARE_M = (9, 6), 0.03
DISTANCE_M, NOISE_LEVELS, CORNER_NOISE_PX = 5.0, 6.0, 0.1
FRAMES, NOISES, BOARDS = 4, 3, 16
SMALL = ((120, 160), (240, 320))  # sizes of the infrared image, beside the rig's own


def _grey(image: NDArray[Any], code: int) -> NDArray[Any]:
    return image if image.ndim == 2 else cv2.cvtColor(image, code)


def miss_px(found: PixelMap, rig: TwoLenses, distance_m: float) -> NDArray[Any]:
    """Return how far a map is off over all that both cameras see at a distance."""
    points = grid_points(rig.visible.size)
    at = rig.map(distance_m).infrared_points(points)
    height, width = rig.infrared.size
    inside = (at >= 0).all(axis=1) & (at <= (width - 1, height - 1)).all(axis=1)
    return np.asarray(np.linalg.norm(found.visible_points(at[inside]) - points[inside], axis=1))


def rig_rows() -> Iterator[Row]:
    """Register rigs of three sizes by a scene, and one by boards."""
    street = next(iter(night_street(1, (1080, 1920))))
    wall = {"infrared": street.infrared, "visible": street.visible}
    rigs = [TwoLenses(infrared=camera(size, 50, TwoLenses().infrared.lens.distortion)) for size in SMALL]
    for rig in (*rigs, TwoLenses()):
        name = "scene {}x{}".format(*rig.infrared.size)
        for noise in range(NOISES):
            seeds = range(noise * FRAMES, (noise + 1) * FRAMES)
            frames = [rig.frames(wall, DISTANCE_M, NOISE_LEVELS, seed) for seed in seeds]
            found, model, evidence = match([(infrared, _grey(seen, cv2.COLOR_RGB2GRAY)) for infrared, seen in frames])
            row = _rig_row(name, rig, found, DISTANCE_M, model, evidence.error_px, evidence.confidence)
            yield {**row, "noise": noise}
    rig = TwoLenses(turn_deg=(0.5, -14.0, 0.8))
    solved = rig_of(held_boards(rig), rig.infrared.size, rig.visible.size, SQUARE_M)
    for distance_m in (0.8, 1.0, 1.3, DISTANCE_M):
        yield _rig_row("boards", rig, solved.at(distance_m), distance_m, "rig", solved.error_px, solved.confidence)


def _rig_row(
    name: str, rig: TwoLenses, found: PixelMap, distance_m: float, model: str, error_px: float, confidence: float
) -> Row:
    misses = miss_px(found, rig, distance_m)
    return {
        "part": "rig",
        "name": name,
        "distance_m": distance_m,
        "model": model,
        "miss_mean_px": round(float(misses.mean()), 2),
        "miss_p95_px": round(float(np.percentile(misses, 95)), 2),
        "error_px": round(error_px, 2),
        "confidence": round(confidence, 2),
    }


def held_boards(rig: TwoLenses) -> list[tuple[Board, Board]]:
    """Return the corners of boards held before a rig, with noise on each."""
    random = np.random.default_rng(4)
    y, x = np.mgrid[: GRID[1], : GRID[0]]
    places = np.stack([x.ravel() - 4, y.ravel() - 2.5, np.zeros(x.size)], -1) * SQUARE_M
    pairs: list[tuple[Board, Board]] = []
    while len(pairs) < BOARDS:
        held = places @ cv2.Rodrigues(random.uniform(-0.6, 0.6, 3))[0].T
        held = held + random.uniform((-0.25, -0.2, 0.7), (0.3, 0.2, 1.4))
        boards = []
        for each, at in ((rig.infrared, held @ rig.rotation.T + rig.baseline_m), (rig.visible, held)):
            seen = each.lens.bent(projected(each.lens.matrix, at[:, :2] / at[:, 2:]))
            seen = seen + random.normal(0, CORNER_NOISE_PX, seen.shape)
            inside = ((seen > 2) & (seen < np.array(each.size[::-1]) - 3)).all(axis=1)
            boards.append(Board(seen.reshape(*x.shape, 2), inside.reshape(x.shape), 1.0))
        if min(int(board.seen.sum()) for board in boards) >= x.size * 2 // 3:
            pairs.append((boards[0], boards[1]))
    return pairs


def landmark_rows(root: Path, crossed: bool) -> Iterator[Row]:
    """Register pairs with landmarks, or the infrared image of each with the visible ones of the others."""
    stems = sorted(path.stem for path in (root / "landmarks").glob("*.json"))
    if not stems:
        raise DataError(f"{root} has no landmarks; point --data at the folder whose README tells of it")
    for stem in stems:
        infrared = read_image(root / "infrared" / f"{stem}.png", color=False)
        for other in [each for each in stems if each != stem] if crossed else [stem]:
            visible = read_image(root / "visible" / f"{other}.png", color=False)
            found, model, evidence = match([(infrared, visible)])
            row = _evidence_row(evidence) | {"model": model}
            if crossed:
                yield {"part": "others", "name": f"{stem} with {other}", **row}
                continue
            marks = json.loads((root / "landmarks" / f"{stem}.json").read_text())
            moved = found.visible_points(np.array(marks["landmarks_LMmov"]))
            miss = np.linalg.norm(moved - np.array(marks["landmarks_LMfix"]), axis=1).mean()
            yield {"part": "landmarks", "name": stem, "miss_mean_px": round(float(miss), 2), **row}


def _evidence_row(evidence: Evidence) -> Row:
    finite = np.isfinite(evidence.error_px)
    return {
        "error_px": round(evidence.error_px, 2) if finite else None,
        "confidence": round(evidence.confidence, 2),
        "sure": evidence.is_sure,
        "patches": evidence.patches,
    }


def board_rows(root: Path) -> Iterator[Row]:
    """Look for the board in each camera's images."""
    if not root.is_dir():
        raise DataError(f"{root} does not exist; point --data at the folder whose README tells of it")
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        images = [read_any_depth(path) for path in sorted(folder.iterdir())]
        found = [find_board(_grey(image, cv2.COLOR_BGR2GRAY), GRID) for image in images]
        corners = [int(board.seen.sum()) for board in found if board]
        yield {
            "part": "board",
            "name": folder.name,
            "images": len(images),
            "found": len(corners),
            "whole": sum(count == GRID[0] * GRID[1] for count in corners),
        }


def main(
    data: Annotated[Path, typer.Option(metavar="DIR", help="the shared data, with unregistered/ in it")],
    only: Annotated[str, typer.Option(metavar="A,B", help=f"of {','.join(PARTS)}")] = ",".join(PARTS),
    out: Out = None,
    update: Update = False,
) -> None:
    """Measure, and print a line for each row."""
    with one_line_errors():
        check_target(out, update)
        root = data / "unregistered"
        parts: dict[str, Callable[[], Iterator[Row]]] = {
            "rig": rig_rows,
            "landmarks": lambda: landmark_rows(root / "landmarks", crossed=False),
            "board": lambda: board_rows(root / "board"),
            "others": lambda: landmark_rows(root / "landmarks", crossed=True),
        }
        if unknown := [part for part in only.split(",") if part not in parts]:
            raise DataError(f"--only has {unknown[0]!r}; it must list some of {','.join(PARTS)}")
        rows: list[Row] = []
        for part in only.split(","):
            for row in parts[part]():
                rows.append(row)
                print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        settings = {"noise_levels": NOISE_LEVELS, "corner_noise_px": CORNER_NOISE_PX, "frames": FRAMES}
        save(new_result("registration", "", rows, packages=["registration"], settings=settings), out, update)


if __name__ == "__main__":
    typer.run(main)
