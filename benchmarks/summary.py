"""Means over images, the share of the way that restoration goes, and the verdict on each target."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.baselines import MAXIMUM
from benchmarks.ems import SINGLE
from benchmarks.measures import CEILING, CLEAN, NINE, OURS
from benchmarks.published import published
from benchmarks.result import Row

LIGHTS = ("all", "day", "night")
SHARED = ("vif", "qabf", "ssim")  # scores that a share is taken of
SMALLEST_WAY = 0.02  # in a score: where maximum loses less by a degradation, a share of it means nothing

RESTORED_DB, RAIN_DB, WORSE_DB, CLEAN_DB, INFRARED_DB = 6.0, 2.0, -0.2, 38.0, 6.0
BRIGHT_CASES = tuple(f"visible {name}" for name in ("low_light", "overexposure", "haze", "noise"))
INFRARED_CASES = tuple(f"infrared {name}" for name in ("stripes", "strong_stripes", "noise", "low_contrast"))
SHARE, PEOPLE_RATIO, SMOKE_RATIO, BALANCE_SSIM = 0.5, 1.0, 0.6, 0.95


def means(rows: Iterable[Row], by: Sequence[str]) -> list[Row]:
    """Return the mean of every number over the rows that agree in `by`, in order of appearance, with their count.

    Where rows have a light, each group comes for all of them and for day and night apart, if there are both.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    found = []
    for key, members in groups.items():
        lights = {light for light in LIGHTS[1:] if any(row.get("light") == light for row in members)}
        for light in LIGHTS if len(lights) > 1 else ("all", *lights):
            chosen = [row for row in members if light == "all" or row["light"] == light]
            numbers = [name for name, value in chosen[0].items() if isinstance(value, float) and name not in by]
            values = {name: round(float(np.mean([row[name] for row in chosen])), 4) for name in numbers}
            count = len({(row.get("folder"), row.get("stem")) for row in chosen})
            found.append({**dict(zip(by, key, strict=True)), "light": light, "images": count, **values})
    return found


def degraded_means(rows: list[Row]) -> list[Row]:
    """Return means by case and method, those of nine single degradations together too."""
    single = {case.name for case in SINGLE}
    together = [{**row, "case": NINE} for row in rows if row["case"] in single]
    return means([*rows, *together], ("case", "method"))


def shares(scores: list[Row]) -> list[Row]:
    """Return (ours - max of the degraded) / (max of the clean - max of the degraded) of each score, by case and light.

    None where the way is shorter than SMALLEST_WAY. The ceiling is that of all images: every case has the same ones.
    """
    by = {(row["case"], row["light"], row["method"]): row for row in scores}
    found = []
    for (case, light, method), ours in by.items():
        ceiling = by.get((CLEAN, light, CEILING))
        if method != OURS or ceiling is None:
            continue
        low = by[case, light, MAXIMUM]
        ways = {name: ceiling[name] - low[name] for name in SHARED}
        gone = {
            name: round((ours[name] - low[name]) / way, 3) if way >= SMALLEST_WAY else None
            for name, way in ways.items()
        }
        found.append({"case": case, "light": light, "images": ours["images"], **gone})
    return found


def image_means(rows: list[Row], by: tuple[str, ...] = ("modality", "case")) -> list[Row]:
    """Return mean PSNR and SSIM before and after restoration, the gain in dB, and the smallest gain of any image."""
    found = []
    for row in means(rows, by):
        same = [r for r in rows if all(r[k] == row[k] for k in by) and row["light"] in ("all", r.get("light"))]
        gains = [r["psnr_after_db"] - r["psnr_before_db"] for r in same]
        after_db = [r["psnr_after_db"] for r in same]
        row |= {"gain_db": round(float(np.mean(gains)), 3), "lowest_gain_db": round(min(gains), 3)}
        found.append({**row, "lowest_psnr_after_db": round(min(after_db), 3)})
    return found


def gains_by_set(rows: list[Row]) -> list[Row]:
    """Return the mean gain in dB of each modality, case and folder, visible images by day."""
    judged = [r for r in rows if r["case"] != CLEAN and (r["modality"] == "infrared" or r["light"] == "day")]
    gains = [{**row, "light": "all", "gain_db": row["psnr_after_db"] - row["psnr_before_db"]} for row in judged]
    keys = ("modality", "case", "folder")
    return [{key: row[key] for key in (*keys, "images", "gain_db")} for row in means(gains, keys)]


def people_means(rows: list[Row]) -> list[Row]:
    """Return each method's contrast of people in 8-bit levels, and its ratio to that in the infrared image."""
    labels = ("folder", "stem", "light", "box")
    methods = [name for name in rows[0] if name not in labels]
    infrared = float(np.mean([row["infrared"] for row in rows]))
    counts = {"boxes": len(rows), "images": len({row["stem"] for row in rows})}
    levels = {method: float(np.mean([row[method] for row in rows])) for method in methods}
    return [
        {"method": method, **counts, "contrast_levels": round(mean, 2), "ratio": round(mean / infrared, 3)}
        for method, mean in levels.items()
    ]


def targets(parts: Mapping[str, list[Row]]) -> list[Row]:
    """Return a row for each target that was measured: what, needed, measured, met, and of how many images."""
    found = _restored_targets(parts.get("restored", []))
    found += [
        _target(f"fused from degraded by day, share of the way to max of the clean pair: {name}", row[name], SHARE, row)
        for row in parts.get("share", [])
        if row["case"] == NINE and row["light"] == "day"
        for name in SHARED
    ]
    peers = {peer["folder"]: peer for peer in published("best peers")}
    for row in parts.get("clean", []):
        if row["method"] == OURS and row["light"] == "all" and row["folder"] in peers:
            for name in ("vif", "qabf"):
                what = f"fused from clean {row['folder']}: {name}, the best learned peer's on held-back pairs"
                found.append(_target(what, row[name], peers[row["folder"]][name], row))
    for part, where, needed in (("people", "at night", PEOPLE_RATIO), ("smoke", "in smoke", SMOKE_RATIO)):
        what = f"people {where}, fused contrast over infrared contrast"
        found += [_target(what, row["ratio"], needed, row) for row in parts.get(part, []) if row["method"] == OURS]
    found += [
        _target(f"balance {r['balance']:g}: SSIM of fused with restored {r['modality']}", r["ssim"], BALANCE_SSIM, r)
        for r in parts.get("balance", [])
        if r["light"] == "all"
    ]
    return found


def _restored_targets(rows: list[Row]) -> list[Row]:
    """Judge visible images by day, which have a reference for their brightness, and infrared ones by all."""
    judged = {
        (r["modality"], r["case"]): r for r in rows if r["light"] == ("day" if r["modality"] == "visible" else "all")
    }
    found = []
    bright = [judged["visible", case] for case in BRIGHT_CASES if ("visible", case) in judged]
    if bright:
        gain_db = float(np.mean([row["gain_db"] for row in bright]))
        what = "restored visible, low light, overexposure, haze, noise: mean gain in dB"
        found.append(_target(what, gain_db, RESTORED_DB, bright[0]))
    cases = [("visible", "visible rain", RAIN_DB), *(("infrared", case, INFRARED_DB) for case in INFRARED_CASES)]
    for modality, case, needed in cases:
        if row := judged.get((modality, case)):
            found.append(_target(f"restored {case}: gain in dB", row["gain_db"], needed, row))
    degraded = [row for (_, case), row in judged.items() if case != CLEAN]
    if degraded:
        worst = min(degraded, key=lambda row: row["gain_db"])
        what = f"restored, the least gain of all {len(degraded)} ({worst['modality']} of {worst['case']}), dB"
        found.append(_target(what, worst["gain_db"], WORSE_DB, worst))
    for (modality, case), row in judged.items():
        if case == CLEAN:
            for what, key in (("mean", "psnr_after_db"), ("the worst image", "lowest_psnr_after_db")):
                name = f"clean {modality}, PSNR of the restored against itself in dB, {what}"
                found.append(_target(name, row[key], CLEAN_DB, row))
    return found


def _target(what: str, measured: float | None, needed: float, row: Row) -> Row:
    met = measured is not None and measured >= needed
    value = None if measured is None else round(measured, 3)
    return {"target": what, "needed": needed, "measured": value, "met": met, "images": row["images"]}
