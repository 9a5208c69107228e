"""Tables from JSON: right numbers in the right rows, nothing left of an absent table, refusals by their words."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sections import TABLES
from benchmarks.tables import with_tables
from cled_edge.bench.record import BackendResult, BundleSpec, CameraResult, Record, RunSpec, Samples, Summary
from cled_edge.errors import OptionError, ResultError

MACHINE = {
    "cpu": "Fake CPU",
    "family": 25,
    "model": 17,
    "instructions": [],
    "usable_cores": 2,
    "virtual": True,
    "jetson": None,
}
HASHES = {"unet_step.onnx": "ab"}
ALL = f"before\n<!-- tables: {', '.join(TABLES)} -->\nold\n<!-- end -->\nafter\n"


def record(camera: bool = False, valid: bool = True, streams: int = 1) -> Record:
    latency_ms = [20.0] * 99 + [80.0]
    stages = {"steps": [6.0] * 100, "fusion": [4.0] * 100}
    samples = Samples(block=[0] * 100, start_ms=[0.0] * 100, latency_ms=latency_ms, stages_ms=stages, age_ms=[])
    result = BackendResult(
        label="x",
        backend="openvino 2026 cpu bf16",
        precision="bf16",
        threads=0,
        details={"threads": 2},
        steps=2,
        bundle=BundleSpec(name="nano", path="/x", sha256=HASHES),
        warm_up_ms=[1.0],
        measured_s=2.0,
        rate_hz=47.0,
        headline={"p90": 20.0},
        latency_ms=Summary.of(latency_ms),
        stages_ms={name: Summary.of(values) for name, values in stages.items()},
        camera=CameraResult.of(latency_ms, 4, 30.0) if camera else None,
        samples=samples,
    )
    run = RunSpec(
        scenario="camera" if camera else "single-stream",
        rate_hz=30.0 if camera else None,
        streams=streams,
        warm_up_s=1,
        duration_s=2,
        min_samples=1,
        block_s=1,
        inputs="rendered",
        size=(480, 640),
    )
    return Record(
        run_id="r",
        created_utc="2026",
        valid=valid,
        invalid_reasons=[] if valid else ["throttled"],
        run=run,
        machine=MACHINE,
        versions={},
        gauges={"peak_memory_mb": 301.4},
        others_percent=1.0,
        peaks=None,
        backends=[result],
    )


SCALING_BASE = {"size": [480, 640], "threads": 2, "steps": 3, "batch": None}


def scaling_row(**changed: Any) -> dict[str, Any]:
    latency = {"latency_ms": {"min": 1, "p50": 100.0, "p90": 120.0}, "ms_per_megapixel": 33.3}
    return {"backend": "onnxruntime", **SCALING_BASE, **latency, **changed}


SCORES = {"mi": 3.0, "vif": 0.75, "qabf": 0.5, "nabf": 0.01, "ssim": 1.2}
CLEAN_SCORES = {**SCORES, "scd": 1.5, "paper_ssim": 0.9, "paper_nabf": 0.02}
SHARE = {"vif": 0.512, "qabf": None, "ssim": -0.2}
HALF = {
    "half": "visible",
    "pictures": 3,
    "psnr_before": 10.0,
    "psnr_after": 12.5,
    "gain_db": 2.5,
    "lowest_gain_db": -0.5,
    "ssim_before": 0.4,
    "ssim_after": 0.6,
}

GPU_FRAME = {"preset": "edge", "size": [480, 640], "steps": 2}

CONTENTS: dict[str, Any] = {
    "ablation-m.json": {
        "machine": MACHINE,
        "backend": "onnxruntime 1 cpu fp32",
        "rows": [
            {
                "variant": "one-stage",
                "fuse": {"iterations": 1200},
                "scores": {name: {**CLEAN_SCORES, "pictures": 3} for name in ("pairs/m3fd", "pairs/llvip")},
            }
        ],
    },
    "bench-a.json": json.loads(record().to_json()),
    "bench-c.json": json.loads(record(camera=True).to_json()),
    "peaks-m.json": {
        "machine": MACHINE,
        "peaks": {"fp32_gflop_s": 150.2, "bf16_gflop_s": 400.0, "int8_gflop_s": None, "copy_gb_s": 20},
    },
    "operators-nano-m.json": {
        "machine": MACHINE,
        "bundle": "nano",
        "files": HASHES,
        "size": [480, 640],
        "rows": [
            {"graph": graph, "backend": "openvino:bf16", "ms": 5.0, "gflop": gflop, "types": [share]}
            for graph, gflop in (("unet_step", 0.5), ("fusion", 0.2))
            for share in ({"type": "Convolution", "share": 0.61},)
        ],
    },
    "starting-point-t-m.json": {
        "machine": MACHINE,
        "preset": "T",
        "size": [480, 640],
        "steps": 3,
        "gflop": 1824.0,
        "rows": [
            {"mode": "eager-fp32", "latency_ms": {"p50": 30000.0}},
            {"mode": "eager-bf16", "latency_ms": {"p50": 15000.0}},
            {"mode": "compile-fp32", "failed": "not done within 600 s"},
        ],
    },
    "bundles-m.json": {
        "machine": MACHINE,
        "size": [480, 640],
        "graphs": [
            {
                "bundle": "nano",
                "graph": graph,
                "precision": "fp16",
                "opset": 17,
                "size": size,
                "kb": kb,
                "nodes": nodes,
                "psnr_db": psnr_db,
                "checks": 4,
            }
            for graph, size, kb, nodes, psnr_db in (
                ("fusion-fp16", None, 900, 1265, 61.0),
                ("fused_loop-fp16", None, 1900, 2000, 58.5),
                ("fused_loop-fp16-480x640", [480, 640], 1800, 900, 57.5),
                ("fused_loop-2steps-fp16-480x640", [480, 640], 2100, 1300, None),
            )
        ],
        "precisions": [
            {
                "bundle": "nano",
                "backend": backend,
                "ms": {"min": p50, "p50": p50, "p90": p50 + 2},
                "psnr_db": psnr_db,
                "needed_db": 40.0,
            }
            for backend, p50, psnr_db in (("openvino:fp32", 40.0, 85.0), ("openvino:int8", 20.0, 41.0))
        ],
    },
    "steps-nano-m.json": {
        "machine": MACHINE,
        "bundle": "nano",
        "backend": "onnxruntime 1 cpu fp32",
        "size": [480, 640],
        "rows": [
            {
                "steps": steps,
                "ms": {"p50": 40.0 * steps, "p90": 41.0 * steps, "p99": 42.0 * steps},
                "bars": [
                    {"bar": "restored infrared noise: gain in dB", "measured": 9 + steps / 10},
                    {"bar": f"restored, the least gain of all (case {steps}), dB", "measured": 0.1},
                ],
            }
            for steps in (1, 2)
        ],
    },
    "tiling-nano-m.json": {
        "machine": MACHINE,
        "bundle": "nano",
        "tile": [768, 1024],
        "rows": [
            {
                "folder": "llvip",
                "stems": ["010001"],
                "size": [1536, 2048],
                "output": "visible",
                "method": method,
                "psnr_db": psnr_db,
                "tone_levels": 2.9,
                "ratio": 0.7,
            }
            for method, psnr_db in (("cut", 16.63), ("overlap", 17.04), ("tone", 35.22))
        ],
        "memory": [{"size": [1536, 2048], "tile": None, "grown_mb": 670.3}, {"failed": "not done within 120 s"}],
    },
    "scaling-nano-m.json": {
        "machine": MACHINE,
        "bundle": "nano",
        "base": SCALING_BASE,
        "rows": [scaling_row(), scaling_row(size=[256, 320]), scaling_row(threads=1), scaling_row(batch=4)],
    },
    "instrument-m.json": {
        "machine": MACHINE,
        "backend": "openvino:bf16",
        "delay_percent": 10.0,
        "counts": {"itself": {"no difference": 20}, "slowed": {"slower": 19, "no difference": 1}},
    },
    "quality-nano-m.json": {
        "machine": MACHINE,
        "bundle": "nano",
        "backend": "onnxruntime 1 cpu fp32",
        "bars": [{"bar": "smoke", "needed": 0.6, "measured": 0.372, "met": False, "pictures": 16}],
        "summary": {
            "clean": [
                {"folder": "pairs/m3fd", "light": light, "method": "ours", "pictures": 2, **CLEAN_SCORES}
                for light in ("all", "day")
            ],
            "degraded": {
                "scores": [
                    {"case": case, "light": "day", "method": method, "pictures": 5, **SCORES}
                    for case, method in (
                        *(("nine single degradations", method) for method in ("ours", "max", "average")),
                        ("clean", "max of the clean pair"),
                    )
                ],
                "shares": [
                    {"case": "nine single degradations", "light": light, "pictures": 5, **SHARE}
                    for light in ("all", "day")
                ],
            },
            "restored": [{**HALF, "case": "visible rain", "light": light} for light in ("all", "day", "night")],
            "references": [{**HALF, "folder": "restoration/lol", "light": "all"}],
            "people": [{"method": "ours", "boxes": 18, "pictures": 9, "levels": 14.66, "ratio": 0.324}],
        },
        "pictures": {
            "restored": {
                "columns": ["folder", "stem", "light", "case", "half", "psnr_before", "psnr_after"],
                "rows": [
                    "pairs/a,1,day,visible rain,visible,10,12",
                    "pairs/a,2,day,visible rain,visible,10,13",
                    "pairs/b,3,day,visible rain,visible,10,9",
                    "pairs/b,4,night,visible rain,visible,10,99",
                    "pairs/b,4,night,infrared blur; visible rain,infrared,10,11",
                    "pairs/b,4,night,clean,infrared,99,40",
                ],
            }
        },
    },
    "medical-m.json": {
        "machine": MACHINE,
        "backend": "onnxruntime 1 cpu fp32",
        "scores": [
            {"folder": folder, "method": "nano-medical", "pictures": 24, **CLEAN_SCORES}
            for folder in ("all", "medical/ct-mri")
        ],
        "restored": [{**HALF, "bundle": "nano-medical", "half": "infrared", "case": "infrared blur"}],
    },
    "throughput-restore-m.json": {
        "machine": MACHINE,
        "recipe": "nano",
        "stage": "restore",
        "batch": 24,
        "crop": 192,
        "precision": "bf16",
        "compiled": True,
        "threads": 2,
        "network_ms": 150.0,
        "data_ms": 20.0,
        "together_0_workers_ms": 187.5,
        "network_share_0_workers": 0.8,
    },
    "detection-yolo-nano-m.json": {
        "bundle": "nano",
        "detector": {"file": "yolo.onnx", "sha256": "ab" * 32},
        "counts": {"pictures": 3, "day": 2, "night": 1, "boxes": {"person": 6}},
        "rows": [
            {
                "source": "infrared",
                "all": {"map_50": 0.5, "map_50_95": 0.25},
                "classes": {"person": {"map_50": 0.5, "map_50_95": 0.25}},
                "day": {"map_50": 1.0, "map_50_95": 0.5},
                "night": {"map_50": None, "map_50_95": None},
            }
        ],
    },
    "gpu-m.json": {
        "machine": MACHINE,
        "gpu": "NVIDIA H200",
        "peaks": {"fp16_tflop_s": 700.0, "copy_gb_s": 4000.0},
        "work": [{**GPU_FRAME, "gflop": 170.0, "mb": 2000.0}],
        "bars": [
            {"bar": "faster", "needed": 3.0, "measured": 3.5, "met": True, "of": 1},
            {"bar": "stale", "needed": 0, "measured": None, "met": None, "of": 0},
        ],
        "rows": [
            {
                **GPU_FRAME,
                "form": "tensorrt-graph",
                "how": "one CUDA graph",
                "host_ms": {"p50": 2.04, "p90": 2.1, "p99": 2.2},
                "gpu_ms": {"p50": 2.0},
                "overhead_us": 36.4,
                "psnr_db": 61.5,
                "device_mb": 12.3,
            }
        ],
        "engines": [
            {**GPU_FRAME, "graph": "fused_loop", "engine_mb": 9.1, "device_mb": 12.3, "build_s": 41.0, "psnr_db": 62.0}
        ],
        "not_measured": [{**GPU_FRAME, "form": "torch-compile", "reason": "a | b"}],
    },
    "search-m.json": {
        "machine": MACHINE,
        "size": [480, 640],
        "iterations": 500,
        "fuse_iterations": 250,
        "rows": [
            {
                "name": "nano",
                "stage": "restore",
                "note": "taken",
                "default_steps": None,
                "gflop": 7.66,
                "ms": {"openvino:bf16": 29.5, "onnxruntime:fp32": 62.0},
                "fraction_of_peak": {"openvino:bf16": 0.63},
                "psnr_gain_db": {"visible_gain_1": 1.25},
            },
            {
                "name": "no SSAB",
                "stage": "fuse",
                "note": "TSAB alone",
                "default_steps": None,
                "gflop": 7.5,
                "ms": {"onnxruntime:fp32": 60.0},
                "fraction_of_peak": {},
                "losses": {"intensity": 0.0312},
            },
        ],
    },
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, content in CONTENTS.items():
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def test_without_results_nothing_is_left_of_the_tables(tmp_path: Path) -> None:
    empty = with_tables(ALL, tmp_path)
    assert empty == ALL.replace("old\n", "")
    assert with_tables(empty, tmp_path) == empty


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_a_heading_and_rows_as_wide_as_its_header(name: str, results: Path) -> None:
    lines = TABLES[name](results).splitlines()
    assert lines[0].startswith("### ")
    tables = [part.splitlines() for part in "\n".join(lines).split("\n\n") if part.startswith("|")]
    assert tables
    for rows in tables:
        assert len(rows) >= 3
        assert len({row.count("|") for row in rows}) == 1


def test_rendering_twice_changes_nothing(results: Path) -> None:
    once = with_tables(ALL, results)
    assert once.startswith("before\n<!-- tables: live")
    assert once.endswith("|\n\n<!-- end -->\nafter\n")
    assert with_tables(once, results) == once


def test_live_gives_percentiles_and_memory(results: Path) -> None:
    table = TABLES["live"](results)
    assert "301 MB" in table
    row = "| nano | openvino 2026 cpu bf16 | 2 | single-stream | 480x640 | 2 | 10.0 | 20.0 | 20.0 | 20.6 | 47.0 |"
    assert row in table


def test_camera_counts_late_and_skipped_frames(results: Path) -> None:
    assert "| 30 | 4.81 | 20.0 | 20.6 |" in TABLES["camera"](results)
    (results / "bench-c.json").unlink()
    assert TABLES["camera"](results) == ""


def test_quality_says_a_day_once_and_a_share_in_percent(results: Path) -> None:
    clean = TABLES["clean"](results)
    assert clean.count("| pairs/m3fd |") == 1
    assert "| pairs/m3fd | all | 2 | ours | 3.000 | 0.750 | 0.500 | 0.010 | 1.200 | 1.500 | 0.900 | 0.020 |" in clean
    assert "| 0.750 / 0.500 / 1.200 | 51% / - / -20% |" in TABLES["degraded"](results)
    assert "| visible | visible rain | day | 3 | 10.00 | 12.50 | 2.50 | -0.50 | 0.400 | 0.600 |" in TABLES["restored"](
        results
    )
    by_set = TABLES["restored"](results)
    assert "| half | degraded | pairs/a | pairs/b |" in by_set
    assert "| visible | visible rain | 2.50 | -1.00 |" in by_set
    assert "| infrared | infrared blur, visible rain | - | 1.00 |" in by_set
    assert "visible clean" not in by_set
    assert "| smoke | 0.600 | 0.372 | no | 16 |" in TABLES["bars"](results)
    assert "| labelled, at night | ours | 18 | 9 | 14.7 | 0.32 |" in TABLES["people"](results)


def test_the_papers_rows_stand_beside_ours_and_say_whose_pictures(results: Path) -> None:
    table = TABLES["paper"](results)
    assert "| paper: CLED-Fusion | the paper's | 4.012 / 0.730 / 0.493 / 0.006 / 0.903 | 2.597" in table
    assert "| nano | 2 and 0 of ours | 3.000 / 0.750 / 0.500 / 0.020 / 0.900 | - |" in table
    table = TABLES["medical"](results)
    assert "| paper: CLED-Fusion | the paper's | 3.924 | 0.939 | 0.739 | 0.002 | 1.260 |" in table
    assert "| nano-medical | 24 of ours | 3.000 | 0.750 | 0.500 | 0.020 | 0.900 |" in table
    assert "| ct-mri | 24 | nano-medical | 3.000 | 0.750 | 0.500 |" in table
    assert "| nano-medical | MRI blur | 3 | 10.00 | 12.50 | 2.50 | -0.50 | 0.400 | 0.600 |" in table


def test_variants_stand_beside_the_papers(results: Path) -> None:
    table = TABLES["ablation"](results)
    assert "| paper: one stage | the paper's | - | 3.720 / 0.715 / 0.436 / 0.030 / 0.850 | 1.733" in table
    own = "3.000 / 0.750 / 0.500 / 0.020 / 0.900"
    assert f"| one-stage | 3 and 3 of ours | 1200 | {own} | {own} |" in table


def test_a_gpu_stands_beside_its_peaks_and_bars(results: Path) -> None:
    table = TABLES["gpu"](results)
    # 170 GFLOP in 2 ms are 85 of 700 TFLOP/s, 2 GB are 1000 of 4000 GB/s.
    row = "| edge | 480x640 | 2 | tensorrt-graph | 2.040 | 2.100 | 2.200 | 2.000 | 36 | 61.5 | 12% | 25% | 12.3 |"
    assert row in table
    assert "| faster | 3 | 3.5 | yes | 1 |" in table
    assert "| stale | 0 | not measured | - | 0 |" in table
    assert "| edge | 480x640 | 2 | torch-compile | a / b |" in table
    assert "| edge | fused_loop | 9.1 | 12.3 | 41.0 | 62.0 |" in table


def test_an_invalid_run_is_no_number_for_a_table(results: Path) -> None:
    (results / "bench-a.json").write_text(record(valid=False).to_json())
    with pytest.raises(ResultError, match=r"bench-a.json is not valid \(throttled\); measure again or remove it"):
        TABLES["live"](results)


def test_an_unknown_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="table 'lives' is unknown; known: live, camera"):
        with_tables("<!-- tables: lives -->\n<!-- end -->", tmp_path)


def test_tiles_stand_way_beside_way_with_the_memory_that_could_be_measured(results: Path) -> None:
    text = TABLES["tiling"](results)
    assert "| llvip 010001 | 1536x2048 | visible | 16.6 | 17.0 | 35.2 | 2.9 | 2.9 | 2.9 | 0.7 | 0.7 | 0.7 |" in text
    assert "memory grows by: 1536x2048 whole 670.3 MB." in text
