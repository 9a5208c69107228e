"""`cled-edge verify`: run a bundle's golden pairs here and compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from cled_edge.cli.advice import advised
from cled_edge.cli.options import MODEL, REPORT, Quiet, Verbose, status_period_s, told_to, with_default
from cled_edge.cli.signing import RequireSignature
from cled_edge.cli.terminal_table import print_table
from cled_edge.errors import ParityError
from cled_edge.json_text import counted, json_of
from cled_edge.progress import print_line, status_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cled_edge.backend.choice import BackendChoice
    from cled_edge.bundle.manifest import CheckSpec


def verify(
    bundle: Annotated[Path | None, typer.Argument(**with_default("folder of the bundle", "the shipped nano"))] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            **with_default("or NAME:PRECISION; repeat for several", "all that this machine has"),
            rich_help_panel=MODEL,
        ),
    ] = None,
    require_signature: RequireSignature = None,
    cuda_binding: Annotated[
        str, typer.Option(help="of backend tensorrt: cuda (NVIDIA's) or pycuda", rich_help_panel=MODEL)
    ] = "cuda",
    as_json: Annotated[bool, typer.Option("--json", help="print the checks as JSON", rich_help_panel=REPORT)] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run a bundle's golden pairs here and compare with what its network made of them where it was exported."""
    from cled_edge.backend.choice import BackendChoice  # noqa: PLC0415
    from cled_edge.backend.opener import backends_of  # noqa: PLC0415
    from cled_edge.backend.tensorrt.run_options import CudaOptions  # noqa: PLC0415
    from cled_edge.bundle.reader import Bundle  # noqa: PLC0415
    from cled_edge.select import resolved  # noqa: PLC0415
    from cled_edge.verify import Remarks, read_golden, verify_all  # noqa: PLC0415

    console = told_to(verbose=verbose, quiet=quiet)
    opened = Bundle.open(bundle, public_key=require_signature)
    named = [BackendChoice.parse(text) for text in backend or ()] or backends_of(opened)
    choices = [resolved(choice, opened).choice for choice in named]
    remarks = Remarks()
    with status_lines(
        lambda: f"verifying {opened.path} on {', '.join(map(str, choices))}", console, status_period_s(verbose=verbose)
    ):
        checks = verify_all(opened, choices, read_golden(opened), remarks, CudaOptions(cuda_binding))
    left_out = remarks.left_out
    if left_out and not checks:
        raise left_out[0]
    if not checks:
        raise ParityError(f"{opened.path}: no golden pair was run, needed one at least; take a bundle that has one")
    if as_json:
        typer.echo(json_of([{"backend": str(c), **check.model_dump()} for c, check in checks]), nl=False)
    else:
        print_checks(checks)
    said = list(remarks.notes)
    if left_out:
        first = advised(left_out[0])
        said += [f"left out: {counted(len(left_out), 'run')} of golden pairs without an engine, first: {first}"]
    for note in said:
        print_line(console, note)
    _raise_failed(checks)


def _raise_failed(checks: "Sequence[tuple[BackendChoice, CheckSpec]]") -> None:
    """Raise ParityError, which names the first, if a check failed."""
    failed = [(choice, check) for choice, check in checks if check.verdict != "OK"]
    if failed:
        choice, check = failed[0]
        raise ParityError(
            f"{check.verdict}: {len(failed)} of {len(checks)} checks failed, first {check.tensor} on {choice}: "
            f"{check.psnr_db} dB, needed {check.needed_db:g}; do not use that backend with this bundle"
        )


def print_checks(checks: "Sequence[tuple[BackendChoice, CheckSpec]]") -> None:
    """Print a row for each check."""
    numbers = (Column(name, justify="right") for name in ("steps", "cases", "PSNR dB", "needed"))
    table = Table("backend", "opset", "size", "form", *numbers, "verdict")
    for choice, check in checks:
        size, psnr = "{}x{}".format(*check.size), f"{check.psnr_db:.1f}"
        counts = (str(check.steps), str(check.cases), psnr, f"{check.needed_db:g}")
        table.add_row(str(choice), str(check.opset), size, check.form, *counts, check.verdict)
    print_table(table)
