"""`cled-edge fuse`: fuse two cameras into any number of outputs, and print what was done.

It is long because each option is a parameter.
"""

import os
import sys
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from cled_edge.backend.choice import REGISTRY
from cled_edge.cli.advice import advice
from cled_edge.cli.control_options import control_options
from cled_edge.cli.infrared_options import (
    InfraredCrop,
    InfraredGain,
    InfraredLockS,
    InfraredPolarity,
    InfraredRange,
    InfraredRepair,
    KelvinPerCount,
    Names,
    numbers_of,
)
from cled_edge.cli.options import (
    MODEL,
    PLACES,
    RUN,
    BundleFolder,
    Quiet,
    Verbose,
    status_period_s,
    told_to,
    with_default,
)
from cled_edge.cli.page_options import RecordTo, Serve, ServeToken, ServeTokenFile
from cled_edge.cli.pairing_options import HoldMs, NeedBothS, Pairing, SlopMs
from cled_edge.cli.serving import page_address, watched
from cled_edge.cli.signing import RequireSignature
from cled_edge.cli.watching import Watch, evidence_line
from cled_edge.ending import INTERRUPTED
from cled_edge.errors import OptionError, one_line_errors, without_credentials
from cled_edge.json_text import counted, json_of
from cled_edge.progress import print_line, progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cled_edge.config import RobotConfig
    from cled_edge.fuser import Fuser
    from cled_edge.live_pairs import LivePairs
    from cled_edge.output.sink import OutputSettings
    from cled_edge.pairing import PairedCameras
    from cled_edge.registration.warp import Registrar
    from cled_edge.run_report import Report


# Longer than a screen: each option is a parameter.
@control_options
def fuse(
    infrared: Annotated[
        str | None,
        typer.Option(
            metavar="SRC",
            help="camera index, device or URL, video, bag, picture, folder or glob",
            rich_help_panel=PLACES,
        ),
    ] = None,
    visible: Annotated[
        str | None, typer.Option(metavar="SRC", help="the same kind as --infrared", rich_help_panel=PLACES)
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="warp one camera onto the other, as 'calibrate' found", rich_help_panel=PLACES
        ),
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            **with_default("whose view a calibrated pair has: visible or infrared", "visible"),
            rich_help_panel=PLACES,
        ),
    ] = None,
    frame_size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            **with_default("size of a calibrated pair, such as 480x640", "that camera's"),
            rich_help_panel=PLACES,
        ),
    ] = None,
    distance_m: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            **with_default("distance at which a calibrated pair matches", "the middle one of the file"),
            rich_help_panel=PLACES,
        ),
    ] = None,
    out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OUT",
            help="video, picture (of one pair), folder of PNGs (one per name), 'window', bag (.mcap) or rtsp://...; "
            "repeat for several; VIEW=OUT takes another view, such as visible=, side-by-side= or overlay=",
            rich_help_panel=PLACES,
        ),
    ] = None,
    restored: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="also write DIR/infrared and DIR/visible", rich_help_panel=PLACES),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="also write how far off both restored images may be, in grey levels: DIR/NAME.npz, and pictures of it "
            "in DIR/infrared and DIR/visible; needs a bundle with a doubt graph",
            rich_help_panel=PLACES,
        ),
    ] = None,
    names: Names = None,
    infrared_range: InfraredRange = None,
    infrared_polarity: InfraredPolarity = None,
    infrared_gain: InfraredGain = None,
    infrared_lock_s: InfraredLockS = None,
    infrared_repair: InfraredRepair = None,
    infrared_kelvin_per_count: KelvinPerCount = None,
    infrared_crop: InfraredCrop = None,
    pairing: Pairing = None,
    slop_ms: SlopMs = None,
    hold_ms: HoldMs = None,
    need_both_s: NeedBothS = None,
    *,
    given_controls: dict[str, Any],
    bundle: BundleFolder = None,
    require_signature: RequireSignature = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            **with_default(
                f"{', '.join(REGISTRY)}, or auto: the fastest here, as measured; with a precision NAME:PRECISION",
                "onnxruntime",
            ),
            rich_help_panel=MODEL,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, **with_default("CPU threads, 0 is the backend's choice", "0"), rich_help_panel=MODEL
        ),
    ] = None,
    cuda_binding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            **with_default("of backend tensorrt: cuda, or pycuda, which has no CUDA graphs", "cuda"),
            rich_help_panel=MODEL,
        ),
    ] = None,
    allow_build: Annotated[
        bool | None,
        typer.Option(
            "--allow-build/--no-allow-build",
            **with_default("of backend tensorrt: build missing engines, which takes minutes", "--no-allow-build"),
            rich_help_panel=RUN,
        ),
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            **with_default("fuse larger images in overlapping tiles of that size, such as 768x1024", "whole"),
            rich_help_panel=MODEL,
        ),
    ] = None,
    serve: Serve = None,
    serve_token: ServeToken = None,
    serve_token_file: ServeTokenFile = None,
    record_to: RecordTo = None,
    max_frames: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, **with_default("stop after so many pairs", "all"), rich_help_panel=RUN),
    ] = None,
    evidence: Annotated[
        bool | None,
        typer.Option(
            "--evidence/--no-evidence",
            **with_default("say once a second which degradations the inputs show", "--no-evidence"),
            rich_help_panel=RUN,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="take options from a robot.toml; those given here win", rich_help_panel=RUN),
    ] = None,
    as_json: Annotated[
        bool | None,
        typer.Option(
            "--json/--no-json",
            **with_default("print counts and latencies as JSON", "--no-json"),
            rich_help_panel=RUN,
        ),
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Fuse two cameras, videos, pictures or folders; folders pair by name, videos by time."""
    # Imported here so that --help and usage errors need no OpenCV.
    from cled_edge.config import RobotConfig, read_config  # noqa: PLC0415

    flags = {
        "infrared": infrared,
        "visible": visible,
        "names": names,
        "infrared_range": infrared_range and numbers_of(infrared_range, "--infrared-range", "LOW,HIGH", float),
        "infrared_polarity": infrared_polarity,
        "infrared_gain": infrared_gain,
        "infrared_lock_s": infrared_lock_s,
        "infrared_repair": infrared_repair,
        "infrared_kelvin_per_count": infrared_kelvin_per_count,
        "infrared_crop": infrared_crop and numbers_of(infrared_crop, "--infrared-crop", "ABOVE,BELOW", int),
        "pairing": pairing,
        "slop_ms": slop_ms,
        "hold_ms": hold_ms,
        "need_both_s": need_both_s,
        "calibration": calibration,
        "frame": frame,
        "frame_size": frame_size,
        "distance_m": distance_m,
        "bundle": bundle,
        "require_signature": require_signature,
        "backend": backend,
        "threads": threads,
        "cuda_binding": cuda_binding,
        "allow_build": allow_build,
        "tile": tile,
        "serve": serve,
        "serve_token": serve_token,
        "serve_token_file": serve_token_file,
        "record_to": record_to,
        "max_frames": max_frames,
        "evidence": evidence,
        "as_json": as_json,
    }
    console = told_to(verbose=verbose, quiet=quiet)
    given = {name: value for name, value in flags.items() if value is not None}
    replaced = {*given, *given_controls, *(("outputs",) if out else ())}
    whole = (read_config(config, replaced) if config else RobotConfig()).overlaid(given, given_controls)
    run_fusion(whole, outputs_of(whole, out, restored, uncertainty), console, verbose=verbose)


def outputs_of(
    config: "RobotConfig", out: list[str] | None, restored: Path | None, uncertainty: Path | None = None
) -> "list[OutputSettings]":
    """Return the outputs of the flags, or else of the file, and the folders of --restored and --uncertainty.

    OptionError if there is none, and no page either.
    """
    from cled_edge.output.sink import OutputSettings  # noqa: PLC0415

    outputs = [OutputSettings.parse(text) for text in out] if out else [each.settings() for each in config.outputs]
    if not outputs and config.page.serve is not None:
        outputs = [OutputSettings("none:")]
    if not outputs:
        raise OptionError(
            "no output is named; needed one at least, or a page; give --out or --serve, or [[outputs]] in the file of "
            "--config"
        )
    if restored:
        outputs += [
            OutputSettings(f"folder:{restored / 'infrared'}", "infrared"),
            OutputSettings(f"folder:{restored / 'visible'}", "visible"),
        ]
    if uncertainty:
        outputs += [
            OutputSettings(f"uncertainty:{uncertainty}"),
            OutputSettings(f"folder:{uncertainty / 'infrared'}", "infrared-uncertainty"),
            OutputSettings(f"folder:{uncertainty / 'visible'}", "visible-uncertainty"),
        ]
    return outputs


def run_fusion(
    config: "RobotConfig", outputs: "Sequence[OutputSettings]", console: Console, *, verbose: bool = False
) -> None:
    """Open what the configuration names, fuse, and print the report. console: of standard error; quiet, nothing is."""
    from cled_edge.areas import Areas  # noqa: PLC0415
    from cled_edge.backend.choice import BackendChoice  # noqa: PLC0415
    from cled_edge.backend.facts import details, notes  # noqa: PLC0415
    from cled_edge.backend.tensorrt.run_options import CudaOptions  # noqa: PLC0415
    from cled_edge.build.builder import build_missing  # noqa: PLC0415
    from cled_edge.bundle.reader import Bundle  # noqa: PLC0415
    from cled_edge.contract import Controls  # noqa: PLC0415
    from cled_edge.control_box import ControlBox  # noqa: PLC0415
    from cled_edge.data.naming import Names  # noqa: PLC0415
    from cled_edge.fuser import Fuser  # noqa: PLC0415
    from cled_edge.live import fuse_pairs  # noqa: PLC0415
    from cled_edge.live_pairing import TimePairer, whole_ns  # noqa: PLC0415
    from cled_edge.live_pairs import open_cameras  # noqa: PLC0415
    from cled_edge.select import open_chosen  # noqa: PLC0415
    from cled_edge.thermal import WHITE_HOT  # noqa: PLC0415
    from cled_edge.tiling import Tiling  # noqa: PLC0415

    model, run = config.model, config.run
    tiling = None if model.tile is None else Tiling.parse(model.tile)
    controls = Controls.from_mapping(config.controls, "the controls")
    cameras = config.cameras
    names = None if cameras.names is None else Names.parse(cameras.names)
    pairer = TimePairer(
        slop_ns=whole_ns(cameras.slop_ms, "slop_ms"),
        hold_ns=whole_ns(cameras.hold_ms, "hold_ms"),
        policy=cameras.pairing,
    )
    stream = cameras.thermal_stream()
    areas = Areas(table.area() for table in config.areas)
    registrar = registrar_of(config)
    address = page_address(config)
    choice = BackendChoice.parse(model.backend)
    cuda = CudaOptions(model.cuda_binding, build_missing if model.allow_build else None)
    bundle = Bundle.open(model.bundle, public_key=model.require_signature)
    with (
        open_cameras(
            _camera(config, "infrared"),
            _camera(config, "visible"),
            pairer,
            names=names,
            crop_rows=cameras.infrared_crop,
            process=stream,
            tell=partial(print_line, console),
            need_both_s=cameras.need_both_s,
        ) as pairs,
        # BGR, as OpenCV reads and writes: no image is swapped on its way in or out. What leaves the stream is grey.
        Fuser(
            bundle,
            open_chosen(choice, bundle, model.threads, cuda=cuda),
            "BGR",
            thermal=WHITE_HOT,
            areas=areas,
            uncertainty=any(output.asks_uncertainty for output in outputs),
        ) as fuser,
    ):
        if fuser.backend.facts.chosen:
            print_line(console, fuser.backend.facts.chosen)
        limits = (*(pairs.announced or ()), *((run.max_frames,) if run.max_frames else ()))
        if verbose:
            _tell_opened(console, config, pairs, fuser, outputs)

        watch = Watch(evidence_line(console), fuser.kinds) if run.evidence else None

        def end(report: "Report", failure: BaseException | None = None) -> None:
            noted = [*notes(details(fuser.backend.facts, fuser.backend.runs)), f"infrared: {stream}"]
            _end(report, noted, run.as_json, failure, quiet=console.quiet, evidence=watch.as_dict() if watch else None)

        box = ControlBox(controls, check=fuser.refuse_unfit, entries=fuser.controls)
        with (
            watch or nullcontext(),
            watched(address, config, box, fuser, console, stream, registrar) as monitors,
            progress_bar("fusing", min(limits, default=None), console, status_period_s(verbose=verbose)) as advance,
        ):
            report = fuse_pairs(
                pairs,
                fuser,
                outputs,
                box,
                registrar=registrar,
                tiling=tiling,
                max_frames=run.max_frames,
                monitors=(*monitors, *((watch,) if watch else ())),
                advance=advance,
                overdue=lambda late, failure: _leave(lambda: end(late, failure)),
            )
        if report.is_stuck:
            _leave(lambda: end(report))
    end(report)


def registrar_of(config: "RobotConfig") -> "Registrar | None":
    """Return what registers the pairs, None without a calibration."""
    from cled_edge.registration.calibration import read_calibration  # noqa: PLC0415
    from cled_edge.registration.warp import Registrar  # noqa: PLC0415
    from cled_edge.size import parse_size  # noqa: PLC0415

    cameras = config.cameras
    if cameras.calibration is None:
        if cameras.frame_size is not None or cameras.distance_m is not None:
            raise OptionError(
                "a size or a distance of registered pairs is given, needed a calibration; give --calibration"
            )
        return None
    size = None if cameras.frame_size is None else parse_size(cameras.frame_size, "frame_size")
    return Registrar(read_calibration(cameras.calibration), cameras.frame, size, cameras.distance_m)


def _tell_opened(
    console: Console,
    config: "RobotConfig",
    pairs: "PairedCameras | LivePairs",
    fuser: "Fuser",
    outputs: "Sequence[OutputSettings]",
) -> None:
    """Print what was opened, a line each."""
    counts = pairs.announced or (None, None)
    rate = "unknown rate" if pairs.rate_hz is None else f"{pairs.rate_hz:g} Hz"
    said = [
        f"{name} camera {without_credentials(address or '')}: "
        f"{'live' if pairs.is_live else f'{count or 0} frames announced'}, {rate}"
        for name, address, count in zip(
            ("infrared", "visible"), (config.cameras.infrared, config.cameras.visible), counts, strict=True
        )
    ]
    said += [f"bundle {fuser.bundle.path}, backend {fuser.backend.description}"]
    said += [f"output {without_credentials(output.to)}: {output.shows}" for output in outputs]
    for line in said:
        print_line(console, line)


def _end(
    report: "Report",
    noted: "Sequence[str]",
    as_json: bool,
    failure: BaseException | None = None,
    *,
    quiet: bool = False,
    evidence: dict[str, Any] | None = None,
) -> None:
    """Print the report, then raise what ended the run early. noted: lines about the backend. evidence: the last."""
    values = {**report.as_dict(), **({} if evidence is None else {"evidence": evidence})}
    if as_json:
        typer.echo(json_of({**values, "notes": noted}), nl=False)
    elif not quiet:
        print_report(values, noted)
    failure = failure or report.failure
    if failure:
        raise failure
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)


def _leave(end: "Callable[[], None]") -> None:
    """End the process after `end` with its exit code, without waiting for a thread that hangs or a frame in work."""
    code = INTERRUPTED
    try:
        with one_line_errors(), advice():
            end()
        code = 0
    except typer.Exit as exit_:
        code = exit_.exit_code
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _camera(config: "RobotConfig", modality: str) -> str:
    address: str | None = getattr(config.cameras, modality)
    if address is None:
        raise OptionError(
            f"no {modality} camera is named; needed its address; give --{modality}, or {modality} under [cameras] "
            "in the file of --config"
        )
    return address


def print_report(values: dict[str, Any], noted: "Sequence[str]" = ()) -> None:
    """Print what `Report.as_dict` returned: a line and the latency table. noted: lines about the backend."""
    console = Console()
    height, width = values["size"]
    state = "interrupted after" if values["interrupted"] else "fused"
    to = values["outputs"][0]["to"]
    into = "without an output" if to == "none:" else f"into {to}"
    print_line(
        console,
        f"{state} {counted(values['written'], 'pair')} of {height}x{width} {into}: "
        f"{values['rate_hz']} pairs/s, {counted(values['steps'], 'step')}, {values['backend']}, "
        f"bundle {values['bundle']}",
    )
    for remark in _remarks(values, noted):
        print_line(console, remark)
    table = Table("stage", *(Column(name, justify="right") for name in ("p50 ms", "p90 ms", "p99 ms", "max ms")))
    for stage, row in values["latency_ms"].items():
        table.add_row(stage, *(f"{value:.1f}" for value in row.values()))
    console.print(table)


def _of_live(live: dict[str, Any]) -> "Iterator[str]":
    """Yield the ages and what became of each camera's frames."""
    told = [f"{name} {row['p50']:.0f} ms, at p99 {row['p99']:.0f} ms" for name, row in live["age_ms"].items()]
    if live["skew_ms"]:
        told.append(f"between both {live['skew_ms']['p50']:.0f} ms, at most {live['skew_ms']['max']:.0f} ms")
    yield f"age when fused: {'; '.join(told)}"
    for what, count in live["degraded"].items():
        yield f"degraded: {counted(count, 'frame')}, {what}"
    for name, ledger in live["ledger"].items():
        dropped = "".join(f" + {count} {cause}" for cause, count in ledger["dropped"].items())
        yield (
            f"{name}: {ledger['received']} frames = {ledger['fused']} fused{dropped} + {ledger['unpaired']} unpaired + "
            f"{ledger['pending']} pending; opened again {live['sources'][name]['reopened']} times"
        )
        source = live["sources"][name]
        if source["state"] in ("opening", "lost"):
            yield f"{name} camera at the end: {source['failure'] or 'being opened, it had given no frame yet'}"
    slow = [name for name, each in live["ledger"].items() if 2 * each["dropped"].get("overtaken", 0) > each["received"]]
    if slow:
        yield (
            f"the loop was too slow for most {' and '.join(slow)} frames, and took the newest each time; "
            "--backend auto takes what is fastest here"
        )


def _remarks(values: dict[str, Any], noted: "Sequence[str]") -> "Iterator[str]":
    """Yield what a reader of the report should know beside its first line."""
    if len(values["steps_ran"]) > 1:
        yield "steps: " + ", ".join(f"{steps} in {counted(n, 'frame')}" for steps, n in values["steps_ran"].items())
    for output in values["outputs"][1:]:
        yield f"also wrote {counted(output['written'], 'frame')} into {output['to']} ({output['shows']})"
    yield from noted
    if values["uncertainty_levels"]:
        told = (
            f"{name} {row['mean']:.1f}, at p95 {row['p95']:.1f}" for name, row in values["uncertainty_levels"].items()
        )
        yield f"uncertainty in grey levels: {'; '.join(told)}"
    for note, count in values["input_notes"].items():
        yield f"note: {note} ({count} of {values['read']} pairs)"
    if values["announced"] and any(count != values["written"] for count in values["announced"]):
        yield "announced: {} infrared, {} visible frames".format(*values["announced"])
    if any(values["left_out"]) and not values["live"]:
        yield "left out: {} infrared, {} visible frames that have no partner in time".format(*values["left_out"])
    for output in values["outputs"]:
        for note in output["notes"]:
            yield f"note: {note}"
    if values["drift_px"] is not None:
        yield f"the cameras are {values['drift_px']:.1f} pixels from where their calibration has them"
    yield from _of_live(values["live"]) if values["live"] else ()
    for output in values["outputs"]:
        if output["dropped"]:
            yield f"dropped: {counted(output['dropped'], 'frame')} that {output['to']} was too slow for"
