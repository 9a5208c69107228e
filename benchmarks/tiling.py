"""Whether tiles show: large pictures fused in tiles against the same fused whole, with memory and time.

    python -m benchmarks.tiling --data ../shared/data     writes benchmarks/results/tiling-<bundle>-<machine>.json

The large pictures are real pairs, enlarged, and a mosaic of four. Three ways to tile are compared: `cut` puts tiles
side by side, `overlap` blends them, `tone` is `cled_edge.tiling`, which also brings them to one tone.

A seam is a step of (tiled - untiled) that runs along a line: the mean of 16 pixels on one side less that of 16 on the
other, over 32 pixels along the line, absolute, then averaged. `border_levels` is at the edges and the middles of the
overlaps, `away_levels` at other lines. The shipped network's attention has windows of 128 pixels that leave steps of
their own, in the reduced picture too: a border's other lines lie as it does in the coarser of these grids.
`tone_levels` is the mean absolute difference of squares of 32 pixels: a patchwork without a sharp step shows there.
All of 255 levels.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from benchmarks.child import in_child
from benchmarks.quality_measures import EQUAL_DB
from benchmarks.timing import write_result
from cled_edge.bench.machine import Gauges
from cled_edge.errors import DataError, one_line_errors
from cled_edge.frame import FusedFrame
from cled_edge.fuser import Fuser
from cled_edge.image import Float32, Uint8, read_image, rgb_from_any, write_png
from cled_edge.metrics.psnr import psnr_db
from cled_edge.tiling import OVERLAP_PX, Axis, Tiling, fuse_tiled, reduction, shrunk

OUTPUTS = ("picture", "infrared", "visible")
WINDOW_PX = 128  # of the shipped network's attention
_ACROSS_PX, _ALONG_PX = 16, 32
_SMALL, _LARGE = (1536, 2048), (3072, 4096)
_CROP_PX = 384
_LIMIT_S = 120.0


@dataclass(frozen=True)
class Large:
    """A large pair of (height, width), made of pictures of one folder of `pairs`: enlarged, or four side by side."""

    folder: str
    stems: tuple[str, ...]
    size: tuple[int, int]

    def pair(self, data: Path) -> tuple[Uint8, Uint8]:
        """Return infrared (H, W) and visible RGB (H, W, 3). DataError if a stem is absent."""
        place = data / "pairs" / self.folder
        infrared, visible = (
            self._laid_out([read_image(_found(place / name, stem), color) for stem in self.stems])
            for name, color in (("infrared", False), ("visible", True))
        )
        return infrared, visible

    def _laid_out(self, pictures: list[Uint8]) -> Uint8:
        if len(pictures) == 1:
            return _enlarged(pictures[0], self.size)
        parts = [_enlarged(x, (self.size[0] // 2, self.size[1] // 2)) for x in pictures]
        mosaic = np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)])
        return np.roll(mosaic, (-200, -300), axis=(0, 1))  # no joint of scenes on one of tiles


PICTURES = (
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


def _enlarged(picture: Uint8, size: tuple[int, int]) -> Uint8:
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def naive(fuser: Fuser, pair: tuple[Uint8, Uint8], tiling: Tiling) -> dict[str, FusedFrame]:
    """Return the pair fused in tiles that are only put side by side (`cut`), or only blended (`overlap`)."""
    rows, columns = axes(fuser, pair[0].shape, tiling)
    nearest = [axis.weights.argmax(axis=0) for axis in (rows, columns)]
    size = pair[0].shape
    sums: dict[str, dict[str, Float32]] = {
        way: {name: np.zeros(size if name == "infrared" else (*size, 3), np.float32) for name in OUTPUTS}
        for way in ("cut", "overlap")
    }
    for row, column in np.ndindex(len(rows.starts), len(columns.starts)):
        place = rows.slice(row), columns.slice(column)
        fused = fuser(pair[0][place], pair[1][place])
        shares = {
            "cut": np.outer(nearest[0][place[0]] == row, nearest[1][place[1]] == column),
            "overlap": np.outer(rows.weights[row, place[0]], columns.weights[column, place[1]]),
        }
        for way, share in shares.items():
            for name, total in sums[way].items():
                total[place] += getattr(fused, name) * (share if name == "infrared" else share[..., None])
    results = {}
    for way, totals in sums.items():
        picture, infrared, visible = (np.rint(totals[name]).astype(np.uint8) for name in OUTPUTS)
        results[way] = FusedFrame(picture, infrared, visible)
    return results


def axes(fuser: Fuser, size: tuple[int, ...], tiling: Tiling) -> tuple[Axis, Axis]:
    """Return where `fuse_tiled` puts its tiles, along the height and along the width."""
    multiple = fuser.bundle.manifest.size_multiple
    height, width = (Axis.cut(size[k], tiling.tile[k], tiling.overlap_px, multiple) for k in (0, 1))
    return height, width


def seams(tiled: Uint8, untiled: Uint8, rows: Axis, columns: Axis, grid_px: int) -> dict[str, float]:
    """Return the steps at the borders of tiles and away from them, their ratio, and the difference in tone.

    Each border is held against the lines that lie as it does in a grid of `grid_px`; without one it is left out.
    """
    difference = tiled.astype(np.float32) - untiled
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
        "ratio": round(border / elsewhere, 3) if elsewhere else 1.0,
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


def measure(fuser: Fuser, data: Path, large: Large, tiling: Tiling, folder: Path | None) -> Iterator[dict[str, Any]]:
    """Yield a row for each way to tile and each output; draw sheets of them into `folder`, if given."""
    pair = large.pair(data)
    rows, columns = axes(fuser, large.size, tiling)
    fuser(*pair)  # the runtime's first call of a size takes memory from the system
    start_s = time.perf_counter()
    untiled = fuser(*pair)
    untiled_s = time.perf_counter() - start_s
    results = naive(fuser, pair, tiling)
    start_s = time.perf_counter()
    results["tone"] = fuse_tiled(fuser, *pair, None, tiling)
    tiled_s = time.perf_counter() - start_s
    grid_px = WINDOW_PX * reduction(large.size, tiling, fuser.bundle.manifest.size_multiple)
    megapixels = large.size[0] * large.size[1] / 1e6
    case = {
        "folder": large.folder,
        "stems": large.stems,
        "size": large.size,
        "tiles": (len(rows.starts), len(columns.starts)),
        "untiled_ms_per_megapixel": round(untiled_s * 1e3 / megapixels, 1),
        "tone_ms_per_megapixel": round(tiled_s * 1e3 / megapixels, 1),
    }
    for method, fused in results.items():
        for output in OUTPUTS:
            picture, reference = getattr(fused, output), getattr(untiled, output)
            psnr = min(round(psnr_db(picture, reference), 2), EQUAL_DB)
            found = seams(picture, reference, rows, columns, grid_px)
            yield {**case, "method": method, "output": output, "psnr_db": psnr, **found}
    if folder:
        name = f"{large.folder}-{large.stems[0]}-{len(large.stems)}-{large.size[0]}"
        middles = [(axis.starts[1] + axis.starts[0] + axis.tile_px) // 2 for axis in (rows, columns)]
        top, left = (middle - _CROP_PX // 2 for middle in middles)
        crop = slice(top, top + _CROP_PX), slice(left, left + _CROP_PX)
        everything = {"untiled": untiled, **results}
        write_png(folder / f"{name}-crossing.png", sheet(everything, crop, 1, stretch=True))
        write_png(folder / f"{name}-whole.png", sheet(everything, (slice(None), slice(None)), large.size[1] // 512))


def sheet(results: dict[str, FusedFrame], place: tuple[slice, slice], factor: int, stretch: bool = False) -> Uint8:
    """Return a part of all pictures, one row for each output and one column for each way, reduced by `factor`.

    `stretch` spreads what lies between the 1 and the 99 percentile of the first over all levels.
    """
    lines = []
    for output in OUTPUTS:
        parts = [
            rgb_from_any(shrunk(np.ascontiguousarray(getattr(x, output)[place]), factor)) for x in results.values()
        ]
        low, high = np.percentile(parts[0], (1, 99)) if stretch else (0, 255)
        line = (np.concatenate(parts, axis=1).astype(np.float32) - low) * (255 / max(high - low, 1))
        lines.append(np.clip(line, 0, 255).astype(np.uint8))
    return np.concatenate(lines)


def peak_memory(bundle: Path | None, backend: str, data: Path, large: Large, tiling: Tiling | None) -> dict[str, Any]:
    """Return by how much the resident memory of this process grows at most while it fuses; None fuses whole."""
    with Fuser.load(bundle, backend=backend) as fuser:
        pair = large.pair(data)
        fuser(pair[0][:256, :256], pair[1][:256, :256])
        before_mb = _resident_mb()
        with Gauges() as gauges:
            result = fuse_tiled(fuser, *pair, None, tiling) if tiling else fuser(*pair)
        grown_mb = gauges.report()["peak_memory_mb"] - before_mb
    outputs_mb = sum(getattr(result, name).nbytes for name in OUTPUTS) / 1e6
    return {
        "size": large.size,
        "tile": tiling.tile if tiling else None,
        "grown_mb": round(grown_mb, 1),
        "inputs_mb": round(sum(x.nbytes for x in pair) / 1e6, 1),
        "outputs_mb": round(outputs_mb, 1),
    }


def _resident_mb() -> float:
    with Gauges() as gauges:
        pass
    return float(gauges.report()["peak_memory_mb"])


def main(
    data: Annotated[Path, typer.Option(metavar="DIR", help="the shared data, with pairs/ in it")],
    tile: Annotated[str, typer.Option(metavar="HxW")] = "768x1024",
    overlap_px: Annotated[int, typer.Option()] = OVERLAP_PX,
    backend: Annotated[str, typer.Option()] = "onnxruntime",
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="exported model [default: the shipped nano]")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="also draw sheets of them there, to look at")
    ] = None,
) -> None:
    """Measure and write the JSON."""
    with one_line_errors():
        tiling = Tiling(Tiling.parse(tile).tile, overlap_px)
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
        rows = []
        with Fuser.load(bundle, backend=backend) as fuser:
            for large in PICTURES:
                for row in measure(fuser, data, large, tiling, pictures):
                    print(row)
                    rows.append(row)
            manifest = fuser.bundle.manifest
        memory = [
            in_child(peak_memory, _LIMIT_S, bundle, backend, data, large, way)
            for large in (PICTURES[1], PICTURES[-1])
            for way in (tiling, None)
        ]
        print(*memory, sep="\n")
    write_result(
        f"tiling-{manifest.name}",
        {
            "bundle": manifest.name,
            "files": manifest.hashes,
            "backend": backend,
            "tile": tiling.tile,
            "overlap_px": overlap_px,
            "rows": rows,
            "memory": memory,
        },
    )


if __name__ == "__main__":
    typer.run(main)
