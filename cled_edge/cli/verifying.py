"""`cled-edge verify`: run a bundle's golden pairs here and compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from cled_edge.cli.advice import advised
from cled_edge.cli.signing import RequireSignature
from cled_edge.errors import ParityError
from cled_edge.json_text import json_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cled_edge.backend.choice import BackendChoice
    from cled_edge.bundle.manifest import CheckSpec


def verify(
    bundle: Annotated[Path | None, typer.Argument(help="folder of the bundle", show_default="the shipped nano")] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="or NAME:PRECISION; repeat for several", show_default="all that this machine has"
        ),
    ] = None,
    require_signature: RequireSignature = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the checks as JSON")] = False,
) -> None:
    """Run a bundle's golden pairs here and compare with what its network made of them where it was exported."""
    from cled_edge.backend.choice import BackendChoice  # noqa: PLC0415
    from cled_edge.backend.opener import backends_of  # noqa: PLC0415
    from cled_edge.bundle.reader import Bundle  # noqa: PLC0415
    from cled_edge.select import resolved  # noqa: PLC0415
    from cled_edge.verify import Remarks, read_golden, verify_all  # noqa: PLC0415

    opened = Bundle.open(bundle, public_key=require_signature)
    named = [BackendChoice.parse(text) for text in backend or ()] or backends_of(opened)
    choices = [resolved(choice, opened).choice for choice in named]
    remarks = Remarks()
    checks = verify_all(opened, choices, read_golden(opened), remarks)
    left_out = remarks.left_out
    if left_out and not checks:
        raise left_out[0]
    if not checks:
        raise ParityError(f"{opened.path}: no golden pair was run, needed one at least; export the bundle again")
    if as_json:
        typer.echo(json_of([{"backend": str(c), **check.model_dump()} for c, check in checks]), nl=False)
    else:
        print_checks(checks)
    for note in remarks.notes:
        typer.echo(note, err=True)
    if left_out:
        first = advised(left_out[0])
        typer.echo(f"left out: {len(left_out)} runs of golden pairs without an engine, first: {first}", err=True)
    _raise_failed(checks)


def _raise_failed(checks: "Sequence[tuple[BackendChoice, CheckSpec]]") -> None:
    """Raise ParityError, which names the first, if a check failed."""
    failed = [(choice, check) for choice, check in checks if check.verdict != "OK"]
    if failed:
        choice, check = failed[0]
        raise ParityError(
            f"{check.verdict}: {len(failed)} of {len(checks)} checks failed, first {check.tensor} on {choice}: "
            f"{check.psnr_db} dB, needed {check.needed_db:g}; do not use that backend with this bundle, or "
            "find the node with python -m export.bisect"
        )


def print_checks(checks: "Sequence[tuple[BackendChoice, CheckSpec]]") -> None:
    """Print a row for each check."""
    numbers = (Column(name, justify="right") for name in ("steps", "cases", "PSNR dB", "needed"))
    table = Table("backend", "opset", "size", "form", *numbers, "verdict")
    for choice, check in checks:
        size, psnr = "{}x{}".format(*check.size), f"{check.psnr_db:.1f}"
        counts = (str(check.steps), str(check.cases), psnr, f"{check.needed_db:g}")
        table.add_row(str(choice), str(check.opset), size, check.form, *counts, check.verdict)
    Console().print(table)
