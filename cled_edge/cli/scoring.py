"""`cled-edge score`: its options, the table and the JSON it makes of them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Column, Table

from cled_edge.cli.infrared_options import InfraredPolarity, InfraredRange, Names, numbers_of
from cled_edge.cli.options import INPUTS, REPORT, Quiet, Verbose, status_period_s, told_to
from cled_edge.cli.terminal_table import print_table
from cled_edge.json_text import json_of
from cled_edge.progress import progress_bar

if TYPE_CHECKING:
    from cled_edge.thermal import Polarity

FUSION_COLUMNS = {
    "mi": ("MI", 3),
    "vif": ("VIF", 3),
    "qabf": ("Qabf", 3),
    "nabf": ("Nabf", 3),
    "ssim": ("SSIM", 3),
    "scd": ("SCD", 3),
    "en": ("EN", 2),
    "sd": ("SD", 1),
    "sf": ("SF", 1),
    "ag": ("AG", 2),
}
QUALITY_COLUMNS = {"psnr_db": ("PSNR dB", 2), "ssim": ("SSIM", 4), "ms_ssim": ("MS-SSIM", 4)}
WARNING = (
    "These metrics reward copying: the maximum and a copy fuse or restore nothing, yet beat most networks. "
    "Judge the fused row beside theirs, and look at the images."
)

Source = Annotated[
    str,
    typer.Option(metavar="SRC", help="folder, glob or image; names must match in all sources", rich_help_panel=INPUTS),
]
Reference = Annotated[
    str | None,
    typer.Option(metavar="SRC", help="clean images, scored against instead of the input", rich_help_panel=INPUTS),
]


def score(
    infrared: Source,
    visible: Source,
    fused: Annotated[str, typer.Option(metavar="SRC", help="what is scored, by its luma", rich_help_panel=INPUTS)],
    restored: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="as fuse --restored wrote; needs a reference", rich_help_panel=INPUTS),
    ] = None,
    reference_infrared: Reference = None,
    reference_visible: Reference = None,
    names: Names = None,
    infrared_range: InfraredRange = None,
    infrared_polarity: InfraredPolarity = "white-hot",
    profile: Annotated[
        str, typer.Option(help="strict, or paper: SSIM and Nabf with the constants of published tables")
    ] = "strict",
    sequence: Annotated[
        bool,
        typer.Option("--sequence", help="the images are consecutive frames: score flicker too", rich_help_panel=INPUTS),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="keep the scores of every image", rich_help_panel=REPORT),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the scores of every image as JSON", rich_help_panel=REPORT)
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Score fused images against their sources, and restored ones against references."""
    # Imported here so that --help and usage errors need no OpenCV.
    from cled_edge.data.naming import Names as NamePair  # noqa: PLC0415
    from cled_edge.files import check_writable, write_whole  # noqa: PLC0415
    from cled_edge.metrics.folders import Sources, score_sources  # noqa: PLC0415
    from cled_edge.metrics.reference import checked_profile  # noqa: PLC0415
    from cled_edge.thermal import Thermal  # noqa: PLC0415

    console = told_to(verbose=verbose, quiet=quiet)
    chosen = checked_profile(profile)
    counts = infrared_range and numbers_of(infrared_range, "--infrared-range", "LOW,HIGH", float)
    sources = Sources(
        infrared,
        visible,
        fused,
        restored,
        reference_infrared,
        reference_visible,
        names=NamePair.parse(names) if names else None,
        thermal=Thermal(counts or None, cast("Polarity", infrared_polarity), repair_pixels=False),
    )
    matched = sources.files()
    if out:
        check_writable(out)
    period_s = status_period_s(verbose=verbose)
    with progress_bar("scoring", len(matched) * (1 + sequence), console, period_s) as advance:
        values = score_sources(sources, matched, chosen, sequence=sequence, advance=advance)
    text = json_of(_finite(values))
    if out:
        write_whole(out, text)
    if as_json:
        typer.echo(text, nl=False)
    else:
        print_scores(values, Console())


def print_scores(values: Mapping[str, Any], console: Console) -> None:
    """Print the means as tables, and what they do not say."""
    rows = values["means"]
    count, against = values["pictures"], values["against"]
    fusion = {name: scores for name, scores in rows.items() if "mi" in scores}
    restored = {name: scores for name, scores in rows.items() if "psnr_db" in scores}
    console.print(
        f"{count} image{'s' * (count != 1)}, profile {values['profile']}, "
        f"against the infrared {against['infrared']} and the visible {against['visible']}",
        soft_wrap=True,
        highlight=False,
    )
    print_table(_table(fusion, FUSION_COLUMNS), console)
    if "clean maximum" in fusion:
        console.print("clean maximum: of what is scored against; the other two: of the inputs", highlight=False)
    if restored:
        print_table(_table(restored, QUALITY_COLUMNS), console)
        identical = sum(row[name]["psnr_db"] == math.inf for row in values["rows"] for name in restored)
        if identical:
            equal = "1 image that equals its" if identical == 1 else f"{identical} images that equal their"
            console.print(f"PSNR leaves out {equal} reference", highlight=False)
    if "flicker" in values:
        console.print(_flicker_line(**values["flicker"]), soft_wrap=True, highlight=False)
    console.print(WARNING, style="yellow", highlight=False)


def _table(rows: Mapping[str, Mapping[str, float | None]], columns: Mapping[str, tuple[str, int]]) -> Table:
    titles = (Column(title, justify="right", no_wrap=True) for title, _ in columns.values())
    table = Table(
        Column("mean", no_wrap=True), *titles, box=None, padding=(0, 1), collapse_padding=True, pad_edge=False
    )
    for name, scores in rows.items():
        table.add_row(name, *(_number(scores[metric], digits) for metric, (_, digits) in columns.items()))
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _flicker_line(levels: float | None, still_percent: float | None) -> str:
    if levels is None or still_percent is None:
        return "flicker: no pixel of both sources is still from one frame to the next, so none can be told"
    return (
        f"flicker: {levels:.3f} grey levels a frame beyond the sources', where both are still "
        f"({still_percent:.0f}% of the video); 0 for their maximum and for a copy"
    )


def _finite(values: Any) -> Any:
    """Return JSON values with null for infinity, the PSNR of identical images, which JSON does not have."""
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
