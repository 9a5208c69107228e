"""Sheets of pictures side by side, to be looked at: rows of tiles with a line of text above each row."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from cled_edge.image import Uint8, swapped

TILE = 180, 240  # height, width
TEXT_HEIGHT = 18
PAPER, INK = 255, (40, 40, 40)


class Strip(NamedTuple):
    """A row of a sheet: what it shows, and its pictures, grey (H, W) or RGB (H, W, 3)."""

    text: str
    pictures: Sequence[Uint8]


def draw_sheet(strips: Sequence[Strip], columns: int = 1, tile: tuple[int, int] = TILE) -> Uint8:
    """Return RGB of the strips, one below the other, in so many columns; all have the same number of pictures."""
    drawn = [draw_strip(strip, tile) for strip in strips]
    drawn += [np.full_like(drawn[0], PAPER)] * (-len(drawn) % columns)
    rows = len(drawn) // columns
    blocks = [np.vstack(drawn[k * rows : (k + 1) * rows]) for k in range(columns)]
    return np.hstack(blocks)


def draw_strip(strip: Strip, tile: tuple[int, int] = TILE) -> Uint8:
    """Return RGB of one strip."""
    tiles = np.hstack([_tile(picture, tile) for picture in strip.pictures])
    line = np.full((TEXT_HEIGHT, tiles.shape[1], 3), PAPER, np.uint8)
    cv2.putText(line, strip.text, (4, TEXT_HEIGHT - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
    return np.vstack([line, tiles])


def data_uri(picture: Uint8) -> str:
    """Return a JPEG of RGB as text that an HTML page can hold."""
    encoded = cv2.imencode(".jpg", swapped(picture), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _tile(picture: Uint8, tile: tuple[int, int]) -> Uint8:
    """Return RGB of the tile's size with the whole picture in its middle."""
    height, width = picture.shape[:2]
    scale = min((tile[0] - 4) / height, (tile[1] - 4) / width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    small = np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)
    if small.ndim == 2:
        small = np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2RGB), np.uint8)
    canvas = np.full((*tile, 3), PAPER, np.uint8)
    top, left = (tile[0] - size[1]) // 2, (tile[1] - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = small
    return canvas
