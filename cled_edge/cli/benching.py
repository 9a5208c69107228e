"""`cled-edge bench`, `bench compare` and `bench report`: options to one library call each, and what it prints.

A command is longer than a screen where it has many options: one stands on a line.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cled_edge.cli.control_options import control_options
from cled_edge.cli.examples import examples_of
from cled_edge.cli.options import (
    INPUTS,
    LIMITS,
    MODEL,
    REPORT,
    BundleFolder,
    Quiet,
    Verbose,
    status_period_s,
    told_to,
    with_default,
)
from cled_edge.cli.signing import RequireSignature
from cled_edge.contract import Controls
from cled_edge.errors import OptionError, SlowerError
from cled_edge.json_text import json_of
from cled_edge.progress import seconds_bar

if TYPE_CHECKING:
    from cled_edge.bench.compare import Comparison
    from cled_edge.bench.measure import Budget
    from cled_edge.bench.subject import Candidate, Inputs

CAMERA_RATE_HZ = 30.0
STREAMS = 4

app = typer.Typer(invoke_without_command=True, add_completion=False, pretty_exceptions_enable=False)

Backends = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...", **with_default("measured in turns; NAME:PRECISION", "onnxruntime"), rich_help_panel=MODEL
    ),
]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads, 0 is the backend's choice", rich_help_panel=MODEL)]
Infrared = Annotated[
    str | None,
    typer.Option(metavar="SRC", help="video, image, folder or glob; with --visible", rich_help_panel=INPUTS),
]
Visible = Annotated[
    str | None,
    typer.Option(metavar="SRC", **with_default("as --infrared", "a rendered street"), rich_help_panel=INPUTS),
]
Height = Annotated[
    int | None, typer.Option(**with_default("of the rendered street, pixels", "480"), rich_help_panel=INPUTS)
]
Width = Annotated[
    int | None, typer.Option(**with_default("of the rendered street, pixels", "640"), rich_help_panel=INPUTS)
]
ScenarioOption = Annotated[
    str,
    typer.Option(
        help="single-stream, multi-stream, offline or camera; judged by p90, p99, pairs/s, misses",
        rich_help_panel=INPUTS,
    ),
]
Rate = Annotated[float | None, typer.Option(**with_default("of the camera scenario", "30"), rich_help_panel=INPUTS)]
Streams = Annotated[
    int | None, typer.Option(**with_default("pairs in a multi-stream query", "4"), rich_help_panel=INPUTS)
]
Seconds = Annotated[
    float,
    typer.Option(help="seconds to measure, of each backend; goes on up to 4x for samples", rich_help_panel=LIMITS),
]
WarmUp = Annotated[
    float, typer.Option(help="seconds to warm up each backend, 3 calls at least", rich_help_panel=LIMITS)
]
MinSamples = Annotated[int, typer.Option(help="fewer samples make the run invalid", rich_help_panel=LIMITS)]
BothSeconds = Annotated[
    float, typer.Option(help="seconds to measure, both together; 12 pairs at least", rich_help_panel=LIMITS)
]
Margin = Annotated[float, typer.Option(help="smallest difference that matters", rich_help_panel=REPORT)]
Peaks = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="the machine's peaks, kept in the result", rich_help_panel=REPORT),
]
ResultFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE.json", help="keep the result with all samples", rich_help_panel=REPORT),
]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON", rich_help_panel=REPORT)]


@app.callback(epilog=examples_of("bench"))
@control_options
def run(
    context: typer.Context,
    controls: Controls,
    bundle: BundleFolder = None,
    require_signature: RequireSignature = None,
    backends: Backends = None,
    scenario: ScenarioOption = "single-stream",
    infrared: Infrared = None,
    visible: Visible = None,
    height: Height = None,
    width: Width = None,
    threads: Threads = 0,
    duration_s: Seconds = 20.0,
    warm_up_s: WarmUp = 2.0,
    min_samples: MinSamples = 50,
    rate_hz: Rate = None,
    streams: Streams = None,
    peaks: Peaks = None,
    out: ResultFile = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure latency by stage: cled-edge bench [OPTIONS], or one of the commands below."""
    if context.invoked_subcommand:
        _refuse_options_before(context)
        return
    # Imported here so that --help and usage errors take no second.
    from cled_edge.bench.console import print_record  # noqa: PLC0415
    from cled_edge.bench.measure import bench  # noqa: PLC0415
    from cled_edge.bench.subject import Inputs, open_subjects  # noqa: PLC0415
    from cled_edge.files import check_writable, read_json, write_whole  # noqa: PLC0415

    console, period_s = told_to(verbose=verbose, quiet=quiet), status_period_s(verbose=verbose)
    budget = _budget(scenario, rate_hz, streams, duration_s, warm_up_s, min_samples)
    candidates, inputs = _candidates(bundle, backends), Inputs(infrared, visible, _size(height, width))
    peak_values = read_json(peaks) if peaks else None
    if out:
        check_writable(out)
    with (
        open_subjects(candidates, inputs, controls, threads, require_signature) as subjects,
        seconds_bar("measuring", duration_s * len(subjects), console, period_s) as advance,
    ):
        record = bench(subjects, budget, peak_values, advance)
    if out:
        write_whole(out, record.to_json())
    if as_json:
        typer.echo(record.to_json(), nl=False)
    else:
        print_record(record, Console())


@app.command(epilog=examples_of("bench compare"))
@control_options
def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="bundle folder, backend, BUNDLE@BACKEND, or RESULT.json[@BACKEND]")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="what is judged against A")],
    controls: Controls,
    require_signature: RequireSignature = None,
    margin_percent: Margin = 3.0,
    infrared: Infrared = None,
    visible: Visible = None,
    height: Height = None,
    width: Width = None,
    threads: Threads = 0,
    duration_s: BothSeconds = 20.0,
    insert_delay_percent: Annotated[float, typer.Option(help="make B slower, to test this command")] = 0.0,
    fail_if_slower: Annotated[bool, typer.Option("--fail-if-slower", help="exit with 17 if B is slower")] = False,
    order_seed: Annotated[int, typer.Option(min=0, help="of the order of the blocks")] = 0,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Say whether B is faster or slower than A, or that no difference shows."""
    from cled_edge.bench.compare import is_result  # noqa: PLC0415
    from cled_edge.bench.console import print_comparison  # noqa: PLC0415
    from cled_edge.bench.subject import Inputs  # noqa: PLC0415

    console = told_to(verbose=verbose, quiet=quiet)
    if is_result(a) != is_result(b):
        raise OptionError(f"{a} and {b}: one is a result, the other is not; give two results, or two things to measure")
    if is_result(a):
        comparison = _compared_results(a, b, margin_percent, order_seed)
    else:
        inputs = Inputs(infrared, visible, _size(height, width))
        how = {"duration_s": duration_s, "margin_percent": margin_percent, "seed": order_seed}
        advancing = seconds_bar("comparing", duration_s, console, status_period_s(verbose=verbose))
        comparison = _compared(a, b, inputs, controls, threads, require_signature, insert_delay_percent, how, advancing)
    if as_json:
        typer.echo(json_of(comparison.as_dict()), nl=False)
    else:
        print_comparison(comparison, Console())
    if fail_if_slower and comparison.effect.verdict == "slower":
        raise SlowerError(f"{comparison.sentence()}; look at the stages of both: cled-edge bench --backends A,B")


@app.command(epilog=examples_of("bench report"))
def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT.json...", help="files of cled-edge bench --out")],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="a page without links to elsewhere")],
) -> None:
    """Draw results as one HTML page."""
    from cled_edge.bench.record import Record  # noqa: PLC0415
    from cled_edge.bench.report import render  # noqa: PLC0415
    from cled_edge.files import check_writable, write_whole  # noqa: PLC0415

    check_writable(out)
    write_whole(out, render([(path.stem, Record.read(path)) for path in results]))
    typer.echo(f"wrote {out}")


def _budget(
    scenario: str,
    rate_hz: float | None,
    streams: int | None,
    duration_s: float,
    warm_up_s: float,
    min_samples: int,
) -> "Budget":
    """Return what is asked for, with the defaults of the scenario."""
    from cled_edge.bench.measure import Budget  # noqa: PLC0415
    from cled_edge.bench.scenario import Scenario, scenario_name  # noqa: PLC0415

    name = scenario_name(scenario)
    rate_hz = CAMERA_RATE_HZ if rate_hz is None and name == "camera" else rate_hz
    streams = streams if streams is not None else STREAMS if name == "multi-stream" else 1
    return Budget(Scenario(name, rate_hz, streams), duration_s, warm_up_s, min_samples)


def _candidates(bundle: Path | None, backends: str | None) -> "list[Candidate]":
    """Return a candidate for each backend of a list; OptionError if one stands there twice."""
    from cled_edge.backend.choice import BackendChoice  # noqa: PLC0415
    from cled_edge.bench.subject import DEFAULT_BACKEND, Candidate  # noqa: PLC0415

    found = [Candidate(bundle, BackendChoice.parse(backend)) for backend in (backends or DEFAULT_BACKEND).split(",")]
    if len(set(found)) < len(found):
        raise OptionError(f"--backends {backends} names one twice; to measure noise use: cled-edge bench compare A A")
    return found


def _compared_results(a: str, b: str, margin_percent: float, seed: int) -> "Comparison":
    """Judge two results that were kept."""
    from cled_edge.bench.compare import compare_results, find_result  # noqa: PLC0415

    results = find_result(a), find_result(b)
    comparison = compare_results(*results, margin_percent, seed)
    return _with_notes(comparison, [(result.label, result.details) for _, result in results])


def _compared(
    a: str,
    b: str,
    inputs: "Inputs",
    controls: Controls,
    threads: int,
    public_key: Path | None,
    delay_percent: float,
    how: dict[str, Any],
    advancing: AbstractContextManager[Callable[[float], None]],
) -> "Comparison":
    """Measure both in turns; B is slowed by a share of its own time."""
    from cled_edge.backend.facts import details  # noqa: PLC0415
    from cled_edge.bench.clock import SystemClock  # noqa: PLC0415
    from cled_edge.bench.compare import DelayedSubject, compare_subjects  # noqa: PLC0415
    from cled_edge.bench.scenario import Subject  # noqa: PLC0415
    from cled_edge.bench.subject import Candidate, open_subjects  # noqa: PLC0415

    clock, candidates = SystemClock(), [Candidate.parse(a), Candidate.parse(b)]
    with (
        open_subjects(candidates, inputs, controls, threads, public_key) as (one, other),
        advancing as advance,
    ):
        judged: Subject = DelayedSubject(other, delay_percent, clock) if delay_percent else other
        comparison = compare_subjects(one, judged, clock, advance=advance, **how)
        backends = [(subject.label, subject.fuser.backend) for subject in (one, other)]
        return _with_notes(comparison, [(label, details(backend.facts, backend.runs)) for label, backend in backends])


def _with_notes(comparison: "Comparison", details: list[tuple[str, Any]]) -> "Comparison":
    """Add what the backends have to say."""
    from cled_edge.backend.facts import notes  # noqa: PLC0415

    said = [f"{label}: {note}" for label, found in details for note in notes(found)]
    return replace(comparison, notes=[*comparison.notes, *said])


def _refuse_options_before(context: typer.Context) -> None:
    """Raise OptionError for an option before the command's name, which would be dropped in silence."""
    given = [
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    ]
    if given:
        option = "--" + given[0].replace("_", "-")
        command = context.invoked_subcommand
        raise OptionError(f"{option} stands before {command}; write: cled-edge bench {command} ... {option}")


def _size(height: int | None, width: int | None) -> tuple[int, int] | None:
    """Return (height, width), None if neither was given."""
    from cled_edge.bench.subject import DEFAULT_SIZE  # noqa: PLC0415

    if height is None and width is None:
        return None
    return DEFAULT_SIZE[0] if height is None else height, DEFAULT_SIZE[1] if width is None else width
