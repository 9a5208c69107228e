"""The tables of `benchmarks.quality`: targets, restoration, and fusion of degraded and of clean pairs."""

from collections.abc import Iterable

from benchmarks.baselines import MAXIMUM
from benchmarks.measures import CEILING, CLEAN, DEGRADED_FOLDERS, NINE, OURS
from benchmarks.published import published
from benchmarks.result import Row
from benchmarks.table import Column, Table, by_keys, cell_text, columns

COMMAND = "python -m benchmarks.quality --data DIR --update"
SCORES = {"mi": "MI", "vif": "VIF", "qabf": "Q^AB/F", "nabf": "N^AB/F", "ssim": "SSIM"}
SCORE_COLUMNS = columns(", ".join(f"{header}={key}:3" for key, header in SCORES.items()))
_SHORT = ("vif", "qabf", "ssim")


RESTORED_COLUMNS = columns(
    "dB before=psnr_before_db:2, dB after=psnr_after_db:2, gain dB=gain_db:2, lowest gain dB=lowest_gain_db:2, "
    "SSIM before=ssim_before:3, SSIM after=ssim_after:3"
)


def judged_lights(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of visible images by day and of all infrared ones: a night street is dark when it is clean."""
    return [row for row in rows if row["light"] == ("day" if row["modality"] == "visible" else "all")]


def unless_clean(rows: Iterable[Row]) -> list[Row]:
    """Return rows of restoration without the gain of clean images, which have none."""
    gone = dict.fromkeys(("psnr_before_db", "gain_db", "lowest_gain_db"))
    return [{**row, **gone} if row.get("case") == CLEAN else row for row in rows]


def _by_set(rows: list[Row]) -> list[Row]:
    """Return a row for each modality and case with the gain of each folder under its name."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = row["modality"], row["case"]
        found.setdefault(key, {"modality": key[0], "case": key[1]})[row["folder"]] = row["gain_db"]
    return list(found.values())


def _nine(rows: list[Row]) -> list[Row]:
    """Return what was fused of nine single degradations by method, by day and night, then the peers."""
    own = [row for row in rows if row["light"] != "all" and (row["case"] == NINE or row["method"] == CEILING)]
    peers = [{**peer, "light": "both", "images": "45 other pairs"} for peer in published("degraded peers")]
    return [*sorted(own, key=lambda row: row["light"]), *peers] if own else []


def _degraded(rows: list[Row]) -> list[Row]:
    """Return a row for each case by day and night: ours, two baselines, the ceiling, and the share of the way."""
    by = by_keys([row for row in rows if row["part"] == "degraded"], "case", "light", "method")
    found = []
    for share in rows:
        if share["part"] == "share" and share["light"] != "all":
            case, light = share["case"], share["light"]
            methods = {method: by[case, light, method] for method in (OURS, MAXIMUM, "average")}
            methods |= {CEILING: by[CLEAN, light, CEILING]}
            gone = {"share of the way": _triple(share, percent=True)}
            found.append({**share, **{method: _triple(row) for method, row in methods.items()}, **gone})
    return sorted(found, key=lambda row: (row["light"] != "day", row["case"] != NINE))


def _triple(row: Row, percent: bool = False) -> str:
    return " / ".join(cell_text(row[name], None if percent else 3, percent) for name in _SHORT)


def _clean(rows: list[Row]) -> list[Row]:
    """Leave out the rows of the only light that a folder has: they repeat those of all."""
    lights = {row["folder"]: {r["light"] for r in rows if r["folder"] == row["folder"]} for row in rows}
    return [row for row in rows if row["light"] == "all" or len(lights[row["folder"]]) > 2]


TARGETS = Table(
    "Targets",
    "quality",
    columns("target, needed:3, measured:3, met, images"),
    COMMAND,
    "What the images must reach, on pairs that training held out. The people at night are the exception: none of the "
    "nine labelled dark scenes is held out, but training saw no labels. The smoke is that of the clip on which this "
    "was developed.",
    part="target",
)
RESTORED = Table(
    "Restored",
    "quality",
    columns("modality, case, light, images") + RESTORED_COLUMNS,
    COMMAND,
    "PSNR over all pixels and channels, SSIM of the luma, against the clean images. Visible images are daylight ones: "
    "a night street is dark when it is clean. Training does not know these degradations (`ems.py`).",
    part="restored",
    rows=lambda rows: unless_clean(judged_lights(rows)),
)
RESTORED_SETS = Table(
    "Restored, by data set",
    "quality",
    columns("modality, case") + tuple(Column(f"gain dB, {folder}", folder, 2) for folder in DEGRADED_FOLDERS),
    COMMAND,
    part="restored_set",
    rows=_by_set,
)
REFERENCES = Table(
    "Real degraded images",
    "quality",
    columns("images of=folder, modality, images") + RESTORED_COLUMNS,
    COMMAND,
    "Against their references.",
    part="reference",
)
NINE_DEGRADED = Table(
    "Nine single degradations together",
    "quality",
    columns("light, images, method") + SCORE_COLUMNS,
    COMMAND,
    "Fused from degraded pairs, scored against the clean sources, profile `strict`: VIF and SSIM are sums over both.",
    part="degraded",
    rows=_nine,
)
DEGRADED = Table(
    "Fused from degraded pairs",
    "quality",
    columns(f"case, light, images, {OURS}, {MAXIMUM}, average, {CEILING}, share of the way"),
    COMMAND,
    "VIF / Q^AB/F / SSIM. *Share of the way*: how far ours gets from the pixel maximum of the degraded pair (0 %) to "
    "that of the clean pair (100 %).",
    rows=_degraded,
)
FUSED = Table(
    "Fused from clean pairs",
    "quality",
    columns("pairs=folder, light, images, method")
    + SCORE_COLUMNS
    + columns("SCD=scd:3, SSIM paper=paper_ssim:3, N^AB/F paper=paper_nabf:3"),
    COMMAND,
    "These metrics reward copying: a copy of the visible image, or the pixel maximum, scores above most published "
    "networks. *Paper*: with the constants of published tables.",
    part="clean",
    rows=_clean,
)
PEOPLE = Table(
    "People",
    "quality",
    columns("people=part, method, boxes, images, levels=contrast_levels:1, over infrared=ratio:2"),
    COMMAND,
    "Mean luma of a person's box above that of a ring around it, in 8-bit levels. At night the boxes are the data's "
    "labels (`people`). In smoke they are warm blobs found in the infrared video.",
    rows=lambda rows: [row for row in rows if row["part"] in ("people", "smoke")],
)
THERMAL = Table(
    "What thermal cameras do",
    "thermal",
    columns("case, images, measured=value:2, lowest=lowest:2, needed=needed, unit"),
    "python -m benchmarks.thermal_camera --data DIR --update",
    "Held-out pairs; the infrared is changed, the visible as it is. `thermal_camera.py` says how.",
)
QUALITY = (TARGETS, RESTORED, RESTORED_SETS, REFERENCES, THERMAL, DEGRADED, NINE_DEGRADED, FUSED, PEOPLE)
