"""The NVIDIA GPUs: what they are, their energy, clocks and slowdowns."""

import importlib
from typing import Any

from cled_edge.bench.sensors import EnergyMeter

# NVML clock event reasons. A power cap is not among them: at full load it is the card's normal state.
_GPU_SLOWDOWNS = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


class Nvml:
    """The NVIDIA GPUs, through the driver's management library (`pip install nvidia-ml-py`)."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.nvmlInit()
        self._handles = [library.nvmlDeviceGetHandleByIndex(k) for k in range(library.nvmlDeviceGetCount())]

    @classmethod
    def open(cls) -> "Nvml | None":
        """Return the GPUs, or None where the library or the driver is absent."""
        try:
            return cls(importlib.import_module("pynvml"))
        except Exception:  # ImportError, or NVMLError, whose class is in the module that may be missing
            return None

    def describe(self) -> list[dict[str, Any]]:
        """Return name, memory and driver of each."""
        library, driver = self._library, self._library.nvmlSystemGetDriverVersion()
        return [
            {
                "name": library.nvmlDeviceGetName(handle),
                "memory_mb": round(library.nvmlDeviceGetMemoryInfo(handle).total / 1e6),
                "driver": driver,
            }
            for handle in self._handles
        ]

    def meters(self) -> list[EnergyMeter]:
        """Return a meter for each GPU; one that counts no energy (before Volta) fails at its first sample."""
        read_mj = self._library.nvmlDeviceGetTotalEnergyConsumption
        return [EnergyMeter(f"NVML gpu {k}", lambda h=h: read_mj(h) / 1e3) for k, h in enumerate(self._handles)]  # type: ignore[misc]

    def clocks_mhz(self) -> dict[str, float]:
        """Return the clock of each GPU's multiprocessors."""
        library = self._library
        return {
            f"gpu {k}": float(library.nvmlDeviceGetClockInfo(h, library.NVML_CLOCK_SM))
            for k, h in enumerate(self._handles)
        }

    def slowdowns(self) -> list[str]:
        """Return what slows the GPUs down at this moment, apart from their power cap."""
        read = self._library.nvmlDeviceGetCurrentClocksThrottleReasons
        masks = ((k, read(handle)) for k, handle in enumerate(self._handles))
        return [f"gpu {k} {words}" for k, mask in masks for bit, words in _GPU_SLOWDOWNS.items() if mask & bit]
