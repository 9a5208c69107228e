"""A rig from boards that both cameras saw at once: each lens, and where one camera stands to the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import CalibrationError
from cled_edge.registration.board import Board
from cled_edge.registration.lens import Lens, Matrix, PixelMap, projected
from cled_edge.size import Size

_LEAST_CORNERS = 12
_LEAST_BOARDS = 3  # for lenses; fewer boards give one homography, for where they were held
_MANY_BOARDS = 8  # from which on the distortion has a second term
_HALF_ERROR_PX = 1.5  # in infrared pixels, at which confidence is halved
_FIXED = cv2.CALIB_USE_INTRINSIC_GUESS | cv2.CALIB_FIX_ASPECT_RATIO | cv2.CALIB_FIX_PRINCIPAL_POINT
_NO_TANGENT = cv2.CALIB_ZERO_TANGENT_DIST | cv2.CALIB_FIX_K3
_FOCAL = (0.3, 12.0)  # widths between which a focal length is credible

Pair = tuple[Board, Board]  # infrared and visible, corners in one order


@dataclass(frozen=True, eq=False)
class BoardRig:
    """Both lenses, and the infrared camera's place: a point x of the visible camera is at rotation @ x + shift there.

    shift and depth, the boards' mean distance, are in squares, or in metres if their side was given. error_px: root of
    the mean square over all corners, in visible pixels, of what the visible camera says of the infrared ones. boards:
    how many told. planar: too few boards for lenses; one homography, at the boards' distance.
    """

    infrared: Lens | None
    visible: Lens | None
    rotation: Matrix
    shift: NDArray[np.float64]
    depth: float
    error_px: float
    boards: int
    planar: Matrix | None = None

    @property
    def confidence(self) -> float:
        """From 0 to 1, by the error in infrared pixels."""
        scale = self.at(self.depth).infrared_px_per_visible_px((2, 2))
        return float(1 / (1 + (self.error_px * scale / _HALF_ERROR_PX) ** 3))

    def at(self, distance: float) -> PixelMap:
        """Return the map for things at a distance from the visible camera, in the unit of `shift`."""
        if self.planar is not None or self.infrared is None or self.visible is None:
            return PixelMap(np.eye(3) if self.planar is None else self.planar)
        between = self.rotation + np.outer(self.shift, (0, 0, 1 / distance))
        matrix = self.infrared.matrix @ between @ np.linalg.inv(self.visible.matrix)
        return PixelMap(matrix / matrix[2, 2], self.infrared, self.visible)


def rig_of(boards: Sequence[Pair], infrared_size: Size, visible_size: Size, square_m: float = 1.0) -> BoardRig:
    """Return the rig that explains all boards best. CalibrationError without a board that both cameras saw."""
    shared = [pair for pair in boards if (pair[0].seen & pair[1].seen).sum() >= _LEAST_CORNERS]
    if not shared:
        raise CalibrationError(
            "no board is seen by both cameras; needed one at least, three for their lenses; warm the board until its "
            "squares show in the infrared, and hold it where both see it"
        )
    if len(shared) >= _LEAST_BOARDS:
        lenses = [
            _lens([pair[k] for pair in boards], size, square_m) for k, size in ((0, infrared_size), (1, visible_size))
        ]
        if lenses[0] and lenses[1]:
            return _placed(shared, lenses[0], lenses[1], infrared_size, square_m)
    return _planar(shared)


def _lens(boards: Sequence[Board], size: Size, square_m: float) -> Lens | None:
    """Return a camera's lens by what it saw, None if that does not tell it."""
    used = [board for board in boards if board.seen.sum() >= _LEAST_CORNERS]
    objects = [_places(board.seen, square_m) for board in used]
    corners = [board.points[board.seen].astype(np.float32) for board in used]
    guess = np.array([[size[1], 0, (size[1] - 1) / 2], [0, size[1], (size[0] - 1) / 2], [0, 0, 1]], np.float64)
    flags = _FIXED | _NO_TANGENT | (0 if len(used) >= _MANY_BOARDS else cv2.CALIB_FIX_K2)
    try:
        _, matrix, distortion, _, _ = cv2.calibrateCamera(objects, corners, size[::-1], guess, np.zeros(5), flags=flags)
    except cv2.error:
        return None
    focal = float(matrix[0, 0])
    if not _FOCAL[0] <= focal / size[1] <= _FOCAL[1]:
        return None
    k1, k2, p1, p2, k3 = (float(v) for v in np.ravel(distortion)[:5])
    return Lens((focal, float(matrix[1, 1])), (float(matrix[0, 2]), float(matrix[1, 2])), (k1, k2, p1, p2, k3))


def _placed(shared: Sequence[Pair], infrared: Lens, visible: Lens, infrared_size: Size, square_m: float) -> BoardRig:
    seen = [of_infrared.seen & of_visible.seen for of_infrared, of_visible in shared]
    objects = [_places(each, square_m) for each in seen]
    corners = [
        [pair[k].points[each].astype(np.float32) for pair, each in zip(shared, seen, strict=True)] for k in (0, 1)
    ]
    coefficients = [np.array(lens.distortion) for lens in (visible, infrared)]
    found = cv2.stereoCalibrate(
        objects, corners[1], corners[0], visible.matrix, coefficients[0], infrared.matrix, coefficients[1],
        infrared_size[::-1], flags=cv2.CALIB_FIX_INTRINSIC,
    )  # fmt: skip
    rotation, shift = np.asarray(found[5], np.float64), np.ravel(found[6]).astype(np.float64)
    errors, depths = [], []
    scale = 1.0
    for places, of_visible, of_infrared in zip(objects, corners[1], corners[0], strict=True):
        _, turn, move = cv2.solvePnP(places, of_visible, visible.matrix, coefficients[0])
        at = places @ cv2.Rodrigues(turn)[0].T + move.ravel()
        there = at @ rotation.T + shift
        told = infrared.bent(projected(infrared.matrix, there[:, :2] / there[:, 2:]))
        errors.append(np.sum((told - of_infrared) ** 2, axis=1))
        depths.append(float(at[:, 2].mean()))
    depth = float(np.mean(depths))
    rig = BoardRig(infrared, visible, rotation, shift, depth, 0.0, len(shared))
    scale = rig.at(depth).infrared_px_per_visible_px((2, 2))
    return BoardRig(
        infrared, visible, rotation, shift, depth, float(np.sqrt(np.mean(np.concatenate(errors)))) / scale, len(shared)
    )


def _planar(shared: Sequence[Pair]) -> BoardRig:
    both = [(pair, pair[0].seen & pair[1].seen) for pair in shared]
    infrared = np.concatenate([pair[0].points[seen] for pair, seen in both])
    visible = np.concatenate([pair[1].points[seen] for pair, seen in both])
    matrix, _ = cv2.findHomography(visible, infrared)
    found = PixelMap(np.asarray(matrix, np.float64))
    error_px = float(np.sqrt(np.mean(np.sum((found.visible_points(infrared) - visible) ** 2, axis=1))))
    return BoardRig(None, None, np.eye(3), np.zeros(3), 1.0, error_px, len(shared), found.matrix)


def _places(seen: NDArray[np.bool_], square_m: float) -> NDArray[np.float32]:
    """Return where the seen corners lie on the board, (N, 3)."""
    row, column = np.nonzero(seen)
    return np.stack([column, row, np.zeros_like(row)], axis=-1).astype(np.float32) * np.float32(square_m)
