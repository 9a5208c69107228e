"""The process that builds one engine: python -m cled_edge.build.process FOLDER.

TensorRT's builder can die by a signal or take all memory, so it never runs in the process that must go on.
It tells its parent, on what was its standard output, one JSON object a line: a step of the build, or an error.
"""

import json
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from safetensors.numpy import load, save

from cled_edge import errors
from cled_edge.backend.tensorrt.capabilities import capabilities
from cled_edge.backend.tensorrt.cuda import open_cuda
from cled_edge.backend.tensorrt.engine import BoundEngine, TensorRt, allocated, picture_size
from cled_edge.backend.tensorrt.launch import Launch
from cled_edge.backend.tensorrt.log import add_to_file
from cled_edge.backend.tensorrt.sdk import import_tensorrt
from cled_edge.build.job import ANSWER, GRAPH, JOB, PLAN, RESULT, TIMINGS, TRIAL, Job, Result
from cled_edge.build.plan import build_plan
from cled_edge.build.readback import deserialised, inspected_layers, mismatches, read_back
from cled_edge.build.stopwatch import median_ms
from cled_edge.errors import CledEdgeError, EngineError

FAILED_ON_PURPOSE, ORPHANED = 3, 4
_LEAST_S = 0.1  # between two steps that are written: a builder makes thousands


class ProgressWriter:
    """Writes events to the parent; steps of the same phase at most ten times a second."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._last = ("", 0.0)

    def step(self, phase: str, done: int, total: int) -> None:
        """Write that so many of a phase's steps are done."""
        now = time.monotonic()
        if phase != self._last[0] or done == total or now - self._last[1] >= _LEAST_S:
            self._last = phase, now
            self.write(phase=phase, done=done, total=total)

    def write(self, **values: Any) -> None:
        """Write an event."""
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()


@dataclass(frozen=True)
class _Best:
    """The fastest of the builds, and the median time of each where they were timed."""

    plan: bytes
    timings: bytes
    medians_ms: tuple[float, ...]


def run(folder: Path, progress: ProgressWriter) -> None:
    """Do the job in `folder`."""
    job = Job.model_validate_json((folder / JOB).read_bytes())
    if job.log is not None:
        add_to_file(job.log)
    tensorrt = import_tensorrt()
    has = capabilities(tensorrt)
    begin = time.monotonic()
    best = _best(TensorRt(tensorrt, has), folder, job, progress)
    build_s = time.monotonic() - begin
    _runtime, engine = deserialised(tensorrt, has, best.plan)
    found, layers = read_back(tensorrt, has, engine), inspected_layers(tensorrt, engine)
    wrong = mismatches(job.spec, job.options, found)
    if wrong:
        raise EngineError(
            f"the engine of {job.spec.file} is not what its manifest says and was not kept: {'; '.join(wrong)}; get "
            "the bundle again from its source, or report this with your TensorRT's version"
        )
    launched = _answer(folder, job, TensorRt(tensorrt, has), best.plan) if job.trials else []
    (folder / PLAN).write_bytes(best.plan)
    (folder / TIMINGS).write_bytes(best.timings)
    result = Result(
        tensorrt=has.version,
        strongly_typed=bool(has.strongly_typed),
        read_back=found,
        layers=layers,
        medians_ms=best.medians_ms,
        launched=tuple(launched),
        build_s=round(build_s, 3),
    )
    (folder / RESULT).write_text(result.model_dump_json())


def _best(tensorrt: TensorRt, folder: Path, job: Job, progress: ProgressWriter) -> _Best:
    """Build as often as the job says; return the fastest, or the only one."""
    module, has = tensorrt.module, tensorrt.capable
    cuda = open_cuda(job.binding) if job.builds > 1 else None
    known = (folder / TIMINGS).read_bytes() if (folder / TIMINGS).exists() else b""
    built, medians_ms = [], []
    for index in range(job.builds):
        # With one cache the second build would only repeat the choices of the first.
        timings = known if index == 0 else b""
        built.append(build_plan(module, has, folder / GRAPH, job.spec, job.options, timings, progress.step))
        if cuda is not None:
            _runtime, engine = deserialised(module, has, built[-1][0])
            medians_ms.append(median_ms(cuda, tensorrt, engine, job.spec, job.options))
    fastest = medians_ms.index(min(medians_ms)) if medians_ms else 0
    return _Best(*built[fastest], tuple(medians_ms))


def _answer(folder: Path, job: Job, tensorrt: TensorRt, plan: bytes) -> list[str]:
    """Run the engine in each trial, by the pieces that the runner is made of; return how it was launched."""
    cuda, name = open_cuda(job.binding), job.spec.file
    engine, stream = tensorrt.engine(plan, name), cuda.stream()
    arena = allocated(cuda, (max(tensorrt.arena_size(engine), 1),), "uint8")
    launched = []
    for index in range(job.trials):
        inputs = load((folder / TRIAL.format(index)).read_bytes())
        size = picture_size(job.spec, inputs)
        bound = BoundEngine(tensorrt, cuda, engine, name, job.spec, size, arena)
        calls = [partial(bound.enqueue, cuda.handle(stream))]
        launch = Launch(name, cuda, stream, bound.inputs, calls, list(bound.outputs.values()))
        outputs = dict(zip(bound.outputs, launch(inputs), strict=True))
        (folder / ANSWER.format(index)).write_bytes(save(outputs))
        launched.append(launch.how or "")
        launch.close()
        bound.close()
    return launched


def _end_with_parent() -> None:
    """Wait for the end of standard input, which is the parent's end, however it came; nobody wants the engine then."""
    os.read(0, 1)  # not sys.stdin: Python aborts at its end while a thread holds that
    os._exit(ORPHANED)


def main() -> None:
    """Entry point: what libraries print goes to standard error, so that only events are on the pipe."""
    progress = ProgressWriter(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        run(Path(sys.argv[1]), progress)
    except CledEdgeError as error:
        # A CudaError, say, is told as the BackendError that it is: the parent knows the classes of cled_edge.errors.
        name = next(kind.__name__ for kind in type(error).__mro__ if hasattr(errors, kind.__name__))
        progress.write(error=name, message=str(error))
        sys.exit(FAILED_ON_PURPOSE)


if __name__ == "__main__":
    main()
