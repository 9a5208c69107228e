"""A call in a process of its own, which may fail, be killed, or take too long without harm to the rest."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def in_child(function: Callable[..., dict[str, Any]], limit_s: float, *arguments: object) -> dict[str, Any]:
    """Run `function` in a new process; {"failed": why} if it fails or is not done within `limit_s`."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, function, arguments))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(limit_s) else {"failed": f"not done within {limit_s:g} s"}
    except EOFError:  # killed, for example for its memory
        process.join()
        return {"failed": f"its process ended with code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _send(there: Connection, function: Callable[..., dict[str, Any]], arguments: tuple[object, ...]) -> None:
    try:
        there.send(function(*arguments))
    except Exception as error:  # whatever it is, the caller's other measurements go on
        there.send({"failed": " ".join(f"{type(error).__name__}: {error}".split())[:300]})
