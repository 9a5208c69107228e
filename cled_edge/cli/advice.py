"""What the command line adds to errors of the library: the command that helps."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cled_edge.errors import EngineError, OutOfMemoryError, wanted_text

TILE = "768x1024"  # as the help names it
FLAGS = ("tf32",)  # options of a build that take no value


def build_command(wanted: Mapping[str, str]) -> str:
    """Return the command line that builds an engine, of the options that an EngineError names."""
    words = ["cled-edge", "build", wanted["bundle"]]
    for name, value in wanted.items():
        if name != "bundle":
            words += [f"--{name.replace('_', '-')}", *([] if name in FLAGS else [value])]
    return shlex.join(words)


def advised(error: EngineError) -> str:
    """Return the message of an error, with the command that builds the engine in place of its options."""
    return str(error).replace(wanted_text(error.wanted), build_command(error.wanted)) if error.wanted else str(error)


@contextmanager
def advice() -> Iterator[None]:
    """Around the command line: let an error about an engine end in the command that builds it, and name the option."""
    try:
        yield
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"{error}: --tile {TILE}") from error
    except EngineError as error:
        if not error.wanted:
            raise
        raise EngineError(advised(error)) from error
