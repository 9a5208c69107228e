"""`cled-edge build` and `doctor`: options to library calls, and what they print."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from cled_edge.backend.graph_cache import ENGINES_VARIABLE
from cled_edge.cli.options import (
    BUILDING,
    LIMITS,
    REPORT,
    TARGETS,
    Quiet,
    Verbose,
    status_period_s,
    told_to,
    with_default,
)
from cled_edge.cli.signing import RequireSignature
from cled_edge.cli.terminal_table import print_table
from cled_edge.json_text import json_of
from cled_edge.progress import print_line, status_lines

if TYPE_CHECKING:
    from cled_edge.backend.tensorrt.build_options import BuildOptions
    from cled_edge.build.batch import Engine
    from cled_edge.build.supervisor import OnStep, Step
    from cled_edge.bundle.manifest import Manifest


Sizes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HxW", help="size of the images, such as 480x640; repeat for several", rich_help_panel=TARGETS
    ),
]
Targets = Annotated[
    str | None,
    typer.Option(
        metavar="all-modes", help="instead: every size that the bundle has graphs for", rich_help_panel=TARGETS
    ),
]
Range = Annotated[
    str | None,
    typer.Option(
        metavar="MIN,OPT,MAX",
        help="instead: one engine for a range of sizes, such as 256x320,480x640,768x1024",
        rich_help_panel=TARGETS,
    ),
]
Precision = Annotated[str, typer.Option(help="of the graphs: fp16, fp32 or int8", rich_help_panel=TARGETS)]
Graphs = Annotated[
    list[str] | None,
    typer.Option(
        **with_default("unet_step, fusion, fused_loop or a graph's name; repeat for several", "all"),
        rich_help_panel=TARGETS,
    ),
]
Steps = Annotated[
    int | None, typer.Option(**with_default("of the fused_loop", "the bundle's"), rich_help_panel=TARGETS)
]
Opset = Annotated[
    int | None,
    typer.Option(**with_default("of the graphs", "the newest that this TensorRT parses"), rich_help_panel=TARGETS),
]
Engines = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        envvar=ENGINES_VARIABLE,
        **with_default("where engines are kept", "in the user's cache folder"),
        rich_help_panel=BUILDING,
    ),
]
Builds = Annotated[
    int, typer.Option(min=1, max=20, help="build so many times; needs --keep-fastest", rich_help_panel=BUILDING)
]
Fastest = Annotated[
    bool, typer.Option("--keep-fastest", help="time the builds and keep the fastest", rich_help_panel=BUILDING)
]
Force = Annotated[bool, typer.Option("--force", help="build also what is already there", rich_help_panel=BUILDING)]
Workspace = Annotated[
    int | None,
    typer.Option(min=1, **with_default("scratch memory to plan with", "all of the GPU's"), rich_help_panel=BUILDING),
]
Level = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=5,
        **with_default("0 builds fastest, 5 searches longest", "TensorRT's, 3"),
        rich_help_panel=BUILDING,
    ),
]
Streams = Annotated[
    int, typer.Option(min=0, help="side streams of an engine; each takes memory", rich_help_panel=BUILDING)
]
Tf32 = Annotated[bool, typer.Option("--tf32", help="let FP32 be rounded to TF32", rich_help_panel=BUILDING)]
TimingCache = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        **with_default("TensorRT's timing cache", "one in the engine folder"),
        rich_help_panel=BUILDING,
    ),
]
Timeout = Annotated[
    float, typer.Option(min=1, help="stop the build of an engine after so long", rich_help_panel=LIMITS)
]
Memory = Annotated[
    int | None,
    typer.Option(
        min=1, **with_default("stop the build of an engine that takes more", "no limit"), rich_help_panel=LIMITS
    ),
]
Binding = Annotated[
    str,
    typer.Option(help="what engines are tried by and will run by: cuda (NVIDIA's) or pycuda", rich_help_panel=BUILDING),
]
Log = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="add all that TensorRT says while it builds to this file", rich_help_panel=REPORT
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print what was built as JSON", rich_help_panel=REPORT)]


def build(
    bundle: Annotated[Path | None, typer.Argument(**with_default("folder of the bundle", "the shipped nano"))] = None,
    size: Sizes = None,
    targets: Targets = None,
    profile: Range = None,
    precision: Precision = "fp16",
    graphs: Graphs = None,
    steps: Steps = None,
    opset: Opset = None,
    engines: Engines = None,
    builds: Builds = 1,
    keep_fastest: Fastest = False,
    force: Force = False,
    workspace_mib: Workspace = None,
    optimization_level: Level = None,
    max_aux_streams: Streams = 0,
    tf32: Tf32 = False,
    timing_cache: TimingCache = None,
    timeout_s: Timeout = 3600,
    memory_mib: Memory = None,
    cuda_binding: Binding = "cuda",
    log: Log = None,
    require_signature: RequireSignature = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Build TensorRT engines of a bundle's graphs, on and for this device; keep those that give the right numbers."""
    from cled_edge.backend.tensorrt.store import default_folder  # noqa: PLC0415
    from cled_edge.build.batch import Effort, build_all  # noqa: PLC0415
    from cled_edge.build.supervisor import Limits  # noqa: PLC0415
    from cled_edge.bundle.reader import Bundle  # noqa: PLC0415

    console = told_to(verbose=verbose, quiet=quiet)
    effort = Effort(builds, keep_fastest, force, Limits(timeout_s, memory_mib), log, cuda_binding)
    opened = Bundle.open(bundle, public_key=require_signature)
    values = {
        "precision": precision,
        "opset": opset,
        "workspace_mib": workspace_mib,
        "optimization_level": optimization_level,
        "max_aux_streams": max_aux_streams,
        "tf32": tf32,
        "timing_cache": timing_cache,
    }
    options, folder = _options(opened.manifest, values, size or (), profile, targets), engines or default_folder()
    with _steps(console, status_period_s(verbose=verbose)) as on_step:
        found = list(build_all(opened, options, folder, graphs or (), steps, effort=effort, on_step=on_step))
    rows = [_row(engine) for engine in found]
    if as_json:
        typer.echo(json_of(rows), nl=False)
        return
    _print_engines(rows)
    if folder != default_folder():
        typer.echo(f"to run them: export {ENGINES_VARIABLE}={shlex.quote(str(folder.absolute()))}")


def _row(engine: "Engine") -> dict[str, Any]:
    """Return what the table and the JSON have of an engine."""
    state = "built" if engine.is_new else "kept"
    return {"state": state, "path": str(engine.path), **engine.record.model_dump(mode="json")}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False) -> None:
    """Say what is installed here, which backends will work, and how to install what is missing."""
    from cled_edge.doctor import examine  # noqa: PLC0415

    values = examine()
    for row in values["backends"]:
        row["command"] = f"cled-edge fuse --backend {row['name']}"
        if row["name"] == "tensorrt":
            row["command"] += ", after cled-edge build BUNDLE --size HxW"
    if as_json:
        typer.echo(json_of(values), nl=False)
        return
    console = Console()
    for name, value in values.items():
        if name != "backends":
            print_line(console, f"{name}: {value if isinstance(value, str) else _flat(value) or 'none'}")
    for row in values["backends"]:
        works = f"works: {row['command']}" if row["works"] else f"does not work: {row['missing']}"
        print_line(console, f"backend {row['name']} {works}")


def _options(
    manifest: "Manifest", values: dict[str, Any], sizes: Sequence[str], profile: str | None, targets: str | None
) -> "list[BuildOptions]":
    """Return the options of each size; OptionError if none, or more than one way to give them, is there."""
    from pydantic import ValidationError  # noqa: PLC0415

    from cled_edge.backend.tensorrt.build_options import BuildOptions, Profile  # noqa: PLC0415
    from cled_edge.build.request import camera_modes  # noqa: PLC0415
    from cled_edge.errors import OptionError  # noqa: PLC0415
    from cled_edge.json_text import needed  # noqa: PLC0415
    from cled_edge.size import padded, parse_size  # noqa: PLC0415

    if (bool(sizes) + (targets is not None) + (profile is not None)) != 1:
        raise OptionError(
            "needed one of --size HxW, --targets all-modes and --profile MIN,OPT,MAX; give --size 480x640"
        )
    if targets not in (None, "all-modes"):
        raise OptionError(f"targets {targets!r} is unknown; known: all-modes; for single sizes give --size HxW")
    multiple = manifest.size_multiple
    try:
        if profile is not None:
            least, best, most = (padded(parse_size(text.strip()), multiple) for text in profile.split(","))
            return [BuildOptions(**values, profile=Profile(min=least, opt=best, max=most))]
        wanted = [parse_size(text.strip()) for text in sizes]
        if targets is not None:
            wanted = camera_modes(manifest, values["precision"])
            if not wanted:
                raise OptionError(
                    f"bundle {manifest.name} has no graphs of one size in {values['precision']}; give --size HxW"
                )
        return [BuildOptions(**values, size=one) for one in dict.fromkeys(wanted)]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "options"
        raise OptionError(f"{where} is {first['input']!r}: {needed(first)}; see cled-edge build --help") from error
    except OptionError:
        raise
    except ValueError as error:
        raise OptionError(f"profile {profile!r} is not MIN,OPT,MAX; write 256x320,480x640,768x1024") from error


@contextmanager
def _steps(console: Console, period_s: float) -> "Iterator[OnStep]":
    """Show what the build is at: a bar on a terminal, elsewhere lines; yield the function that tells it."""
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    is_shown = console.is_terminal and not console.quiet
    said = ["building: nothing begun"]
    lines = nullcontext() if is_shown else status_lines(lambda: said[0], console, period_s)
    with Progress(*columns, console=console, transient=True, disable=not is_shown) as bar, lines:
        tasks: dict[str, Any] = {}

        def on_step(step: "Step") -> None:
            if step.graph not in tasks:
                tasks[step.graph] = bar.add_task(step.graph, total=None)
            words = f"{step.graph}: {step.phase}"[:60]
            said[0] = f"building {words}, {step.done} of {step.total}" if step.total else f"building {words}"
            bar.update(tasks[step.graph], description=words, completed=step.done, total=step.total or None)

        yield on_step


def _print_engines(rows: Sequence[dict[str, Any]]) -> None:
    numbers = (Column(name, justify="right") for name in ("MB", "device MB", "build s", "PSNR dB"))
    table = Table("graph", "size", "precision", *numbers, "state", Column("engine", overflow="fold"))
    for row in rows:
        size, profile = row["options"]["size"], row["options"]["profile"]
        sizes = [size] if size else [profile["min"], profile["opt"], profile["max"]]
        counts = f"{row['plan']['bytes'] / 1e6:.1f}", f"{row['read_back']['device_memory_bytes'] / 1e6:.1f}"
        table.add_row(
            row["graph"]["name"],
            ",".join("{}x{}".format(*one) for one in sizes),
            row["graph"]["precision"],
            *counts,
            f"{row['build_s']:.0f}",
            f"{min(trial['psnr_db'] for trial in row['trials']):.1f}",
            row["state"],
            row["path"],
        )
    print_table(table)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items() if item not in (None, [], {}))
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return str(value)
