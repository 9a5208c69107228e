"""`cled-edge fuse`: fuse two sources into an output, and print what was done."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from cled_edge.backend.choice import REGISTRY
from cled_edge.cli.signing import RequireSignature
from cled_edge.progress import progress_bar
from cled_edge.schedule import MAX_STEPS, MIN_STEPS

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130  # the exit code of a run that Ctrl-C ended


def fuse(
    infrared: Annotated[
        str, typer.Option(metavar="SRC", help="camera index or device, video, picture, folder or glob")
    ],
    visible: Annotated[str, typer.Option(metavar="SRC", help="the same kind as --infrared")],
    out: Annotated[str, typer.Option(help="video file, folder of PNGs (one per stem), or 'window'")],
    restored: Annotated[
        Path | None, typer.Option(metavar="DIR", help="also write DIR/infrared and DIR/visible")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help=f"network evaluations, {MIN_STEPS} to {MAX_STEPS} [default: the bundle's]")
    ] = None,
    strength_infrared: Annotated[float, typer.Option(help="share of the infrared degradation to remove, 0 to 1")] = 1.0,
    strength_visible: Annotated[float, typer.Option(help="share of the visible degradation to remove, 0 to 1")] = 1.0,
    balance: Annotated[float, typer.Option(help="0 leans on the visible, 1 on the infrared")] = 0.5,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="exported model [default: the shipped nano]")
    ] = None,
    require_signature: RequireSignature = None,
    backend: Annotated[
        str,
        typer.Option(metavar="NAME[:PRECISION]", help=f"{', '.join(REGISTRY)}, or auto: the fastest here, as measured"),
    ] = "onnxruntime",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads, 0 is the backend's choice")] = 0,
    cuda_binding: Annotated[
        str, typer.Option(metavar="cuda|pycuda", help="of backend tensorrt; pycuda has no CUDA graphs")
    ] = "cuda",
    allow_build: Annotated[
        bool, typer.Option("--allow-build", help="of backend tensorrt: build missing engines, which takes minutes")
    ] = False,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="fuse larger pictures in overlapping tiles of that size, such as 768x1024 [default: whole]",
        ),
    ] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="stop after so many pairs")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print counts and latencies as JSON")] = False,
) -> None:
    """Fuse two cameras, videos, pictures or folders; folders pair by stem, videos by frame."""
    # Imported here so that --help and usage errors need no OpenCV.
    from cled_edge.backend.choice import BackendChoice  # noqa: PLC0415
    from cled_edge.backend.notes import notes  # noqa: PLC0415
    from cled_edge.backend.tensorrt.run_options import CudaOptions  # noqa: PLC0415
    from cled_edge.build.builder import build_missing  # noqa: PLC0415
    from cled_edge.bundle.reader import Bundle  # noqa: PLC0415
    from cled_edge.camera.source import is_camera, open_pair  # noqa: PLC0415
    from cled_edge.contract import Controls  # noqa: PLC0415
    from cled_edge.fuser import Fuser  # noqa: PLC0415
    from cled_edge.live import fuse_source  # noqa: PLC0415
    from cled_edge.select import open_chosen  # noqa: PLC0415
    from cled_edge.tiling import Tiling  # noqa: PLC0415

    tiling = None if tile is None else Tiling.parse(tile)
    controls = Controls(steps, strength_infrared, strength_visible, balance)
    console = Console(stderr=True)
    choice, cuda = BackendChoice.parse(backend), CudaOptions(cuda_binding, build_missing if allow_build else None)
    opened = Bundle.open(bundle, public_key=require_signature)
    with (
        open_pair(infrared, visible) as source,
        Fuser(opened, open_chosen(choice, opened, threads, cuda=cuda)) as fuser,
    ):
        if "auto" in fuser.backend.details:
            console.print(fuser.backend.details["auto"], soft_wrap=True, markup=False, highlight=False)
        expected = min((*(source.announced or ()), *((max_frames,) if max_frames else ())), default=None)
        with progress_bar("fusing", expected, console) as advance:
            live = is_camera(infrared) or is_camera(visible)
            report = fuse_source(source, fuser, controls, out, restored, max_frames, advance, live=live, tiling=tiling)
    values, noted = report.as_dict(), notes(fuser.backend.details)
    if as_json:
        typer.echo(json.dumps({**values, "notes": noted}, indent=2))
    else:
        print_report(values, out, noted)
    if report.failure:
        raise report.failure
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)


def print_report(values: dict[str, Any], out: str, noted: "Sequence[str]" = ()) -> None:
    """Print what `Report.as_dict` returned: a line and the latency table. noted: lines about the backend."""
    console = Console()
    height, width = values["size"]
    state = "interrupted after" if values["interrupted"] else "fused"
    console.print(
        f"{state} {values['written']} pairs of {height}x{width} into {out}: {values['rate_hz']} pairs/s, "
        f"{values['steps']} steps, {values['backend']}, bundle {values['bundle']}",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    for note in noted:
        console.print(note, soft_wrap=True, markup=False, highlight=False)
    if values["announced"] and any(count != values["written"] for count in values["announced"]):
        console.print("announced: {} infrared, {} visible frames".format(*values["announced"]), highlight=False)
    if values["dropped"]:
        console.print(f"dropped: {values['dropped']} pairs that a newer one overtook", highlight=False)
    table = Table("stage", *(Column(name, justify="right") for name in ("p50 ms", "p90 ms", "p99 ms", "max ms")))
    for stage, row in values["latency_ms"].items():
        table.add_row(stage, *(f"{value:.1f}" for value in row.values()))
    console.print(table)
