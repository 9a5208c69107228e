"""A graph of a stranger's bundle, loaded and run once in a process that may take little, before it is loaded here.

What `graph_limits` cannot see in a graph's bytes is how much its operators make of little: shapes of 2**40, tensors
that double from node to node. ONNX Runtime would take all memory or all day. So the first load of a graph is a trial: a
child loads and runs it once, in ONNX Runtime, on one thread, on black images of `TRIAL_SIZE` or of the one size that it
takes. The cache folder keeps that it passed, by the graph's SHA-256: later starts do not wait.

No trial is made of the shipped bundle's graphs, of a bundle whose required signature holds, and of one that its maker
verifies. On an NVIDIA GPU there is none: an engine is built in a process with limits of its own.
"""

import json
import signal
import subprocess
import sys
from functools import cache
from math import ceil
from pathlib import Path

from cled_edge.backend.graph_cache import cache_name, read_cached, write_cached
from cled_edge.backend.trial_process import NO_MEMORY, NO_RUN, NO_TIME, Feed
from cled_edge.bundle.manifest import MANIFEST_NAME, GraphSpec
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.errors import BackendError, BundleCorruptError
from cled_edge.json_text import shown
from cled_edge.size import Size, padded

TRIAL_SIZE: Size = (256, 320)
MEMORY_MB = 900  # a graph of one size over 480x640 may take as many times more
CPU_S = 2.5
CPU_STARTS = 8.0  # what takes 0.3 s to start here takes 2 s on a small board, and so does all the rest
WALL_S = 60.0  # for a machine that does much else
_FULL_PX = 480 * 640

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
    share = max(1, ceil(size[0] * size[1] / _FULL_PX))
    job = {
        "feeds": _feeds(spec, size),
        "memory_bytes": MEMORY_MB * share * 10**6,
        "cpu_s": CPU_S * share,
        "cpu_starts": CPU_STARTS * share,
    }
    # It imports from where this process does.
    code = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from cled_edge.backend import trial_process as p"
    places = [str(Path(__file__).parents[2]), *(path for path in sys.path if path and isinstance(path, str))]
    command = [sys.executable, "-I", "-c", f"{code}; p.main()", json.dumps(places), json.dumps(job)]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=WALL_S * share, check=False)
    except subprocess.TimeoutExpired:
        return f"took over {WALL_S * share:g} s"
    except OSError as error:
        raise BackendError(
            f"no process could be started to try a graph of a stranger: {error.strerror}; sign the bundle and require "
            "its signature"
        ) from error
    return _ending(done.returncode, done.stdout, share)


def _ending(code: int, said: bytes, share: int) -> str | None:
    if code == 0:
        return None
    if code == NO_RUN:
        return f"failed: {shown(said.decode(errors='replace'), 300)}"
    if code == NO_MEMORY:
        return f"took over {MEMORY_MB * share} MB of memory"
    if code in (NO_TIME, -getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0)):
        return f"took over {CPU_S * share:g} s of processor time"
    if code < 0:
        return f"crashed ONNX Runtime (signal {-code})"
    raise BackendError(f"a trial of a graph ended with exit code {code}; see: cled-edge doctor")


def _feeds(spec: GraphSpec, size: Size) -> list[Feed]:
    """Return name, type and shape of each input, at a size."""
    numbers = {"batch": 2 if spec.role == "unet_step" else 1, "height": size[0], "width": size[1]}
    return [
        (tensor.name, tensor.dtype, [numbers.get(side, 1) if isinstance(side, str) else side for side in tensor.shape])
        for tensor in spec.inputs
    ]
