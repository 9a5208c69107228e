"""The inner corners of a chessboard, in visible light and where a heated or cut-out board is faint in the infrared.

A lamp heats a board unevenly: its squares differ by a hundredth of what its middle and its border differ by. OpenCV's
detector finds nothing there. It finds the board in the same image after the mean around every pixel is taken away and
the contrast around it brought to one level. What it finds is then proved: the squares must alternate, up to the
board's border and no further.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.image import Float32, Uint8
from cled_edge.registration.lens import Matrix, projected

Grid = tuple[int, int]  # inner corners of a board: along a row, along a column
_AROUND = (0.022, 0.012, 0.04)  # of the width: how far the mean around a pixel reaches; the first finds most
_PROOF_AROUND = 0.05  # the same where a board is proved: wider than its squares, so that they have no halo
_MISSING = 3  # rows or columns that may lie outside the image
_LEAST_GRID = 3  # corners along a side
_LARGE_PX, _SMALL_PX = 700, 400  # width above which an image is reduced, and below which it is enlarged
_ALTERNATE, _RING = 0.8, 0.6  # share of squares of the right colour; what the ring around may have of their contrast
_EVEN = 1.2  # contrast over its deviation from square to square: noise reaches 0.9, the faintest warm board 2
_TURNS = 4


@dataclass(frozen=True, eq=False)
class Board:
    """points: (rows, columns, 2), the corners in pixels; those outside the image are where they would be.

    seen: (rows, columns), which of them were found. alternates: share of the squares that are of the right colour.
    """

    points: NDArray[np.float64]
    seen: NDArray[np.bool_]
    alternates: float

    def turned(self, times: int) -> "Board":
        """Return the same board with its first corner elsewhere: a quarter turn `times` times."""
        return Board(np.rot90(self.points, times), np.rot90(self.seen, times), self.alternates)

    @property
    def along(self) -> NDArray[np.float64]:
        """The direction of its rows in the image, a unit vector."""
        across = (self.points[:, -1] - self.points[:, 0]).mean(axis=0)
        return np.asarray(across / np.linalg.norm(across), np.float64)


def find_board(grey: NDArray[Any], grid: Grid) -> Board | None:
    """Return the board in an image (H, W) of any depth, or None.

    A board of which up to three rows or columns are cut off by the image's border is found too.
    """
    image = grey.astype(np.float32)
    width = image.shape[1]
    factor = _LARGE_PX / width if width > _LARGE_PX else 2.0 if width < _SMALL_PX else 1.0
    if factor != 1:
        way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=way), np.float32)
    image = np.asarray(cv2.medianBlur(image, 3), np.float32)  # dead pixels would be the contrast
    plain = _levelled(image, _PROOF_AROUND * image.shape[1]).astype(np.float32)
    best: Board | None = None
    for share, thoroughly in product(_AROUND, (False, True)):
        board = _found(plain, _levelled(image, share * image.shape[1]), grid, thoroughly)
        if board and (best is None or board.seen.sum() > best.seen.sum()):
            best = board
        if best and best.seen.all():
            break
    if best is None:
        return None
    return _refined(grey, Board((best.points + 0.5) / factor - 0.5, best.seen, best.alternates), factor)


def _refined(grey: NDArray[Any], board: Board, factor: float) -> Board:
    """Return the board with its corners as the whole image shows them, where it was found in a reduced one."""
    if factor >= 1:
        return board
    steps = np.linalg.norm(np.diff(board.points, axis=1), axis=-1)
    half = max(2, int(0.3 * float(steps.min())))
    low, high = np.percentile(grey, (0.5, 99.5))
    image = np.clip((grey.astype(np.float32) - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    corners = board.points[board.seen].astype(np.float32).reshape(-1, 1, 2)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-3)
    moved = cv2.cornerSubPix(image, corners.copy(), (half, half), (-1, -1), criteria)
    near = np.linalg.norm(moved - corners, axis=-1).ravel() <= 2 / factor
    points, seen = board.points.copy(), board.seen.copy()
    points[board.seen] = moved.reshape(-1, 2)
    seen[board.seen] = near
    return Board(points, seen, board.alternates)


def agreeing(infrared: Board, visible: Board) -> Board:
    """Return the infrared board with its corners in the order of the visible one: both cameras stand upright alike."""
    same = [infrared.turned(times) for times in range(_TURNS)]
    same = [board for board in same if board.points.shape == visible.points.shape]
    return max(same, key=lambda board: float(board.along @ visible.along))


def _levelled(image: Float32, reach_px: float) -> Uint8:
    """Return an image without its mean around each pixel, of equal contrast everywhere."""
    apart = image - cv2.GaussianBlur(image, (0, 0), reach_px)
    contrast = np.sqrt(cv2.GaussianBlur(apart * apart, (0, 0), 1.5 * reach_px))
    floor = max(1e-3 * float(contrast.max()), 1e-6)
    return np.clip(apart / (contrast + floor) * 50 + 128, 0, 255).astype(np.uint8)


def _found(plain: Float32, look: Uint8, grid: Grid, thoroughly: bool) -> Board | None:
    """Return the board that OpenCV finds in a levelled image, proved in the plain one."""
    least = tuple(max(_LEAST_GRID, side - _MISSING) for side in grid)
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_ACCURACY | cv2.CALIB_CB_LARGER
    flags |= cv2.CALIB_CB_EXHAUSTIVE if thoroughly else 0
    there, corners, squares = cv2.findChessboardCornersSBWithMeta(look, least, flags)
    if not there:
        return None
    points = corners.reshape(*squares.shape[:2], 2).astype(np.float64)
    (x0, y0), (x1, y1) = points[0, -1] - points[0, 0], points[-1, 0] - points[0, 0]
    if x0 * y1 < y0 * x1:  # OpenCV 4.9 begins at any corner and may give them as a mirror shows them
        points = points[::-1]
    return _placed(plain, points, grid)


def _placed(plain: Float32, points: NDArray[np.float64], grid: Grid) -> Board | None:
    """Return the board that holds `points`, or a part of them, if the squares say where in it they lie.

    A levelled image may show a part of the board, and a row beyond it that is no more than its halo.
    """
    best, most = None, 0.0
    for turn in (0, 1):  # half turns change no place
        part = np.rot90(points, turn)
        spare = grid[1] - part.shape[0], grid[0] - part.shape[1]
        if max(map(abs, spare)) > 2 * _MISSING:
            continue
        # One row more to each side than fits: a board that goes on there is another one.
        ranges = [range(min(0, each) - 1, max(0, each) + 2) for each in spare]
        for top, left in product(*ranges):
            board, clear = _as_board(plain, part, top, left, grid)
            if clear > most:
                inside = all(min(0, each) <= at <= max(0, each) for each, at in zip(spare, (top, left), strict=True))
                best, most = board if inside else None, clear
    return best


def _as_board(plain: Float32, part: NDArray[np.float64], top: int, left: int, grid: Grid) -> tuple[Board | None, float]:
    """Return the board whose corner (top, left) is the part's first one, if it is one, and how clearly."""
    rows, columns = part.shape[:2]
    y, x = np.mgrid[top : top + rows, left : left + columns].astype(np.float64)
    found, _ = cv2.findHomography(np.stack([x.ravel(), y.ravel()], -1), part.reshape(-1, 2))
    if found is None:
        return None, 0.0
    matrix = np.asarray(found, np.float64)
    alternates, contrast, beyond = _alternation(plain, matrix, grid)
    if alternates < _ALTERNATE or beyond > _RING * contrast:
        return None, max(0.0, contrast - beyond)
    ys, xs = np.mgrid[: grid[1], : grid[0]].astype(np.float64)
    points = projected(matrix, np.stack([xs.ravel(), ys.ravel()], -1)).reshape(grid[1], grid[0], 2)
    inside = slice(max(top, 0), min(top + rows, grid[1])), slice(max(left, 0), min(left + columns, grid[0]))
    points[inside] = part[inside[0].start - top : inside[0].stop - top, inside[1].start - left : inside[1].stop - left]
    told = np.zeros(points.shape[:2], bool)
    told[inside] = True
    return Board(points, told, alternates), contrast - beyond


def _alternation(plain: Float32, matrix: Matrix, grid: Grid) -> tuple[float, float, float]:
    """Return the share of squares of the right colour, their contrast, and that of the squares around the board.

    A square's contrast is its level less the mean of its four neighbours': a lamp's glow is nearly even over five.
    """
    columns, rows = grid
    y, x = np.mgrid[
        -3 : rows + 2, -3 : columns + 2
    ]  # by the corner before each; beyond the ring one more as neighbours
    offsets = np.linspace(0.25, 0.75, 4)
    dy, dx = (each.ravel() for each in np.meshgrid(offsets, offsets, indexing="ij"))
    at = projected(matrix, np.stack([(x[..., None] + dx).ravel(), (y[..., None] + dy).ravel()], -1))
    outside = ((at < 0) | (at > np.array(plain.shape[::-1]) - 1)).any(axis=1)
    places = np.clip(at, -10, 1e4).astype(np.float32)
    values = cv2.remap(plain, places[:, :1].copy(), places[:, 1:].copy(), cv2.INTER_LINEAR).ravel()
    levels = np.where(outside, np.nan, values).reshape(*x.shape, -1).mean(axis=-1)
    around = np.stack([levels[:-2, 1:-1], levels[2:, 1:-1], levels[1:-1, :-2], levels[1:-1, 2:]])
    known = np.isfinite(around)
    count = known.sum(axis=0)
    signs = np.where((x + y) % 2 == 0, 1.0, -1.0)[1:-1, 1:-1]
    apart = (levels[1:-1, 1:-1] - np.where(known, around, 0).sum(axis=0) / np.maximum(count, 1)) * signs
    there = np.isfinite(apart) & (count >= 2)
    on_board = np.zeros_like(there)
    on_board[1:-1, 1:-1] = True
    board = apart[there & on_board]
    if len(board) < on_board.sum() / 3:
        return 0.0, 0.0, 0.0
    mean = float(board.mean())
    if abs(mean) < _EVEN * float(board.std()):
        return 0.0, 0.0, 0.0
    sides = [(apart[side], there[side]) for side in (np.s_[0, 1:-1], np.s_[-1, 1:-1], np.s_[1:-1, 0], np.s_[1:-1, -1])]
    beyond = max((abs(float(ring[known].mean())) for ring, known in sides if known.sum() >= 2), default=0.0)
    return float((board * mean > 0).mean()), abs(mean), beyond
