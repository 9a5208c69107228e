"""An engine built in a child process, read back, compared with the manifest, tried, and only then kept."""

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from cled_edge import __version__
from cled_edge.backend.tensorrt.build_options import RECIPE, BuildOptions
from cled_edge.backend.tensorrt.build_record import (
    RECORD_VERSION,
    BuildRecord,
    GraphFacts,
    PlanSpec,
    TrialRecord,
    engine_key,
)
from cled_edge.backend.tensorrt.device import DeviceFacts
from cled_edge.backend.tensorrt.store import OTHER_FOLDER, check_private, graph_sha256, write_engine
from cled_edge.build.job import ANSWER, GRAPH, JOB, TIMINGS, TRIAL, Job, Result
from cled_edge.build.supervisor import Limits, OnStep, run_child
from cled_edge.build.timing_cache import one_builder, read_timings, timings_path, write_timings
from cled_edge.build.trial import Trial, judged, make_trial
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import EngineError, OptionError, OutputError, ParityError
from cled_edge.files import make_folder, open_to_append
from cled_edge.size import Size, size_text


def build_engine(
    bundle: Bundle,
    graph_name: str,
    options: BuildOptions,
    facts: DeviceFacts,
    folder: Path,
    *,
    limits: Limits | None = None,
    builds: int = 1,
    on_step: OnStep | None = None,
    binding: str = "cuda",
    log: Path | None = None,
) -> BuildRecord:
    """Build a graph's engine for this device and keep it in `folder`; return its sidecar.

    builds: how many to make; they are timed and the fastest is kept. binding: to CUDA, for the trial. log: a file that
    all TensorRT says is added to. EngineError says why there is none: what TensorRT refused, how the child died, or in
    what the engine is not the manifest's graph. ParityError if it gives other numbers than the bundle's FP32 graphs.
    OptionError if the graph does not take the options' size, OutputError if the folder or the log cannot be written,
    BundleMissingError without a golden pair.
    """
    check_sizes(bundle, graph_name, options)
    trials = {size: make_trial(bundle, graph_name, size) for size in options.tried_sizes}
    job = Job(
        spec=bundle.manifest.graphs[graph_name],
        options=options,
        builds=builds,
        trials=len(trials),
        binding=binding,
        log=None if log is None else _begun_log(log, graph_name),
    )
    timings = timings_path(options, facts, folder)
    make_folder(folder, todo=OTHER_FOLDER, private=True)
    try:
        check_private(folder)
        with one_builder(timings), tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as name:
            room, known = Path(name), read_timings(timings) if options.heeds_timings else b""
            _write_job(room, job, bundle.graph(graph_name), known, trials.values())
            result, plan = run_child(room, graph_name, limits or Limits(), on_step)
            _check_release(result, facts)
            tried = _judged(room, graph_name, trials, options, result)
            if options.heeds_timings:
                write_timings(timings, (room / TIMINGS).read_bytes())
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}; {OTHER_FOLDER}") from error
    built = _Built(plan, result, tried, len(known))
    record = _record(bundle, graph_name, options, facts, built)
    write_engine(folder, plan, record)
    return record


def build_missing(bundle: Bundle, graph_name: str, size: Size, facts: DeviceFacts, folder: Path, binding: str) -> None:
    """Build a graph's engine for one size with the usual options, as a runner asks for. See `CudaOptions`."""
    options = BuildOptions(precision=bundle.manifest.graphs[graph_name].precision, size=size)
    build_engine(bundle, graph_name, options, facts, folder, binding=binding)


def check_sizes(bundle: Bundle, graph_name: str, options: BuildOptions) -> None:
    """Raise OptionError unless a graph takes the sizes of the options, EngineError if it is not in the bundle."""
    graph_sha256(bundle, graph_name)
    spec, multiple = bundle.manifest.graphs[graph_name], bundle.manifest.size_multiple
    if spec.size is not None and options.size != spec.size:
        seen = size_text(options.size) if options.size else f"a profile {options.profile}"
        raise OptionError(
            f"graph {graph_name} takes {size_text(spec.size)} alone, not {seen}; give that size, or name "
            "a graph of any size"
        )
    if spec.size is None and any(side % multiple for size in options.tried_sizes for side in size):
        raise OptionError(f"size {options.sizes} is not of multiples of {multiple}; pad it, as the manifest says")
    if spec.precision != options.precision:
        raise OptionError(f"graph {graph_name} is {spec.precision}, not {options.precision}; give that precision")


def _begun_log(log: Path, graph_name: str) -> Path:
    """Write the first line of a build to a log; return its absolute path, as the child works in another folder."""
    try:
        with open_to_append(log) as file:
            file.write(f"building {graph_name}\n".encode())
    except OSError as error:
        raise OutputError(f"{log} cannot be written: {error.strerror}; give another file for the log") from error
    return log.absolute()


def _write_job(room: Path, job: Job, graph: bytes, timings: bytes, trials: Iterable[Trial]) -> None:
    (room / JOB).write_text(job.model_dump_json(), encoding="utf-8")
    (room / GRAPH).write_bytes(graph)  # alone in its folder: no external data can be beside it
    if timings:
        (room / TIMINGS).write_bytes(timings)
    for index, trial in enumerate(trials):
        inputs = {name: np.ascontiguousarray(value) for name, value in trial.inputs.items()}
        (room / TRIAL.format(index)).write_bytes(save(inputs))


def _check_release(result: Result, facts: DeviceFacts) -> None:
    if result.tensorrt != facts.tensorrt:
        raise EngineError(
            f"the child built with TensorRT {result.tensorrt}, here it is {facts.tensorrt}: two are installed; see: "
            "cled-edge doctor"
        )


def _judged(
    room: Path, graph: str, trials: dict[Size, Trial], options: BuildOptions, result: Result
) -> tuple[TrialRecord, ...]:
    """Return the verdicts on what the engine gave in each trial; ParityError for the first that failed."""
    found = []
    for index, (size, trial) in enumerate(trials.items()):
        outputs = load((room / ANSWER.format(index)).read_bytes())
        found.append(judged(trial, outputs, options, size, result.launched[index]))
        if found[-1].verdict != "OK":
            raise ParityError(
                f"{found[-1].verdict}: the engine of {graph} gives {found[-1].tensor} at {size_text(size)} with "
                f"{found[-1].psnr_db} dB against the bundle's FP32 graphs, needed {found[-1].needed_db:g}, and was not "
                "kept; build it again with another optimization_level or precision"
            )
    return tuple(found)


@dataclass(frozen=True)
class _Built:
    """What the child made of a job, and of how many bytes of earlier timings."""

    plan: bytes
    result: Result
    trials: tuple[TrialRecord, ...]
    known_bytes: int


def _record(bundle: Bundle, graph_name: str, options: BuildOptions, facts: DeviceFacts, built: _Built) -> BuildRecord:
    sha256, spec = graph_sha256(bundle, graph_name), bundle.manifest.graphs[graph_name]
    return BuildRecord(
        record_version=RECORD_VERSION,
        created_by=f"cled-edge {__version__}",
        key=engine_key(sha256, options, facts),
        graph=GraphFacts(
            name=graph_name,
            bundle=bundle.manifest.name,
            role=spec.role,
            precision=spec.precision,
            opset=spec.opset,
            sha256=sha256,
        ),
        facts=facts,
        options=options,
        plan=PlanSpec(bytes=len(built.plan), sha256=hashlib.sha256(built.plan).hexdigest()),
        read_back=built.result.read_back,
        recipe=RECIPE,
        layers=built.result.layers,
        trials=built.trials,
        strongly_typed=built.result.strongly_typed,
        build_s=built.result.build_s,
        timing_cache_bytes=built.known_bytes,
        medians_ms=built.result.medians_ms,
    )
