"""The tables of a quality result: header and rows of text, for the README and for the report alike."""

from statistics import fmean
from typing import Any, NamedTuple

from benchmarks.published import DEGRADED_PEERS, FOLDERS, TABLE_1, TABLE_3, TABLE_4, Scores
from benchmarks.quality_measures import CEILING, CLEAN, MAX, OURS, Row
from benchmarks.quality_summary import NINE

Rows = list[list[object]]
SCORE_NAMES = {"mi": "MI", "vif": "VIF", "qabf": "Q^AB/F", "nabf": "N^AB/F", "ssim": "SSIM", "scd": "SCD"}


class Table(NamedTuple):
    """A caption, and cells as text."""

    caption: str
    header: list[str]
    rows: Rows


def bars_table(result: dict[str, Any]) -> Table:
    """Return the verdict on each bar."""
    rows: Rows = [
        [row["bar"], _number(row["needed"]), _number(row["measured"]), "yes" if row["met"] else "no", row["pictures"]]
        for row in result["bars"]
    ]
    return Table("Bars", ["bar", "needed", "measured", "met", "pictures"], rows)


def clean_table(result: dict[str, Any]) -> Table:
    """Return the scores of clean inputs by folder and method; MI to SSIM as their authors define them."""
    header = ["pairs", "light", "pictures", "method", *SCORE_NAMES.values(), "SSIM paper", "N^AB/F paper"]
    keys = [*SCORE_NAMES, "paper_ssim", "paper_nabf"]
    found = [row for row in result["summary"]["clean"] if not _repeated(row, result["summary"]["clean"])]
    rows: Rows = [
        [row["folder"], row["light"], row["pictures"], row["method"], *(_number(row[key]) for key in keys)]
        for row in found
    ]
    return Table("Fused from clean inputs", header, rows)


def degraded_table(result: dict[str, Any]) -> Table:
    """Return the scores of degraded inputs against clean sources: ours, max, and the share of the way gone."""
    summary = result["summary"]["degraded"]
    by = {(row["case"], row["light"], row["method"]): row for row in summary["scores"]}
    header = ["degraded", "light", "pictures", "ours", "max", "average", "max of the clean pair", "share of the way"]
    rows: Rows = []
    for share in summary["shares"]:
        if share["light"] == "all":
            continue
        case, light = share["case"], share["light"]
        cells = [_triple(by[case, light, method]) for method in (OURS, MAX, "average")]
        ceiling = _triple(by[CLEAN, light, CEILING])
        rows.append([case, light, share["pictures"], *cells, ceiling, _triple(share, percent=True)])
    rows.sort(key=lambda row: (row[1] != "day", row[0] != NINE))
    return Table("Fused from degraded inputs, scored against the clean sources: VIF / Q^AB/F / SSIM", header, rows)


def nine_table(result: dict[str, Any]) -> Table:
    """Return the five scores of every method over nine single degradations, by day and night."""
    scores = result["summary"]["degraded"]["scores"]
    header = ["light", "pictures", "method", *list(SCORE_NAMES.values())[:5]]
    keys = list(SCORE_NAMES)[:5]
    chosen = [row for row in scores if row["case"] == NINE or row["method"] == CEILING]
    rows: Rows = [
        [row["light"], row["pictures"], row["method"], *(_number(row[key]) for key in keys)]
        for light in ("day", "night")
        for row in chosen
        if row["light"] == light
    ]
    for name, peer in DEGRADED_PEERS.items():
        cells = ["-", _number(peer.vif), _number(peer.qabf), "-", _number(peer.ssim)]
        rows.append(["both", "45 other pairs", name, *cells])
    return Table("Nine single degradations together", header, rows)


def restored_table(result: dict[str, Any]) -> Table:
    """Return PSNR and SSIM of restored pictures, visible by day, infrared all; a clean half has no gain."""
    header = ["half", "degraded", "light", "pictures", "dB before", "dB after", "gain dB", "lowest gain dB"]
    rows: Rows = []
    for row in result["summary"]["restored"]:
        if row["light"] != ("day" if row["half"] == "visible" else "all"):
            continue
        rows.append([row["half"], row["case"], row["light"], row["pictures"], *_restored_cells(row)])
    return Table("Restored against the clean pictures", [*header, "SSIM before", "SSIM after"], rows)


def restored_sets_table(result: dict[str, Any]) -> Table:
    """Return the mean gain in dB by folder of pairs, visible by day, infrared all: sets differ in what they had."""
    columns, rows = (result["pictures"]["restored"][name] for name in ("columns", "rows"))
    pictures = [dict(zip(columns, row.split(","), strict=True)) for row in rows]
    folders = list(dict.fromkeys(picture["folder"] for picture in pictures))
    gains: dict[tuple[str, str], dict[str, list[float]]] = {}
    for picture in pictures:
        if picture["case"] != CLEAN and (picture["half"] == "infrared" or picture["light"] == "day"):
            by_folder = gains.setdefault((picture["half"], picture["case"].replace(";", ",")), {})
            gain = float(picture["psnr_after"]) - float(picture["psnr_before"])
            by_folder.setdefault(picture["folder"], []).append(gain)
    shown: Rows = [
        [half, case, *(_number(fmean(found[name]) if name in found else None, 2) for name in folders)]
        for (half, case), found in gains.items()
    ]
    return Table("Gain in dB by set", ["half", "degraded", *folders], shown)


def references_table(result: dict[str, Any]) -> Table:
    """Return PSNR and SSIM of real degraded pictures."""
    header = ["pictures of", "half", "pictures", "dB before", "dB after", "gain dB", "SSIM before", "SSIM after"]
    rows: Rows = [
        [
            *(row["folder"], row["half"], row["pictures"]),
            *(_number(row[key], 2) for key in ("psnr_before", "psnr_after", "gain_db")),
            *(_number(row[key]) for key in ("ssim_before", "ssim_after")),
        ]
        for row in result["summary"]["references"]
    ]
    return Table("Real degraded pictures against their references", header, rows)


def people_table(result: dict[str, Any]) -> Table:
    """Return how far people stand out from their surround, at night and in smoke."""
    header = ["people", "method", "boxes", "pictures", "grey levels", "over infrared"]
    rows: Rows = [
        [name, row["method"], row["boxes"], row["pictures"], _number(row["levels"], 1), _number(row["ratio"], 2)]
        for part, name in (("people", "labelled, at night"), ("smoke", "warm, in real smoke"))
        for row in result["summary"].get(part, [])
    ]
    return Table("People against their surround", header, rows)


def paper_table(result: dict[str, Any]) -> Table:
    """Return Table 1 of the paper beside ours: clean M3FD and LLVIP, profile `paper`."""
    header = ["method", "pictures", "M3FD", "LLVIP"]
    rows: Rows = [
        [f"paper: {name}", "the paper's", *(_scores(sets[folder]) for folder in FOLDERS)]
        for name, sets in TABLE_1.items()
    ]
    own = [row for row in result["summary"].get("clean", []) if row["folder"] in FOLDERS and row["light"] == "all"]
    for method in dict.fromkeys(row["method"] for row in own):
        by = {row["folder"]: row for row in own if row["method"] == method}
        counts = " and ".join(str(by[folder]["pictures"]) if folder in by else "0" for folder in FOLDERS)
        cells = [_own_scores(by[folder]) if folder in by else "-" for folder in FOLDERS]
        rows.append([f"{result['bundle']}" if method == OURS else method, f"{counts} of ours", *cells])
    return Table("Table 1 of the paper: MI / VIF / Q^AB/F / N^AB/F / SSIM", header, rows)


def ablation_table(result: dict[str, Any]) -> Table:
    """Return Table 4 of the paper beside ours: clean M3FD and LLVIP, profile `paper`, of variants trained alike."""
    header = ["variant", "pictures", "iterations", "M3FD", "LLVIP"]
    rows: Rows = [
        [f"paper: {name}", "the paper's", "-", *(_scores(sets[folder]) for folder in FOLDERS)]
        for name, sets in TABLE_4.items()
    ]
    for row in result["rows"]:
        scores = [row["scores"][folder] for folder in FOLDERS]
        counts = " and ".join(str(score["pictures"]) for score in scores)
        cells = [f"{counts} of ours", row["fuse"].get("iterations", "-"), *(_own_scores(score) for score in scores)]
        rows.append([row["variant"], *cells])
    return Table("Table 4 of the paper: MI / VIF / Q^AB/F / N^AB/F / SSIM", header, rows)


def medical_table(result: dict[str, Any]) -> Table:
    """Return Table 3 of the paper beside ours: Harvard's slices of all kinds, profile `paper`."""
    header = ["method", "slices", *list(SCORE_NAMES.values())[:5]]
    rows: Rows = [
        [f"paper: {name}", "the paper's", *(_number(value) for value in scores)] for name, scores in TABLE_3.items()
    ]
    for row in result["scores"]:
        if row["folder"] == "all":
            rows.append([row["method"], f"{row['pictures']} of ours", *_own_scores(row).split(" / ")])
    return Table("Table 3 of the paper", header, rows)


def medical_kinds_table(result: dict[str, Any]) -> Table:
    """Return the scores of each kind of slices by method, profile `strict`."""
    keys = list(SCORE_NAMES)[:5]
    header = ["slices", "held out", "method", *(SCORE_NAMES[key] for key in keys)]
    rows: Rows = [
        [row["folder"].rpartition("/")[2], row["pictures"], row["method"], *(_number(row[key]) for key in keys)]
        for row in sorted(result["scores"], key=lambda row: str(row["folder"]))
        if row["folder"] != "all"
    ]
    return Table("Fused from clean slices", header, rows)


def medical_restored_table(result: dict[str, Any]) -> Table:
    """Return PSNR and SSIM of restored slices; a clean one has no gain."""
    header = ["bundle", "degraded", "slices", "dB before", "dB after", "gain dB", "lowest gain dB"]
    rows: Rows = []
    for row in result["restored"]:
        case = f"{row['half']} {CLEAN}" if row["case"] == CLEAN else row["case"]
        case = case.replace("infrared", "MRI").replace("visible", "other")
        rows.append([row["bundle"], case, row["pictures"], *_restored_cells(row)])
    return Table("Restored against the clean slices", [*header, "SSIM before", "SSIM after"], rows)


def _restored_cells(row: Row) -> list[object]:
    """Return dB before and after, mean and lowest gain, and SSIM before and after, as text."""
    is_clean = row["case"] == CLEAN
    gains = ["-", "-"] if is_clean else [_number(row["gain_db"], 2), _number(row["lowest_gain_db"], 2)]
    before = "-" if is_clean else _number(row["psnr_before"], 2)
    ssims = [_number(row[f"ssim_{k}"]) for k in ("before", "after")]
    return [before, _number(row["psnr_after"], 2), *gains, *ssims]


def _scores(scores: Scores) -> str:
    return " / ".join(_number(value) for value in scores)


def _own_scores(row: Row) -> str:
    return _scores(Scores(row["mi"], row["vif"], row["qabf"], row["paper_nabf"], row["paper_ssim"]))


def _triple(row: Row, percent: bool = False) -> str:
    values = [row[name] for name in ("vif", "qabf", "ssim")]
    return " / ".join(("-" if v is None else f"{v:.0%}") if percent else _number(v) for v in values)


def _repeated(row: Row, rows: list[Row]) -> bool:
    """Return whether a row of day or night says what the row of all says: there is only that light."""
    return row["light"] != "all" and not any(
        other["folder"] == row["folder"] and other["light"] not in ("all", row["light"]) for other in rows
    )


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
