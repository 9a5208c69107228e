"""The tables: each reads its kind of JSON from a folder and returns Markdown, "" if there is none."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import quality_tables
from benchmarks.gpu_bars import tables as gpu_tables
from cled_edge.bench.machine import machine_line
from cled_edge.bench.record import BackendResult, Record
from cled_edge.errors import ResultError
from cled_edge.size import size_text

NETWORK_STAGES = ("steps", "fusion", "network")
Rows = list[list[object]]
# Table 2 of the paper, on MSRS: mAP@0.5 and mAP@[0.5:0.95] in percent.
PAPER_DETECTION = {
    "infrared": (71.9, 48.4),
    "visible": (74.8, 47.3),
    "GIFNet": (94.5, 72.7),
    "Text-DiFuse": (89.7, 60.9),
    "CCF": (95.0, 71.6),
    "VDMUFusion": (95.3, 69.6),
    "DRMF": (92.4, 66.6),
    "CLED-Fusion": (95.4, 72.8),
}


def live(results: Path) -> str:
    """Return the latency of the whole call by backend."""
    header = ["bundle", "backend", "threads", "scenario", "pair", "steps", "network ms", "p50 ms", "p90 ms", "p99 ms"]
    header += ["pairs/s"]
    parts = []
    for record in _records(results):
        if record.run.scenario == "camera":
            continue
        rows: Rows = []
        for result in record.backends:
            shown = result.latency_ms.percentiles
            row = [
                *_names(result),
                record.run.scenario,
                size_text(record.run.size),
                result.steps,
                _ms(_network_ms(result)),
            ]
            rows.append([*row, *(_ms(shown[name]) for name in ("p50", "p90", "p99")), f"{result.rate_hz:.1f}"])
        memory_mb = _number(record.gauges["peak_memory_mb"])
        where = f"On {machine_line(record.machine)}, {record.run.inputs}, {memory_mb} MB for all rows together"
        parts.append(f"{where}:\n\n{markdown(header, rows)}")
    words = "Whole call, bytes in to bytes out."
    return _section("Latency", words, parts)


def camera(results: Path) -> str:
    """Return deadlines and frame age at a camera's pace."""
    header = ["bundle", "backend", "threads", "pair", "steps", "camera Hz", "missed %", "age p50 ms", "age p99 ms"]
    parts = []
    for record in _records(results):
        rows: Rows = []
        for result in record.backends:
            if result.camera is None:
                continue
            age = result.camera.age_ms.percentiles
            row = [*_names(result), size_text(record.run.size), result.steps, f"{record.run.rate_hz or 0:g}"]
            rows.append([*row, f"{result.camera.miss_percent:.2f}", _ms(age["p50"]), _ms(age["p99"])])
        if rows:
            parts.append(f"On {machine_line(record.machine)}:\n\n{markdown(header, rows)}")
    words = "Paced by a clock; a frame is missed if its output is over a period late, or a newer one overtook it."
    return _section("Camera", words, parts)


def peaks(results: Path) -> str:
    """Return what the machines can do at most."""
    header = ["machine", "fp32 GFLOP/s", "bf16 GFLOP/s", "int8 GOP/s", "copy GB/s"]
    names = ("fp32_gflop_s", "bf16_gflop_s", "int8_gflop_s", "copy_gb_s")
    rows: Rows = [
        [machine_line(result["machine"]), *(_number(result["peaks"][name]) for name in names)]
        for result in _load(results, "peaks")
    ]
    words = "Square matrix products, the best of all installed libraries; copying counts bytes read and written."
    return _section("Peaks", words, [markdown(header, rows)] if rows else [])


def tiling(results: Path) -> str:
    """Return how pictures fused in tiles differ from the same fused whole, and the memory of both."""
    ways, keys = ("cut", "overlap", "tone"), {"psnr_db": "PSNR dB", "tone_levels": "off by", "ratio": "seams"}
    parts = []
    for result in _load(results, "tiling"):
        found: dict[tuple[object, ...], dict[str, Any]] = {}
        for row in result["rows"]:
            name = f"{row['folder']} {row['stems'][0] if len(row['stems']) == 1 else 'mosaic'}"
            found.setdefault((name, size_text(row["size"]), row["output"]), {})[row["method"]] = row
        rows: Rows = [[*case, *(f"{row[way][key]:.1f}" for key in keys for way in ways)] for case, row in found.items()]
        taken = [row for row in result["memory"] if "grown_mb" in row]
        memory = (f"{size_text(x['size'])} {'in tiles' if x['tile'] else 'whole'} {x['grown_mb']} MB" for x in taken)
        where = f"Bundle {result['bundle']}, tiles of {size_text(result['tile'])}, on {machine_line(result['machine'])}"
        header = ["scene", "pair", "output", *(f"{word}, {way}" for word in keys.values() for way in ways)]
        parts.append(f"{where}; memory grows by: {', '.join(memory)}.\n\n{markdown(header, rows)}")
    words = (
        "*Cut*: tiles side by side; *overlap*: blended; *tone*: also brought to one tone, as `--tile` does. *Off by*:"
    )
    words += " 8-bit levels from the whole. *Seams*: steps at borders of tiles over those elsewhere; 1 is none."
    return _section("Tiles", words, parts)


def detection(results: Path) -> str:
    """Return the mAP of one detector over infrared, visible and fused pictures, beside Table 2 of the paper."""
    parts = []
    for result in _load(results, "detection"):
        header, rows = detection_rows(result)
        for name, scores in PAPER_DETECTION.items():
            rows.append([f"paper: {name}", *scores, *["-"] * (len(header) - 1 - len(scores))])
        counts, detector = result["counts"], result["detector"]
        boxes = ", ".join(f"{count} of {name}" for name, count in counts["boxes"].items())
        where = f"{detector['file']} (SHA-256 {detector['sha256'][:12]}) on {counts['pictures']} pictures"
        times = f"{counts['day']} by day, {counts['night']} at night; boxes: {boxes}; fused by {result['bundle']}"
        parts.append(f"{where}, {times}:\n\n{markdown(header, rows)}")
    words = (
        "COCO mAP in percent, by pycocotools. The paper retrains YOLOv9 for each method, on a split that it does not "
        "state; ours is one frozen detector for all sources. So compare our rows with each other, and the paper's with "
        "each other, not ours with theirs."
    )
    return _section("Detection", words, parts)


def detection_rows(result: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """Return the header and a row for each source of a result of `benchmarks.detection`, in percent."""
    names = list(result["counts"]["boxes"])
    header = ["pictures", "mAP@0.5", "mAP@[0.5:0.95]", *(f"{name} AP@0.5" for name in names)]
    rows: Rows = []
    for row in result["rows"]:
        judged = [(row["all"], "map_50"), (row["all"], "map_50_95")]
        judged += [(row["classes"][name], "map_50") for name in names]
        judged += [(row[time], "map_50") for time in ("day", "night")]
        values = [None if found[key] is None else 100 * found[key] for found, key in judged]
        rows.append([row["source"], *(_number(value, 1) for value in values)])
    return [*header, "day mAP@0.5", "night mAP@0.5"], rows


def gpu(results: Path) -> str:
    """Return what a frame takes on GPUs, form beside form, and the bars."""
    parts = []
    for result in _load(results, "gpu"):
        where = f"{result['gpu']}, in {machine_line(result['machine'])}"
        parts += [f"{caption}, on {where}:\n\n{markdown(header, rows)}" for caption, header, rows in gpu_tables(result)]
    words = (
        "Upload, all steps, fusion and download of a frame, by the host's clock; *GPU* by events around the same. *Of "
        "copy rate*: what convolutions and matrix products alone read and write. A bar holds if the worst case does."
    )
    return _section("GPU", words, parts)


def bars(results: Path) -> str:
    """Return the verdict on each bar that the pictures are held to."""
    words = (
        "What the pictures must reach, on pairs that training held out, but for people: none of the nine labelled "
        "pictures of dark scenes is held out, so that bar is of training pictures, whose labels training did not see; "
        "the smoke is that of the clip on which this was developed. The bar of TNO is not measured: none of its pairs "
        "is here."
    )
    return _quality(results, "Bars", words, ("bars", quality_tables.bars_table))


def restored(results: Path) -> str:
    """Return how near restored pictures come to the clean ones."""
    words = (
        "PSNR over all pixels and channels, SSIM of the luma. Visible pictures are daylight ones: a night street is "
        "dark when it is clean. Degradations are those of `ems.py`, which training does not know; the last table is of "
        "real ones."
    )
    tables = ("restored", quality_tables.restored_table), ("restored", quality_tables.restored_sets_table)
    return _quality(results, "Restored", words, *tables, ("references", quality_tables.references_table))


def degraded(results: Path) -> str:
    """Return what is fused from degraded pairs."""
    words = (
        "*Share of the way*: how far the fused picture gets from the pixel maximum of the degraded pair (0 %) to that "
        "of the clean pair (100 %). Scores are `strict`: VIF and SSIM are sums over both sources."
    )
    tables = ("degraded", quality_tables.nine_table), ("degraded", quality_tables.degraded_table)
    return _quality(results, "Fused from degraded pairs", words, *tables)


def clean(results: Path) -> str:
    """Return what is fused from clean pairs, ours beside what anybody can write in a line."""
    words = (
        "These metrics reward copying: a copy of the visible picture, or the pixel maximum, scores above most "
        "published networks. *Paper*: with the constants of published tables."
    )
    return _quality(results, "Fused from clean pairs", words, ("clean", quality_tables.clean_table))


def people(results: Path) -> str:
    """Return how far people stand out."""
    words = (
        "Mean luma of a person's box above that of a ring around it. At night the boxes are the data's labels; in "
        "smoke they are warm blobs found in the infrared video."
    )
    return _quality(results, "People", words, ("people", quality_tables.people_table))


def paper(results: Path) -> str:
    """Return Table 1 of the paper beside ours."""
    words = (
        "Profile `paper`. The paper measures pictures of M3FD and LLVIP that it does not name; ours are the few "
        "held-out pairs that are here. So compare our rows with each other, the paper's with each other."
    )
    return _quality(results, "The paper's table", words, ("clean", quality_tables.paper_table))


def medical(results: Path) -> str:
    """Return what is fused of medical slices, with Table 3 of the paper beside ours."""
    parts = []
    for result in _load(results, "medical"):
        where = f"{result['backend']}, on {machine_line(result['machine'])}"
        for build in (
            quality_tables.medical_table,
            quality_tables.medical_kinds_table,
            quality_tables.medical_restored_table,
        ):
            parts.append(_captioned(build(result), where))
    words = (
        "Slices of the Harvard whole-brain atlas, of patients that training held out: one with CT, one with PET, two "
        "with SPECT. MRI takes the place of the infrared picture. Table 3 is of profile `paper` and of slices that the "
        "paper does not name, the other scores are `strict`."
    )
    return _section("Medical", words, parts)


def ablation(results: Path) -> str:
    """Return Table 4 of the paper beside ours."""
    parts = []
    for result in _load(results, "ablation"):
        where = f"{result['backend']}, on {machine_line(result['machine'])}"
        parts.append(_captioned(quality_tables.ablation_table(result), where))
    words = (
        "Profile `paper`, and the losses of Eq. 19 alone. Ours are trained briefly and alike, the fusion network from "
        "scratch, in one stage both networks: they tell which way a loss pulls, not where it ends. They begin at the "
        "maximum of Eq. 16, so none fails as the paper's first row does; the scores are of lumas, blind to colour."
    )
    return _section("Ablation", words, parts)


def _quality(
    results: Path, title: str, words: str, *tables: tuple[str, Callable[[dict[str, Any]], quality_tables.Table]]
) -> str:
    """Return a section of tables, each with the part that must have been measured for it."""
    parts = []
    for result in _load(results, "quality"):
        where = f"Bundle {result['bundle']}, {result['backend']}, on {machine_line(result['machine'])}"
        for part, build in tables:
            if part == "bars" or part in result["summary"]:
                parts.append(_captioned(build(result), where))
    return _section(title, words, parts)


_QUALITY = (bars, restored, degraded, clean, people, paper)
_OTHER = (
    live,
    camera,
    peaks,
    tiling,
    detection,
    ablation,
    medical,
    gpu,
)
TABLES: dict[str, Callable[[Path], str]] = {table.__name__: table for table in (*_OTHER, *_QUALITY)}


def markdown(header: list[str], rows: Rows) -> str:
    """Return a Markdown table."""
    lines: list[list[object]] = [[*header], ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _captioned(table: quality_tables.Table, where: str) -> str:
    """Return a table below its caption and what it was measured with."""
    return f"{table.caption}. {where}:\n\n{markdown(table.header, table.rows)}"


def _section(title: str, words: str, parts: list[str]) -> str:
    return "\n\n".join([f"### {title}", words, *parts]) + "\n" if parts else ""


def _load(results: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(results.glob(f"{kind}-*.json"))]


def _records(results: Path) -> list[Record]:
    records = []
    for path in sorted(results.glob("bench-*.json")):
        record = Record.read(path)
        if not record.valid:
            raise ResultError(f"{path} is not valid ({'; '.join(record.invalid_reasons)}); measure again or remove it")
        records.append(record)
    return records


def _network_ms(result: BackendResult) -> float | None:
    found = [result.stages_ms[name].percentiles["p50"] for name in NETWORK_STAGES if name in result.stages_ms]
    return sum(value or 0.0 for value in found) if found else None


def _names(result: BackendResult) -> list[object]:
    threads = result.details.get("threads", result.threads)
    return [result.bundle.name, result.backend, "-" if threads is None else threads]


def _ms(value: float | None) -> str:
    return _number(value, 1 if value is not None and value < 100 else 0)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.0%}"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
