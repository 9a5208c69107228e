"""Means over pictures, the share of the way that restoration goes, and the verdict on each bar."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.ems import SINGLE
from benchmarks.published import BEST_PEERS
from benchmarks.quality_measures import CEILING, CLEAN, MAX, OURS, Row

LIGHTS = ("all", "day", "night")
NINE = "nine single degradations"
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
            found.append({**dict(zip(by, key, strict=True)), "light": light, "pictures": count, **values})
    return found


def degraded_summary(rows: list[Row]) -> dict[str, list[Row]]:
    """Return means by case and method, nine single degradations together too, and the share of the way that ours goes.

    The way leads from the maximum of the degraded pair to the maximum of the clean one.
    """
    single = {case.name for case in SINGLE}
    together = [{**row, "case": NINE} for row in rows if row["case"] in single]
    found = means([*rows, *together], ("case", "method"))
    return {"scores": found, "shares": shares(found)}


def shares(scores: list[Row]) -> list[Row]:
    """Return (ours - max of the degraded) / (max of the clean - max of the degraded) of each score, by case and light.

    None where the way is shorter than SMALLEST_WAY. The ceiling is that of all pictures: every case has the same ones.
    """
    by = {(row["case"], row["light"], row["method"]): row for row in scores}
    found = []
    for (case, light, method), ours in by.items():
        ceiling = by.get((CLEAN, light, CEILING))
        if method != OURS or ceiling is None:
            continue
        low = by[case, light, MAX]
        ways = {name: ceiling[name] - low[name] for name in SHARED}
        gone = {
            name: round((ours[name] - low[name]) / way, 3) if way >= SMALLEST_WAY else None
            for name, way in ways.items()
        }
        found.append({"case": case, "light": light, "pictures": ours["pictures"], **gone})
    return found


def halves_summary(rows: list[Row], by: tuple[str, ...] = ("half", "case")) -> list[Row]:
    """Return mean PSNR and SSIM before and after restoration, the gain in dB, and the smallest gain of any picture."""
    found = []
    for row in means(rows, by):
        same = [r for r in rows if all(r[k] == row[k] for k in by) and row["light"] in ("all", r.get("light"))]
        gains = [r["psnr_after"] - r["psnr_before"] for r in same]
        after = [r["psnr_after"] for r in same]
        row |= {"gain_db": round(float(np.mean(gains)), 3), "lowest_gain_db": round(min(gains), 3)}
        found.append({**row, "lowest_psnr_after": round(min(after), 3)})
    return found


def people_summary(rows: list[Row]) -> list[Row]:
    """Return each method's contrast of people in grey levels, and its ratio to that in the infrared picture."""
    labels = ("folder", "stem", "light", "box")
    methods = [name for name in rows[0] if name not in labels]
    infrared = float(np.mean([row["infrared"] for row in rows]))
    found = []
    for method in methods:
        levels = float(np.mean([row[method] for row in rows]))
        counts = {"boxes": len(rows), "pictures": len({row["stem"] for row in rows})}
        found.append({"method": method, **counts, "levels": round(levels, 2), "ratio": round(levels / infrared, 3)})
    return found


def bars(summary: dict[str, Any]) -> list[Row]:
    """Return a row for each bar that was measured: what, the number needed and seen, of how many pictures, and met."""
    found = []
    if "restored" in summary:
        found += _restored_bars(summary["restored"])
    if "degraded" in summary:
        found += _share_bars(summary["degraded"]["shares"])
    for row in summary.get("clean", []):
        peer = BEST_PEERS.get(row["folder"])
        if row["method"] == OURS and row["light"] == "all" and peer is not None:
            for name in ("vif", "qabf"):
                what = f"fused from clean {row['folder']}: {name}, the best learned peer's on held-back pairs"
                found.append(_bar(what, row[name], getattr(peer, name), row["pictures"]))
    for part, what, needed in (
        ("people", "people at night, fused contrast over infrared contrast", PEOPLE_RATIO),
        ("smoke", "people in smoke, fused contrast over infrared contrast", SMOKE_RATIO),
    ):
        found += [
            _bar(what, row["ratio"], needed, row["pictures"]) for row in summary.get(part, []) if row["method"] == OURS
        ]
    for row in summary.get("balance", []):
        if row["light"] == "all":
            what = f"balance {row['balance']:g}: SSIM of fused with restored {row['half']}"
            found.append(_bar(what, row["ssim"], BALANCE_SSIM, row["pictures"]))
    return found


def _restored_bars(rows: list[Row]) -> list[Row]:
    """Judge visible pictures by day, which have a reference for their brightness, and infrared ones by all."""
    judged = {(r["half"], r["case"]): r for r in rows if r["light"] == ("day" if r["half"] == "visible" else "all")}
    found = []
    bright = [judged["visible", case] for case in BRIGHT_CASES if ("visible", case) in judged]
    if bright:
        gain = float(np.mean([row["gain_db"] for row in bright]))
        what = "restored visible, low light, overexposure, haze, noise: mean gain in dB"
        found.append(_bar(what, gain, RESTORED_DB, bright[0]["pictures"]))
    cases = [("visible", "visible rain", RAIN_DB), *(("infrared", case, INFRARED_DB) for case in INFRARED_CASES)]
    for half, case, needed in cases:
        if row := judged.get((half, case)):
            found.append(_bar(f"restored {case}: gain in dB", row["gain_db"], needed, row["pictures"]))
    degraded = [row for (_, case), row in judged.items() if case != CLEAN]
    if degraded:
        worst = min(degraded, key=lambda row: row["gain_db"])
        what = f"restored, the least gain of all {len(degraded)} (a {worst['half']} half, {worst['case']}), dB"
        found.append(_bar(what, worst["gain_db"], WORSE_DB, worst["pictures"]))
    for (half, case), row in judged.items():
        if case == CLEAN:
            for what, key in (("mean", "psnr_after"), ("the worst picture", "lowest_psnr_after")):
                bar = f"clean {half}, PSNR of the restored against itself in dB, {what}"
                found.append(_bar(bar, row[key], CLEAN_DB, row["pictures"]))
    return found


def _share_bars(rows: list[Row]) -> list[Row]:
    return [
        _bar(
            f"fused from degraded by day, share of the way to max of the clean pair: {name}",
            row[name],
            SHARE,
            row["pictures"],
        )
        for row in rows
        if row["case"] == NINE and row["light"] == "day"
        for name in SHARED
    ]


def _bar(what: str, measured: float | None, needed: float, pictures: int) -> Row:
    met = measured is not None and measured >= needed
    value = None if measured is None else round(measured, 3)
    return {"bar": what, "needed": needed, "measured": value, "met": met, "pictures": pictures}
