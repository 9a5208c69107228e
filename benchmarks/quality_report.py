"""The report of a quality result: one HTML page with tables, plots and pictures inside it, and the sheets as PNG."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import quality_tables as tables
from benchmarks.ems import CASES, Case
from benchmarks.held_out import Scene, find_pairs, read_scene, read_scenes, smoke_frames
from benchmarks.quality_measures import CLEAN, MAX, OURS, PairFuser, Row
from benchmarks.quality_summary import NINE, SHARED
from benchmarks.sheet import Strip, data_uri, draw_sheet
from cled_edge import __version__
from cled_edge.bench.machine import machine_line
from cled_edge.errors import OptionError, OutputError
from cled_edge.files import write_whole
from cled_edge.image import Uint8, write_png

TEMPLATE = Path(__file__).parent / "quality_report.html.j2"
ROOT = Path(__file__).parent.parent
IGNORED = "runs"  # by git
PLOT_IN = 9.0
INSTALL = "pip install 'cled-edge[report]'"
SHEET_PAIRS, NIGHT_PAIRS, SMOKE_PICTURES = 24, 8, 6
COLUMNS = "infrared | visible | restored visible | fused"


def write_report(
    folder: Path, result: dict[str, Any], halves: list[Row], fuser: PairFuser, root: Path, smoke: Path | None
) -> Path:
    """Write `report.html` and the sheets into a folder; return the page. OutputError if it cannot be written.

    halves: the rows of restored halves by picture, from which the worst of each case are chosen and made again.
    """
    try:
        import jinja2  # noqa: PLC0415
        import matplotlib as mpl  # noqa: PLC0415, F401
    except ImportError as error:
        raise OptionError(f"a report needs Jinja2 and matplotlib ({error}); install them: {INSTALL}") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}; choose another folder") from error
    sheets = _sheets(fuser, root, result, halves, smoke)
    for name, (_, picture) in sheets.items():
        write_png(folder / f"{name}.png", picture)
    summary = result["summary"]
    plots = []
    if "restored" in summary:
        plots.append(("PSNR gained by restoration, dB", _gain_plot(summary["restored"])))
    if "degraded" in summary:
        plots.append(
            ("Share of the way from max of the degraded to max of the clean pair, by day", _share_plot(summary))
        )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(TEMPLATE.read_text()).render(
        result=result,
        machine=machine_line(result["machine"]),
        tables=[build(result) for part, build in _TABLES if part in summary or part == "bars"],
        plots=plots,
        sheets=[(name, title, data_uri(picture)) for name, (title, picture) in sheets.items()],
        version=__version__,
    )
    write_whole(folder / "report.html", page)
    return folder / "report.html"


def check_folder(folder: Path, option: str = "--report") -> None:
    """Refuse a folder of the repository that git does not ignore: the pictures are others', and not to be committed."""
    place = folder.resolve()
    if place.is_relative_to(ROOT) and place.relative_to(ROOT).parts[:1] != (IGNORED,):
        raise OptionError(
            f"{option} is in {folder}; its pictures are not ours to commit: give {IGNORED}/NAME, or one outside"
        )


_TABLES = (
    ("bars", tables.bars_table),
    ("restored", tables.restored_table),
    ("restored", tables.restored_sets_table),
    ("references", tables.references_table),
    ("degraded", tables.nine_table),
    ("degraded", tables.degraded_table),
    ("clean", tables.clean_table),
    ("clean", tables.paper_table),
    ("people", tables.people_table),
)


def pairs_in_turn(root: Path, folders: list[str], count: int, everything: bool) -> Iterator[Scene]:
    """Read `count` pairs, taken from the folders in turn until each has no more; a folder's are spread evenly."""
    sizes = {name: len(find_pairs(root, name, 0, everything)) for name in folders}
    shares = dict.fromkeys(folders, 0)
    while sum(shares.values()) < min(count, sum(sizes.values())):
        for name in folders:
            if shares[name] < sizes[name] and sum(shares.values()) < count:
                shares[name] += 1
    for name, share in shares.items():
        if share:
            yield from read_scenes(root, name, share, everything)


def _sheets(
    fuser: PairFuser, root: Path, result: dict[str, Any], halves: list[Row], smoke: Path | None
) -> dict[str, tuple[str, Uint8]]:
    """Return title and picture of each sheet by its file's name."""
    run = result["run"]
    chosen = root, run["folders"]
    sheets = {}
    strips = [_strip(fuser, s) for s in pairs_in_turn(*chosen, SHEET_PAIRS, run["all"])]
    sheets["sheet"] = f"{len(strips)} pairs: {COLUMNS}", draw_sheet(strips, columns=2)
    dark = [s for s in pairs_in_turn(*chosen, 4 * SHEET_PAIRS, run["all"]) if s.light == "night"][:NIGHT_PAIRS]
    if dark:
        title = f"Night, larger: {COLUMNS}"
        sheets["night"] = title, draw_sheet([_strip(fuser, s) for s in dark], tile=(300, 400))
    if smoke:
        frames = [scene for scene, boxes in smoke_frames(smoke) if boxes]
        frames = frames[:: max(len(frames) // SMOKE_PICTURES, 1)][:SMOKE_PICTURES]
        title = f"Real smoke: {COLUMNS}"
        sheets["smoke"] = title, draw_sheet([_strip(fuser, s) for s in frames], tile=(300, 400))
    worst = [_worst_strip(fuser, root, run["all"], case, row) for case, row in _worst(halves)]
    if worst:
        title = "The least gain of each degradation: degraded | restored | clean | fused"
        sheets["worst"] = title, draw_sheet(worst, columns=2, tile=(240, 320))
    return sheets


def _strip(fuser: PairFuser, scene: Scene) -> Strip:
    fused = fuser(scene.infrared, scene.visible)
    return Strip(
        f"{scene.folder} {scene.stem}, {scene.light}", (scene.infrared, scene.visible, fused.visible, fused.picture)
    )


def _worst(halves: list[Row]) -> list[tuple[Case, Row]]:
    """Return the row of the least gain of each case, visible halves by day only."""
    found = []
    for case in CASES:
        rows = [r for r in halves if r["case"] == case.name and (r["half"] == "infrared" or r["light"] == "day")]
        if rows:
            found.append((case, min(rows, key=lambda row: row["psnr_after"] - row["psnr_before"])))
    return found


def _worst_strip(fuser: PairFuser, root: Path, everything: bool, case: Case, row: Row) -> Strip:
    pairs = find_pairs(root, row["folder"], 0, everything)
    scene = read_scene(row["folder"], *next(pair for pair in pairs if pair[0] == row["stem"]))
    degraded = dict(zip(("infrared", "visible"), case(scene.infrared, scene.visible, scene.seed), strict=True))
    fused = fuser(degraded["infrared"], degraded["visible"])
    half = row["half"]
    pictures = degraded[half], getattr(fused, half), getattr(scene, half), fused.picture
    gain = row["psnr_after"] - row["psnr_before"]
    text = f"{case.name}: {row['psnr_before']:.1f} to {row['psnr_after']:.1f} dB ({gain:+.1f}), {scene.stem}, {half}"
    return Strip(text, pictures)


def _gain_plot(rows: list[Row]) -> str:
    chosen = [r for r in rows if r["light"] == ("day" if r["half"] == "visible" else "all") and r["case"] != CLEAN]
    names = [r["case"] if "," not in r["case"] else f"{r['case']} ({r['half']})" for r in chosen]
    return _bars_svg(names, {"mean": [r["gain_db"] for r in chosen]}, [r["lowest_gain_db"] for r in chosen], "gain, dB")


def _share_plot(summary: dict[str, Any]) -> str:
    rows = [row for row in summary["degraded"]["shares"] if row["light"] == "day"]
    rows.sort(key=lambda row: row["case"] != NINE)
    labels = {"vif": "VIF", "qabf": "Q^AB/F", "ssim": "SSIM"}
    # Where a degradation takes next to nothing, a share of it can be any number: the axis ends before that.
    series = {labels[name]: [max(min(row[name] or 0.0, 1.5), -1.0) for row in rows] for name in SHARED}
    return _bars_svg(
        [row["case"] for row in rows],
        series,
        None,
        f"share of the way of {OURS}: 0 is {MAX} of the degraded pair, 1 of the clean pair",
    )


def _bars_svg(names: list[str], series: dict[str, list[float]], dots: list[float] | None, label: str) -> str:
    """Return an SVG of horizontal bars, one group a name, with a dot where the worst picture is."""
    import matplotlib as mpl  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    from cled_edge.bench.plots import COLORS, STYLE  # noqa: PLC0415

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(PLOT_IN, 1.2 + 0.36 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        at, thick = np.arange(len(names)), 0.8 / len(series)
        for k, (name, values) in enumerate(series.items()):
            axes.barh(at + (k - (len(series) - 1) / 2) * thick, values, thick, label=name, color=COLORS[k])
        if dots:
            axes.plot(dots, at, "o", color=COLORS[1], markersize=4, label="the worst picture")
        axes.axvline(0, color="#555555", linewidth=0.8)
        axes.set(yticks=at, yticklabels=[name.replace(", ", ",\n") for name in names], xlabel=label)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
