"""`cled-edge bench`, `bench compare` and `bench report`: options to one library call each, and what it prints."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cled_edge.cli.signing import RequireSignature
from cled_edge.errors import OptionError, SlowerError
from cled_edge.schedule import MAX_STEPS, MIN_STEPS

CAMERA_RATE_HZ = 30.0
STREAMS = 4

app = typer.Typer(invoke_without_command=True, add_completion=False, pretty_exceptions_enable=False)

Bundle = Annotated[Path | None, typer.Option(metavar="DIR", help="exported model [default: the shipped nano]")]
Infrared = Annotated[str | None, typer.Option(metavar="SRC", help="video, picture, folder or glob; with --visible")]
Visible = Annotated[str | None, typer.Option(metavar="SRC", help="as --infrared [default: a rendered street]")]
Height = Annotated[int | None, typer.Option(help="of the rendered street, pixels [default: 480]")]
Width = Annotated[int | None, typer.Option(help="of the rendered street, pixels [default: 640]")]
Steps = Annotated[
    int | None, typer.Option(help=f"network evaluations, {MIN_STEPS} to {MAX_STEPS} [default: the bundle's]")
]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads, 0 is the backend's choice")]
Seconds = Annotated[float, typer.Option(help="seconds to measure, of each backend; goes on up to 4x for samples")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


@app.callback()
def run(
    context: typer.Context,
    bundle: Bundle = None,
    require_signature: RequireSignature = None,
    backends: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="measured in turns [default: onnxruntime]; NAME:PRECISION")
    ] = None,
    scenario: Annotated[
        str, typer.Option(help="single-stream, multi-stream, offline or camera; judged by p90, p99, pairs/s, misses")
    ] = "single-stream",
    infrared: Infrared = None,
    visible: Visible = None,
    height: Height = None,
    width: Width = None,
    steps: Steps = None,
    threads: Threads = 0,
    duration_s: Seconds = 20.0,
    warm_up_s: Annotated[float, typer.Option(help="seconds to warm up each backend, 3 calls at least")] = 2.0,
    min_samples: Annotated[int, typer.Option(help="fewer samples make the run invalid")] = 50,
    rate_hz: Annotated[float | None, typer.Option(help="of the camera scenario [default: 30]")] = None,
    streams: Annotated[int | None, typer.Option(help="pairs in a multi-stream query [default: 4]")] = None,
    peaks: Annotated[Path | None, typer.Option(metavar="FILE", help="the machine's peaks, kept in the result")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="keep the result with all samples")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure latency by stage: cled-edge bench [OPTIONS], or one of the commands below."""
    if context.invoked_subcommand:
        _refuse_options_before(context)
        return
    # Imported here so that --help and usage errors need no NumPy.
    from cled_edge.backend.choice import BackendChoice  # noqa: PLC0415
    from cled_edge.bench.console import print_record  # noqa: PLC0415
    from cled_edge.bench.measure import Budget, bench  # noqa: PLC0415
    from cled_edge.bench.scenario import Scenario, scenario_name  # noqa: PLC0415
    from cled_edge.bench.subject import DEFAULT_BACKEND, Candidate, Inputs, open_subjects  # noqa: PLC0415
    from cled_edge.contract import Controls  # noqa: PLC0415
    from cled_edge.files import check_writable, read_json, write_whole  # noqa: PLC0415

    name = scenario_name(scenario)
    rate_hz = CAMERA_RATE_HZ if rate_hz is None and name == "camera" else rate_hz
    streams = streams if streams is not None else STREAMS if name == "multi-stream" else 1
    budget = Budget(Scenario(name, rate_hz, streams), duration_s, warm_up_s, min_samples)
    choices = [BackendChoice.parse(backend) for backend in (backends or DEFAULT_BACKEND).split(",")]
    candidates = [Candidate(bundle, choice) for choice in choices]
    if len(set(candidates)) < len(candidates):
        raise OptionError(f"--backends {backends} names one twice; to measure noise use: cled-edge bench compare A A")
    inputs, controls = Inputs(infrared, visible, _size(height, width)), Controls(steps)
    peak_values = read_json(peaks) if peaks else None
    if out:
        check_writable(out)
    with (
        open_subjects(candidates, inputs, controls, threads, require_signature) as subjects,
        _progress("measuring", duration_s * len(subjects)) as advance,
    ):
        record = bench(subjects, budget, peak_values, advance)
    if out:
        write_whole(out, record.to_json())
    if as_json:
        typer.echo(record.to_json(), nl=False)
    else:
        print_record(record, Console())


@app.command()
def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="bundle folder, backend, BUNDLE@BACKEND, or RESULT.json[@BACKEND]")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="what is judged against A")],
    require_signature: RequireSignature = None,
    margin_percent: Annotated[float, typer.Option(help="smallest difference that matters")] = 3.0,
    infrared: Infrared = None,
    visible: Visible = None,
    height: Height = None,
    width: Width = None,
    steps: Steps = None,
    threads: Threads = 0,
    duration_s: Annotated[float, typer.Option(help="seconds to measure, both together; 12 pairs at least")] = 20.0,
    insert_delay_percent: Annotated[float, typer.Option(help="make B slower, to test this command")] = 0.0,
    fail_if_slower: Annotated[bool, typer.Option("--fail-if-slower", help="exit with 17 if B is slower")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of the order of the blocks")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say whether B is faster or slower than A, or that no difference shows."""
    from cled_edge.backend.facts import details, notes  # noqa: PLC0415
    from cled_edge.bench.clock import SystemClock  # noqa: PLC0415
    from cled_edge.bench.compare import (  # noqa: PLC0415
        DelayedSubject,
        compare_results,
        compare_subjects,
        find_result,
        is_result,
    )
    from cled_edge.bench.console import print_comparison  # noqa: PLC0415
    from cled_edge.bench.scenario import Subject  # noqa: PLC0415
    from cled_edge.bench.subject import Candidate, Inputs, open_subjects  # noqa: PLC0415
    from cled_edge.contract import Controls  # noqa: PLC0415

    if is_result(a) != is_result(b):
        raise OptionError(f"{a} and {b}: one is a result, the other is not; give two results, or two things to measure")
    if is_result(a):
        results = find_result(a), find_result(b)
        comparison = compare_results(*results, margin_percent, seed)
        found = [(result.label, result.details) for _, result in results]
    else:
        clock, inputs = SystemClock(), Inputs(infrared, visible, _size(height, width))
        candidates = [Candidate.parse(a), Candidate.parse(b)]
        with open_subjects(candidates, inputs, Controls(steps), threads, require_signature) as (one, other):
            judged: Subject = DelayedSubject(other, insert_delay_percent, clock) if insert_delay_percent else other
            with _progress("comparing", duration_s) as advance:
                comparison = compare_subjects(
                    one,
                    judged,
                    clock,
                    duration_s=duration_s,
                    margin_percent=margin_percent,
                    seed=seed,
                    advance=advance,
                )
            found = [
                (subject.label, details(subject.fuser.backend.facts, subject.fuser.backend.runs))
                for subject in (one, other)
            ]
    said = [f"{label}: {note}" for label, told in found for note in notes(told)]
    comparison = replace(comparison, notes=[*comparison.notes, *said])
    if as_json:
        typer.echo(json.dumps(comparison.as_dict(), indent=2))
    else:
        print_comparison(comparison, Console())
    if fail_if_slower and comparison.effect.verdict == "slower":
        raise SlowerError(f"{comparison.sentence()}; look at the stages of both: cled-edge bench --backends A,B")


@app.command()
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


@contextmanager
def _progress(words: str, total_s: float) -> Iterator[Callable[[float], None]]:
    """Show a bar on a terminal's standard error; yield the function that advances it by seconds."""
    console = Console(stderr=True)
    columns: Any = TextColumn(words), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(words, total=total_s)
        yield lambda seconds: bar.advance(task, seconds)
