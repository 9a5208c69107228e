"""The command line: `cled-edge fuse` and others. Exit codes are listed in cled_edge/errors.py; 130 is an interrupt."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from cled_edge import __version__
from cled_edge.cli.advice import advice
from cled_edge.cli.benching import app as bench_app
from cled_edge.cli.building import build, doctor
from cled_edge.cli.calibrating import calibrate
from cled_edge.cli.examples import examples_of
from cled_edge.cli.explaining import explain
from cled_edge.cli.fusing import fuse
from cled_edge.cli.scoring import score
from cled_edge.cli.signing import inspect, keygen, sign
from cled_edge.cli.verifying import verify
from cled_edge.ending import INTERRUPTED, interrupt
from cled_edge.errors import one_line_errors

HELP = {"help_option_names": ["-h", "--help"]}  # the commands below inherit it

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, context_settings=HELP)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_version)] = False,
) -> None:
    """Fuse infrared and visible cameras on the edge. `cled-edge COMMAND -h` explains a command, with examples."""


_GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Images": (fuse, calibrate, explain, score),
    "This machine": (doctor, build, verify),
    "Bundles": (inspect, sign, keygen),
}
for group, commands in _GROUPS.items():
    for command in commands:
        app.command(epilog=examples_of(command.__name__), rich_help_panel=group)(command)
app.add_typer(bench_app, name="bench", rich_help_panel="This machine")


def main() -> None:
    """Entry point: every error on purpose becomes one line and its exit code."""
    # A service manager stops with SIGTERM, a terminal that goes away with SIGHUP: both end a command as Ctrl-C does.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
    # OpenCV and FFmpeg print decoding errors of their own; ours say the same in one line.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**26))  # see cled_edge.decoder; read when cv2 is loaded
    try:
        with one_line_errors(), advice():
            app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
