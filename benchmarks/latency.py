"""What a call takes, or what becomes of a camera's frames: `cled-edge bench`, kept as a result of the project.

    python -m benchmarks.latency --backends onnxruntime,openvino:fp32,openvino:bf16 --update
    python -m benchmarks.latency --backends openvino:fp32,openvino:bf16 --rate-hz 15 --update       a camera's frames

Measure on a machine that does nothing else. What other processes took is in the result.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.result import Out, Row, Update, check_target, new_result, save
from benchmarks.tables_speed import CAMERA, LATENCY
from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.tensorrt.device import device_name
from cled_edge.bench.measure import Budget, bench
from cled_edge.bench.record import BackendResult, Record
from cled_edge.bench.scenario import Scenario
from cled_edge.bench.subject import Candidate, Inputs, open_subjects
from cled_edge.contract import Controls
from cled_edge.errors import OptionError, ResultError, one_line_errors
from cled_edge.size import parse_size
from cled_edge.stage_times import NETWORK_STAGES


def row_of(result: BackendResult, rate_hz: float | None) -> Row:
    """Return the row of a backend: percentiles of its calls, or of the age of a camera's frames."""
    row: Row = {"backend": result.label, "description": result.backend}
    row |= {"threads": result.details.get("threads", result.threads), "steps": result.steps}
    if result.camera is not None:
        counts = {name: getattr(result.camera, name) for name in ("offered", "late", "skipped")}
        row |= {"camera_hz": rate_hz, **counts, "missed_percent": result.camera.miss_percent}
        return row | _percentiles("age_", result.camera.age_ms.percentiles)
    stages = [result.stages_ms[name].percentiles["p50"] for name in NETWORK_STAGES if name in result.stages_ms]
    network_ms = round(sum(value or 0.0 for value in stages), 3)
    return (
        row
        | _percentiles("", result.latency_ms.percentiles)
        | {"network_p50_ms": network_ms, "rate_hz": result.rate_hz}
    )


def settings_of(record: Record) -> Row:
    """Return what was asked for, and what the run took of the machine."""
    asked = {name: getattr(record.run, name) for name in ("size", "inputs", "duration_s", "warm_up_s")}
    taken = {"other_processes_percent": record.others_percent, "peak_memory_mb": record.gauges["peak_memory_mb"]}
    return asked | taken


def accelerator_of(devices: Sequence[str]) -> str | None:
    """Return the name of the GPU or NPU that computed, None for the CPU; OptionError if there were several devices.

    devices: as backends tell them, such as `GPU NVIDIA H200` or `CPU`. ONNX Runtime names no GPU: CUDA does.
    """
    found = sorted({"CPU" if device.startswith("CPU") else device for device in devices})
    if len(found) > 1:
        raise OptionError(f"backends compute on {' and '.join(found)}; a result is of one device; run them apart")
    if found == ["CPU"]:
        return None
    return device_name() if found == ["GPU"] else found[0].removeprefix("GPU ")


def _percentiles(prefix: str, found: dict[str, float | None]) -> Row:
    return {f"{prefix}{name}_ms": found[name] for name in ("p50", "p90", "p99")}


def main(
    backends: Annotated[str, typer.Option(metavar="A,B", help="measured in turns")] = "onnxruntime",
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="exported model", show_default="nano")] = None,
    size: Annotated[str, typer.Option(metavar="HxW")] = "480x640",
    rate_hz: Annotated[float | None, typer.Option(help="of a camera; without it calls follow each other")] = None,
    duration_s: Annotated[float, typer.Option(help="seconds to measure, of each backend")] = 20.0,
    out: Out = None,
    update: Update = False,
) -> None:
    """Measure, and print the table."""
    with one_line_errors():
        check_target(out, update)
        scenario = Scenario("camera", rate_hz) if rate_hz else Scenario("single-stream")
        candidates = [Candidate(bundle, BackendChoice.parse(backend)) for backend in backends.split(",")]
        inputs = Inputs(size=parse_size(size, "--size"))
        with open_subjects(candidates, inputs, Controls(), threads=0) as subjects:
            device = accelerator_of([subject.fuser.backend.facts.device for subject in subjects])
            record = bench(subjects, Budget(scenario, duration_s))
            opened = subjects[0].fuser.bundle
        if update and not record.valid:
            raise ResultError(f"the run is not valid ({'; '.join(record.invalid_reasons)}); measure again")
        table = CAMERA if rate_hz else LATENCY
        rows = [row_of(result, rate_hz) for result in record.backends]
        samples = {r.label: r.samples.age_ms if r.camera else r.samples.latency_ms for r in record.backends}
        name, settings = opened.manifest.name, settings_of(record)
        result = new_result(table.measurement, name, rows, [opened], settings, samples, device)
        print("\n".join(table.lines(result)))
        save(result, out, update)


if __name__ == "__main__":
    typer.run(main)
