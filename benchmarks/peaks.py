"""What the machine can do at most: matrix products in fp32, bf16 and int8, and copying memory.

    python -m benchmarks.peaks --update

Every library that is installed multiplies square matrices of several sizes; the peak is the best of all, since a
fraction of a peak that a slow library set would flatter. All CPUs the process may use take part: for fewer, run it
under `taskset`. OpenVINO and ONNX Runtime hold one matrix as a constant, as a network's weights are, and pack it once.
"""

import importlib
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import numpy as np
import typer

from benchmarks.result import Out, Row, Update, check_target, new_result, save
from benchmarks.tables_speed import PEAKS
from cled_edge.bench.clock import SystemClock
from cled_edge.bench.machine import describe_machine
from cled_edge.bench.measure import Budget, measure
from cled_edge.bench.scenario import Scenario
from cled_edge.bench.subject import CallSubject
from cled_edge.cpu import usable_cores
from cled_edge.errors import one_line_errors

Precision = Literal["fp32", "bf16", "int8"]
Call = Callable[[], object]
SIZES = (512, 1024, 2048)
CHAIN = 4  # products in a row, so that converting the first input from fp32 weighs little
COPY_BYTES = 256 << 20  # beyond any cache
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_rng = np.random.default_rng(0)


def torch_gemm(precision: Precision, size: int) -> Call | None:
    """Return one product in PyTorch (MKL or oneDNN), or None for int8."""
    torch = importlib.import_module("torch")
    if precision == "int8":
        return None
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    a, b = (torch.from_numpy(_matrix(size)).to(dtype) for _ in range(2))
    return lambda: a @ b


def openvino_gemm(precision: Precision, size: int) -> Call | None:
    """Return CHAIN products in OpenVINO; int8 by quantised inputs and weights, as a quantised network has them."""
    ov, ops = importlib.import_module("openvino"), importlib.import_module("openvino.opset13")
    a = x = ops.parameter([size, size], np.float32)
    for _ in range(CHAIN):
        weights = ops.constant(_matrix(size) / size)
        if precision == "int8":
            x = ops.fake_quantize(x, *_limits(ops, -1, 127 / 128), 256)
            weights = ops.fake_quantize(weights, *_limits(ops, -1, 1), 255)
        x = ops.matmul(x, weights, False, False)
    hint = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}[precision]
    settings = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": usable_cores(),
    }
    request = ov.Core().compile_model(ov.Model([x], [a]), "CPU", settings).create_infer_request()
    request.set_input_tensor(ov.Tensor(_matrix(size)))
    infer: Call = request.infer
    return infer


def onnxruntime_gemm(precision: Precision, size: int) -> Call | None:
    """Return one product in ONNX Runtime, or None for bf16, which its CPU kernels lack."""
    if precision == "bf16":
        return None
    ort, onnx = importlib.import_module("onnxruntime"), importlib.import_module("onnx")
    operator, dtypes = ("MatMul", (np.float32,) * 3) if precision == "fp32" else ("MatMulInteger", _INTEGER)
    a, weights = (np.abs(_matrix(size) * 100).astype(dtype) for dtype in dtypes[:2])
    helper, types = onnx.helper, [onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for dtype in dtypes]
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "weights"], ["product"])],
        "gemm",
        [helper.make_tensor_value_info("a", types[0], [size, size])],
        [helper.make_tensor_value_info("product", types[2], [size, size])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a})


LIBRARIES: dict[str, Callable[[Precision, int], Call | None]] = {
    "torch": torch_gemm,
    "openvino": openvino_gemm,
    "onnxruntime": onnxruntime_gemm,
}
_INTEGER = (np.uint8, np.int8, np.int32)


def measure_gemm(sizes: tuple[int, ...], duration_s: float, precisions: tuple[Precision, ...]) -> list[Row]:
    """Return rows {precision, library, size, gflop_s}, best within `duration_s`; int8 counts operations alike."""
    rows = []
    for precision, library, size in itertools.product(precisions, LIBRARIES, sizes):
        try:
            call = LIBRARIES[library](precision, size)
        except ImportError:
            continue
        if call:
            flop = 2 * size**3 * (CHAIN if library == "openvino" else 1)
            rate = round(flop / shortest_ms(call, duration_s) / 1e6, 1)
            rows.append({"precision": precision, "library": library, "size": size, "gflop_s": rate})
    return rows


def measure_copy(duration_s: float, bytes_copied: int = COPY_BYTES) -> float:
    """Return GB/s of copying on all CPUs, bytes read plus bytes written, best within `duration_s`."""
    workers = usable_cores()
    sources = [np.ones(bytes_copied // workers, np.uint8) for _ in range(workers)]
    targets = [np.zeros_like(source) for source in sources]
    with ThreadPoolExecutor(workers) as pool:
        copy_ms = shortest_ms(lambda: list(pool.map(np.copyto, targets, sources)), duration_s)
    return round(2 * workers * sources[0].nbytes / copy_ms / 1e6, 1)


def shortest_ms(call: Call, duration_s: float) -> float:
    """Return the shortest of the calls within `duration_s`, of one library alone: threads of another would spin on."""
    budget = Budget(Scenario("offline"), duration_s, warm_up_s=0, min_samples=1)
    (found,) = measure([CallSubject("", call)], budget, SystemClock(), np.random.default_rng(0))
    return min(sample.latency_ns for block in found.blocks for sample in block.samples) / 1e6


def best(rows: list[Row]) -> dict[str, float | None]:
    """Return the best rate by precision, as `<precision>_gflop_s`; None for one that nothing here runs."""
    rates = {p: [row["gflop_s"] for row in rows if row["precision"] == p] for p in ("fp32", "bf16", "int8")}
    return {f"{precision}_gflop_s": max(found, default=None) for precision, found in rates.items()}


def main(
    duration_s: Annotated[float, typer.Option(min=0.01, help="time for each product, of each library and size")] = 1.0,
    sizes: Annotated[list[int] | None, typer.Option(min=1, help="side of the square matrices, repeatable")] = None,
    out: Out = None,
    update: Update = False,
) -> None:
    """Measure, and print the table."""
    # Without bf16 instructions the libraries emulate it: slower than fp32, and no peak of anything.
    has_bf16 = bool(_BF16_FLAGS & set(describe_machine()["instructions"]))
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "int8") if has_bf16 else ("fp32", "int8")
    with one_line_errors():
        check_target(out, update)
        products = measure_gemm(tuple(sizes or SIZES), duration_s, precisions)
        rows = [{"part": "best", **best(products), "copy_gb_s": measure_copy(duration_s)}]
        rows += [{"part": "product", **row} for row in products]
        result = new_result("peaks", "", rows, settings={"duration_s": duration_s})
        print("\n".join(PEAKS.lines(result)))
        save(result, out, update)


def _matrix(size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return _rng.uniform(-1, 1, (size, size)).astype(np.float32)


def _limits(ops: Any, low: float, high: float) -> list[Any]:
    """Return input low and high, then output low and high, of a quantiser that keeps the scale."""
    return [ops.constant(np.float32(value)) for value in (low, high, low, high)]


if __name__ == "__main__":
    typer.run(main)
