"""Any number of outputs at once: each has its own queue, thread and policy, so that none waits for another."""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from cled_edge.errors import OptionError, OutputError, without_credentials
from cled_edge.frame import FusedFrame
from cled_edge.output.sink import Output, OutputSettings, Policy, open_output
from cled_edge.queues import WriteBehind, WriteBetween
from cled_edge.stage_times import LatencyLog

WAITING_FRAMES, DROPPING_FRAMES = 1, 4  # lengths of queues unless the user chooses; each frame is about 2 MB at 480x640

Written = Callable[[FusedFrame, int], None]


class Fanout:
    """Takes fused frames for all outputs. As a context it writes what they hold and closes them in their order.

    Each output is opened at its first frame, not before: bad input must not leave an empty output behind. It is written
    on a thread of its own; one that needs the main thread is written between two frames, see `WriteBetween`.
    One that fails ends the run, and the others keep what they wrote.
    is_live: the frames come from a live camera, so that no output may hold up the loop unless the user chose so.
    rate_hz: of the source. `written` is called after each frame that the first output wrote, on the thread that wrote
    it, with the nanoseconds that it took.
    """

    def __init__(
        self,
        outputs: Sequence[OutputSettings | str],
        *,
        is_live: bool = False,
        rate_hz: float | None = None,
        written: Written = lambda _frame, _write_ns: None,
    ) -> None:
        if not outputs:
            raise OptionError("there is no output; needed one at least; name a video, a folder or a window")
        settings = [OutputSettings.parse(each) if isinstance(each, str) else each for each in outputs]
        self._branches = [_Branch(each, open_output(each, rate_hz), is_live) for each in settings]
        self._branches[0].written_hook = written
        self._closing = threading.Lock()
        self._is_closed = False
        refuse_same_target([branch.output for branch in self._branches])

    @property
    def outputs(self) -> list[Output]:
        """Return the outputs in their order."""
        return [branch.output for branch in self._branches]

    def put(self, frame: FusedFrame) -> bool:
        """Hand a frame to every output; return False if one failed or asks to stop.

        It waits while an output of policy "wait" has its queue full.
        """
        taken = [branch.queue.put(frame) for branch in self._branches]  # by every output, whatever the others say
        return all(taken)

    @property
    def waited_ns(self) -> int:
        """Return what the last `put` waited for room."""
        return sum(branch.queue.waited_ns for branch in self._branches)

    def report(self) -> list[dict[str, Any]]:
        """Return for each output its address, image, policy, counts and write latency, in plain JSON types."""
        return [branch.report() for branch in self._branches]

    def close(self, within_s: float | None = None) -> list[BaseException]:
        """Write what the outputs hold, close them in their order, and return what failed. Any thread may call it.

        within_s: how long to wait for all that is being written; None is for ever. With a limit, an output that is not
        ready then, or that needs the main thread, is left as it is. Closing twice does nothing.
        """
        until_s = None if within_s is None else time.monotonic() + within_s
        if not self._closing.acquire(timeout=-1 if within_s is None else within_s):
            return [OutputError("an output did not end in time; look at its disk")]  # another thread closes them
        try:
            if self._is_closed:
                return []
            self._is_closed = True
            for branch in self._branches:
                branch.queue.close()
            failures = [branch.close(until_s) for branch in self._branches]
            return [failure for failure in failures if failure]
        finally:
            self._closing.release()

    def __enter__(self) -> "Fanout":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all, and raise the first that writing or closing raised, unless another error is on its way.

        Whatever ended the run, each output keeps what it wrote.
        """
        failed = self.close()
        if failed and (error is None or isinstance(error, KeyboardInterrupt)):
            raise failed[0]


def refuse_same_target(outputs: Sequence[Output]) -> None:
    """Raise OptionError if two outputs write the same file or folder."""
    seen = set()
    for output in outputs:
        target = output.target.resolve() if output.target else None
        if target is not None and target in seen:
            raise OptionError(f"two outputs write {output.target}; needed a place for each; choose another for one")
        seen.add(target)


class _Branch:
    """One output, its queue and its counts."""

    def __init__(self, settings: OutputSettings, output: Output, is_live: bool) -> None:
        self.settings, self.output = settings, output
        self.written_hook: Written = lambda _frame, _write_ns: None
        self.policy: Policy = settings.policy or ("drop" if is_live or output.drops else "wait")
        drops = self.policy == "drop"
        size = settings.queue_frames or (DROPPING_FRAMES if drops else WAITING_FRAMES)
        self.queue: WriteBehind[FusedFrame] | WriteBetween[FusedFrame] = (
            WriteBetween(self._write, drops) if output.on_main_thread else WriteBehind(self._write, size, drops)
        )
        self._written = 0
        self._is_open = False
        self._latency = LatencyLog()

    def _write(self, frame: FusedFrame) -> bool:
        start_ns = time.perf_counter_ns()
        if not self._is_open:
            self.output.__enter__()
            self._is_open = True
        go_on = self.output.write(frame)
        write_ns = time.perf_counter_ns() - start_ns
        self._written += 1
        self._latency.add({"write": write_ns})
        self.written_hook(frame, write_ns)
        return go_on

    def close(self, until_s: float | None) -> BaseException | None:
        """Wait for its thread, close the output if it was opened, and return what writing or closing raised."""
        if not self.queue.has_ended(None if until_s is None else max(0.0, until_s - time.monotonic())):
            return OutputError(
                f"{without_credentials(self.settings.to)} did not take its last frame in time; look at its disk"
            )
        failure = self.queue.failure()
        if not self._is_open or (self.output.on_main_thread and until_s is not None):
            return failure
        self._is_open = False
        try:
            traceback = failure.__traceback__ if failure else None
            self.output.__exit__(type(failure) if failure else None, failure, traceback)
        except Exception as error:  # the other outputs must be closed too
            return failure or error
        return failure

    def report(self) -> dict[str, Any]:
        """Return what became of its frames, in plain JSON types."""
        return {
            "to": without_credentials(self.settings.to),
            "shows": self.settings.shows,
            "policy": self.policy,
            "written": self._written,
            "dropped": self.queue.dropped,
            "notes": list(self.output.notes),
            "write_ms": self._latency.summary_ms().get("write"),
        }
