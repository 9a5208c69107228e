"""Generate the README's tables from the JSON under benchmarks/results.

python -m benchmarks.tables             rewrites what stands between the markers
python -m benchmarks.tables --check     exits 1 if that would change anything
"""

import json
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- latency: python -m benchmarks.tables -->", "<!-- end -->"


def latency_table(results: Path) -> str:
    """Return the latency table in Markdown, one row per result and step count."""
    lines = [
        "| machine | backend | pair | steps | steps ms | fusion ms | total p50 ms | total p90 ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(results.glob("latency-*.json")):
        result = json.loads(path.read_text())
        machine = f"{result['hardware']['cpu']}, {result['hardware']['cores']} cores"
        machine += f" ({', '.join(result['hardware']['instructions'])})"
        height, width = result["size"]
        for steps, stages in result["summary_ms"].items():
            lines.append(
                f"| {machine} | {result['backend']} | {height}x{width} | {steps} | {stages['steps']['p50']:.0f} | "
                f"{stages['fusion']['p50']:.0f} | {stages['total']['p50']:.0f} | {stages['total']['p90']:.0f} |"
            )
    return "\n".join(lines)


def with_table(text: str, table: str) -> str:
    """Return `text` with the part between the markers replaced."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def main(
    check: Annotated[bool, typer.Option("--check", help="only tell whether README.md is current")] = False,
) -> None:
    """Rewrite README.md."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    current = with_table(text, latency_table(ROOT / "benchmarks" / "results"))
    if check:
        raise typer.Exit(int(text != current))
    readme.write_text(current)


if __name__ == "__main__":
    typer.run(main)
