"""Results on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from cled_edge.backend.facts import notes
from cled_edge.bench.compare import Comparison
from cled_edge.bench.machine import machine_line
from cled_edge.bench.record import BackendResult, Record, Summary
from cled_edge.json_text import counted
from cled_edge.progress import print_line


def print_record(record: Record, console: Console) -> None:
    """Print what ran, its latencies by stage, and whether the run is valid."""
    run = record.run
    height, width = run.size
    rate = f" at {run.rate_hz:g} Hz" if run.rate_hz else ""
    streams = f", {run.streams} pairs a query" if run.streams > 1 else ""
    print_line(
        console,
        f"{run.scenario}{rate}{streams}, {height}x{width}, {run.inputs}: {run.duration_s:g} s each after "
        f"{run.warm_up_s:g} s of warm-up, on {machine_line(record.machine)}",
    )
    for result in record.backends:
        print_line(console, f"\n{result.label}: {headline_text(result)}")
        console.print(_latency_table(result))
        print_line(console, _throughput(result))
        for note in notes(result.details):
            print_line(console, note)
    print_line(console, "")
    taken = record.gauges
    energy = "" if taken["energy_j"] is None else f", {taken['energy_j']:.0f} J ({taken['energy_source']})"
    print_line(
        console,
        f"peak memory of the process: {taken['peak_memory_mb']:.0f} MB{energy}; other processes used "
        f"{record.others_percent:.0f} % of the CPU time",
    )
    if record.valid:
        print_line(console, "valid")
    _print_invalid(record.invalid_reasons, console)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the verdict, what it rests on, and what to know before believing it."""
    a_ms, b_ms = comparison.medians_ms
    print_line(console, f"A {comparison.a}: median {a_ms:.1f} ms")
    print_line(console, f"B {comparison.b}: median {b_ms:.1f} ms")
    print_line(console, f"{comparison.sentence()}, {comparison.effect.pairs} pairs of blocks")
    for note in comparison.notes:
        print_line(console, f"note: {note}")
    _print_invalid(comparison.invalid_reasons, console)


def _print_invalid(reasons: Sequence[str], console: Console) -> None:
    for reason in reasons:
        console.print(f"INVALID: {reason}", style="bold red", markup=False, highlight=False, soft_wrap=True)


def headline_text(result: BackendResult) -> str:
    """Return the number that the scenario is judged by, such as `p90 41.3 ms`."""
    ((name, value),) = result.headline.items()
    if value is None:
        return f"{name}: too few samples"
    if name == "rate_hz":
        return f"{value:.1f} pairs/s"
    return f"{value:.2f} % of deadlines missed" if name == "miss_percent" else f"{name} {value:.1f} ms"


def _latency_table(result: BackendResult) -> Table:
    names = [*result.latency_ms.percentiles, "max"]
    table = Table(
        "stage",
        Column("samples", justify="right"),
        *(Column(f"{name} ms", justify="right") for name in names),
    )
    rows = {**result.stages_ms, "latency": result.latency_ms}
    if result.camera:
        rows["frame age"] = result.camera.age_ms
    for name, summary in rows.items():
        table.add_row(name, str(summary.count), *_cells(summary))
    return table


def _cells(summary: Summary) -> list[str]:
    values = [*summary.percentiles.values(), summary.max]
    return ["-" if value is None else f"{value:.1f}" for value in values]


def _throughput(result: BackendResult) -> str:
    threads = f"{result.threads} threads" if result.threads else "its own choice of threads"
    text = f"{result.rate_hz:.2f} pairs/s; {result.backend}, {threads}, {counted(result.steps, 'step')}"
    if result.latency_ms.missing:
        name, reason = next(iter(result.latency_ms.missing.items()))
        text += f"; no {name}: {reason}"
    if result.camera:
        c = result.camera
        text += f"; of {c.offered} frames {c.late} late, {c.skipped} skipped"
    return text
