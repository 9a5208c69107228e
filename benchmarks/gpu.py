"""What a frame takes on an NVIDIA GPU: the runner's CUDA graph beside PyTorch and ONNX Runtime. Needs a GPU.

    python -m benchmarks.gpu bundles/gpu/* --checkpoints runs/gpu --update
    python -m benchmarks.gpu bundles/gpu/nano --levels 0,3 --max-aux-streams 0,1,2 --out levels.json
    python -m benchmarks.gpu bundles/gpu/* --forms torch-eager,torch-graph --out torch.json

The first where one Python has all, the last where torch and TensorRT are in two. Forms of one run take turns. A form
that is not here is left out, and the reason is printed. A run begins nothing after 8 minutes. Engines that are there
are taken. The bundles need FP16 loops of the size: see benchmarks/README.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.result import Out, Row, Update, check_target, new_result, save
from benchmarks.tables_speed import GPU
from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.opener import open_backend
from cled_edge.backend.protocol import Array
from cled_edge.backend.tensorrt.build_options import BuildOptions
from cled_edge.backend.tensorrt.capabilities import capabilities
from cled_edge.backend.tensorrt.device import device_name, read_facts
from cled_edge.backend.tensorrt.launch import ONE_GRAPH
from cled_edge.backend.tensorrt.run_options import CudaOptions
from cled_edge.backend.tensorrt.runner import TensorRtBackend
from cled_edge.backend.tensorrt.sdk import import_tensorrt
from cled_edge.backend.tensorrt.store import current_record, default_folder
from cled_edge.bench.clock import SystemClock
from cled_edge.bench.measure import Budget, measure
from cled_edge.bench.scenario import Scenario
from cled_edge.build.builder import build_engine
from cled_edge.bundle.manifest import OPSETS
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import Controls
from cled_edge.errors import BackendError, CledEdgeError, OptionError, one_line_errors
from cled_edge.size import Size, parse_size, size_text
from cled_edge.verify import Case, judge, read_golden

RUNNER, ONNXRUNTIME = "tensorrt-graph", "onnxruntime-cuda"
TORCH = ("torch-eager", "torch-graph")
FORMS = (RUNNER, *TORCH, ONNXRUNTIME)
_OUTPUTS = "picture", "infrared", "visible"


@dataclass(frozen=True)
class Form:
    """A way to compute a frame, ready to run.

    call: uploads, computes, downloads, and returns the outputs. gpu_ms: what the last call took on the GPU, None if
    the form does not tell. facts: more of its row.
    """

    call: Callable[[], Sequence[Array]]
    gpu_ms: Callable[[], float | None]
    runtime: str
    facts: Row
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class GpuFrame:
    """The FP16 loop of a bundle at `size` (height, width), bytes in to bytes out, on the bundle's golden pair."""

    bundle: Bundle
    size: Size
    steps: int
    level: int | None = None
    max_aux_streams: int = 0

    @property
    def options(self) -> BuildOptions:
        """How its engine is built; one that is there and was built so is taken."""
        return BuildOptions(size=self.size, optimization_level=self.level, max_aux_streams=self.max_aux_streams)

    def loop(self, opsets: Sequence[int]) -> str:
        """Return the name of the loop in the first opset that has it; OptionError if none does."""
        for opset in opsets:
            found = self.bundle.manifest.find("fused_loop", "fp16", opset, self.size, self.steps)
            if found is not None:
                return found
        raise OptionError(
            f"{self.bundle.path} has no fp16 loop of {self.steps} steps for {size_text(self.size)}; export it again "
            f"with that precision, size and number of unrolled steps"
        )

    @cached_property
    def case(self) -> Case:
        """The golden pair of this size and number of steps; OptionError if the bundle has none."""
        for case in read_golden(self.bundle):
            if case.strength_map is None and (case.size, case.controls) == (self.size, Controls(self.steps)):
                return case
        raise OptionError(
            f"{self.bundle.path} has no golden pair of {size_text(self.size)} and {self.steps} steps, needed to judge "
            "the outputs; give the size and steps that it was exported with"
        )

    @cached_property
    def inputs(self) -> dict[str, Array]:
        """The inputs of the loop."""
        pair = {"infrared": self.case.infrared[None, :, :, None], "visible": self.case.visible[None]}
        return pair | dict(Controls(self.steps).tensors())

    def psnr_db(self, outputs: Sequence[Array]) -> float:
        """Return the PSNR of outputs against eager FP32, the worst of them; 0 if one is not finite."""
        picture, infrared, visible = (np.asarray(output)[0] for output in outputs[:3])  # and what is told of kinds
        seen = dict(zip(_OUTPUTS, (picture, infrared[:, :, 0], visible), strict=True))
        return round(min(judge(*self.case.compared(name, value))[1] for name, value in seen.items()), 1)


@dataclass
class FormSubject:
    """A form that is timed; its stage `gpu` is what the GPU says."""

    label: str
    form: Form

    def fuse(self) -> dict[str, int]:
        """Compute the frame."""
        self.form.call()
        gpu_ms = self.form.gpu_ms()
        return {} if gpu_ms is None else {"gpu": round(gpu_ms * 1e6)}


def open_runner(frame: GpuFrame) -> Form:
    """Return the runner on an engine that is built if it is not there; what is read and written is page-locked."""
    newest = capabilities(import_tensorrt()).newest_opset
    opsets = [opset for opset in sorted(OPSETS, reverse=True) if newest is None or opset <= newest]
    graph, facts, options = frame.loop(opsets), read_facts(), frame.options
    record = current_record(frame.bundle, graph, options, facts, default_folder())
    if record is None:
        print(f"building {graph} of {frame.bundle.manifest.name} ...", flush=True)
        record = build_engine(frame.bundle, graph, options, facts, default_folder())
    choice = BackendChoice("tensorrt", "fp16")
    backend = TensorRtBackend(frame.bundle, choice, options=CudaOptions(graphs=True, timed=True))
    try:
        arrays = backend.pinned_inputs(graph, frame.size)
        for name, value in frame.inputs.items():
            arrays[name][...] = value
        call = partial(backend.run, graph, arrays)
        call()
        (said,) = backend.runs.cuda_graph.values()
        if said != ONE_GRAPH:
            raise BackendError(f"no CUDA graph could be made: {said}; look at cled-edge doctor")
    except BaseException:
        backend.close()
        raise
    row: Row = {"level": options.level, "max_aux_streams": options.max_aux_streams}
    row |= {"build_s": record.build_s, "engine_mb": round(record.plan.bytes / 1e6, 2), "note": said}
    return Form(call, lambda: backend.runs.gpu_ms, backend.facts.sdk, row, backend.close)


def open_onnxruntime(frame: GpuFrame) -> Form:
    """Return ONNX Runtime on CUDA, which copies from and to pageable memory and tells no time of the GPU's."""
    backend = open_backend(BackendChoice("onnxruntime-cuda", "fp16"), frame.bundle)
    call = partial(backend.run, frame.loop((OPSETS[0],)), frame.inputs)
    return Form(call, lambda: None, backend.facts.sdk, {}, backend.close)


def open_form(frame: GpuFrame, form: str, checkpoints: Path | None) -> Form:
    """Return a form ready to run; CledEdgeError says what is missing for it."""
    if form == RUNNER:
        return open_runner(frame)
    if form == ONNXRUNTIME:
        return open_onnxruntime(frame)
    if checkpoints is None:
        raise OptionError("no --checkpoints, needed the folder of those that the bundles were exported from")
    try:
        from benchmarks import gpu_torch  # noqa: PLC0415  it may be in another Python
    except ImportError as error:
        raise BackendError(f"torch cannot be imported here ({error}); run its forms where it can") from error
    call = gpu_torch.torch_frame(frame.bundle, frame.size, frame.steps, frame.inputs, checkpoints, form == TORCH[1])
    return Form(call, call.gpu_ms, gpu_torch.VERSION, {})


def compare(frame: GpuFrame, names: Sequence[str], checkpoints: Path | None, duration_s: float) -> list[Row]:
    """Return a row for each form that is here: times in turns, and how far its outputs are from eager FP32."""
    forms: dict[str, Form] = {}
    try:
        for name in names:
            try:
                forms[name] = open_form(frame, name, checkpoints)
            except (CledEdgeError, RuntimeError) as error:  # the latter of torch and of CUDA's bindings
                print(f"without {name}: {' '.join(str(error).split())[:300]}")
        subjects = [FormSubject(name, form) for name, form in forms.items()]
        budget = Budget(Scenario("single-stream"), duration_s)
        measured = measure(subjects, budget, SystemClock(), np.random.default_rng(0)) if subjects else []
        rows = []
        for (name, form), found in zip(forms.items(), measured, strict=True):
            samples = [sample for block in found.blocks for sample in block.samples]
            host_ms = np.percentile([sample.latency_ns / 1e6 for sample in samples], (50, 90, 99)).round(4)
            on_gpu = [sample.stages_ns["gpu"] / 1e6 for sample in samples if "gpu" in sample.stages_ns]
            row: Row = {"preset": frame.bundle.manifest.name, "size": size_text(frame.size), "steps": frame.steps}
            row |= {"form": name, "runtime": form.runtime, "frames": len(samples)}
            row |= dict(zip(("p50_ms", "p90_ms", "p99_ms"), map(float, host_ms), strict=True))
            row |= {"gpu_p50_ms": round(float(np.median(on_gpu)), 4) if on_gpu else None}
            rows.append({**row, "psnr_db": frame.psnr_db(form.call()), **form.facts})
        return rows
    finally:
        for form in forms.values():
            form.close()


def part(
    frames: Sequence[GpuFrame], names: Sequence[str], checkpoints: Path | None, duration_s: float, within_s: float
) -> tuple[list[Row], list[str]]:
    """Return the rows of the frames that could be begun within `within_s`, and the words for those that could not.

    Forms that no engine is built for are measured once for each bundle.
    """
    end, rows, left_out, seen = time.monotonic() + within_s, [], [], set()
    for frame in frames:
        bundle = frame.bundle.manifest.name
        if time.monotonic() >= end:
            left_out.append(f"{bundle}, level {frame.options.level}, {frame.max_aux_streams} auxiliary streams")
            continue
        rows += compare(frame, [n for n in names if n == RUNNER or bundle not in seen], checkpoints, duration_s)
        seen.add(bundle)
    return rows, left_out


def _numbers(option: str, text: str, most: int) -> list[int]:
    words = text.split(",")
    if not all(word in map(str, range(most + 1)) for word in words):
        raise OptionError(f"{option} is {text!r}, needed whole numbers from 0 to {most}; write 0,{most}")
    return [int(word) for word in dict.fromkeys(words)]


def gpu_name() -> str:
    """Return what the GPU calls itself; BackendError if neither torch nor the CUDA runtime reaches one."""
    with suppress(ImportError):
        import torch  # noqa: PLC0415  it may be in another Python

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
    try:
        return device_name()
    except (BackendError, RuntimeError) as error:  # cuda-bindings raise the latter where there is no libcuda
        raise BackendError(f"no NVIDIA GPU can be reached here ({error}), needed one; see: cled-edge doctor") from error


def main(
    bundles: Annotated[list[Path], typer.Argument(help="folders of bundles with FP16 loops of the size and steps")],
    checkpoints: Annotated[
        Path | None, typer.Option(metavar="DIR", help="NAME.safetensors that each bundle was exported from, for torch")
    ] = None,
    forms: Annotated[str, typer.Option(metavar="A,B,...")] = ",".join(FORMS),
    size: Annotated[str, typer.Option(metavar="HxW")] = "480x640",
    steps: Annotated[int, typer.Option(min=1, help="network evaluations")] = 1,
    levels: Annotated[str, typer.Option(metavar="A,B,...", help="how long the builder searches, 0 to 3")] = "3",
    max_aux_streams: Annotated[str, typer.Option(metavar="A,B,...", help="side streams of an engine, 0 to 2")] = "0",
    duration_s: Annotated[float, typer.Option(min=0.01, help="seconds to measure, of each form")] = 20,
    within_s: Annotated[float, typer.Option(min=1, help="begin nothing after so long; what is left is said")] = 480,
    out: Out = None,
    update: Update = False,
) -> None:
    """Measure BUNDLES on the GPU here, and print the table."""
    with one_line_errors():
        check_target(out, update)
        names = forms.split(",")
        if unknown := [name for name in names if name not in FORMS]:
            raise OptionError(f"--forms has {unknown[0]!r}; known: {', '.join(FORMS)}")
        opened = [Bundle.open(path, trusted=True) for path in bundles]
        built = list(product(_numbers("--levels", levels, 3), _numbers("--max-aux-streams", max_aux_streams, 2)))
        device, pixels = gpu_name(), parse_size(size, "--size")
        frames = [GpuFrame(bundle, pixels, steps, *one) for bundle in opened for one in built]
        rows, left_out = part(frames, names, checkpoints, duration_s, within_s)
        for words in left_out:
            print(f"left out after {within_s:g} s: {words}; name it alone in another run")
        of = "-".join(bundle.manifest.name for bundle in opened)
        result = new_result("gpu", of, rows, opened, {"duration_s": duration_s, "left_out": left_out}, device=device)
        print("\n".join(GPU.lines(result)))
        save(result, out, update)


if __name__ == "__main__":
    typer.run(main)
