"""How a run ends when it is told to: signals that stop it in order, and what happens if it does not stop in time.

A handler of Python runs on the main thread between two of its steps. So it waits for a library that computes, and an
exception from it can come in the middle of a file's end. Here the signal's number goes to a thread of its own instead.
"""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # the exit code of a run that a signal ended, whichever
GRACE_S = 1.2  # for the frame in work and the end of the outputs: they are closed 2 s after the signal
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))

_told = threading.Event()


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal of a program: raise KeyboardInterrupt, and do nothing for those that follow."""
    if not _told.is_set():
        _told.set()
        raise KeyboardInterrupt


@contextmanager
def ends_on_signals(stop: Callable[[], None], late: Callable[[], None] | None = None) -> Iterator[threading.Event]:
    """Within it, Ctrl-C, SIGTERM, SIGHUP and SIGPIPE call `stop`, once; the event yielded says that one came.

    late: called if the context has not ended `GRACE_S` seconds after that. Both are called on another thread. Further
    signals do nothing. Handlers of the caller's own are left as they are, and so is a SIGHUP that nohup ignores. Off
    the main thread nothing is caught.
    """
    stopped, ended = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    caught = {number: signal.getsignal(number) for number in SIGNALS if _is_free(number)}

    def watch() -> None:
        while number := receiver.recv(1):
            if number[0] in caught and not stopped.is_set():
                _told.set()
                stopped.set()
                stop()
                if not ended.wait(GRACE_S) and late:
                    late()

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    for number in caught:
        signal.signal(number, lambda *_: None)
    try:
        yield stopped
    finally:
        ended.set()
        for number, handler in caught.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        sender.close()
        watcher.join()
        receiver.close()


def _is_free(number: int) -> bool:
    """Say whether nobody but Python and the command line has a handler for a signal.

    Python itself ignores SIGPIPE, and a shell lets what it runs in the background ignore SIGINT; both are meant here.
    """
    handler = signal.getsignal(number)
    if handler == signal.SIG_IGN:
        return number != getattr(signal, "SIGHUP", None)
    return handler in (signal.SIG_DFL, signal.default_int_handler, interrupt)
