"""What `cled-edge inspect --cost` prints for people: a table of counts, one of limits, and the rules of both."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cled_edge.cli.terminal_table import print_table
from cled_edge.json_text import shown
from cled_edge.progress import print_line
from cled_edge.size import size_text


def print_costs(values: Mapping[str, Any], console: Console) -> None:
    """Print what `cost_of_path` found. Names of graphs are made safe to print."""
    graphs, devices = values["graphs"], values["devices"]
    counts = Table("one run of each graph", *_columns(graphs))
    for label, text in _ROWS.items():
        counts.add_row(label, *(text(graph) for graph in graphs))
    print_table(counts, console)
    limits = Table("least ms, and why", *_columns(graphs))
    for place, device in enumerate(devices):
        cells = [graph["limits"][place] for graph in graphs]
        limits.add_row(device["name"], *(f"{cell['limit_ms']:.2f} {cell['by']}" for cell in cells))
    print_table(limits, console)
    for rule in (*values["rules"], *_OF_LIMITS):
        print_line(console, f"- {rule}")
    for device in devices:
        print_line(
            console,
            f"- {device['name']}: {device['gb_s']:g} GB/s, {device['tflops']:g} TFLOPS FP16 dense, "
            f"{device['kernel_us']:g} us a kernel ({device['source']}).",
        )


def _columns(graphs: list[dict[str, Any]]) -> list[Column]:
    return [Column(Text(shown(graph["name"])), justify="right") for graph in graphs]


def _size(graph: Mapping[str, Any]) -> str:
    return size_text(tuple(graph["size"])) if graph["size"] else "its own"


def _weights(graph: Mapping[str, Any]) -> str:
    return ", ".join(f"{count:,} {dtype}" for dtype, count in graph["weights_bytes"].items()) or "none"


_OF_LIMITS = (
    "Least ms: the largest of traffic / bandwidth, arithmetic / peak, and kernels x time of a kernel.",
    "Traffic is at the stored precision: the FP16 form of an FP32 graph moves about half.",
)
_ROWS = {
    "size": _size,
    "nodes in the file": lambda graph: f"{graph['nodes']}",
    "nodes after folding": lambda graph: f"{graph['nodes_folded']}",
    "of them views": lambda graph: f"{graph['views']}",
    "kernels after fusion": lambda graph: f"{graph['kernels']}",
    "of them layout": lambda graph: f"{graph['layout_kernels']}",
    "longest chain of kernels": lambda graph: f"{graph['longest_chain']}",
    "GFLOP": lambda graph: f"{graph['gflop']:.3f}",
    "MB read": lambda graph: f"{graph['read_mb']:.1f}",
    "MB written": lambda graph: f"{graph['written_mb']:.1f}",
    "MB of traffic": lambda graph: f"{graph['traffic_mb']:.1f}",
    "MB without fusion": lambda graph: f"{graph['unfused_traffic_mb']:.1f}",
    "weights, bytes": _weights,
}
