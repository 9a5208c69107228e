"""The paper's tables beside ours: fusion (1), detection (2), medical slices (3) and what each loss is worth (4)."""

from benchmarks.measures import CLEAN, OURS
from benchmarks.published import PAPER_FOLDERS, published
from benchmarks.result import Result, Row
from benchmarks.table import Column, Table, cell_text, columns
from benchmarks.tables_quality import COMMAND, RESTORED_COLUMNS, SCORE_COLUMNS, SCORES, unless_clean

ABLATION_COMMAND = "python -m benchmarks.ablation BUNDLE... --data DIR --update"
DIFFUSION_COMMAND = "python -m benchmarks.diffusion BUNDLE... --data DIR --update"
DETECTION_COMMAND = "python -m benchmarks.detection --detector MODEL.onnx --data DIR --update"
MEDICAL_COMMAND = "python -m benchmarks.medical cled_edge/bundles/nano bundles/nano-medical --data DIR --update"
THE_PAPERS = "the paper's"
_FOLDERS = ", ".join(f"{header}={folder}" for folder, header in PAPER_FOLDERS.items())
_FIVE = "MI / VIF / Q^AB/F / N^AB/F / SSIM, profile `paper`."


def _five(row: Row) -> str:
    """Return the five scores of a row in profile `paper`, which the paper's own rows are of."""
    paper = {"nabf": row.get("paper_nabf", row["nabf"]), "ssim": row.get("paper_ssim", row["ssim"])}
    return " / ".join(cell_text({**row, **paper}[key], 3) for key in SCORES)


def _side_by_side(table: str, own: list[Row]) -> list[Row]:
    """Return a row for each method with the scores of each folder: the paper's methods, then ours."""
    found: dict[str, Row] = {}
    for row in published(table):
        line = found.setdefault(f"paper: {row['method']}", {"images": THE_PAPERS})
        line[row["folder"]] = _five(row)
    for row in own:
        line = found.setdefault(row["method"], {"iterations": row.get("iterations")})
        line[row["folder"]] = _five(row)
        line["images"] = " and ".join(filter(None, (line.get("images"), f"{row['images']}")))
    return [{"method": method, **row} for method, row in found.items()]


def _fusion(rows: list[Row]) -> list[Row]:
    own = [row for row in rows if row["folder"] in PAPER_FOLDERS and row["light"] == "all"]
    return _side_by_side("table 1", own)


def _medical(rows: list[Row]) -> list[Row]:
    papers = [{**row, "method": f"paper: {row['method']}", "images": THE_PAPERS} for row in published("table 3")]
    own = [row for row in rows if row["folder"] == "all"]
    return [*papers, *({**row, "nabf": row["paper_nabf"], "ssim": row["paper_ssim"]} for row in own)]


def _slices(rows: list[Row]) -> list[Row]:
    own = [{**row, "folder": row["folder"].rpartition("/")[2]} for row in rows if row["folder"] != "all"]
    return sorted(own, key=lambda row: str(row["folder"]))


def _slices_restored(rows: list[Row]) -> list[Row]:
    """Name what was degraded by the scans that stand for the modalities."""
    cases = [f"{row['modality']} {CLEAN}" if row["case"] == CLEAN else str(row["case"]) for row in rows]
    named = [case.replace("infrared", "MRI").replace("visible", "other") for case in cases]
    return [{**row, "case": name} for row, name in zip(unless_clean(rows), named, strict=True)]


def _detection_columns(result: Result) -> tuple[Column, ...]:
    """Return a column for each class that is labelled."""
    classes = [key for key in result.rows[0] if key.endswith("_ap_50")]
    named = ", ".join(f"{key.removesuffix('_ap_50')} AP@0.5={key}:1%" for key in classes)
    return columns(
        f"images=source, mAP@0.5=map_50:1%, mAP@[0.5:0.95]=map_50_95:1%, {named}, day mAP@0.5=day_map_50:1%, "
        "night mAP@0.5=night_map_50:1%"
    )


def _detection(rows: list[Row]) -> list[Row]:
    return [*rows, *({**row, "source": f"paper: {row['method']}"} for row in published("table 2"))]


TABLE_1 = Table(
    "The paper's Table 1",
    "quality",
    columns(f"method, images, {_FOLDERS}"),
    COMMAND,
    f"{_FIVE} The paper measures images of M3FD and LLVIP that it does not name. Ours are the few held-out pairs that "
    f"are here. So compare our rows with each other, and the paper's with each other. `{OURS}` is the bundle.",
    part="clean",
    rows=_fusion,
)
DETECTION = Table(
    "The paper's Table 2: detection",
    "detection",
    _detection_columns,
    DETECTION_COMMAND,
    "COCO mAP by pycocotools. The paper retrains YOLOv9 for each method, on a split that it does not state. Ours is "
    "one frozen detector for all sources. So compare our rows with each other, not with the paper's. The images are of "
    "`nano` before it was a loop: two steps of the present one differ by one grey level in one of 100,000 values.",
    rows=_detection,
    older=True,
)
TABLE_3 = Table(
    "The paper's Table 3: medical slices",
    "medical",
    columns("method, slices=images") + SCORE_COLUMNS,
    MEDICAL_COMMAND,
    "Profile `paper`. Slices of the Harvard whole-brain atlas, of patients that training held out: one with CT, one "
    "with PET, two with SPECT. MRI takes the place of the infrared image. The paper does not name its slices.",
    part="clean",
    rows=_medical,
)
SLICES = Table(
    "Medical slices by kind",
    "medical",
    columns("slices=folder, held out=images, method") + SCORE_COLUMNS,
    MEDICAL_COMMAND,
    "Fused from clean slices, profile `strict`.",
    part="clean",
    rows=_slices,
)
SLICES_RESTORED = Table(
    "Medical slices restored",
    "medical",
    columns("bundle=method, degraded=case, slices=images") + RESTORED_COLUMNS,
    MEDICAL_COMMAND,
    "Against the clean slices.",
    part="restored",
    rows=_slices_restored,
)
TABLE_4 = Table(
    "The paper's Table 4: what each loss is worth",
    "ablation",
    columns(f"variant=method, iterations, images, {_FOLDERS}"),
    ABLATION_COMMAND,
    f"{_FIVE} The losses are those of Eq. 19 alone. Ours are trained briefly and alike, the fusion network from "
    "scratch, in one stage both networks. They tell which way a loss pulls, not where it ends. They begin at the "
    "maximum of Eq. 16, so none fails as the paper's first row does. The scores are of lumas and blind to colour.",
    rows=lambda rows: _side_by_side("table 4", rows),
)
DIFFUSION = Table(
    "What the parts of the diffusion are worth",
    "diffusion",
    columns(
        "variant, restored=modality, iterations, seeds, images, dB at 1 step=gain_db_1:2, at 2=gain_db_2:2, "
        "at 3=gain_db_3:2, at 5=gain_db_5:2, deviation at 3=deviation_db_3:2"
    ),
    DIFFUSION_COMMAND,
    "PSNR gained, means over seeds. All are `one-pass`'s network, which sees the state, trained briefly and alike on "
    "the states of Eq. 12 at any time. *unshared*: D = 0. *alone*: a network for each modality, of half the batch, so "
    "that two cost what one for both does.",
)
PAPER = (TABLE_1, DETECTION, TABLE_3, SLICES, SLICES_RESTORED, TABLE_4, DIFFUSION)
