"""Where a graph's time goes, operator by operator, in each runtime's own profile.

    python -m benchmarks.operators --backends openvino:bf16,onnxruntime

writes benchmarks/results/operators-<bundle>-<machine>.json.

The profile slows a graph with many small operators down: compare shares, and take latencies from `cled-edge bench`.
"""

import importlib
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.flops import count_gflop
from benchmarks.timing import random_inputs, write_result
from cled_edge.backend.choice import BackendChoice, available_backends
from cled_edge.backend.cpu import usable_cores
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import OptionError, one_line_errors
from cled_edge.size import padded

Inputs = dict[str, Any]
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
WARM_UP = 3


@dataclass(frozen=True)
class Node:
    """One operator of the graph that the runtime made: kernel is the implementation it chose, where it tells."""

    name: str
    type: str
    kernel: str | None
    ms: float


def openvino_profile(model: bytes, inputs: Inputs, precision: str, calls: int) -> tuple[list[Node], float]:
    """Return the nodes with median times, and the median of the whole call in milliseconds."""
    ov = importlib.import_module("openvino")
    core = ov.Core()
    graph = core.read_model(model)
    graph.reshape({name: list(array.shape) for name, array in inputs.items()})
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": usable_cores(),
        "PERF_COUNT": True,
    }
    request = core.compile_model(graph, "CPU", settings).create_infer_request()
    nodes: dict[str, tuple[str, str]] = {}
    times_ms: dict[str, list[float]] = defaultdict(list)

    def call() -> None:
        request.infer(inputs, share_inputs=True)
        for info in request.profiling_info:
            if info.status == info.Status.EXECUTED:
                nodes[info.node_name] = info.node_type, info.exec_type
                times_ms[info.node_name].append(info.real_time.total_seconds() * 1e3)

    whole_ms = _timed(lambda: request.infer(inputs, share_inputs=True), call, calls)
    return [Node(name, *nodes[name], statistics.median(v)) for name, v in times_ms.items()], whole_ms


def onnxruntime_profile(model: bytes, inputs: Inputs, _precision: str, calls: int) -> tuple[list[Node], float]:
    """Return what `openvino_profile` does; the only precision is fp32."""
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        run: Callable[[], object] = lambda: session.run(None, inputs)  # noqa: E731
        whole_ms = _timed(run, run, calls)
        events = json.loads(Path(session.end_profiling()).read_text())
    types: dict[str, str] = {}
    times_ms: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            types[name] = event["args"]["op_name"]
            times_ms[name].append(event["dur"] / 1e3)
    return [Node(name, types[name], None, statistics.median(v[WARM_UP:])) for name, v in times_ms.items()], whole_ms


PROFILES = {"openvino": openvino_profile, "onnxruntime": onnxruntime_profile}


def summarise(nodes: list[Node], top: int) -> dict[str, Any]:
    """Return the time by operator type and the `top` slowest nodes, each with its share of the sum of all."""
    total_ms = sum(node.ms for node in nodes)
    by_type: dict[str, list[float]] = defaultdict(list)
    for node in nodes:
        by_type[node.type].append(node.ms)
    types = [
        {"type": name, "count": len(v), "ms": round(sum(v), 4), "share": round(sum(v) / total_ms, 4)}
        for name, v in sorted(by_type.items(), key=lambda item: -sum(item[1]))
    ]
    slowest = sorted(nodes, key=lambda node: -node.ms)[:top]
    rows = [{**asdict(node), "ms": round(node.ms, 4), "share": round(node.ms / total_ms, 4)} for node in slowest]
    return {"nodes_ms": round(total_ms, 3), "types": types, "top": rows}


def profile(bundle: Bundle, graph: str, backend: str, size: tuple[int, int], calls: int, top: int) -> dict[str, Any]:
    """Return the summary of one graph on one backend for a pair of `size` (height, width)."""
    choice = BackendChoice.parse(backend)
    if choice.name not in PROFILES:
        raise OptionError(f"backend {backend!r} has no profile here; known: {', '.join(PROFILES)}")
    runnable = available_backends()
    if choice not in runnable:
        raise OptionError(f"backend {choice} does not run here; choose among {', '.join(map(str, runnable))}")
    multiple = bundle.manifest.size_multiple
    height, width = padded(size, multiple)
    pictures = 2 if graph == "unet_step" else 1  # infrared and visible are one batch in the step graph
    inputs = random_inputs(bundle.manifest.graphs[graph], {"batch": pictures, "height": height, "width": width})
    nodes, whole_ms = PROFILES[choice.name](bundle.graph(graph), inputs, choice.precision or "", calls)
    gflop = count_gflop(bundle.graph(graph), {name: array.shape for name, array in inputs.items()})
    return {
        "graph": graph,
        "backend": str(choice),
        "ms": whole_ms,
        "gflop": round(gflop, 3),
        **summarise(nodes, top),
    }


def main(
    backends: Annotated[str, typer.Option(metavar="A,B")] = "openvino:fp32,onnxruntime:fp32",
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="exported model [default: the shipped nano]")
    ] = None,
    height: Annotated[int, typer.Option(min=64)] = 480,
    width: Annotated[int, typer.Option(min=64)] = 640,
    calls: Annotated[int, typer.Option(min=1, help="profiled calls of each graph")] = 20,
    top: Annotated[int, typer.Option(min=1, help="slowest nodes to keep")] = 15,
) -> None:
    """Measure and write the JSON."""
    with one_line_errors():
        opened = Bundle.open(bundle)
        rows = [
            profile(opened, graph, backend, (height, width), calls, top)
            for backend in backends.split(",")
            for graph in opened.manifest.graphs
        ]
    files = opened.manifest.hashes
    values = {"bundle": opened.manifest.name, "files": files, "size": [height, width], "calls": calls, "rows": rows}
    write_result(f"operators-{opened.manifest.name}", values)
    for row in rows:
        shares = ", ".join(f"{entry['type']} {entry['share']:.0%}" for entry in row["types"][:6])
        print(f"{row['backend']} {row['graph']} {row['ms']:.1f} ms: {shares}")


def _timed(warm_up: Callable[[], object], call: Callable[[], object], calls: int) -> float:
    """Return the median of `calls` calls in milliseconds, after WARM_UP."""
    for _ in range(WARM_UP):
        warm_up()
    times_ms = []
    for _ in range(calls):
        start_s = time.perf_counter()
        call()
        times_ms.append((time.perf_counter() - start_s) * 1e3)
    return round(statistics.median(times_ms), 3)


if __name__ == "__main__":
    typer.run(main)
