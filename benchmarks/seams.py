"""Whether tiles show: large images fused in tiles against the same fused whole.

    python -m benchmarks.seams --data DATA --update

The large images are real pairs, enlarged, and a mosaic of four. They are fused as `cled-edge fuse --tile` does.

A seam is a step of (tiled - whole) that runs along a line: the mean of 16 pixels on one side less that of 16 on the
other, over 32 pixels along the line, absolute, then averaged. `border_levels` is at the edges and the middles of the
overlaps, `away_levels` at other lines. The shipped network's attention has windows of 128 pixels that leave steps of
their own, in the reduced image too: a border's other lines lie as it does in the coarser of these grids.
`tone_levels` is the mean absolute difference of squares of 32 pixels: a patchwork without a sharp step shows there.
All of 255 levels.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from benchmarks.measures import capped_db
from benchmarks.result import Out, Row, Update, check_target, new_result, save
from benchmarks.tables_speed import TILES
from cled_edge.errors import DataError, one_line_errors
from cled_edge.fuser import Fuser
from cled_edge.image import Float32, Uint8, read_image
from cled_edge.size import Size, size_text
from cled_edge.tiling import OVERLAP_PX, Axis, Tiling, fuse_tiled, reduction

OUTPUTS = ("picture", "infrared", "visible")
WINDOW_PX = 128  # of the shipped network's attention
_ACROSS_PX, _ALONG_PX = 16, 32
_SMALL, _LARGE = (1536, 2048), (3072, 4096)


@dataclass(frozen=True)
class Large:
    """A large pair of (height, width), made of images of one folder of `pairs`: enlarged, or four side by side."""

    folder: str
    stems: tuple[str, ...]
    size: Size

    @property
    def name(self) -> str:
        """Name of the scene in a table."""
        return f"{self.folder} {self.stems[0] if len(self.stems) == 1 else 'mosaic'}"

    def pair(self, data: Path) -> tuple[Uint8, Uint8]:
        """Return infrared (H, W) and visible RGB (H, W, 3). DataError if a stem is absent."""
        place = data / "pairs" / self.folder
        infrared, visible = (
            self._laid_out([read_image(_found(place / name, stem), color) for stem in self.stems])
            for name, color in (("infrared", False), ("visible", True))
        )
        return infrared, visible

    def _laid_out(self, images: list[Uint8]) -> Uint8:
        if len(images) == 1:
            return _enlarged(images[0], self.size)
        parts = [_enlarged(image, (self.size[0] // 2, self.size[1] // 2)) for image in images]
        mosaic = np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)])
        return np.roll(mosaic, (-200, -300), axis=(0, 1))  # no joint of scenes on one of tiles


SCENES = (
    Large("m3fd", ("00388",), _SMALL),
    Large("llvip", ("010001",), _SMALL),
    Large("msrs", ("00020N",), _SMALL),
    Large("m3fd", ("00001", "00388", "00118", "01952"), _SMALL),
    Large("llvip", ("010001",), _LARGE),
)


def _found(folder: Path, stem: str) -> Path:
    for path in folder.glob(f"{stem}.*"):
        return path
    raise DataError(f"{folder} has no {stem}; point --data at the folder whose README tells of it")


def _enlarged(image: Uint8, size: Size) -> Uint8:
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def axes(fuser: Fuser, size: tuple[int, ...], tiling: Tiling) -> tuple[Axis, Axis]:
    """Return where `fuse_tiled` puts its tiles, along the height and along the width."""
    multiple = fuser.bundle.manifest.size_multiple
    height, width = (Axis.cut(size[k], tiling.tile[k], tiling.overlap_px, multiple) for k in (0, 1))
    return height, width


def seams(tiled: Uint8, whole: Uint8, rows: Axis, columns: Axis, grid_px: int) -> dict[str, float]:
    """Return the steps at the borders of tiles and away from them, their ratio, and the difference in tone.

    Each border is held against the lines that lie as it does in a grid of `grid_px`; without one it is left out.
    """
    difference = tiled.astype(np.float32) - whole
    borders: list[float] = []
    away: list[float] = []
    for axis, across in ((rows, difference), (columns, np.ascontiguousarray(difference.swapaxes(0, 1)))):
        steps, lines = line_steps(across), border_lines(axis)
        for line in lines:
            others = [
                other
                for other in range(line % grid_px, len(steps), grid_px)
                if _ACROSS_PX <= other < len(steps) - _ACROSS_PX
                and all(abs(other - border) >= 2 * _ACROSS_PX for border in lines)
            ]
            if others:
                borders.append(float(steps[line]))
                away.append(float(steps[others].mean()))
    small = cv2.resize(difference, None, fx=1 / 32, fy=1 / 32, interpolation=cv2.INTER_AREA)
    border, elsewhere = float(np.mean(borders)), float(np.mean(away))
    return {
        "border_levels": round(border, 3),
        "worst_border_levels": round(max(borders), 3),
        "away_levels": round(elsewhere, 3),
        "worst_away_levels": round(max(away), 3),
        "seam_ratio": round(border / elsewhere, 3) if elsewhere else 1.0,
        "tone_levels": round(float(np.abs(small).mean()), 3),
        "worst_tone_levels": round(float(np.abs(small).max()), 3),
    }


def line_steps(difference: Float32) -> Float32:
    """Return (H + 1,): the mean absolute step of (H, W) or (H, W, C) between the 16 rows from each on and those before.

    0 where there are not so many.
    """
    height, width = difference.shape[:2]
    count = width // _ALONG_PX
    segments = cv2.resize(difference[:, : count * _ALONG_PX], (count, height), interpolation=cv2.INTER_AREA)
    until = np.concatenate(
        [np.zeros((1, segments[0].size)), segments.reshape(height, -1).cumsum(axis=0, dtype=np.float64)]
    )
    means = (until[_ACROSS_PX:] - until[:-_ACROSS_PX]) / _ACROSS_PX
    steps = np.zeros(height + 1, np.float32)
    steps[_ACROSS_PX : height - _ACROSS_PX + 1] = np.abs(means[_ACROSS_PX:] - means[:-_ACROSS_PX]).mean(axis=1)
    return steps


def border_lines(axis: Axis) -> list[int]:
    """Return the pixels at which an overlap begins, is half over and ends."""
    lines: set[int] = set()
    for before, start in pairwise(axis.starts):
        end = before + axis.tile_px
        lines |= {start, (start + end) // 2, end}
    return sorted(line for line in lines if _ACROSS_PX <= line <= axis.side_px - _ACROSS_PX)


def scene_rows(fuser: Fuser, data: Path, large: Large, tiling: Tiling) -> list[Row]:
    """Return a row for each output of a pair that is fused whole and in tiles."""
    pair = large.pair(data)
    rows, columns = axes(fuser, large.size, tiling)
    whole, tiled = fuser(*pair), fuse_tiled(fuser, *pair, None, tiling)
    scene = {"scene": large.name, "size": size_text(large.size), "tiles": len(rows.starts) * len(columns.starts)}
    grid_px = WINDOW_PX * reduction(large.size, tiling, fuser.bundle.manifest.size_multiple)
    found = []
    for output in OUTPUTS:
        images = getattr(tiled, output), getattr(whole, output)
        psnr = round(capped_db(*images), 2)
        found.append({**scene, "output": output, "psnr_db": psnr, **seams(*images, rows, columns, grid_px)})
    return found


def main(
    data: Annotated[Path, typer.Option(metavar="DIR", help="the shared data, with pairs/ in it")],
    tile: Annotated[str, typer.Option(metavar="HxW")] = "768x1024",
    overlap_px: Annotated[int, typer.Option()] = OVERLAP_PX,
    backend: Annotated[str, typer.Option()] = "onnxruntime",
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="exported model", show_default="nano")] = None,
    count: Annotated[int, typer.Option(min=1, help="scenes, at most")] = len(SCENES),
    out: Out = None,
    update: Update = False,
) -> None:
    """Measure, and print the table."""
    with one_line_errors():
        check_target(out, update)
        tiling = Tiling(Tiling.parse(tile).tile, overlap_px)
        with Fuser.load(bundle, backend=backend) as fuser:
            rows = [row for large in SCENES[:count] for row in scene_rows(fuser, data, large, tiling)]
            opened, description = fuser.bundle, fuser.backend.description
        settings = {"backend": description, "tile": size_text(tiling.tile), "overlap_px": overlap_px}
        result = new_result("tiles", opened.manifest.name, rows, [opened], settings)
        print("\n".join(TILES.lines(result)))
        save(result, out, update)


if __name__ == "__main__":
    typer.run(main)
