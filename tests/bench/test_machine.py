"""What a machine tells of itself, from trees of fake files: real numbers where it does, None where it does not."""

import mmap
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cled_edge.bench import machine
from cled_edge.bench.machine import Monitor, describe_machine, library_versions, machine_line
from cled_edge.bench.sensors import clock_reader, rail_meters, rapl_meters, steal_percent

XEON = """processor\t: 0
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: avx2 avx512f aperfmperf amx_bf16 amx_int8
cpu MHz\t\t: 3100.5

processor\t: 1
cpu MHz\t\t: 900.0
"""
POWERCAP = "sys/class/powercap"


class Tree:
    """Files of a fake /proc and /sys."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, content: object) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_name("whole")
        whole.write_text(f"{content}\n")
        whole.replace(path)  # a gauge's thread must not see it empty


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_bare_xeon_is_described(tree: Tree) -> None:
    tree.write("proc/cpuinfo", XEON)
    found = describe_machine(tree.root)
    assert (found["cpu"], found["family"], found["model"]) == ("Intel(R) Xeon(R) Platinum 8481C", 6, 143)
    assert found["instructions"] == ["avx2", "avx512f", "amx_bf16", "amx_int8"]
    assert (found["virtual"], found["jetson"]) == (False, None)
    found["usable_cores"] = 2
    assert machine_line(found) == "Intel(R) Xeon(R) Platinum 8481C (family 6, model 143, AMX), 2 cores"


def test_a_host_that_hides_amx_is_another_machine(tree: Tree) -> None:
    tree.write("proc/cpuinfo", XEON.replace("amx_bf16", ""))
    found = describe_machine(tree.root) | {"usable_cores": 2}
    assert machine_line(found) == "Intel(R) Xeon(R) Platinum 8481C (family 6, model 143), 2 cores"


def test_a_guest_says_that_it_is_one(tree: Tree) -> None:
    tree.write("proc/cpuinfo", XEON.replace("aperfmperf", "hypervisor"))
    found = describe_machine(tree.root)
    assert found["virtual"] is True
    assert "of a virtual machine" in machine_line(found)


def test_a_jetson_is_named_by_its_device_tree(tree: Tree) -> None:
    tree.write("proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    tree.write("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    found = describe_machine(tree.root)
    assert (found["jetson"], found["instructions"]) == ("NVIDIA Jetson Orin Nano Developer Kit", ["asimd", "asimddp"])
    assert found["virtual"] is None, "Arm has no flag that says either way"
    assert machine_line(found).startswith("NVIDIA Jetson Orin Nano Developer Kit, ")


def test_a_machine_that_tells_nothing_gives_none_and_no_guess(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = describe_machine(tree.root)
    assert (found["family"], found["instructions"], found["virtual"], found["gpus"]) == (None, [], None, None)
    with Monitor(root=tree.root) as monitor:
        pass
    report = monitor.report()
    assert report.pop("peak_memory_mb") > 1
    assert set(report.values()) == {None}


def test_versions_are_of_what_is_installed_and_import_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    versions = library_versions()
    assert versions["numpy"] == np.__version__
    assert "onnxruntime" in versions
    assert "tensorrt" not in versions or versions["tensorrt"]


def test_rapl_adds_packages_and_memory_and_survives_the_overrun(tree: Tree) -> None:
    zones = {":0": "package-0", ":0:0": "core", ":0:1": "dram", ":1": "psys"}
    for zone, name in zones.items():
        tree.write(f"{POWERCAP}/intel-rapl{zone}/name", name)
        tree.write(f"{POWERCAP}/intel-rapl{zone}/energy_uj", 9_000_000)
        tree.write(f"{POWERCAP}/intel-rapl{zone}/max_energy_range_uj", 10_000_000)
    tree.write(f"{POWERCAP}/intel-rapl-mmio:0/name", "package-0")
    tree.write(f"{POWERCAP}/intel-rapl-mmio:0/energy_uj", 9_000_000)
    with Monitor(root=tree.root) as monitor:
        for zone in zones:
            tree.write(f"{POWERCAP}/intel-rapl{zone}/energy_uj", 2_000_000)
    report = monitor.report()
    assert report["energy_j"] == pytest.approx(2 * 3.0)
    assert report["energy_source"] == "RAPL package-0 + RAPL dram"


def test_energy_that_may_not_be_read_says_why(tree: Tree) -> None:
    tree.write(f"{POWERCAP}/intel-rapl:0/name", "package-0")
    (tree.root / POWERCAP / "intel-rapl:0/energy_uj").mkdir()  # root reads any file; nobody reads a folder
    with Monitor(root=tree.root) as monitor:
        pass
    report = monitor.report()
    assert report["energy_j"] is None
    assert "RAPL package-0 cannot be read" in report["energy_source"]


def test_a_meter_that_fails_half_way_is_not_reported(tree: Tree) -> None:
    tree.write(f"{POWERCAP}/intel-rapl:0/name", "package-0")
    tree.write(f"{POWERCAP}/intel-rapl:0/energy_uj", 0)
    with Monitor(root=tree.root) as monitor:
        tree.write(f"{POWERCAP}/intel-rapl:0/energy_uj", "")
    assert monitor.report()["energy_j"] is None


def write_rails(tree: Tree, labels: tuple[str, ...]) -> None:
    tree.write("sys/class/hwmon/hwmon1/name", "ina3221")
    for k, label in enumerate(labels, 1):
        tree.write(f"sys/class/hwmon/hwmon1/in{k}_label", label)
        tree.write(f"sys/class/hwmon/hwmon1/in{k}_input", 5000)
        tree.write(f"sys/class/hwmon/hwmon1/curr{k}_input", 1000 * k)


def test_the_input_rail_of_a_jetson_counts_alone(tree: Tree) -> None:
    write_rails(tree, ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"))
    assert [meter.source for meter in rail_meters(tree.root)] == ["INA3221 VDD_IN"]


def test_without_an_input_rail_power_is_added_and_integrated(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rails(tree, ("VDD_GPU_SOC", "NC", "VDD_CPU_CV"))
    meters = rail_meters(tree.root)
    assert [meter.source for meter in meters] == ["INA3221 VDD_GPU_SOC", "INA3221 VDD_CPU_CV"]
    clock_s = iter([0.0, 2.0])
    monkeypatch.setattr("cled_edge.bench.sensors.time", SimpleNamespace(perf_counter=lambda: next(clock_s)))
    meter = meters[1]
    meter.sample()
    tree.write("sys/class/hwmon/hwmon1/curr3_input", 5000)
    meter.sample()
    assert meter.energy_j == pytest.approx((15 + 25) / 2 * 2.0)


def test_the_clock_is_that_of_the_fastest_core_and_no_constant(tree: Tree) -> None:
    tree.write("proc/cpuinfo", XEON)
    read = clock_reader(tree.root)
    assert read is not None
    assert read() == 3100.5
    for cpu, clock_khz in enumerate((800_000, 2_400_000)):
        tree.write(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", clock_khz)
    with Monitor(root=tree.root) as monitor:
        tree.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", 1_200_000)
    assert monitor.report()["clock_mhz"] == {"cpu": {"min": 1200, "median": 1800, "max": 2400}}
    tree.write("proc/cpuinfo", XEON.replace("aperfmperf", ""))
    (tree.root / "sys").rename(tree.root / "gone")
    assert clock_reader(tree.root) is None


@pytest.mark.parametrize(
    ("file", "before", "during", "words"),
    [
        ("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", 7, 9, "core_throttle_count rose by 2"),
        ("sys/class/hwmon/hwmon3/oc1_event_cnt", 0, 1, "oc1_event_cnt rose by 1"),
        ("sys/class/thermal/cooling_device0/cur_state", 0, 3, "cpufreq-cpu0 (cooling_device0) was active"),
    ],
)
def test_throttling_is_seen_and_named(file: str, before: int, during: int, words: str, tree: Tree) -> None:
    tree.write("sys/class/thermal/cooling_device0/type", "cpufreq-cpu0")
    tree.write("sys/class/thermal/cooling_device0/cur_state", 0)
    tree.write(file, before)
    with Monitor(root=tree.root) as monitor:
        pass
    assert (monitor.report()["throttled"], monitor.report()["throttle_reason"]) == (False, None)
    with Monitor(root=tree.root) as monitor:
        tree.write(file, during)
    assert monitor.report()["throttled"] is True
    assert words in monitor.report()["throttle_reason"]


def test_a_fan_is_no_throttling(tree: Tree) -> None:
    tree.write("sys/class/thermal/cooling_device0/type", "pwm-fan")
    tree.write("sys/class/thermal/cooling_device0/cur_state", 3)
    with Monitor(root=tree.root) as monitor:
        pass
    assert monitor.report()["throttled"] is None


def test_stolen_time_is_a_share_of_the_run(tree: Tree) -> None:
    tree.write("proc/stat", "cpu  100 0 100 700 0 0 0 100 0 0\ncpu0 1 1 1 1 1 1 1 1")
    with Monitor(root=tree.root) as monitor:
        tree.write("proc/stat", "cpu  160 0 110 720 0 0 0 110 0 0")
    assert monitor.report()["steal_percent"] == 10.0
    assert steal_percent([0] * 8, [0] * 8) is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's clear_refs")
def test_the_peak_of_memory_is_the_one_of_the_run_alone() -> None:
    touch_new_pages(200 << 20)
    with Monitor() as monitor:
        pass
    quiet_mb = monitor.report()["peak_memory_mb"]
    with Monitor() as monitor:
        touch_new_pages(100 << 20)
    assert monitor.report()["peak_memory_mb"] - quiet_mb == pytest.approx(105, abs=30)


def touch_new_pages(count_bytes: int) -> None:
    """Have so many bytes resident for a moment, in pages from the kernel: malloc may have resident ones to reuse."""
    with mmap.mmap(-1, count_bytes) as pages:
        for start in range(0, count_bytes, mmap.PAGESIZE):
            pages[start] = 1


class FakeNvml:
    """One GPU, as the functions of pynvml show it."""

    NVML_CLOCK_SM = 1

    def __init__(self) -> None:
        self.energy_mj, self.reasons = 5000, 0x04

    def __getattr__(self, name: str):
        return lambda *_: self.answer(name)

    def answer(self, name: str):
        return {
            "nvmlInit": None,
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": 0,
            "nvmlSystemGetDriverVersion": "580.1",
            "nvmlDeviceGetName": "NVIDIA H100",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80e9),
            "nvmlDeviceGetTotalEnergyConsumption": self.energy_mj,
            "nvmlDeviceGetClockInfo": 1980,
            "nvmlDeviceGetCurrentClocksThrottleReasons": self.reasons,
        }[name]


def test_a_gpu_is_described_metered_and_seen_to_slow_down(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", gpu)
    assert describe_machine(tree.root)["gpus"] == [{"name": "NVIDIA H100", "memory_mb": 80000, "driver": "580.1"}]
    with Monitor(root=tree.root) as monitor:
        gpu.energy_mj = 7500
    report = monitor.report()
    assert (report["energy_j"], report["energy_source"]) == (2.5, "NVML gpu 0")
    assert report["clock_mhz"] == {"gpu 0": {"min": 1980, "median": 1980, "max": 1980}}
    assert report["throttled"] is None, "a power cap is no slowdown, and the CPU does not tell"
    with Monitor(root=tree.root) as monitor:
        gpu.reasons = 0x40
    assert monitor.report()["throttle_reason"] == "gpu 0 hardware thermal slowdown was active"


def test_samples_are_taken_while_the_run_lasts(tree: Tree) -> None:
    tree.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 1_000_000)
    with Monitor(rate_hz=200, root=tree.root) as monitor:
        tree.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 3_000_000)
        machine.threading.Event().wait(0.1)
        tree.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 1_000_000)
    assert monitor.report()["clock_mhz"]["cpu"]["max"] == 3000
    assert rapl_meters(tree.root) == []
