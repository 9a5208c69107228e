"""A table: which results it reads, its columns, and the bundle that it speaks of. Rows become Markdown."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.result import (
    BUNDLES,
    RESULTS,
    WEIGHTS,
    Cell,
    Provenance,
    Result,
    Row,
    bundle_hash,
    package_hash,
    results_of,
)
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import ResultError
from cled_edge.size import size_text

HASH_DIGITS = 12
ABSENT = "-"
MOST_NAMED = 3  # bundles, in the line above the rows
CAPTIONED = ("backend", "size", "inputs", "tile", "detector")  # settings that the line above the rows says


@dataclass(frozen=True)
class Column:
    """A header, and the key of what stands below it. digits: of a number behind the point. percent: of 1."""

    header: str
    key: str
    digits: int | None = None
    percent: bool = False

    def cell(self, row: Row) -> str:
        """Return the text of a row's cell."""
        return cell_text(row.get(self.key), self.digits, self.percent)


@dataclass(frozen=True)
class Table:
    """A table of the results of one measurement: a part for each, under a line that says what computed it.

    part: of the rows, where a measurement has several. rows: chooses and orders them, or makes others of them.
    columns: the same for all, or made for one result. command: measures again.

    older: whether results of other than the present bundles are shown. The line above the rows names their hash.
    """

    title: str
    measurement: str
    columns: tuple[Column, ...] | Callable[[Result], tuple[Column, ...]]
    command: str
    note: str = ""
    part: str | None = None
    rows: Callable[[list[Row]], Iterable[Row]] = lambda rows: rows
    older: bool = False

    def lines(self, result: Result) -> list[str]:
        """Return the header and the rows of a result as Markdown, [] if it has no rows of this part."""
        rows = list(self.rows([row for row in result.rows if self.part in (None, row.get("part"))]))
        columns = self.columns if isinstance(self.columns, tuple) else self.columns(result)
        return markdown([column.header for column in columns], [[c.cell(row) for c in columns] for row in rows])

    def text(self, folder: Path = RESULTS) -> str:
        """Return the whole table, "" if there is no result of it; ResultError if one is of another bundle."""
        found = []
        for path, result in results_of(self.measurement, folder):
            if not self.older:
                check_present(path, result.provenance, self.command)
            if lines := self.lines(result):
                found.append("\n".join([caption(result), "", *lines]))
        again = f"Measured by `{self.command}`."
        note = f"{self.note} {again}" if self.note else again
        return "\n\n".join([f"## {self.title}", note, *found]) + "\n" if found else ""


def columns(text: str) -> tuple[Column, ...]:
    """Return columns of a list of `header=key:digits`: the key is the header unless given, `%` is a share of 1."""
    found = []
    for entry in text.split(", "):
        header, _, key = entry.rpartition("=")
        key, _, digits = key.partition(":")
        found.append(Column(header or key, key, int(digits.rstrip("%")) if digits else None, digits.endswith("%")))
    return tuple(found)


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table, [] without rows."""
    lines = [header, ["---"] * len(header), *rows] if rows else []
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def caption(result: Result) -> str:
    """Return the line above a result's rows: bundles with their hashes, settings, device, date and commit."""
    made = result.provenance
    bundles = ", ".join(f"{name} ({found[:HASH_DIGITS]}{_age(name, found)})" for name, found in made.bundles.items())
    if len(made.bundles) > MOST_NAMED:
        bundles = f"{len(made.bundles)} bundles, whose hashes are in results/{result.file_name}"
    when = f"measured {made.date} at commit {made.commit}"
    if made.recorded_in:
        when = f"recorded {made.date} in commit {made.recorded_in}"
    settings = [setting_text(name, result.settings[name]) for name in CAPTIONED if name in result.settings]
    return f"{'; '.join(filter(None, [bundles, *settings, made.device, when]))}:"


def _age(name: str, found: str) -> str:
    return "" if present_hash(name) in (None, found) else ", an older bundle"


def setting_text(name: str, value: object) -> str:
    """Return a setting as the caption says it: a size as 480x640, a tile or a detector by that word."""
    if name == "size" and isinstance(value, list):
        return size_text((int(value[0]), int(value[1])))
    return f"{name} {value}" if name in ("tile", "detector") else str(value)


def cell_text(value: object, digits: int | None = None, percent: bool = False) -> str:
    """Return a value as text, "-" for None."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and percent:
        return f"{value:.{digits or 0}%}"
    return f"{value:.{digits}f}" if digits is not None and isinstance(value, int | float) else str(value)


def check_present(path: Path, made: Provenance, command: str) -> None:
    """Raise a ResultError if a result is of another bundle than the one of that name in this repository.

    A bundle without weights here, such as a variant of an ablation, is only named.
    """
    for name, seen in made.bundles.items():
        what, found, needed = "bundle", seen, present_hash(name)
        if needed is None and (WEIGHTS / f"{name}.safetensors").is_file():
            what, found = "checkpoint", made.checkpoints.get(name, "none")
            needed = hashlib.sha256((WEIGHTS / f"{name}.safetensors").read_bytes()).hexdigest()
        if needed is not None and found != needed:
            raise ResultError(
                f"{path} is of {what} {name} {found[:HASH_DIGITS]}, needed {needed[:HASH_DIGITS]}, the present one; "
                f"measure again: {command}"
            )


@cache
def present_hash(name: str) -> str | None:
    """Return the hash of a shipped bundle, or of a package of cled_edge; None if none has that name."""
    folder = BUNDLES / name
    if folder.is_dir():
        return bundle_hash(Bundle.open(folder).manifest)
    return package_hash(name) if (BUNDLES.parent / name).is_dir() else None


def by_keys(rows: Iterable[Row], *keys: str) -> Mapping[tuple[Cell, ...], Row]:
    """Return rows by the values of keys."""
    return {tuple(row[key] for key in keys): row for row in rows}
