"""A map through points that a person marked in both images."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import CalibrationError
from cled_edge.files import Reader
from cled_edge.registration.lens import PixelMap, Points
from cled_edge.size import Size, size_text

Model = Literal["similarity", "affine", "homography"]
COLUMNS = ("infrared_x", "infrared_y", "visible_x", "visible_y")
_DISTANCE = "distance_m"
_TODO = f"write a line {','.join(COLUMNS)} and below it a line for each point"
_FILES = Reader(CalibrationError, CalibrationError, _TODO, follow_links=True)
_MAX_BYTES = 2**20
LEAST_POINTS, _AFFINE, _HOMOGRAPHY = 4, 6, 10  # points, and from how many on the map has more freedom
_HALF_ERROR = 0.01  # widths of the visible image, at which confidence is halved


@dataclass(frozen=True, eq=False)
class MarkedPoints:
    """Points (N, 2) in both images, at one distance; None where the file says none."""

    infrared: Points
    visible: Points
    distance_m: float | None = None


@dataclass(frozen=True, eq=False)
class PointMap:
    """A map through points.

    error_px: root mean square, in visible pixels, of what each point differs from where the others have it. worst: the
    number, from 1, of the point that differs most, and by how much.
    """

    found: PixelMap
    model: Model
    error_px: float
    worst: tuple[int, float]
    confidence: float


def read_points(path: Path) -> list[MarkedPoints]:
    """Return the points of a CSV file by increasing distance. CalibrationError names the line that is wrong."""
    try:
        text = _FILES.read(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path} is not text in UTF-8; {_TODO}") from error
    lines = csv.reader(
        io.StringIO("\n".join(line for line in text.splitlines() if line.strip())), skipinitialspace=True
    )
    head = tuple(next(lines, ()))
    if head not in (COLUMNS, (*COLUMNS, _DISTANCE)):
        raise CalibrationError(f"{path} begins with {','.join(head)[:60]!r}, needed the names of its columns; {_TODO}")
    by_distance: dict[float | None, list[list[float]]] = {}
    for number, line in enumerate(lines, 2):
        try:
            values = [float(value) for value in line]
        except ValueError:
            values = []
        if len(values) != len(head) or not np.isfinite(values).all() or (len(values) > 4 and values[4] <= 0):
            raise CalibrationError(
                f"{path}: line {number} is {','.join(line)[:60]!r}, needed {','.join(head)}; {_TODO}"
            )
        by_distance.setdefault(values[4] if len(values) > 4 else None, []).append(values[:4])
    if not by_distance:
        raise CalibrationError(f"{path} has no point, needed {LEAST_POINTS} at least; {_TODO}")
    groups = sorted(by_distance.items(), key=lambda group: group[0] or 0)
    arrays = [(distance, np.array(rows, np.float64)) for distance, rows in groups]
    return [MarkedPoints(rows[:, :2], rows[:, 2:], distance) for distance, rows in arrays]


def map_of(points: MarkedPoints, infrared_size: Size, visible_size: Size) -> PointMap:
    """Return the map through points. CalibrationError for too few, one outside its image, and points in a line."""
    count = len(points.infrared)
    if count < LEAST_POINTS:
        raise CalibrationError(f"there are {count} points, needed {LEAST_POINTS} at least, far apart; mark more")
    for name, places, (height, width) in (
        ("infrared", points.infrared, infrared_size),
        ("visible", points.visible, visible_size),
    ):
        outside = ((places < 0) | (places > (width - 1, height - 1))).any(axis=1)
        if outside.any():
            x, y = places[int(outside.argmax())]
            raise CalibrationError(
                f"point {int(outside.argmax()) + 1} is at ({x:g}, {y:g}), outside the {name} image of "
                f"{size_text((height, width))} (height x width); x comes first, from 0; correct it"
            )
    model: Model = "similarity" if count < _AFFINE else "affine" if count < _HOMOGRAPHY else "homography"
    found = _fitted(points.infrared, points.visible, model)
    each = np.arange(count)
    others = [_fitted(points.infrared[each != k], points.visible[each != k], model) for k in each]
    misses = np.array(
        [
            np.linalg.norm(other.visible_points(points.infrared[k : k + 1])[0] - points.visible[k])
            for k, other in enumerate(others)
        ]
    )
    error_px = float(np.sqrt(np.mean(misses**2)))
    confidence = 1 / (1 + (error_px / visible_size[1] / _HALF_ERROR) ** 3)
    return PointMap(found, model, error_px, (int(misses.argmax()) + 1, float(misses.max())), float(confidence))


def _fitted(infrared: Points, visible: Points, model: Model) -> PixelMap:
    """Return the least-squares map from visible to infrared pixels."""
    if model == "homography":
        matrix, _ = cv2.findHomography(visible, infrared)
    else:
        matrix = _linear(infrared, visible, model)
    if matrix is None or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        raise CalibrationError(
            "the points lie in a line or on one spot, needed some far apart in both directions; mark others"
        )
    return PixelMap(np.asarray(matrix, np.float64))


def _linear(infrared: Points, visible: Points, model: Model) -> NDArray[np.float64]:
    center, target = visible.mean(axis=0), infrared.mean(axis=0)
    x, y = (visible - center).T
    moved = infrared - target
    if model == "affine":
        linear = np.linalg.lstsq(np.stack([x, y], -1), moved, rcond=None)[0].T
    else:
        rows = np.concatenate([np.stack([x, -y], -1), np.stack([y, x], -1)])
        a, b = np.linalg.lstsq(rows, moved.T.ravel(), rcond=None)[0]
        linear = np.array([[a, -b], [b, a]])
    return np.vstack([np.column_stack([linear, target - linear @ center]), [0, 0, 1]])
