"""`cled-edge explain`: what the network did to a pair, as a page, panels and arrays; for a video, curves over time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cled_edge.backend.choice import REGISTRY
from cled_edge.cli.control_options import control_options
from cled_edge.cli.infrared_options import InfraredCrop, InfraredPolarity, InfraredRange, Names, numbers_of
from cled_edge.cli.options import (
    INPUTS,
    MODEL,
    REPORT,
    RUN,
    BundleFolder,
    Quiet,
    Verbose,
    status_period_s,
    told_to,
)
from cled_edge.cli.signing import RequireSignature
from cled_edge.contract import Controls
from cled_edge.errors import NoPairsError
from cled_edge.json_text import json_of
from cled_edge.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cled_edge.explain import Explanation
    from cled_edge.explain.over_time import OverTime
    from cled_edge.frame import FramePair
    from cled_edge.fuser import Fuser
    from cled_edge.thermal import Polarity

_PAIRS = 50

Source = Annotated[
    str, typer.Option(metavar="SRC", help="picture, folder, glob or video, as fuse takes", rich_help_panel=INPUTS)
]


@control_options
def explain(
    infrared: Source,
    visible: Source,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="folder for the page, its panels and arrays", rich_help_panel=REPORT)
    ],
    names: Names = None,
    infrared_range: InfraredRange = None,
    infrared_polarity: InfraredPolarity = "white-hot",
    infrared_crop: InfraredCrop = None,
    pair: Annotated[
        int, typer.Option(metavar="N", min=0, help="of several pairs, which one the page explains", rich_help_panel=RUN)
    ] = 0,
    every: Annotated[
        int, typer.Option(metavar="N", min=1, help="of several pairs, take every Nth", rich_help_panel=RUN)
    ] = 1,
    max_frames: Annotated[
        int, typer.Option(metavar="N", min=1, help="explain so many pairs at most", rich_help_panel=RUN)
    ] = _PAIRS,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="of `calibrate`, for cameras of two sizes or lenses", rich_help_panel=INPUTS),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="its areas, controls and calibration hold, as in a run; the command line wins over it",
            rich_help_panel=RUN,
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N", help="start noises to try, 0 to 64, for the spread of the result", rich_help_panel=RUN
        ),
    ] = 4,
    *,
    given_controls: dict[str, object],
    bundle: BundleFolder = None,
    require_signature: RequireSignature = None,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help=f"{', '.join(REGISTRY)}, or auto", rich_help_panel=MODEL)
    ] = "onnxruntime",
    threads: Annotated[
        int, typer.Option(metavar="N", min=0, help="CPU threads, 0 is the backend's choice", rich_help_panel=MODEL)
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the numbers as JSON", rich_help_panel=REPORT)] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Explain a pair step by step: what was removed, when, how likely which kind, and whence each fused pixel."""
    # Imported here so that --help and usage errors need no OpenCV.
    from cled_edge.areas import Areas  # noqa: PLC0415
    from cled_edge.backend.choice import BackendChoice  # noqa: PLC0415
    from cled_edge.bundle.reader import Bundle  # noqa: PLC0415
    from cled_edge.cli.fusing import registrar_of  # noqa: PLC0415
    from cled_edge.config import RobotConfig, read_config  # noqa: PLC0415
    from cled_edge.data.naming import Names as NamePair  # noqa: PLC0415
    from cled_edge.explain.page import PAGE, check_drawable, write_report  # noqa: PLC0415
    from cled_edge.files import make_folder  # noqa: PLC0415
    from cled_edge.fuser import Fuser  # noqa: PLC0415
    from cled_edge.pairing import open_pair  # noqa: PLC0415
    from cled_edge.select import open_chosen  # noqa: PLC0415
    from cled_edge.thermal import Thermal  # noqa: PLC0415

    console = told_to(verbose=verbose, quiet=quiet)
    check_drawable()
    given = {} if calibration is None else {"calibration": calibration}
    whole = (read_config(config, given) if config else RobotConfig()).overlaid(given, given_controls)
    controls = Controls.from_mapping(whole.controls, "the controls")
    registrar, areas = registrar_of(whole), Areas(table.area() for table in whole.areas)
    counts = infrared_range and numbers_of(infrared_range, "--infrared-range", "LOW,HIGH", float)
    crop = numbers_of(infrared_crop, "--infrared-crop", "ABOVE,BELOW", int) if infrared_crop else (0, 0)
    thermal = Thermal(counts or None, cast("Polarity", infrared_polarity))
    opened = Bundle.open(bundle, public_key=require_signature)
    with (
        open_pair(infrared, visible, names=NamePair.parse(names) if names else None, crop_rows=crop) as pairs,
        Fuser(
            opened, open_chosen(BackendChoice.parse(backend), opened, threads), thermal=thermal, areas=areas
        ) as fuser,
    ):
        make_folder(out)
        total = min(-(-min(pairs.announced) // every), max_frames) if pairs.announced else None
        with progress_bar("explaining", total, console, status_period_s(verbose=verbose)) as advance:
            name, told, over_time = explain_all(
                map(registrar, pairs) if registrar else pairs, fuser, controls, pair, every, max_frames, seeds, advance
            )
    written = write_report(told, out, name, over_time)
    if as_json:
        typer.echo(json_of(written.numbers), nl=False)
        return
    for sentence in written.verdicts:
        typer.echo(sentence)
    typer.echo(f"wrote {out / PAGE}")


def explain_all(
    pairs: "Iterable[FramePair]",
    fuser: "Fuser",
    controls: Controls,
    chosen: int,
    every: int,
    most: int,
    seeds: int,
    advance: "Callable[[], None]",
) -> "tuple[str, Explanation, OverTime | None]":
    """Explain pairs; return the chosen one's name and explanation, and the curves over all if there are several.

    NoPairsError if there are not so many.
    """
    from cled_edge.explain import explain as explain_pair  # noqa: PLC0415
    from cled_edge.explain.over_time import OverTime  # noqa: PLC0415

    over_time, kept, seen, first_ns = OverTime(), None, 0, None
    for index, each in enumerate(pairs):
        if index % every and index != chosen:
            continue
        is_chosen = index == chosen
        told = explain_pair(
            *(fuser, each.infrared, each.visible, controls), validity=each.validity, seeds=seeds if is_chosen else 0
        )
        if is_chosen:
            kept = each.name, told
        if index % every == 0:
            first_ns = each.visible.timestamp_ns if first_ns is None else first_ns
            over_time.add(each.name, _seconds(each, first_ns), told)
            advance()
        seen = index + 1
        if len(over_time.rows) >= most and index >= chosen:
            break
    if kept is None:
        raise NoPairsError(f"pair {chosen} is to be explained, but there are {seen}, from 0; choose one of them")
    return *kept, over_time if len(over_time.rows) > 1 else None


def _seconds(pair: "FramePair", first_ns: int) -> float | None:
    from cled_edge.frame import ORDER  # noqa: PLC0415

    return None if pair.visible.clock == ORDER else (pair.visible.timestamp_ns - first_ns) / 1e9
