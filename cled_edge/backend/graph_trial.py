"""A graph of a stranger's bundle, loaded and run once in a process that may take little, before it is loaded here.

What `graph_limits` cannot see in a graph's bytes is how much its operators make of little: shapes of 2**40, tensors
that double from node to node. ONNX Runtime would take all memory or all day. So the first load of a graph is a trial: a
child loads and runs it once, in ONNX Runtime, on one thread, on black images of `TRIAL_SIZE` or of the one size that it
takes. The cache folder keeps that it passed, by the graph's SHA-256: later starts do not wait.

What it may take grows with its bytes, which its maker had to send, and with its one size, up to a bound. Measured at
TRIAL_SIZE, in s of processor time and MB of memory: `nano` 0.5 and 80, `edge` 1.0 and 130, the steps of the paper's
size, preset `T`, 1.0 and 230, its fusion, of 73 MB, 2.3 and 350, and the steps of `L`, of 145 MB, 3.1 and 670.

No trial is made of the shipped bundle's graphs, of a bundle whose required signature holds, and of one that its maker
verifies. On an NVIDIA GPU there is none: an engine is built in a process with limits of its own.
"""

import json
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

from cled_edge.backend.graph_cache import cache_name, read_cached, write_cached
from cled_edge.backend.trial_process import NO_MEMORY, NO_RUN, NO_TIME, Feed
from cled_edge.bundle.manifest import MANIFEST_NAME, GraphSpec
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.contract import dimensions
from cled_edge.errors import BackendError, BundleCorruptError
from cled_edge.json_text import shown
from cled_edge.size import Size, padded

TRIAL_SIZE: Size = (128, 160)
MEMORY_MB, MEMORY_MB_A_MB, MEMORY_MB_A_MEGAPIXEL, MOST_MEMORY_MB = 250.0, 6.0, 2000.0, 4000.0
CPU_S, CPU_S_A_MB, CPU_S_A_MEGAPIXEL, MOST_CPU_S = 1.4, 0.1, 4.0, 30.0
START_S = 0.25  # of processor time, to import ONNX Runtime: a board that takes longer gets as many times more of all
WALL_S = 60.0  # at least, and ten times its processor time, for a machine that does much else

_passed: set[tuple[str, str, Size | None]] = set()


def check_trial(bundle: Bundle, graph: str) -> None:
    """Return if a graph may be loaded here, by a trial if it is a stranger's and none was made before.

    BundleCorruptError for a graph that took too much or crashed ONNX Runtime; BackendError if no trial can be made.
    """
    spec = bundle.manifest.graphs[graph]
    digest = bundle.manifest.files[spec.file].sha256
    key = digest, spec.role, spec.size
    if bundle.is_trusted or key in _passed or digest in _shipped():
        return
    name = cache_name("json", ("trial", *key))
    if read_cached(name) is None:
        failure = _tried(bundle.graph(graph), spec, bundle.manifest.size_multiple)
        if failure is not None:
            raise BundleCorruptError(
                f"{bundle.path / spec.file} is refused: a trial of {graph} {failure}; get another bundle, or, if you "
                "trust this one, sign it and require its signature"
            )
        write_cached(name, b"{}")
    _passed.add(key)


@cache
def _shipped() -> frozenset[str]:
    values = json.loads((shipped_bundle() / MANIFEST_NAME).read_bytes())
    return frozenset(file["sha256"] for file in values["files"].values())


def _tried(content: bytes, spec: GraphSpec, multiple: int) -> str | None:
    """Return what went wrong in a trial, as the end of a sentence, or None."""
    size = spec.size or padded(TRIAL_SIZE, multiple)
    megabytes, megapixels = len(content) / 1e6, size[0] * size[1] / 1e6
    memory_mb = min(MEMORY_MB + MEMORY_MB_A_MB * megabytes + MEMORY_MB_A_MEGAPIXEL * megapixels, MOST_MEMORY_MB)
    cpu_s = min(CPU_S + CPU_S_A_MB * megabytes + CPU_S_A_MEGAPIXEL * megapixels, MOST_CPU_S)
    job = {
        "feeds": _feeds(spec, size),
        "memory_bytes": int(memory_mb * 1e6),
        "cpu_s": cpu_s,
        "start_s": START_S,
    }
    # It imports from where this process does.
    code = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from cled_edge.backend import trial_process as p"
    places = [str(Path(__file__).parents[2]), *(path for path in sys.path if path and isinstance(path, str))]
    command = [sys.executable, "-I", "-c", f"{code}; p.main()", json.dumps(places), json.dumps(job)]
    wall_s = max(WALL_S, 10 * cpu_s)
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=wall_s, check=False)
    except subprocess.TimeoutExpired:
        return f"took over {wall_s:.0f} s"
    except OSError as error:
        raise BackendError(
            f"no process could be started to try a graph of a stranger: {error.strerror}; sign the bundle and require "
            "its signature"
        ) from error
    return _ending(done.returncode, done.stdout, memory_mb, cpu_s)


def _ending(code: int, said: bytes, memory_mb: float, cpu_s: float) -> str | None:
    if code == 0:
        return None
    if code == NO_RUN:
        return f"failed: {shown(said.decode(errors='replace'), 300)}"
    if code == NO_MEMORY:
        return f"took over {memory_mb:.0f} MB of memory"
    if code in (NO_TIME, -getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0)):
        return f"took over {cpu_s:.1f} s of processor time"
    if code < 0:
        return f"crashed ONNX Runtime (signal {-code})"
    raise BackendError(f"a trial of a graph ended with exit code {code}; see: cled-edge doctor")


def _feeds(spec: GraphSpec, size: Size) -> list[Feed]:
    """Return name, type and shape of each input, at a size."""
    numbers = dimensions(spec.role, size)
    return [
        (tensor.name, tensor.dtype, [numbers.get(side, 1) if isinstance(side, str) else side for side in tensor.shape])
        for tensor in spec.inputs
    ]
