"""What is installed here, which backends will work, and what to install for the others. Nothing here fails."""

import glob
import json
import os
import platform
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cled_edge.backend.choice import REGISTRY
from cled_edge.backend.opener import precisions_here
from cled_edge.backend.tensorrt.device import kernel_driver
from cled_edge.backend.tensorrt.sdk import INSTALL_CUDA, INSTALL_TENSORRT
from cled_edge.cpu import instruction_sets, usable_cores
from cled_edge.errors import CledEdgeError

KNOWN_MAJORS = ("8", "10", "11")  # of TensorRT
# Releases whose results users found wrong, and where they say so.
_DOUBTFUL = {
    "10.3": "TensorRT 10.3, of JetPack 6.1 and 6.2, gave results on an Orin that changed from frame to frame; 10.16 "
    "did not (ros2-depth-anything-v3-trt#16); verify the bundle on backend tensorrt after each build, and take JetPack "
    "7.2 if that fails"
}
_PROBE_S = 60
# What each extra of the package imports; those of backends are told with these.
_EXTRAS = {
    "bags": ("mcap",),
    "report": ("jinja2", "matplotlib", "PIL"),
    "rerun": ("rerun",),
    "serve": ("fastapi", "prometheus_client", "uvicorn", "websockets"),
    "sign": ("cryptography",),
}
# What decides the speed or precision of the CPU backends.
_SETS = (
    "avx2 avx512f avx512_bf16 avx512_fp16 avx_vnni avx512_vnni amx_bf16 f16c asimd asimddp asimdhp bf16 i8mm sve sve2"
)
_LIBRARY_FOLDERS = (
    "/usr/lib/*-linux-gnu*",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/TensorRT*/lib",
    "/opt/*/lib",
    *(str(Path(entry, "tensorrt_libs")) for entry in sys.path if entry.endswith("-packages")),
)
# In a process of its own: a library that does not fit its bindings may end it by a signal.
_PROBE = """
import json, sys
found = {}
try:
    import tensorrt
    found["version"] = tensorrt.__version__
except ModuleNotFoundError as error:
    found["absent" if error.name == "tensorrt" else "broken"] = str(error)
except BaseException as error:
    found["broken"] = f"{type(error).__name__}: {error}"
if "version" in found:
    try:
        from cled_edge.backend.tensorrt.device import read_facts
        found["facts"] = read_facts().model_dump()
    except BaseException as error:
        found["device"] = str(error)
print("\\n" + json.dumps(found))
"""


def examine() -> dict[str, Any]:
    """Return, as JSON has it, what was found: by topic, and under `backends` what works."""
    probe = probe_tensorrt()
    tensorrt = describe_tensorrt(probe, libraries())
    facts = probe.get("facts", {})
    backends = [_backend(name) for name in REGISTRY if name != "tensorrt"] + [_tensorrt_backend(tensorrt)]
    return {
        "verdict": verdict(backends, tensorrt),
        "python": f"{platform.python_version()} ({sys.executable})",
        "os": platform.platform(),
        "cpu": _cpu(),
        "onnxruntime": _guarded(_onnxruntime),
        "openvino": _guarded(_openvino),
        "tensorrt": tensorrt,
        "cuda": _cuda(),
        "driver": {"kernel": kernel_driver() or "none found", "cuda": facts.get("driver")},
        "gpus": _gpus(facts),
        "cameras": _cameras(),
        "window": _guarded(_window),
        "extras": _extras(),
        "backends": backends,
    }


def verdict(backends: list[dict[str, Any]], tensorrt: dict[str, Any]) -> str:
    """Return in a line what works here, what does not, and what to beware of."""
    works = [row["name"] for row in backends if row["works"]]
    not_here = ", ".join(row["name"] for row in backends if not row["works"])
    found = f"{', '.join(works)} will work here" if works else "nothing will work here; see what each backend lacks"
    found += f"; not {not_here}" if works and not_here else ""
    return f"{found}; warning: {tensorrt['warning']}" if tensorrt.get("warning") else found


def probe_tensorrt() -> dict[str, Any]:
    """Import TensorRT in another process; return `version` and `facts`, or why not, as `absent`, `broken`, `device`."""
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            env=environment,
            check=False,
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError) as error:
        return {"broken": _one_line(error)}
    except (ValueError, IndexError):
        return {"broken": f"importing it ended the process with code {done.returncode}"}
    return found if isinstance(found, dict) else {"broken": "it printed what is no answer"}


def libraries() -> list[str]:
    """Return every libnvinfer.so with a version that lies where a loader may find it."""
    folders = [*_LIBRARY_FOLDERS, *filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))]
    found = {os.path.realpath(path) for folder in folders for path in glob.glob(f"{folder}/libnvinfer.so.*")}
    return sorted(found)


def describe_tensorrt(probe: dict[str, Any], found: list[str]) -> dict[str, Any]:
    """Return state (works, no device, another major, library missing, not installed), version and what to do."""
    majors = sorted({int(match[1]) for path in found if (match := re.search(r"\.so\.(\d+)", path))})
    values: dict[str, Any] = {"libraries": found}
    if "version" in probe:
        version = str(probe["version"])
        values |= {"version": version, "warning": _DOUBTFUL.get(".".join(version.split(".")[:2]))}
        if version.partition(".")[0] not in KNOWN_MAJORS:
            known = ", ".join(KNOWN_MAJORS)
            return values | {"state": "another major", "todo": f"needed one of {known}; {INSTALL_TENSORRT}"}
        if "facts" not in probe:
            return values | {"state": "no device", "todo": _one_line(probe.get("device", "no answer"))}
        return values | {"state": "works", "todo": None}
    if "absent" in probe:
        return values | {"state": "not installed", "version": None, "todo": INSTALL_TENSORRT}
    reason = _one_line(probe.get("broken", ""))
    wanted = re.search(r"libnvinfer\w*\.so\.(\d+)", reason)
    if majors and wanted and int(wanted[1]) not in majors:
        here = ", ".join(map(str, majors))
        todo = f"the bindings want libnvinfer {wanted[1]}, here is {here}; install bindings of that; {INSTALL_TENSORRT}"
        return values | {"state": "another major", "version": None, "reason": reason, "todo": todo}
    return values | {"state": "library missing", "version": None, "reason": reason, "todo": INSTALL_TENSORRT}


def _cpu() -> dict[str, Any]:
    words = set(re.split(r"[\s:]+", instruction_sets().lower()))
    return {
        "arch": platform.machine(),
        "cores": usable_cores(),
        "instruction sets": [name for name in _SETS.split() if name in words],
    }


def _onnxruntime() -> dict[str, Any]:
    import onnxruntime  # noqa: PLC0415

    providers = onnxruntime.get_available_providers()
    return {"version": onnxruntime.__version__, "compiled in, only a run proves one": providers}


def _openvino() -> dict[str, Any]:
    if find_spec("openvino") is None:
        return {"missing": "pip install 'cled-edge[openvino]'"}
    import openvino  # noqa: PLC0415

    return {"version": openvino.__version__, "devices": openvino.Core().available_devices}


def _guarded(ask: Any) -> dict[str, Any]:
    try:
        return ask()
    except Exception as error:  # whatever a broken package raises, the other topics are still to be told
        return {"broken": _one_line(error)}


def _cuda() -> dict[str, Any]:
    bindings = _is_there("cuda.bindings.runtime") or _is_there("cuda.cudart")
    found = {"cuda-bindings": bindings, "pycuda": _is_there("pycuda")}
    return found if bindings else found | {"todo": INSTALL_CUDA}


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except Exception:  # a parent package is absent or half installed, and is imported to look for the module
        return False


def _gpus(facts: dict[str, Any]) -> list[str]:
    """Return every GPU that nvidia-smi lists, if it is there, and the one that TensorRT would use."""
    used = [f"for TensorRT: {facts['gpu']}, SM {facts['sm']}"] if facts else []
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return used
    return [line.split(" (UUID")[0] for line in done.stdout.splitlines() if line.startswith("GPU ")] + used


def _cameras() -> dict[str, Any]:
    paths = sorted(glob.glob("/dev/video*"))
    closed = [path for path in paths if not os.access(path, os.R_OK | os.W_OK)]
    todo = "sudo usermod -aG video $USER, then log in again" if closed else None
    return {"devices": paths, "no access to": closed, "todo": todo}


def _window() -> dict[str, Any]:
    from cled_edge.output.window import window_toolkit  # noqa: PLC0415

    made_with = window_toolkit()
    todo = None if made_with else "pip uninstall opencv-python-headless && pip install opencv-python"
    return {"made with": made_with or "nothing: this OpenCV is the headless build", "todo": todo}


def _extras() -> dict[str, Any]:
    lacking = [name for name, modules in _EXTRAS.items() if not all(map(_is_there, modules))]
    todo = f"pip install 'cled-edge[{','.join(lacking)}]'" if lacking else None
    return {"installed": [name for name in _EXTRAS if name not in lacking], "not installed": lacking, "todo": todo}


def _backend(name: str) -> dict[str, Any]:
    try:
        precisions = precisions_here(name)
    except CledEdgeError as error:
        return {"name": name, "works": False, "missing": str(error)}
    return {"name": name, "works": True, "precisions": list(precisions), "missing": None}


def _tensorrt_backend(tensorrt: dict[str, Any]) -> dict[str, Any]:
    works = tensorrt["state"] == "works"
    missing = None if works else f"{tensorrt['state']}; {tensorrt['todo']}"
    return {"name": "tensorrt", "works": works, "missing": missing}


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
