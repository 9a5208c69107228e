"""The parent of the process that builds an engine: starts it, tells its steps, and stops it at its limits."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import psutil

from cled_edge import errors
from cled_edge.build.job import PLAN, RESULT, Result
from cled_edge.errors import CledEdgeError, EngineError
from cled_edge.json_text import shown

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


def run_child(room: Path, graph: str, limits: Limits, on_step: OnStep | None) -> tuple[Result, bytes]:
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
