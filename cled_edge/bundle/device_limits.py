"""What named devices can do at most, as published, and the least time in ms that a graph of some cost needs on them.

Peaks are of tensor cores in FP16, dense: data sheets show twice as much, with a sparsity that these networks lack.
"""

from dataclasses import dataclass
from typing import Any

from cled_edge.bundle.graph_cost import Cost

_CARD_US, _JETSON_US = 2.0, 5.0
_CARD = "kernel time is assumed, after 2.4 ms on an H200 for a frame of 1,120 nodes, 2.1 us a node"
_JETSON = "kernel time is assumed, not measured: clocks are about half of a card's"


@dataclass(frozen=True)
class Device:
    """gb_s: bandwidth of its memory. tflops: FP16, dense. kernel_us: the least time of a kernel. source: of these."""

    name: str
    gb_s: float
    tflops: float
    kernel_us: float
    source: str

    def limits(self, cost: Cost) -> dict[str, Any]:
        """Return ms that memory, arithmetic and launches need at least; `limit_ms` is the largest, `by` says which."""
        terms = {
            "memory": cost.traffic_bytes / self.gb_s / 1e6,
            "arithmetic": cost.flop / self.tflops / 1e9,
            "launches": cost.kernels * self.kernel_us / 1e3,
        }
        by = max(terms, key=terms.__getitem__)
        return {"device": self.name, **{f"{key}_ms": ms for key, ms in terms.items()}, "limit_ms": terms[by], "by": by}


DEVICES = (
    Device(
        "Orin Nano 8 GB",
        68,
        10,
        _JETSON_US,
        "NVIDIA Jetson Orin Nano Series data sheet DS-11105-001: 68 GB/s; INT8 40 TOPS sparse, 20 dense at 625 MHz, "
        f"and FP16 is half of the dense; the later Super mode has 102 GB/s and 17 TFLOPS; {_JETSON}",
    ),
    Device(
        "Orin NX 16 GB",
        102.4,
        15,
        _JETSON_US,
        "NVIDIA Jetson Orin NX Series data sheet DS-10712-001: 102.4 GB/s, 32 tensor cores at 918 MHz; FP16 is that of "
        f"the Orin Nano, which has as many, times the ratio of clocks; {_JETSON}",
    ),
    Device(
        "AGX Orin 64 GB",
        204.8,
        42.5,
        _JETSON_US,
        "NVIDIA Jetson AGX Orin Series Technical Brief v1.2: 204.8 GB/s; GPU INT8 170 TOPS sparse, FP16 dense is a "
        f"quarter of it; {_JETSON}",
    ),
    Device(
        "L4",
        300,
        121,
        _CARD_US,
        f"NVIDIA L4 data sheet: 300 GB/s; FP16 242 TFLOPS with sparsity, half of it dense; {_CARD}",
    ),
    Device(
        "H100 SXM",
        3350,
        989.5,
        _CARD_US,
        f"NVIDIA H100 data sheet: 3.35 TB/s; FP16 1,979 TFLOPS with sparsity, half of it dense; {_CARD}",
    ),
)
