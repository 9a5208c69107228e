"""The machine of a measurement, and a monitor of what a run took of it: None where it does not tell, never a guess."""

import contextlib
import importlib.metadata
import platform
import statistics
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from cled_edge.bench.nvml import Nvml
from cled_edge.bench.sensors import (
    EnergyMeter,
    clock_reader,
    cpu_ticks,
    peak_memory_bytes,
    rail_meters,
    rapl_meters,
    reset_peak_memory,
    slowing_devices,
    steal_percent,
    throttle_counts,
)
from cled_edge.cpu import usable_cores

# x86 flags, then the Arm ones for the same uses, in the words of /proc/cpuinfo.
INSTRUCTIONS = (
    *("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "sve", "bf16", "i8mm"),
)
_DISTRIBUTIONS = (
    *("cled-edge", "numpy", "torch", "openvino", "tensorrt"),
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    *("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
)
_ROOT = Path("/")


def describe_machine(root: Path = _ROOT) -> dict[str, Any]:
    """Return what a reader needs to repeat a measurement, as plain JSON types; `root` holds /proc and /sys.

    cpu, family, model: of /proc/cpuinfo. cores: physical; usable_cores: those
    worth a thread of this process. virtual: whether
    this is a virtual machine. gpus: NVIDIA's, [] if there are none, None if nvidia-ml-py is not there to ask.
    """
    cpuinfo = _cpuinfo(root)
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    nvml = Nvml.open()
    return {
        "cpu": cpuinfo.get("model name") or platform.processor() or None,
        "family": _integer(cpuinfo.get("cpu family")),
        "model": _integer(cpuinfo.get("model")),
        "architecture": platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "cpus": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "memory_mb": round(psutil.virtual_memory().total / 1e6),
        "os": _os_name(),
        "python": platform.python_version(),
        # The flag is x86's; no other architecture has one that says so either way.
        "virtual": "hypervisor" in flags if "flags" in cpuinfo else None,
        "jetson": _jetson(root),
        "gpus": nvml.describe() if nvml else None,
    }


def machine_line(machine: dict[str, Any]) -> str:
    """Return the machine in a line, for a table or a console."""
    name = machine["jetson"] or machine["cpu"] or machine["architecture"]
    if machine["family"] is not None:
        amx = f", {_amx(machine)}" if _amx(machine) else ""
        name += f" (family {machine['family']}, model {machine['model']}{amx})"
    virtual = " of a virtual machine" if machine["virtual"] else ""
    return f"{name}, {machine['usable_cores']} cores{virtual}"


def _amx(machine: dict[str, Any]) -> str | None:
    return "AMX" if "amx_bf16" in machine["instructions"] else None


def library_versions() -> dict[str, str]:
    """Return the version of each installed distribution that can change a latency, without importing any."""
    versions = {}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


class Monitor:
    """Around a measured run: what it took of the machine, sampled on a thread of its own. One at a time.

    with Monitor() as monitor:
        run()
    monitor.report()

    `root` holds /proc and /sys. A sample takes 0.02 ms on a virtual machine without meters.
    """

    def __init__(self, rate_hz: float = 1.0, root: Path = _ROOT) -> None:
        self._root = root
        self._interval_s = 1 / rate_hz
        self._process = psutil.Process()
        self._nvml = Nvml.open()
        self._energy = [*rapl_meters(root), *rail_meters(root), *(self._nvml.meters() if self._nvml else [])]
        self._read_clock = clock_reader(root)
        self._slowing = slowing_devices(root)
        self._failed: dict[str, str] = {}  # what could not be read, and why
        self._clocks_mhz: dict[str, list[float]] = {}
        self._slowed_by: set[str] = set()
        self._peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped, name="monitor", daemon=True)

    def __enter__(self) -> "Monitor":
        self._peak_is_exact = reset_peak_memory(self._root)
        self._throttles_before = throttle_counts(self._root)
        self._ticks_before = cpu_ticks(self._root)
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        self._throttles_after = throttle_counts(self._root)
        self._ticks_after = cpu_ticks(self._root)
        if self._peak_is_exact:  # a sample may have missed it
            self._peak_bytes = peak_memory_bytes(self._root) or self._peak_bytes

    def report(self) -> dict[str, Any]:
        """Return what the run took, after it ended, as plain JSON types.

        peak_memory_mb: resident memory of this process. energy_j: of the whole machine, not of this process alone;
        energy_source says which meters were added, or why there is none. clock_mhz: minimum, median and maximum by
        device. steal_percent: CPU time that the hypervisor gave to others. throttled: None where the CPU
        does not tell and no GPU was.
        """
        energy_j, source = self._energy_report()
        throttled, reason = self._throttle_report()
        clocks = {
            device: {"min": round(min(v)), "median": round(statistics.median(v)), "max": round(max(v))}
            for device, v in self._clocks_mhz.items()
        }
        return {
            "peak_memory_mb": round(self._peak_bytes / 1e6, 1),
            "energy_j": energy_j,
            "energy_source": source,
            "clock_mhz": clocks or None,
            "steal_percent": steal_percent(self._ticks_before, self._ticks_after),
            "throttled": throttled,
            "throttle_reason": reason,
        }

    def _sample_until_stopped(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        self._peak_bytes = max(self._peak_bytes, self._process.memory_info().rss)
        for meter in self._energy:
            self._try(meter.source, meter.sample)
        self._try("clock", self._sample_clocks)
        self._try("slowing devices", self._sample_slowdowns)

    def _try(self, name: str, read: Any) -> None:
        """Read, unless it failed before: half of a run's energy is worse than none."""
        if name not in self._failed:
            try:
                read()
            except Exception as error:  # OSError, ValueError of a garbled file, or NVML's own class
                self._failed[name] = " ".join(str(error).split())

    def _sample_clocks(self) -> None:
        clocks = {"cpu": self._read_clock()} if self._read_clock else {}
        for device, clock_mhz in {**clocks, **(self._nvml.clocks_mhz() if self._nvml else {})}.items():
            self._clocks_mhz.setdefault(device, []).append(clock_mhz)

    def _sample_slowdowns(self) -> None:
        self._slowed_by.update(name for name, state in self._slowing.items() if int(state.read_text()) > 0)
        self._slowed_by.update(self._nvml.slowdowns() if self._nvml else [])

    def _energy_report(self) -> tuple[float | None, str | None]:
        read: list[EnergyMeter] = [meter for meter in self._energy if meter.source not in self._failed]
        if read:
            return round(sum(meter.energy_j for meter in read), 3), " + ".join(meter.source for meter in read)
        reasons = [f"{meter.source} cannot be read: {self._failed[meter.source]}" for meter in self._energy]
        return None, "; ".join(reasons) or None

    def _throttle_report(self) -> tuple[bool | None, str | None]:
        before, after = self._throttles_before, self._throttles_after
        rises = {name: after[name] - before[name] for name in after if after[name] > before.get(name, 0)}
        reasons = [f"{name} rose by {rise}" for name, rise in rises.items()]
        reasons += [f"{name} was active" for name in sorted(self._slowed_by)]
        if reasons:
            return True, "; ".join(reasons)
        told = bool(after or self._slowing) and "slowing devices" not in self._failed
        return (False if told else None), None


def _cpuinfo(root: Path) -> dict[str, str]:
    """Return the first CPU's block of /proc/cpuinfo; empty where there is none."""
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        return {}
    rows = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in rows}


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _os_name() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, kernel {platform.release()}"


def _jetson(root: Path) -> str | None:
    try:
        name = (root / "proc/device-tree/model").read_text().strip("\0\n ")
    except OSError:
        return None
    return name if "NVIDIA" in name else None
