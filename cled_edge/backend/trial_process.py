"""The child of `graph_trial`: limits itself, loads the graph from its standard input and runs it once.

What ONNX Runtime refuses to load is no failure of the trial: it refuses it again, to who loads it next, and as soon.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress

Feed = tuple[str, str, list[int]]  # name, NumPy's name of the type, shape
NO_MEMORY, NO_TIME, NO_RUN = 90, 91, 92
_SLOWEST = 10  # times slower than where the limits were measured
_NO_MEMORY_WORDS = ("bad_alloc", "bfc_arena", "allocate memory", "out of memory", "length_error", "too large")


def main() -> None:
    """Entry point; the exit code says how it went."""
    job = json.loads(sys.argv[2])
    content = sys.stdin.buffer.read()
    import numpy as np  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    start_s = time.process_time()
    slower = min(max(1.0, start_s / job["start_s"]), _SLOWEST)
    _limit(job["memory_bytes"], start_s + job["cpu_s"] * slower)
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base for what it raises
        os._exit(NO_MEMORY if _lacks_memory(error) else 0)
    try:
        session.run(None, {name: np.zeros(shape, dtype) for name, dtype, shape in job["feeds"]})
    except Exception as error:  # likewise
        if _lacks_memory(error):
            os._exit(NO_MEMORY)
        os.write(1, " ".join(str(error).split())[:300].encode())
        os._exit(NO_RUN)
    os._exit(0)


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY_WORDS)


def _limit(memory_bytes: int, cpu_s: float) -> None:
    """Let this process take so much memory more than it has, and end it once it has used so many seconds."""
    threading.Thread(target=_end_at, args=(cpu_s,), daemon=True).start()
    try:
        import resource  # noqa: PLC0415
    except ImportError:  # Windows: only time is limited there
        return
    with suppress(OSError, ValueError):
        with open("/proc/self/statm", encoding="ascii") as statm:
            taken = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory_bytes,) * 2)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1,) * 2)  # if ONNX Runtime keeps the interpreter's lock


def _end_at(cpu_s: float) -> None:
    while time.process_time() < cpu_s:
        time.sleep(0.05)
    os._exit(NO_TIME)
