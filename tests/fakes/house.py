"""The documents of the project, and a copy of it with small data in which their commands run."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from cled_edge.scene.night_street import night_street

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "runtime" / "README.md",
    ROOT / "runtime" / "INSTALL.md",
    ROOT / "runtime" / "CALIBRATE.md",
    ROOT / "runtime" / "CAMERAS.md",
    ROOT / "runtime" / "OPTIONS.md",
    ROOT / "runtime" / "REPORT.md",
    ROOT / "runtime" / "OUTPUTS.md",
    ROOT / "runtime" / "PAGE.md",
    ROOT / "runtime" / "EXPLAIN.md",
    ROOT / "runtime" / "TENSORRT.md",
    ROOT / "runtime" / "ros2" / "README.md",
    ROOT / "runtime" / "service" / "README.md",
    ROOT / "export" / "README.md",
    ROOT / "export" / "BUNDLE.md",
    ROOT / "training" / "README.md",
    ROOT / "training" / "DATA.md",
    ROOT / "training" / "weights" / "README.md",
    ROOT / "benchmarks" / "README.md",
]
_FOLDERS = ("cled_edge", "training", "export", "runtime", "benchmarks")
_SIZE = 96, 128
_HELD_OUT = ("00005D", "00014D", "00001N")  # by their CRC-32, see cled_edge/data/split.py
_TRAINED = ("00002D", "00003D", "00004N")


def write_house(folder: Path) -> Path:
    """Write and return a copy of the project, with what `make demo` writes and the data sets of a user in it."""
    house = folder / "house"
    house.mkdir()
    for name in _FOLDERS:
        shutil.copytree(ROOT / name, house / name, ignore=shutil.ignore_patterns("__pycache__"))
    _write_pairs(house / "demo" / "night", ("000000", "000010", "000020"))
    for name in ("llvip", "m3fd", "msrs", "roadscene"):
        _write_pairs(house / "DATA" / "pairs" / name, _HELD_OUT + _TRAINED)
    _write_videos(house / "demo")
    for name in ("nano", "mine"):  # of commands that take minutes
        shutil.copytree(ROOT / "cled_edge" / "bundles" / "nano", house / "bundles" / name)
    _write_program(house / "bin" / "cled-edge", "python -m cled_edge.cli")
    return house


def _write_program(path: Path, command: str) -> None:
    """Write a program that runs the copy's code, whatever the environment has installed under its name."""
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)


def _write_pairs(folder: Path, stems: tuple[str, ...]) -> None:
    for stem, pair in zip(stems, night_street(len(stems), _SIZE), strict=True):
        for name, image in (("infrared", pair.infrared), ("visible", pair.visible[:, :, ::-1])):
            (folder / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / name / f"{stem}.png"), image)


def _write_videos(folder: Path) -> None:
    codec, size = cv2.VideoWriter.fourcc(*"mp4v"), (_SIZE[1], _SIZE[0])
    paths = (str(folder / name) for name in ("infrared.mp4", "visible.mp4"))
    writers = [cv2.VideoWriter(path, cv2.CAP_FFMPEG, codec, 25, size) for path in paths]
    for pair in night_street(len(_TRAINED), _SIZE):
        for writer, image in zip(writers, (pair.infrared, pair.visible), strict=True):
            writer.write(np.ascontiguousarray(np.broadcast_to(np.atleast_3d(image), (*_SIZE, 3))[:, :, ::-1]))
    for writer in writers:
        writer.release()
