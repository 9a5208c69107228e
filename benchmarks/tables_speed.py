"""The tables of time and memory: latency, a camera's frames, GPUs, tiles, and what machines can do at most."""

from benchmarks.result import Row
from benchmarks.table import Table, by_keys, columns

LATENCY_COMMAND = "python -m benchmarks.latency --backends onnxruntime,openvino:fp32,openvino:bf16 --update"
CAMERA_COMMAND = "python -m benchmarks.latency --backends openvino:fp32,openvino:bf16 --rate-hz 15 --update"


def _with_speedup(rows: list[Row]) -> list[Row]:
    """Return the rows with how many times slower each is than the runner's CUDA graph of the same frame."""
    runner = by_keys([row for row in rows if row["form"] == "tensorrt-graph"], "preset", "size", "steps")
    keyed = [(row, runner.get((row["preset"], row["size"], row["steps"]))) for row in rows]
    return [{**row, "times_slower": row["p50_ms"] / own["p50_ms"] if own else None} for row, own in keyed]


LATENCY = Table(
    "Latency",
    "latency",
    columns(
        "backend=description, threads, steps, network ms=network_p50_ms:1, p50 ms=p50_ms:1, p90 ms=p90_ms:1, "
        "p99 ms=p99_ms:1, pairs/s=rate_hz:1"
    ),
    LATENCY_COMMAND,
    "Whole call, bytes in to bytes out. The backends of one result take turns.",
)
CAMERA = Table(
    "Camera",
    "camera",
    columns(
        "backend=description, threads, steps, camera Hz=camera_hz:0, missed %=missed_percent:2, "
        "age p50 ms=age_p50_ms:1, age p99 ms=age_p99_ms:1"
    ),
    CAMERA_COMMAND,
    "Paced by a clock. A frame is missed if its output is over a period late, or if a newer one overtook it.",
)
GPU = Table(
    "On a GPU",
    "gpu",
    columns(
        "bundle=preset, frame=size, steps, form, runtime, p50 ms=p50_ms:2, p90 ms=p90_ms:2, p99 ms=p99_ms:2, "
        "GPU p50 ms=gpu_p50_ms:2, times slower=times_slower:1, PSNR dB=psnr_db:1, build s=build_s:0, note"
    ),
    "python -m benchmarks.gpu BUNDLE... --update",
    "Upload, all steps, fusion and download of a frame, by the host's clock; *GPU* by events around the same. *Times "
    "slower* than the runner's CUDA graph. Results of older bundles stay, and say so.",
    rows=_with_speedup,
    older=True,
)
TILES = Table(
    "Tiles",
    "tiles",
    columns("scene, size, output, PSNR dB=psnr_db:1, off by=tone_levels:1, seams=seam_ratio:2"),
    "python -m benchmarks.seams --data DIR --update",
    "Large images fused in tiles, as `--tile` does, against the same fused whole. *Off by*: mean difference of squares "
    "of 32 pixels, in 8-bit levels. *Seams*: steps at borders of tiles over those elsewhere; 1 is none.",
)
PEAKS = Table(
    "Peaks",
    "peaks",
    columns(
        "fp32 GFLOP/s=fp32_gflop_s:0, bf16 GFLOP/s=bf16_gflop_s:0, int8 GOP/s=int8_gflop_s:0, copy GB/s=copy_gb_s:0"
    ),
    "python -m benchmarks.peaks --update",
    "Square matrix products, the best of all installed libraries. Copying counts bytes read and written.",
    part="best",
)
LIVE = Table(
    "Live",
    "live",
    columns(
        "scenario, by=source, infrared, seconds=seconds:0, pairs, wrong, skew p50 ms=skew_p50_ms:0, max=skew_max_ms:0, "
        "age p50 ms=age_p50_ms:0, p99=age_p99_ms:0, bar=bar_ms:0, way p99 ms=way_p99_ms:0, "
        "network p50 ms=network_p50_ms:0, beside ms=beside_p50_ms:1, first pair ms=first_pair_ms:0, "
        "back after s=recovered_max_s:1, law, memory grew=rss_growth:1%"
    ),
    "python -m benchmarks.live_cameras --update",
    "Two cameras on loopback, 720x1280 at 30 Hz, and infrared at 9 Hz, of 120x160 unless said; their servers run on "
    "the same cores. A clock is drawn into each frame: *wrong* pairs are over 150 ms apart by it. *Age*: from drawing "
    "to the fused frame; its *bar* is p99 of the network and a period of the faster camera. *Way*: its part until the "
    "visible frame came. *Beside*: a frame's time but the network's. *Back after*: the longest of all restarts, from "
    "when the server answers.",
    older=True,
)
SPEED = (LATENCY, CAMERA, LIVE, GPU, TILES, PEAKS)
