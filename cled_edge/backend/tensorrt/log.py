"""TensorRT's log, forwarded to `logging`, with its last errors kept for messages."""

import logging
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

_LOG = logging.getLogger("cled_edge.tensorrt")
_MOST_ERRORS = 20
_VERBOSE = logging.DEBUG - 5


@cache
def logger_of(tensorrt: Any) -> Any:
    """Return the process's one logger, made at the first call: TensorRT itself keeps only the first that it is given.

    `last_errors()` of it returns and forgets what was logged as an error since it was last asked.
    """
    levels = {
        tensorrt.ILogger.INTERNAL_ERROR: logging.CRITICAL,
        tensorrt.ILogger.ERROR: logging.ERROR,
        tensorrt.ILogger.WARNING: logging.WARNING,
        tensorrt.ILogger.INFO: logging.DEBUG,  # TensorRT calls "info" what a program calls details
        tensorrt.ILogger.VERBOSE: _VERBOSE,
    }

    class Forwarding(tensorrt.ILogger):  # type: ignore[misc]  # the class exists at run time only
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=_MOST_ERRORS)  # appending and popping are atomic

        def log(self, severity: Any, msg: str) -> None:
            level = levels.get(severity, logging.ERROR)
            if level >= logging.ERROR:
                self._errors.append(" ".join(msg.split()))
            _LOG.log(level, "%s", msg)

        def last_errors(self) -> list[str]:
            return [self._errors.popleft() for _ in range(len(self._errors))]

    return Forwarding()


def add_to_file(path: Path) -> None:
    """Add all that TensorRT says from now on to a file, a message a line, after the milliseconds since the start.

    It tells tens of thousands of things in a build; other handlers get no more than before.
    """
    for handler in logging.getLogger().handlers:
        handler.setLevel(max(handler.level, logging.WARNING))
    logging.addLevelName(_VERBOSE, "VERBOSE")
    added = logging.FileHandler(path, encoding="utf-8")
    added.setFormatter(logging.Formatter("%(relativeCreated)9.0f ms %(levelname)s %(message)s"))
    _LOG.addHandler(added)
    _LOG.setLevel(_VERBOSE)
