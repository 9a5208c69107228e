"""What a frame takes on an NVIDIA GPU, in torch, ONNX Runtime and TensorRT, beside the bars; needs a GPU.

    python -m benchmarks.gpu bundles/gpu/* --checkpoints runs/gpu --soak 200000
    python3 -m benchmarks.gpu bundles/gpu/* --checkpoints runs/gpu --forms torch-eager,torch-compile,torch-graph
    trt-python -m benchmarks.gpu bundles/gpu/* --forms tensorrt-graph,tensorrt-stream,onnxruntime-cuda --soak 200000

The first where one Python has all, the others where torch and TensorRT are in two. All write into one
benchmarks/results/gpu-<machine>.json, saved after each frame measured, so that runs may be parted by form, bundle, size
and steps. What a Python lacks is listed there with the reason. Forms of one run take turns. Bundles and checkpoints are
made where torch is: see benchmarks/README.md.
"""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from benchmarks.gpu_bars import FORMS, GRAPH, ONNXRUNTIME, PSNR_DB, RUNTIME, STREAM, TORCH, bars, merged
from benchmarks.gpu_frame import Form, Frame
from benchmarks.gpu_soak import soak
from benchmarks.timing import RESULTS, percentiles_ms, timed_rounds, whole_numbers, write_result
from cled_edge.backend.protocol import Array
from cled_edge.backend.tensorrt.device import device_name
from cled_edge.backend.tensorrt.sdk import cuda_call, import_cuda
from cled_edge.bench.machine import describe_machine, library_versions, machine_slug
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import BackendError, OptionError, ResultError, one_line_errors
from cled_edge.size import parse_size

Row = dict[str, Any]
SOAK_STEPS, SOAK_PRESET = 2, "edge"
EMPTY: Row = {"rows": [], "not_measured": [], "steady": [], "work": [], "engines": [], "peaks": None, "soak": None}


def gpu_name() -> str:
    """Return what the GPU calls itself; BackendError if neither torch nor the CUDA runtime reaches one."""
    with suppress(ImportError):
        import torch  # noqa: PLC0415  it is in one of two Pythons

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
    try:
        return device_name()
    except (BackendError, RuntimeError) as error:  # cuda-bindings raise the latter where there is no libcuda
        raise BackendError(f"no NVIDIA GPU can be reached here ({error}), needed one; see: cled-edge doctor") from error


def open_form(frame: Frame, form: str, checkpoints: Path | None) -> Form:
    """Return a form ready to run; CledEdgeError says what is missing for it."""
    if form in TORCH:
        if checkpoints is None:
            raise OptionError("no --checkpoints, needed the folder of those that the bundles were exported from")
        try:
            from benchmarks import gpu_torch  # noqa: PLC0415  it is in one of two Pythons
        except ImportError as error:
            raise BackendError(f"torch cannot be imported here ({error}); run its forms where it can") from error
        gpu_torch.check_gpu()
        return gpu_torch.open_torch(frame, form, checkpoints)
    from benchmarks import gpu_runtime  # noqa: PLC0415  beside the other

    return (
        gpu_runtime.open_onnxruntime(frame) if form == ONNXRUNTIME else gpu_runtime.open_tensorrt(frame, form == GRAPH)
    )


def compare(frame: Frame, forms: Mapping[str, Form], rounds: int, limit_s: float) -> list[Row]:
    """Return a row for each form: host and GPU times of frames in turns, and how right its outputs are."""
    gpu_ms: dict[str, list[float | None]] = {name: [] for name in forms}

    def timed(name: str, form: Form) -> None:
        form.call()
        gpu_ms[name].append(form.gpu_ms())

    calls = {name: partial(timed, name, form) for name, form in forms.items()}
    samples_ms = timed_rounds(calls, rounds, limit_s, discarded=1)
    rows = []
    for name, form in forms.items():
        # A round of one call is not kept, then each kept call follows one that is not.
        on_gpu = [value for value in gpu_ms[name][2::2] if value is not None]
        beyond_ms = [host - gpu for host, gpu in zip(samples_ms[name], on_gpu, strict=False)]
        rows.append(
            {
                **frame.key,
                "form": name,
                "runtime": form.runtime,
                "how": form.how(),
                "host_ms": percentiles_ms(samples_ms[name]),
                "gpu_ms": percentiles_ms(on_gpu) if on_gpu else None,
                "overhead_us": round(float(np.median(beyond_ms)) * 1e3, 1) if on_gpu else None,
                "psnr_db": frame.psnr_db(form.call()),
                "against": frame.expected[1],
                "needed_db": PSNR_DB,
                **form.facts,
                "samples_ms": samples_ms[name],
                "gpu_samples_ms": on_gpu,
            }
        )
    return rows


def measure(
    frame: Frame, names: Sequence[str], checkpoints: Path | None, rounds: int, frames: int, limit_s: float
) -> Row:
    """Return the part of a result that one frame gives: rows, reasons, engines, and a steady run of the CUDA graph."""
    part: Row = {name: [] for name in ("rows", "not_measured", "steady", "engines")}
    forms: dict[str, Form] = {}
    built = ""
    if {GRAPH, STREAM} & set(names):
        part["engines"], built = _or_reason(partial(_engines, frame), [])
    for name in names:
        opened, reason = _or_reason(partial(open_form, frame, name, checkpoints), None)
        if opened is None:
            reason = built if built and name in (GRAPH, STREAM) else reason
            part["not_measured"].append({**frame.key, "form": name, "reason": reason})
        else:
            forms[name] = opened
    try:
        if forms:
            part["rows"] = compare(frame, forms, rounds, limit_s * len(forms))
        if GRAPH in forms:
            (samples_ms,) = timed_rounds({GRAPH: forms[GRAPH].call}, frames, limit_s).values()
            steady = {"frames": len(samples_ms), **percentiles_ms(samples_ms), "samples_ms": samples_ms}
            part["steady"] = [{**frame.key, "form": GRAPH, **steady}]
    finally:
        for form in forms.values():
            form.close()
    return part


def soaked(frame: Frame, frames: int) -> Row:
    """Return the soak of a bundle's loop as one CUDA graph; see benchmarks/gpu_soak.py."""
    from benchmarks.gpu_runtime import open_loop  # noqa: PLC0415  beside the other

    cuda, process = import_cuda(), psutil.Process()

    def memory() -> tuple[int, int]:
        free, total = cuda_call(cuda, "cudaMemGetInfo")
        return int(total) - int(free), process.memory_info().rss

    backend, graph = open_loop(frame)
    try:
        arrays = backend.pinned_inputs(graph, frame.size)

        def run(inputs: Mapping[str, Array]) -> list[Array]:
            return backend.run(graph, inputs)

        found = soak(run, arrays, frames, memory)
    finally:
        backend.close()
    return {**frame.key, "how": ", ".join(backend.details["cuda_graph"].values()), **found}


def _engines(frame: Frame) -> list[Row]:
    from benchmarks.gpu_runtime import engine  # noqa: PLC0415  beside the other

    return [engine(frame)]


def _or_reason(call: Callable[[], Any], otherwise: Any) -> tuple[Any, str]:
    """Return what a call returns, or why it could not: one form that fails does not end the others."""
    try:
        return call(), ""
    except Exception as error:  # whatever torch or a runtime raises
        return otherwise, " ".join(f"{type(error).__name__}: {error}".split())[:300]


class Result:
    """The one JSON of this machine, as it is on disk and as it grows; ResultError if it is of another GPU."""

    def __init__(self, gpu: str, folder: Path) -> None:
        self._folder = folder
        self.path = folder / f"gpu-{machine_slug(describe_machine())}.json"
        self.values: Row = {**EMPTY, "gpu": gpu}
        if self.path.exists():
            old = json.loads(self.path.read_text())
            if old.get("gpu") != gpu:
                raise ResultError(
                    f"{self.path} is of a {old.get('gpu')}, here is a {gpu}; move it away, then run again"
                )
            self.values = {name: value for name, value in old.items() if name not in ("machine", "versions")}

    def add(self, part: Row) -> None:
        """Merge a part, judge the bars anew, and write."""
        here = {f"Python {platform.python_version()}": library_versions()}
        self.values = merged(self.values, {**part, "parts": here})
        self.values["bars"] = bars(self.values)
        write_result("gpu", self.values, self._folder)


def main(
    bundles: Annotated[list[Path], typer.Argument(help="folders of bundles with FP16 graphs of the sizes")],
    checkpoints: Annotated[
        Path | None, typer.Option(metavar="DIR", help="NAME.safetensors that each bundle was exported from, for torch")
    ] = None,
    forms: Annotated[str, typer.Option(metavar="A,B,...")] = ",".join(FORMS),
    sizes: Annotated[str, typer.Option(metavar="HxW,...")] = "480x640,768x1024",
    steps: Annotated[str, typer.Option(help="network evaluations")] = "1,2,3",
    rounds: Annotated[int, typer.Option(min=2, help="timed frames of each form, in turns")] = 300,
    frames: Annotated[int, typer.Option(min=2, help="frames of the CUDA graph alone, for p99 / p50")] = 5000,
    limit_s: Annotated[float, typer.Option(min=1, help="of each form, bundle, size and steps")] = 30,
    soak_frames: Annotated[
        int, typer.Option("--soak", min=0, help="frames of the long run, 200000 for the bar; 0 leaves it out")
    ] = 0,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where the JSON is")] = RESULTS,
) -> None:
    """Measure BUNDLES on the GPU here, and write or extend the JSON."""
    names = read_forms(forms)
    pairs = [parse_size(text, "of --sizes, one") for text in sizes.split(",")]
    numbers = whole_numbers("--steps", steps)
    work = [Frame(bundle, size, n) for bundle in map(Bundle.open, bundles) for size in pairs for n in numbers]
    result = Result(gpu_name(), results)
    if set(TORCH) & set(names):
        result.add(torch_part(work))
    for frame in work:
        part = measure(frame, names, checkpoints, rounds, frames, limit_s)
        result.add(part)
        for row in part["rows"]:
            print(*frame.key.values(), row["form"], row["host_ms"], row["psnr_db"], "dB", flush=True)
    if soak_frames:
        result.add({"soak": soaked(soak_frame(work), soak_frames)})
    for bar in result.values["bars"]:
        print(bar)


def torch_part(work: Sequence[Frame]) -> Row:
    """Return the GPU's peaks and each frame's arithmetic, if torch is here and reaches the GPU."""
    try:
        from benchmarks import gpu_torch  # noqa: PLC0415  it is in one of two Pythons

        gpu_torch.check_gpu()
    except (ImportError, BackendError):
        return {}  # each form of torch will be listed with the reason
    counted = [{**f.key, **gpu_torch.work(f.bundle.manifest.name, f.size, f.steps)} for f in work]
    return {"peaks": gpu_torch.peaks(), "work": counted}


def soak_frame(work: Sequence[Frame]) -> Frame:
    """Return the frame to soak: `edge` at 2 steps if it is there, or else the first whose bundle has its loop."""
    loops = [frame for frame in work if frame.has_loop]
    if not loops:
        raise OptionError("--soak needs a bundle with a loop in FP16, as none of these has; give nano or edge")
    wanted = (frame for frame in loops if (frame.bundle.manifest.name, frame.steps) == (SOAK_PRESET, SOAK_STEPS))
    return next(wanted, loops[0])


def read_forms(text: str) -> tuple[str, ...]:
    """Return the forms of a list; OptionError if one is unknown."""
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in FORMS]
    if unknown:
        raise OptionError(f"--forms has {unknown[0]!r}; known: {', '.join((*TORCH, *RUNTIME))}")
    return names


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
