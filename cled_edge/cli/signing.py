"""`cled-edge inspect`, `sign` and `keygen`: options to one library call each, and what it prints."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from cled_edge.cli.options import MODEL
from cled_edge.cli.terminal_table import print_table
from cled_edge.errors import OptionError
from cled_edge.json_text import json_of
from cled_edge.progress import print_line

RequireSignature = Annotated[
    Path | None,
    typer.Option(
        "--require-signature",
        metavar="PUBLIC.pem",
        help="refuse a bundle that this key has not signed",
        rich_help_panel=MODEL,
    ),
]
_WIDEST = 100
_TENSOR_COLUMNS = ("name", "dtype", "shape", "range")  # layout, colour order and meaning are in --json


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="bundle folder, .onnx, .engine, .plan or .safetensors")],
    require_signature: RequireSignature = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="instead, what a frame costs: kernels, arithmetic, traffic, ms at least")
    ] = False,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="with --cost: size in pixels of graphs that take any")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> None:
    """Say what a bundle, graph, engine or checkpoint is, or costs, without executing it."""
    if size is not None and not cost:
        raise OptionError("--size is given without --cost, which it belongs to; give both, or neither")
    if cost:
        _inspect_cost(path, size, require_signature, as_json=as_json)
        return
    from cled_edge.bundle.inspection import inspect_path  # noqa: PLC0415

    finding = inspect_path(path, require_signature)
    if as_json:
        typer.echo(json_of(finding.values), nl=False)
    else:
        print_finding(finding.values, Console())
    if finding.failure:
        raise finding.failure


def _inspect_cost(path: Path, size: str | None, key: Path | None, *, as_json: bool) -> None:
    from cled_edge.bundle.cost import cost_of_path  # noqa: PLC0415
    from cled_edge.cli.cost_table import print_costs  # noqa: PLC0415
    from cled_edge.size import parse_size  # noqa: PLC0415

    values = cost_of_path(path, None if size is None else parse_size(size), key)
    if as_json:
        typer.echo(json_of(values), nl=False)
    else:
        print_costs(values, Console())


def sign(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="folder; every file in it is verified first")],
    key: Annotated[Path, typer.Option(metavar="PRIVATE.pem", help="Ed25519 private key, as keygen makes it")],
) -> None:
    """Sign a bundle: write manifest.sig into it."""
    from cled_edge.bundle.reader import Bundle  # noqa: PLC0415
    from cled_edge.bundle.signature import SIGNATURE_NAME, write_signature  # noqa: PLC0415

    opened = Bundle.open(bundle)
    fingerprint = write_signature(opened.path, opened.manifest_bytes, key)
    typer.echo(f"wrote {bundle / SIGNATURE_NAME}, key {fingerprint}")


def keygen(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="where private.pem and public.pem are written")],
) -> None:
    """Make a key pair: keep private.pem to yourself, give public.pem to who opens your bundles."""
    from cled_edge.bundle.signature import write_key_pair  # noqa: PLC0415

    fingerprint = write_key_pair(folder)
    typer.echo(f"wrote {folder / 'private.pem'} (keep it secret) and {folder / 'public.pem'}, key {fingerprint}")


def print_finding(values: Mapping[str, Any], console: Console) -> None:
    """Print what `inspect_path` found: a line or a table each. Nothing in it can rewrite the terminal."""
    for name, value in values.items():
        if name in _WITH_ANOTHER:
            continue
        if name in _TABLES:
            _TABLES[name](values, console)
        elif isinstance(value, dict):
            _table(console, Table(name, "value"), value.items())
        elif value is not None:
            print_line(console, f"{name.replace('_', ' ')}: {_text(value)}")


def _print_graphs(values: Mapping[str, Any], console: Console) -> None:
    for graph in values["graphs"]:
        words = (f"{key} {_text(value)}" for key, value in graph.items() if not _is_table(value) and value is not None)
        print_line(console, f"\ngraph {', '.join(words)}")
        _print_tensors(graph, console)


def _print_tensors(graph: Mapping[str, Any], console: Console) -> None:
    rows = [(side[:-1], tensor) for side in ("inputs", "outputs") for tensor in graph[side]]
    columns = [column for column in _TENSOR_COLUMNS if any(column in tensor for _, tensor in rows)]
    table = Table("", *(Column(column, no_wrap=True) for column in columns))
    _table(console, table, [(side, *(tensor.get(column) for column in columns)) for side, tensor in rows])


def _print_files(values: Mapping[str, Any], console: Console) -> None:
    table = Table("file", Column("bytes", justify="right"), "SHA-256", "verdict")
    rows = [(name, row["bytes"], row["sha256"][:16], row["verdict"]) for name, row in values["files"].items()]
    _table(console, table, rows)
    if values["unnamed"]:
        names = ", ".join(_text(name) for name in values["unnamed"])
        print_line(console, f"not in the manifest, never opened: {names}")


def _print_signature(values: Mapping[str, Any], console: Console) -> None:
    signature = values["signature"]
    key = f"key {signature['fingerprint']}"
    words = {
        "unsigned": "unsigned",
        "valid": f"valid, by the required {key}"
        if signature["trusted"]
        else f"valid, by {key}; whose that is, only --require-signature PUBLIC.pem can say",
        "invalid": f"INVALID: {signature['reason']}",
        "unchecked": f"of {key}, not checked: {signature['reason']}",
    }
    print_line(console, f"signature: {words[signature['state']]}")


def _print_counts(title: str, values: Mapping[str, Mapping[str, int]], console: Console) -> None:
    columns = list(dict.fromkeys(key for row in values.values() for key in row))
    table = Table(title, *(Column(column, justify="right") for column in columns))
    _table(console, table, [(name, *(row.get(column) for column in columns)) for name, row in values.items()])


_TABLES: dict[str, Callable[[Mapping[str, Any], Console], None]] = {
    "graphs": _print_graphs,
    "inputs": _print_tensors,
    "files": _print_files,
    "signature": _print_signature,
    "tensors": lambda values, console: _print_counts("dtype", values["tensors"], console),
    "initialisers": lambda values, console: _print_counts("initialisers", values["initialisers"], console),
}
_WITH_ANOTHER = ("outputs", "unnamed")  # printed with the inputs, with the files


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _table(console: Console, table: Table, rows: Any) -> None:
    from rich.text import Text  # noqa: PLC0415

    for row in rows:
        table.add_row(*(Text(_text(cell)) for cell in row))
    if table.row_count:
        print_table(table, console)


def _text(value: Any) -> str:
    """Return a value as one printable line, short enough for a table: --json has the rest."""
    from cled_edge.json_text import shown  # noqa: PLC0415

    if value is None:
        return "-"
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        value = f"[{', '.join(str(item) for item in value)}]"
    return shown(value if isinstance(value, str) else json.dumps(value), _WIDEST)
