"""What Linux meters of a machine, as files under /sys and /proc: energy, clocks, throttling, memory, stolen time."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_INPUT_RAILS = ("VDD_IN", "POM_5V_IN")  # Jetson boards that meter their whole input, which the other rails are part of
# Cooling devices that slow a processor down; fans are cooling devices too, and run without harm.
_SLOWING = ("cpufreq", "thermal-cpufreq", "devfreq", "thermal-devfreq", "Processor")


@dataclass
class EnergyMeter:
    """Joules since the first sample, of a counter (`read` gives joules) or of a power reading (`read` gives watts).

    A counter that runs over at `range_j` must be sampled at least once between two overruns: RAPL's lasts minutes.
    """

    source: str
    read: Callable[[], float]
    is_power: bool = False
    range_j: float = 0.0
    energy_j: float = 0.0
    _last: tuple[float, float] | None = field(default=None, repr=False)

    def sample(self) -> None:
        """Read once and add what was used since the last time; OSError if the meter cannot be read."""
        now_s, value = time.perf_counter(), self.read()
        if self._last is not None:
            last_s, last = self._last
            if self.is_power:
                self.energy_j += (value + last) / 2 * (now_s - last_s)
            else:
                self.energy_j += value - last + (self.range_j if value < last else 0.0)
        self._last = now_s, value


def rapl_meters(root: Path) -> list[EnergyMeter]:
    """Return a meter for each CPU package, and for its memory where that is metered apart.

    `core` and `uncore` are parts of the package; `psys` contains it; intel-rapl-mmio repeats it: none of them is added.
    """
    meters = []
    for zone in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
        name = _text(zone / "name")
        if name is None or not (name.startswith("package") or name == "dram"):
            continue
        range_uj = _number(zone / "max_energy_range_uj")
        read = _scaled(zone / "energy_uj", 1e-6)
        meters.append(EnergyMeter(f"RAPL {name}", read, range_j=(range_uj or 0.0) / 1e6))
    return meters


def rail_meters(root: Path) -> list[EnergyMeter]:
    """Return a meter for each rail of a Jetson's INA3221, or for the board's input alone where that is metered."""
    meters: dict[str, EnergyMeter] = {}
    for sensor in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if _text(sensor / "name") != "ina3221":
            continue
        for label_file in sorted(sensor.glob("in[123]_label")):  # 4 to 7 are shunt voltages and their sum
            number = label_file.name.removeprefix("in").removesuffix("_label")
            label = _text(label_file)
            if label and label != "NC":  # not connected
                read = _power(sensor / f"in{number}_input", sensor / f"curr{number}_input")
                meters[label] = EnergyMeter(f"INA3221 {label}", read, is_power=True)
    whole = [meters[label] for label in _INPUT_RAILS if label in meters]
    return whole[:1] or list(meters.values())


def clock_reader(root: Path) -> Callable[[], float] | None:
    """Return a function that reads the clock of the fastest core in MHz, or None where the machine does not tell.

    The fastest core: the ones that idle clock down and say nothing of the run.
    """
    files = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    if files:
        return lambda: max(float(file.read_text()) for file in files) / 1e3
    cpuinfo = root / "proc/cpuinfo"
    # Without the APERF and MPERF registers (most virtual machines) "cpu MHz" is a constant, not the clock.
    if "aperfmperf" in (_text(cpuinfo) or "").split():
        return lambda: max(float(line.split(":")[1]) for line in _lines(cpuinfo, "cpu MHz"))
    return None


def throttle_counts(root: Path) -> dict[str, int]:
    """Return the thermal (x86) and over-current (Jetson) events since boot by file; empty where nothing counts them."""
    files = [
        *root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"),
        *root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt"),
    ]
    counts = {str(file.relative_to(root)): _number(file) for file in files}
    return {name: int(count) for name, count in counts.items() if count is not None}


def slowing_devices(root: Path) -> dict[str, Path]:
    """Return the state files of the thermal framework's devices that slow a processor, by name; 0 is full speed."""
    found = {}
    for device in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind = _text(device / "type")
        if kind and kind.startswith(_SLOWING):
            found[f"{kind} ({device.name})"] = device / "cur_state"
    return found


def reset_peak_memory(root: Path) -> bool:
    """Let the kernel count the peak anew (proc(5), clear_refs); where it will not, samples must do."""
    try:
        (root / "proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return peak_memory_bytes(root) is not None


def peak_memory_bytes(root: Path) -> int | None:
    """Return this process's largest resident memory since it started or since `reset_peak_memory`."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB$", (root / "proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def cpu_ticks(root: Path) -> list[int] | None:
    """Return the clock ticks of all CPUs together since boot: user, nice, system, idle, iowait, irq, softirq, steal."""
    try:
        fields = (root / "proc/stat").read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return None
    return [int(field) for field in fields[1:9]] if len(fields) >= 9 else None


def steal_percent(before: list[int] | None, after: list[int] | None) -> float | None:
    """Return the share of all CPU time between two readings of `cpu_ticks` that the hypervisor gave to others."""
    if before is None or after is None:
        return None
    spent = [b - a for a, b in zip(before, after, strict=True)]
    return round(100 * spent[7] / sum(spent), 2) if sum(spent) > 0 else None


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip("\0\n ")
    except OSError:
        return None


def _number(file: Path) -> float | None:
    text = _text(file)
    return float(text) if text and text.isdigit() else None


def _lines(file: Path, start: str) -> list[str]:
    return [line for line in file.read_text().splitlines() if line.startswith(start)]


def _scaled(file: Path, factor: float) -> Callable[[], float]:
    return lambda: float(file.read_text()) * factor


def _power(millivolts: Path, milliamperes: Path) -> Callable[[], float]:
    return lambda: float(millivolts.read_text()) * float(milliamperes.read_text()) * 1e-6
