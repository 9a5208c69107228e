"""What the options of several commands share: the groups of the help, their defaults, and -v and -q."""

import logging
import sys
from pathlib import Path
from typing import IO, Annotated, Any, cast

import typer
from rich.console import Console

from cled_edge.errors import OptionError, suppress_full

# Groups of the help.
PLACES, MODEL, RUN, REPORT = "Cameras and outputs", "Model", "Run", "Report"
INPUTS, LIMITS, BUILDING, TARGETS = "Inputs", "How long", "How it is built", "What to build"

Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="say more: what is opened, and a status every second", rich_help_panel=REPORT),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="say no progress and no notes, only errors", rich_help_panel=REPORT)
]


def with_default(text: str, default: str) -> dict[str, Any]:
    """Return the arguments of an option whose default is not a value but words: its help ends in them."""
    return {"help": f"{text} \\[default: {default}]", "show_default": False}


BundleFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", **with_default("exported model", "the shipped nano"), rich_help_panel=MODEL),
]


def told_to(*, verbose: bool = False, quiet: bool = False) -> Console:
    """Return the console on standard error that -v and -q ask for; with -v the library's log goes there too.

    OptionError for both.
    """
    if verbose and quiet:
        raise OptionError("--verbose and --quiet are given together; needed one at most; leave one out")
    if verbose:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s: %(message)s")
        logging.getLogger("cled_edge").setLevel(logging.DEBUG)
    return Console(file=cast("IO[str]", _Told()), quiet=quiet)


class _Told:
    """Standard error, for lines that a run can do without: a log on a full disk must not end it."""

    def write(self, text: str) -> int:
        """Write, if there is room."""
        with suppress_full():
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if there is room."""
        with suppress_full():
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def status_period_s(*, verbose: bool) -> float:
    """Return the seconds between two lines of status where there is no terminal."""
    return 1.0 if verbose else 10.0
