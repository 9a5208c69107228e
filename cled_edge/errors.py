"""Every error that cled-edge raises on purpose, each with the exit code of the command line.

    CledEdgeError                1
    ├── OptionError              2   a value outside its range, or an option that does not fit
    ├── SourceMissingError       3   a file, folder or camera that is not there
    ├── SourceUnreadableError    4   it is there, but no picture can be read from it
    ├── NoPairsError             5   nothing to fuse
    ├── UnmatchedStemsError      6   pictures without a partner of the same stem
    ├── SizeMismatchError        7   infrared and visible differ in size
    ├── BundleMissingError       8   no bundle, or a file of it is absent
    ├── BundleCorruptError       9   a file of the bundle is truncated or altered
    ├── BundleVersionError      10   a manifest this release cannot read
    ├── OutputError             11   the output cannot be written
    ├── BackendError            12   the inference backend failed, or is not installed
    ├── ParityError             13   an exported graph does not agree with the network
    ├── CheckpointError         14   a checkpoint that cannot be read
    ├── DataError               15   training data that is not as described
    ├── ResultError             16   a file that is not a result of cled-edge bench
    ├── SlowerError             17   a comparison that was to fail if B is slower found it so
    ├── DivergedError           18   training reached a loss or a gradient that is not finite
    ├── SignatureError          19   a signature is missing, malformed or wrong, or a key is none
    ├── EngineError             20   no TensorRT engine fits, one is altered, or it cannot be built
    └── CalibrationError        21   two cameras that cannot be registered, or a file that is no calibration

A message says what was seen, what was needed and what to do next, in one line.
"""

import errno
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

# Up to the last @: a password may hold one, and a slash; or a space, if it holds no slash. A typing error, such as
# rtsp:/ or rtsp//, is shown in a message too, and shows no more.
_USER = re.compile(r"(?i)(://|\b(?:rtsps?|https?|tcp|udp)(?::/{0,2}|/{1,2}))(?:\S*@|[^\s:/@]+:[^\n/@]*@(?=\S))")
# user:password@host without a scheme; a file may be called so behind a scheme of ours.
_BARE = re.compile(
    r"(?<![^\s'\"=,;(])(?!(?i:bag|folder|gst|https?|mcap|paced|picture|rerun|rtsps?|synthetic|tcp|udp|v4l2|video):)"
    r"[^\s:/@'\"=,;()]+:(?!/)\S*@(?=[A-Za-z0-9\[])"
)
_SECRET = re.compile(
    r"(?i)\b((?:user|proxy)-(?:id|pw)|user(?:name)?|login|pass(?:word|wd|phrase)?|pwd|token|key|api_?key|secret|auth|sig(?:nature)?)=[^&#;\s]+"
)


def without_credentials(text: str) -> str:
    """Return a text in which the user, the password and the keys of every URL are three asterisks."""
    return _SECRET.sub(r"\1=***", _BARE.sub("***@", _USER.sub(r"\1***@", text)))


class CledEdgeError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns.

    Its text never holds a credential of a URL, wherever it is shown.
    """

    exit_code = 1

    def __str__(self) -> str:
        return without_credentials(super().__str__())


class OptionError(CledEdgeError, ValueError):
    """A value is outside its range."""

    exit_code = 2


class SourceMissingError(CledEdgeError):
    """A source does not exist."""

    exit_code = 3


class SourceUnreadableError(CledEdgeError):
    """A source exists, but no picture can be read from it."""

    exit_code = 4


class NoPairsError(CledEdgeError):
    """The two sources share no picture."""

    exit_code = 5


class UnmatchedStemsError(CledEdgeError):
    """Some pictures have no partner of the same stem."""

    exit_code = 6


class SizeMismatchError(CledEdgeError, ValueError):
    """Infrared and visible differ in height or width."""

    exit_code = 7


class BundleMissingError(CledEdgeError):
    """There is no bundle, or one of its files is absent."""

    exit_code = 8


class BundleCorruptError(CledEdgeError):
    """A file of the bundle is not the one its manifest describes."""

    exit_code = 9


class BundleVersionError(CledEdgeError):
    """The manifest's schema version or content is not understood."""

    exit_code = 10


class OutputError(CledEdgeError):
    """The output cannot be written."""

    exit_code = 11


class BackendError(CledEdgeError):
    """The inference backend failed or is not installed."""

    exit_code = 12


class OutOfMemoryError(BackendError):
    """There is not enough memory to fuse images of this size whole."""


class ParityError(CledEdgeError):
    """An exported graph does not agree with the network it came from."""

    exit_code = 13


class CheckpointError(CledEdgeError):
    """A checkpoint cannot be read."""

    exit_code = 14


class DataError(CledEdgeError):
    """Training data is not as described."""

    exit_code = 15


class ResultError(CledEdgeError):
    """A file is not a result that `cled-edge bench` wrote."""

    exit_code = 16


class SlowerError(CledEdgeError):
    """A comparison that was to fail if B is slower than A found it so."""

    exit_code = 17


class DivergedError(CledEdgeError):
    """A loss or a gradient of a training run is not finite."""

    exit_code = 18


class SignatureError(CledEdgeError):
    """A bundle is not signed by the key that was demanded, or a key cannot be used."""

    exit_code = 19


class EngineError(CledEdgeError):
    """No engine fits this bundle and device, one is damaged, or it cannot be built.

    wanted: the engine to build, as options of a build by their names, if that would help; the message ends in them.
    """

    exit_code = 20

    def __init__(self, message: str, wanted: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{message}; build it: {wanted_text(wanted)}" if wanted else message)
        self.wanted = dict(wanted or {})


class CalibrationError(CledEdgeError):
    """Two cameras cannot be registered by what they show, or a file is no calibration."""

    exit_code = 21


def wanted_text(wanted: Mapping[str, str]) -> str:
    """Return the options of a build as a message has them."""
    return ", ".join(f"{name} {value}" for name, value in wanted.items())


def name_extras(stage: str, extras: str) -> None:
    """Let a program of a stage that misses a package end in one line that names what installs it, with exit code 12.

    Called where the stage is imported, as its programs import their packages before they run.
    """
    if sys.argv[:1] != ["-m"]:  # what Python has there while it imports the parent of `python -m STAGE.PROGRAM`
        return
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        name = (getattr(error, "name", None) or "").partition(".")[0]
        if not isinstance(error, ModuleNotFoundError) or name in ("", stage, "cled_edge"):
            usual(kind, error, traceback)
            return
        words = (
            f"{stage} needs the package {name}, which is not installed; in the repository: pip install '.[{extras}]'"
        )
        print(f"error: {words}", file=sys.stderr)  # noqa: T201
        raise SystemExit(BackendError.exit_code)

    sys.excepthook = hook


_NO_ROOM = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
READER_GONE = 141  # the exit code when whoever read the output went away, as a shell has it for SIGPIPE


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a program: end on an error raised on purpose with one line on standard error and its exit code.

    What a terminal's encoding lacks is printed as a question mark. A standard output on a full disk is such an error.
    If whoever read the output has gone, the program ends with `READER_GONE` and says nothing.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except CledEdgeError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except (BrokenPipeError, SystemExit) as error:
        # typer and rich make SystemExit(1) of a BrokenPipeError.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        _forget_stdout()
        sys.exit(READER_GONE)
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        print(f"error: the standard output cannot be written: {error.strerror}; free room", file=sys.stderr)  # noqa: T201
        _forget_stdout()
        sys.exit(OutputError.exit_code)


@contextmanager
def suppress_full() -> Iterator[None]:
    """Around what may as well not be written: a full disk is no error."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise


def _forget_stdout() -> None:
    """Python flushes standard output once more when it ends, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
