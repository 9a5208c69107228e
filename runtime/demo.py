"""Render a night street as two cameras would see it, fuse it, and show what came of it: `make demo`.

    python -m runtime.demo --out demo --frames 75

Writes infrared.mp4 and visible.mp4 (what the cameras gave), night/ (every tenth frame of both as images), fused.mp4,
restored/ and strip.png (infrared | visible | restored | fused). Needs no torch, no data, no GPU and no network.
"""

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.console import Console

from cled_edge.cli.fusing import print_report
from cled_edge.ending import INTERRUPTED
from cled_edge.errors import one_line_errors
from cled_edge.files import make_folder
from cled_edge.fuser import Fuser
from cled_edge.image import Uint8, read_image, write_png
from cled_edge.live import fuse_pairs
from cled_edge.output.sink import OutputSettings, output_address
from cled_edge.output.video_writer import VideoWriter
from cled_edge.pairing import open_pair
from cled_edge.progress import progress_bar
from cled_edge.scene.night_street import night_street

RATE_HZ = 25.0
IMAGE_EVERY = 10  # frames


def main(
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("demo"),
    frames: Annotated[int, typer.Option(min=1, help="length of the scene at 25 Hz")] = 75,
) -> None:
    """Render, fuse, and print a latency table."""
    cameras = out / "infrared.mp4", out / "visible.mp4"
    render(cameras, frames, out / "night")
    outputs = [
        OutputSettings(str(out / "fused.mp4")),
        OutputSettings(str(out / "restored" / "infrared"), "infrared"),
        OutputSettings(str(out / "restored" / "visible"), "visible"),
    ]
    with (
        open_pair(str(cameras[0]), str(cameras[1])) as pairs,
        Fuser.load(color_order="BGR") as fuser,
        progress_bar("fusing", frames, Console(stderr=True)) as advance,
    ):
        report = fuse_pairs(pairs, fuser, outputs, advance=advance)
    print_report(report.as_dict())
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    strip = out / "strip.png"
    write_png(strip, contact_strip(out, frames // 2))
    print(f"wrote {strip}: infrared | visible | restored | fused")


def render(cameras: tuple[Path, Path], frames: int, images: Path) -> None:
    """Write the two cameras' videos, and every tenth frame into two folders of images."""
    for name in ("infrared", "visible"):
        make_folder(images / name)
    infrared, visible = (VideoWriter(output_address(str(path)), rate_hz=RATE_HZ) for path in cameras)
    with infrared, visible:
        for index, pair in enumerate(night_street(frames, rate_hz=RATE_HZ)):
            infrared.append(pair.infrared, str(index), "RGB")
            visible.append(pair.visible, str(index), "RGB")
            if index % IMAGE_EVERY == 0:
                write_png(images / "infrared" / f"{index:06d}.png", pair.infrared)
                write_png(images / "visible" / f"{index:06d}.png", pair.visible)


def contact_strip(out: Path, frame: int) -> Uint8:
    """Return infrared | visible | restored visible | fused of one frame, side by side, (H, 4 W, 3)."""
    restored = read_image(out / "restored" / "visible" / f"{frame:06d}.png", color=True)
    infrared, visible, fused = (frame_of(out / f"{name}.mp4", frame) for name in ("infrared", "visible", "fused"))
    return np.hstack([infrared, visible, restored, fused])


def frame_of(video: Path, frame: int) -> Uint8:
    """Return one frame of a video, RGB (H, W, 3)."""
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    capture.set(cv2.CAP_PROP_POS_FRAMES, frame)
    picture = capture.read()[1]
    capture.release()
    return np.asarray(picture[:, :, ::-1], np.uint8)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
