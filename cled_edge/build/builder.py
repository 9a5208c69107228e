"""An engine built in a child process, read back, compared with the manifest, tried, and only then kept."""

import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import psutil
from safetensors.numpy import load, save

from cled_edge import __version__, errors
from cled_edge.backend.tensorrt.build_options import BuildOptions
from cled_edge.backend.tensorrt.build_record import (
    RECORD_VERSION,
    BuildRecord,
    GraphFacts,
    PlanSpec,
    TrialRecord,
    engine_key,
)
from cled_edge.backend.tensorrt.device import DeviceFacts
from cled_edge.backend.tensorrt.store import OTHER_FOLDER, check_private, engine_paths, graph_sha256, write_engine
from cled_edge.build.job import ANSWER, GRAPH, JOB, PLAN, RESULT, TIMINGS, TRIAL, Job, Result
from cled_edge.build.timing_cache import one_builder, read_timings, timings_path, write_timings
from cled_edge.build.trial import Trial, judged, make_trial
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import CledEdgeError, EngineError, OptionError, OutputError, ParityError
from cled_edge.files import make_folder
from cled_edge.json_text import shown
from cled_edge.size import Size, size_text

_MIB = 2**20
_POLL_S = 0.1
_HEARTBEAT_S = 1.0
_TAIL_BYTES = 4000
_OUT_OF_MEMORY = "most likely by the kernel, out of memory; close other programs, add swap, or lower workspace_mib"


@dataclass(frozen=True)
class Limits:
    """Of one engine's build.

    memory_mib: resident memory of the child, None is unlimited; what a GPU takes is not all counted in it, also not on
    a Jetson, whose GPU has no memory of its own.
    """

    timeout_s: float = 3600.0
    memory_mib: int | None = None


@dataclass(frozen=True)
class Step:
    """What a build is at. total: 0 if the release does not tell; then only `elapsed_s` moves, once a second."""

    graph: str
    phase: str
    done: int
    total: int
    elapsed_s: float


OnStep = Callable[[Step], None]
Child: TypeAlias = "subprocess.Popen[bytes]"


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
    spec = bundle.manifest.graphs[graph_name]
    timings = timings_path(options, facts, folder)
    trials = {size: make_trial(bundle, graph_name, size) for size in options.tried_sizes}
    if log is not None:
        log = log.absolute()  # the child builds in a folder of its own
        _begin_log(log, graph_name)
    make_folder(folder, todo=OTHER_FOLDER, private=True)
    try:
        check_private(folder)
        with one_builder(timings), tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as room:
            known = read_timings(timings) if options.heeds_timings else b""
            job = Job(spec=spec, options=options, builds=builds, trials=len(trials), binding=binding, log=log)
            _write_job(Path(room), job, bundle.graph(graph_name), known)
            for index, trial in enumerate(trials.values()):
                inputs = {name: np.ascontiguousarray(value) for name, value in trial.inputs.items()}
                (Path(room) / TRIAL.format(index)).write_bytes(save(inputs))
            result, plan = _run_child(Path(room), graph_name, limits or Limits(), on_step)
            if result.tensorrt != facts.tensorrt:
                raise EngineError(
                    f"the child built with TensorRT {result.tensorrt}, here it is {facts.tensorrt}: two are installed; "
                    "see: cled-edge doctor"
                )
            tried = _judged(Path(room), graph_name, trials, options, result)
            if options.heeds_timings:
                write_timings(timings, (Path(room) / TIMINGS).read_bytes())
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}; {OTHER_FOLDER}") from error
    sha256 = graph_sha256(bundle, graph_name)
    record = BuildRecord(
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
        plan=PlanSpec(bytes=len(plan), sha256=hashlib.sha256(plan).hexdigest()),
        read_back=result.read_back,
        trials=tried,
        strongly_typed=result.strongly_typed,
        build_s=result.build_s,
        timing_cache_bytes=len(known),
        medians_ms=result.medians_ms,
    )
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


def _begin_log(log: Path, graph_name: str) -> None:
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"building {graph_name}\n")
    except OSError as error:
        raise OutputError(f"{log} cannot be written: {error.strerror}; give another file for the log") from error


def _write_job(room: Path, job: Job, graph: bytes, timings: bytes) -> None:
    (room / JOB).write_text(job.model_dump_json(), encoding="utf-8")
    (room / GRAPH).write_bytes(graph)  # alone in its folder: no external data can be beside it
    if timings:
        (room / TIMINGS).write_bytes(timings)


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


def _run_child(room: Path, graph: str, limits: Limits, on_step: OnStep | None) -> tuple[Result, bytes]:
    """Run the child in `room`; return its answer and the plan, or raise how it ended."""
    package_root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([package_root, os.environ.get("PYTHONPATH", "")])}
    with (room / "stderr").open("w+b") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "cled_edge.build.process", str(room.resolve())],
            stdin=subprocess.PIPE,  # nothing is written: it ends when this process does, and the child with it
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=room,  # where no file of a stranger is imported
            env=environment,
        )
        try:
            failure = _watch(child, graph, limits, on_step)
        finally:  # an interrupt too ends it
            child.kill()
            child.wait()
        tail = _tail(stderr)
    if failure is not None:
        raise failure
    if child.returncode != 0:
        raise _death(child.returncode, graph, tail)
    try:
        return Result.model_validate_json((room / RESULT).read_bytes()), (room / PLAN).read_bytes()
    except (OSError, ValueError) as error:
        raise EngineError(f"building {graph} ended without an engine{tail}; see: cled-edge doctor") from error


def _watch(child: Child, graph: str, limits: Limits, on_step: OnStep | None) -> CledEdgeError | None:
    """Tell the child's steps until it ends; return the error that it told, or the limit that it passed."""
    events: queue.Queue[dict[str, Any]] = queue.Queue()
    assert child.stdout is not None  # noqa: S101  it is a pipe
    reader = threading.Thread(target=_read_events, args=(child.stdout, events), daemon=True)
    reader.start()
    begin = told = time.monotonic()
    phase, done, total = "starting", 0, 0
    failure: CledEdgeError | None = None
    while True:
        running = child.poll() is None
        if not running:
            reader.join(timeout=_HEARTBEAT_S)
        with suppress(queue.Empty):
            event = events.get(timeout=_POLL_S if running else 0.001)
            if "error" in event:
                failure = getattr(errors, event["error"])(event["message"])
            else:
                phase, done, total = event["phase"], event["done"], event["total"]
                told = 0.0
        now = time.monotonic()
        if now - told >= _HEARTBEAT_S:
            told = now
            if on_step is not None:
                on_step(Step(graph, phase, done, total, now - begin))
        if not running and events.empty():
            return failure
        failure = failure or _over_limit(child, graph, limits, now - begin)
        if failure is not None and running:
            child.kill()


def _read_events(pipe: IO[bytes], events: "queue.Queue[dict[str, Any]]") -> None:
    for line in pipe:
        with suppress(ValueError):  # half a line of one that was killed
            events.put(json.loads(line))


def _over_limit(child: "subprocess.Popen[bytes]", graph: str, limits: Limits, elapsed_s: float) -> EngineError | None:
    if elapsed_s > limits.timeout_s:
        return EngineError(
            f"building {graph} took over {limits.timeout_s:g} s and was stopped; raise timeout_s, or lower "
            "optimization_level; a log tells what TensorRT is at"
        )
    if limits.memory_mib is None:
        return None
    with suppress(psutil.Error):
        used_mib = psutil.Process(child.pid).memory_info().rss // _MIB
        if used_mib > limits.memory_mib:
            return EngineError(
                f"building {graph} took {used_mib} MiB of memory, over {limits.memory_mib}, and was stopped; raise "
                "memory_mib, or lower workspace_mib or optimization_level"
            )
    return None


def _death(code: int, graph: str, tail: str) -> EngineError:
    """Return the error for a child that ended without telling why."""
    if code >= 0:
        return EngineError(f"building {graph} failed with exit code {code}{tail}; see: cled-edge doctor")
    name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
    if name == "SIGKILL":
        return EngineError(f"building {graph} was killed by SIGKILL, {_OUT_OF_MEMORY}")
    return EngineError(
        f"building {graph} died by {name} inside TensorRT{tail}; try another optimization_level, delete the timing "
        "cache in the engine folder, or look for a known bug of this release"
    )


def _tail(stderr: IO[bytes]) -> str:
    """Return the last line that the child wrote, as words to append."""
    stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, stderr.tell() - _TAIL_BYTES))
    lines = [line.strip() for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
    return f" ({shown(lines[-1], 300)})" if lines else ""


def kept_engine(folder: Path, record: BuildRecord) -> Path:
    """Return where an engine is kept."""
    return engine_paths(folder, record.graph.name, record.key)[0]
