"""Any number of outputs at once: each has its own queue, thread and policy, so that none waits for another."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from cled_edge.errors import OptionError
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

    def __enter__(self) -> "Fanout":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise the first that writing or closing raised, unless another error is on its way.

        An output that failed leaves nothing half-written. The others keep what they wrote, as after Ctrl-C.
        """
        for branch in self._branches:
            branch.queue.close()
        failures = [branch.queue.failure() for branch in self._branches]
        is_error = error is not None and not isinstance(error, KeyboardInterrupt)
        closings = [branch.close(failure or error) for branch, failure in zip(self._branches, failures, strict=True)]
        failed = [failure for failure in (*failures, *closings) if failure]
        if failed and not is_error:
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

    def close(self, ended_by: BaseException | None) -> Exception | None:
        """Close the output, if it was opened, after the error that ended the run; return what closing raised."""
        if not self._is_open:
            return None
        self._is_open = False
        traceback = ended_by.__traceback__ if ended_by else None
        try:
            self.output.__exit__(type(ended_by) if ended_by else None, ended_by, traceback)
        except Exception as error:  # the other outputs must be closed too
            return error
        return None

    def report(self) -> dict[str, Any]:
        """Return what became of its frames, in plain JSON types."""
        return {
            "to": self.settings.to,
            "shows": self.settings.shows,
            "policy": self.policy,
            "written": self._written,
            "dropped": self.queue.dropped,
            "write_ms": self._latency.summary_ms().get("write"),
        }
