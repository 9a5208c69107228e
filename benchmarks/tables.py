"""Write the tables that are made from the files under benchmarks/results.

    python -m benchmarks.tables             exits 1 if that would change anything
    python -m benchmarks.tables --update    writes benchmarks/RESULTS.md, and the table between the README's markers

A table refuses a result of another bundle than the present one.
"""

import re
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.result import RESULTS, ROOT, Result, Row, results_of
from benchmarks.table import Table, cell_text, check_present, markdown
from benchmarks.tables_control import CONTROL
from benchmarks.tables_packages import PACKAGES
from benchmarks.tables_paper import PAPER
from benchmarks.tables_quality import QUALITY, TARGETS
from benchmarks.tables_speed import CAMERA, LATENCY, SPEED
from cled_edge.errors import ResultError, one_line_errors
from cled_edge.files import write_whole

TABLES: tuple[Table, ...] = (*SPEED, *QUALITY, *CONTROL, *PACKAGES, *PAPER)
PAGE = ROOT / "benchmarks" / "RESULTS.md"
README = ROOT / "README.md"
_BLOCK = re.compile(r"(<!-- table: readme -->\n).*?(<!-- end -->)", re.DOTALL)
_HEAD = """# Results

`python -m benchmarks.tables --update` makes this page from the files under `results`. The number behind a bundle's name
is the beginning of its hash.
"""
# The README's rows: a fast and a plain backend, frames in time, and quality.
_FAST, _PLAIN, _GAIN = "openvino:bf16", "onnxruntime:fp32", "restored visible, low light"


def page(folder: Path = RESULTS) -> str:
    """Return RESULTS.md; ResultError if a result is of another bundle than its table."""
    return "\n".join([_HEAD, *filter(None, (table.text(folder) for table in TABLES))])


def readme_table(folder: Path = RESULTS) -> list[str]:
    """Return the lines of the README's table, what a robotics engineer asks first, below what it was measured on."""
    latency, camera, quality = (_newest(table, folder) for table in (LATENCY, CAMERA, TARGETS))
    fast, plain = (_row(latency, "backend", name) for name in (_FAST, _PLAIN))
    kept, gain = _row(camera, "backend", _FAST), _row(quality, "target", _GAIN)
    times = [
        f"{cell_text(row['p50_ms'], 0)} ms at p50, {cell_text(row['p99_ms'], 0)} ms at p99" for row in (fast, plain)
    ]
    gained = f"{gain['measured']:.1f} dB, {gain['images']} held-out images by day"
    rows = [
        [f"a frame, {fast['description']}", times[0]],
        [f"a frame, {plain['description']}", times[1]],
        [
            f"frames of a {kept['camera_hz']:g} Hz camera, {kept['description']}",
            f"{kept['missed_percent']:.1f} % missed",
        ],
        ["restored visible image: PSNR gained, mean of simulated low light, overexposure, haze and noise", gained],
    ]
    device = latency.provenance.device.removesuffix(" of a virtual machine")
    steps = "one step" if fast["steps"] == 1 else f"{fast['steps']} steps"
    return [f"`nano` on 480x640 images in {steps}, on {device}:", "", *markdown(["what", "measured"], rows)]


def with_readme_table(text: str, folder: Path = RESULTS) -> str:
    """Return the README with the table between its markers replaced; a page without markers stays."""
    return _BLOCK.sub(lambda found: "\n".join([found[1], *readme_table(folder), found[2]]), text)


def _newest(table: Table, folder: Path) -> Result:
    """Return the latest result of the shipped bundle that a table reads; ResultError if there is none."""
    found = [(path, result) for path, result in results_of(table.measurement, folder) if result.of == "nano"]
    if not found:
        raise ResultError(f"{folder} has no {table.measurement} of nano; measure it: {table.command}")
    path, newest = max(found, key=lambda entry: entry[1].provenance.date)
    check_present(path, newest.provenance, table.command)
    return newest


def _row(result: Result, key: str, start: str) -> Row:
    for row in result.rows:
        if str(row.get(key)).startswith(start):
            return row
    raise ResultError(f"{result.file_name} has no {key} {start}, needed for the README; measure again with it")


def main(
    update: Annotated[bool, typer.Option("--update", help="rewrite the pages that are not current")] = False,
) -> None:
    """Tell whether the pages are current."""
    with one_line_errors():
        wanted = {PAGE: page()}
        if README.is_file():
            wanted[README] = with_readme_table(README.read_text())
        stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
        for path in stale:
            said = "rewritten" if update else "stale; run python -m benchmarks.tables --update"
            print(f"{path.relative_to(ROOT)} is {said}")
            if update:
                write_whole(path, wanted[path])
    raise typer.Exit(int(bool(stale) and not update))


if __name__ == "__main__":
    typer.run(main)
