"""The bars that a GPU's result is held to, and its tables."""

from collections.abc import Iterable
from typing import Any

from cled_edge.size import size_text

Row = dict[str, Any]
Table = tuple[str, list[str], list[list[object]]]  # caption, header, rows
STREAM, GRAPH, ONNXRUNTIME = "tensorrt-stream", "tensorrt-graph", "onnxruntime-cuda"
EAGER, COMPILED, CAPTURED = "torch-eager", "torch-compile", "torch-graph"
TORCH = (EAGER, COMPILED, CAPTURED)
RUNTIME = (GRAPH, STREAM, ONNXRUNTIME)
FORMS = (*TORCH, *RUNTIME)
OVER_EAGER, OVER_TORCH, PSNR_DB, TAIL, TAIL_FRAMES = 3.0, 1.2, 50.0, 1.1, 5000
EDGE_MS, EDGE_GPU, EDGE = 2.0, "H200", {"preset": "edge", "size": [480, 640], "steps": 2}
OVERHEAD_US, SOAK_FRAMES, HOST_GROWTH_BYTES = 40.0, 200_000, 16 << 20
KEY = ("preset", "size", "steps")


def bars(values: Row) -> list[Row]:
    """Return {bar, needed, measured, met, of} of each: the worst of what was measured; None where nothing was."""
    rows, soak = values["rows"], values.get("soak") or {}
    by = {(*_key(row), row["form"]): row for row in rows}
    eager, fastest = [], []
    for row in rows:
        if row["form"] == GRAPH:
            torch_ms = {form: by[(*_key(row), form)]["host_ms"]["p50"] for form in TORCH if (*_key(row), form) in by}
            p50_ms = row["host_ms"]["p50"]
            eager += [torch_ms[EAGER] / p50_ms] if EAGER in torch_ms else []
            fastest += [min(torch_ms.values()) / p50_ms] if len(torch_ms) == len(TORCH) else []
    graphs = [row for row in rows if row["form"] == GRAPH]
    tails = [row["p99"] / row["p50"] for row in values["steady"] if row["frames"] >= TAIL_FRAMES]
    runs_long = soak.get("frames", 0) >= SOAK_FRAMES and soak["sees_strengths"]
    on_edge_gpu = EDGE_GPU in values["gpu"]
    edge_ms = [row["host_ms"]["p50"] for row in graphs if all(row[name] == EDGE[name] for name in KEY) and on_edge_gpu]
    psnr_db = [row["psnr_db"] for row in rows if row["form"] in (GRAPH, STREAM)]
    overhead_us = [row["overhead_us"] for row in graphs]
    return [
        _at_least("one CUDA graph, times faster than torch eager FP16", OVER_EAGER, eager),
        _at_least("one CUDA graph, times faster than the fastest of three torch forms", OVER_TORCH, fastest),
        _at_least("whole loop against eager FP32, dB", PSNR_DB, psnr_db),
        _at_most(f"p99 / p50 over {TAIL_FRAMES} frames", TAIL, tails),
        _at_most(f"edge, 2 steps, 480x640 on an {EDGE_GPU}, p50 ms", EDGE_MS, edge_ms),
        _at_most("host time beyond the GPU's, bytes in page-locked memory, us", OVERHEAD_US, overhead_us),
        _at_most(f"stale frames of {SOAK_FRAMES}", 0, [soak["stale"]] if runs_long else []),
        _at_most("GPU memory grown meanwhile, bytes", 0, [soak["gpu_grown_bytes"]] if runs_long else []),
        _at_most(
            "host memory grown meanwhile, bytes", HOST_GROWTH_BYTES, [soak["host_grown_bytes"]] if runs_long else []
        ),
    ]


def tables(values: Row) -> list[Table]:
    """Return the bars, the forms, the engines and what was not measured."""
    found = [
        ("Bars", ["bar", "needed", "measured", "met", "of"], [_bar_cells(bar) for bar in values["bars"]]),
        ("Forms", _FORM_HEADER, [_form_cells(values, row) for row in sorted(values["rows"], key=_order)]),
    ]
    engines: list[list[object]] = [
        [row["preset"], row["graph"], *(row[name] for name in ("engine_mb", "device_mb", "build_s", "psnr_db"))]
        for row in values["engines"]
    ]
    header = ["preset", "graph", "engine MB", "device MB", "build s", "PSNR dB"]
    found.append(("Engines", header, engines))
    missing: list[list[object]] = [
        [row["preset"], size_text(row["size"]), row["steps"], row["form"], row["reason"].replace("|", "/")]
        for row in sorted(values["not_measured"], key=_order)
    ]
    found.append(("Not measured", ["preset", "pair", "steps", "form", "why"], missing))
    return [table for table in found if table[2]]


_FORM_HEADER = [
    "preset",
    "pair",
    "steps",
    "form",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "GPU p50 ms",
    "beyond it us",
    "PSNR dB",
]
_FORM_HEADER += ["of matrix rate", "of copy rate", "device MB", "launched"]


def _form_cells(values: Row, row: Row) -> list[object]:
    gpu_ms = row["gpu_ms"]
    cells: list[object] = [row["preset"], size_text(row["size"]), row["steps"], row["form"]]
    cells += [f"{row['host_ms'][name]:.3f}" for name in ("p50", "p90", "p99")]
    cells += ["-", "-"] if gpu_ms is None else [f"{gpu_ms['p50']:.3f}", f"{row['overhead_us']:.0f}"]
    return [*cells, row["psnr_db"], *_fractions(values, row), row.get("device_mb", "-"), row["how"]]


def _fractions(values: Row, row: Row) -> list[str]:
    """Return which share of the GPU's peaks the frame's time on the GPU, or else on the host, comes to."""
    work = next((work for work in values["work"] if _key(work) == _key(row)), None)
    if work is None or not values["peaks"]:
        return ["-", "-"]
    seconds = (row["gpu_ms"] or row["host_ms"])["p50"] / 1e3
    rates = work["gflop"] / 1e3 / seconds, work["mb"] / 1e3 / seconds
    return [
        f"{rate / values['peaks'][name]:.0%}" for rate, name in zip(rates, ("fp16_tflop_s", "copy_gb_s"), strict=True)
    ]


def _bar_cells(bar: Row) -> list[object]:
    if bar["met"] is None:
        return [bar["bar"], f"{bar['needed']:g}", "not measured", "-", 0]
    return [bar["bar"], f"{bar['needed']:g}", f"{bar['measured']:.4g}", "yes" if bar["met"] else "no", bar["of"]]


def _at_least(name: str, needed: float, found: list[float]) -> Row:
    worst = min(found, default=None)
    return _bar(name, needed, worst, None if worst is None else worst >= needed, len(found))


def _at_most(name: str, needed: float, found: list[float]) -> Row:
    worst = max(found, default=None)
    return _bar(name, needed, worst, None if worst is None else worst <= needed, len(found))


def _bar(name: str, needed: float, measured: float | None, met: bool | None, count: int) -> Row:
    return {"bar": name, "needed": needed, "measured": measured, "met": met, "of": count}


def _key(row: Row) -> tuple[object, ...]:
    return row["preset"], *row["size"], row["steps"]


def _order(row: Row) -> tuple[object, ...]:
    return (*_key(row), FORMS.index(row["form"]))


def merged(old: Row, new: Row) -> Row:
    """Return two results of one GPU as one: what is measured again replaces what was, and a reason why it was not."""
    values = {**old, **{name: value for name, value in new.items() if value or name not in old}}
    for name, keys in _KEYS.items():
        both = {tuple(map(str, (row[key] for key in keys))): row for row in (*old.get(name, ()), *new.get(name, ()))}
        values[name] = list(both.values())
    measured = {(*_key(row), row["form"]) for row in values["rows"]}
    values["not_measured"] = [row for row in values["not_measured"] if (*_key(row), row["form"]) not in measured]
    values["parts"] = {**old.get("parts", {}), **new.get("parts", {})}
    return values


_KEYS: dict[str, Iterable[str]] = {
    "rows": (*KEY, "form"),
    "not_measured": (*KEY, "form"),
    "steady": (*KEY, "form"),
    "work": KEY,
    "engines": ("preset", "graph", "size", "tensorrt"),
}
