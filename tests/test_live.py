"""The loop on fakes that are slow, fail or end early: order, overlap, what is kept, and that it always ends."""

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from cled_edge import live
from cled_edge.contract import Controls
from cled_edge.errors import CledEdgeError, OptionError, OutputError, SizeMismatchError, SourceUnreadableError
from cled_edge.frame import Frame, FramePair, FusedFrame
from cled_edge.queues import Relay, _wait_for_end
from tests.fakes.frames import pair_of

STAGE_S = 0.02
Step = Callable[[int], object]


def nothing(index: int) -> None:
    pass


def stage(index: int) -> None:
    time.sleep(STAGE_S)


def failing(at: int, error: BaseException) -> Step:
    def step(index: int) -> None:
        if index == at:
            raise error

    return step


class Source:
    """Numbered pairs; `step` runs before each is there."""

    rate_hz = 25.0
    files: frozenset[object] = frozenset()
    announced = None

    def __init__(self, count: int, step: Step = nothing) -> None:
        self.count, self.step, self.drawn = count, step, 0

    def __iter__(self) -> Iterator[FramePair]:
        for index in range(self.count):
            self.step(index)
            self.drawn = index + 1
            yield pair_of(np.full((4, 6), index, np.uint8), np.zeros((4, 6, 3), np.uint8), index, str(index))


class Fuser:
    """Returns what it got; `step` runs first."""

    def __init__(self, step: Step = nothing) -> None:
        self.step = step
        self.backend = SimpleNamespace(description="a fake")
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(name="fake", schedule=SimpleNamespace(default_steps=1)))

    def __call__(self, infrared: Frame, visible: Frame, controls: Controls) -> FusedFrame:
        self.step(int(infrared.image[0, 0]))
        images = visible.image, infrared.image, visible.image
        return FusedFrame(*images, latency_ns={"network": 1_000_000}, name=visible.name)


class Sink:
    """Keeps stems, on which threads they came, and how it was closed."""

    def __init__(self, step: Step = nothing, stop_at: int | None = None) -> None:
        self.step, self.stop_at = step, stop_at
        self.stems: list[str] = []
        self.threads: set[int] = set()
        self.closed_by: list[object] = []

    def write(self, picture: np.ndarray, stem: str) -> bool:
        self.step(int(stem))
        self.stems.append(stem)
        self.threads.add(threading.get_ident())
        return int(stem) != self.stop_at

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.closed_by.append(kind)


@pytest.fixture
def run(monkeypatch):
    """Run the loop on fakes; a run that hangs fails after 10 s and leaves only daemons behind."""

    def call(source: Source, fuser: Fuser, sink: Sink, out: str = "out", **more) -> live.Report:
        monkeypatch.setattr(live, "open_sink", lambda *_: sink)
        return live.fuse_source(source, fuser, Controls(), out, **more)

    def bounded(*arguments, **more) -> live.Report:
        future: Future[live.Report] = Future()

        def work() -> None:
            try:
                future.set_result(call(*arguments, **more))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future.result(timeout=10)

    return SimpleNamespace(bounded=bounded, here=call)


@pytest.mark.parametrize("slow", ["source", "fuser", "sink", "none"])
def test_every_pair_is_written_in_order_whoever_is_slow(run, slow: str) -> None:
    steps = {name: stage if name == slow else nothing for name in ("source", "fuser", "sink")}
    sink = Sink(steps["sink"])
    report = run.bounded(Source(9, steps["source"]), Fuser(steps["fuser"]), sink)
    assert sink.stems == [str(k) for k in range(9)]
    assert (report.read, report.written, report.dropped, report.size) == (9, 9, 0, (4, 6))
    assert sink.closed_by == [None]


def test_the_three_stages_run_at_the_same_time(run) -> None:
    count = 15
    start = time.perf_counter()
    report = run.bounded(Source(count, stage), Fuser(stage), Sink(stage))
    per_frame_s = (time.perf_counter() - start) / count
    assert report.written == count
    assert per_frame_s < 2 * STAGE_S, "nearer to three stages in a row than to one"


def test_stages_are_timed_where_they_happen_and_waiting_is_no_part_of_a_frame(run) -> None:
    table = run.bounded(Source(8, lambda _: time.sleep(0.03)), Fuser(), Sink(stage)).as_dict()["latency_ms"]
    assert list(table) == ["wait", "decode", "network", "write", "total"]
    assert table["decode"]["p50"] >= 30
    assert table["write"]["p50"] >= 20
    assert table["wait"]["p50"] > 20
    assert table["total"]["p50"] == pytest.approx(table["decode"]["p50"] + 1 + table["write"]["p50"], abs=5)


def test_waiting_for_the_writer_is_waiting(run) -> None:
    table = run.bounded(Source(8), Fuser(), Sink(lambda _: time.sleep(0.03))).as_dict()["latency_ms"]
    assert table["wait"]["p50"] > 20


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_source_that_gives_out_keeps_what_was_fused(run, at: int) -> None:
    sink, error = Sink(stage), SourceUnreadableError("unplugged")
    if at == 0:
        with pytest.raises(SourceUnreadableError, match="unplugged"):
            run.bounded(Source(9, failing(0, error)), Fuser(), sink)
        assert sink.closed_by == [], "opened for nothing"
        return
    report = run.bounded(Source(9, failing(at, error)), Fuser(), sink)
    assert report.failure is error
    assert report.written == len(sink.stems) == at
    assert sink.closed_by == [None]


@pytest.mark.parametrize("error", [OptionError("no picture"), ZeroDivisionError("a defect")])
def test_any_other_error_of_the_source_reaches_the_caller_after_the_pairs_before_it(run, error: Exception) -> None:
    sink = Sink(stage)
    with pytest.raises(type(error), match=str(error)):
        run.bounded(Source(9, failing(3, error)), Fuser(), sink)
    assert sink.stems == ["0", "1", "2"]
    assert sink.closed_by == [type(error)]


def test_an_error_of_the_fuser_names_the_pair_and_comes_after_the_frames_before_it(run) -> None:
    sink = Sink(stage)
    with pytest.raises(SizeMismatchError, match="pair 3: too wide"):
        run.bounded(Source(10**6), Fuser(failing(3, SizeMismatchError("too wide"))), sink)
    assert sink.stems == ["0", "1", "2"]
    assert sink.closed_by == [SizeMismatchError]


@pytest.mark.parametrize("slow", ["source", "fuser", "none"])
def test_an_error_of_the_sink_reaches_the_caller(run, slow: str) -> None:
    sink = Sink(failing(2, OutputError("disk full")))
    source = Source(10**6, stage if slow == "source" else nothing)
    with pytest.raises(OutputError, match="disk full"):
        run.bounded(source, Fuser(stage if slow == "fuser" else nothing), sink)
    assert sink.stems == ["0", "1"]
    assert sink.closed_by == [OutputError]


def test_an_error_of_the_sink_at_the_last_frame_is_not_lost(run) -> None:
    with pytest.raises(OutputError, match="disk full"):
        run.bounded(Source(3), Fuser(), Sink(failing(2, OutputError("disk full"))))


def test_a_sink_that_wants_no_more_ends_the_run(run) -> None:
    sink = Sink(stop_at=2)
    report = run.bounded(Source(10**6), Fuser(), sink)
    assert sink.stems == ["0", "1", "2"]
    assert (report.written, sink.closed_by) == (3, [None])


def test_max_frames_is_exact_and_little_more_is_read(run) -> None:
    source, sink = Source(10**6), Sink(stage)
    report = run.bounded(source, Fuser(), sink, max_frames=4)
    assert (report.read, report.written, len(sink.stems)) == (4, 4, 4)
    assert source.drawn <= 6, "one held, one in the reader's hand"


def test_a_window_is_written_on_the_calling_thread_a_file_is_not(run) -> None:
    for out, is_calling in (("window", True), ("file", False)):
        sink = Sink(stop_at=3)
        report = run.here(Source(9), Fuser(), sink, out)
        assert (sink.threads == {threading.get_ident()}) == is_calling
        assert report.written == 4


@pytest.mark.parametrize("out", ["window", "file"])
def test_an_interrupt_keeps_what_was_fused(run, out: str) -> None:
    sink = Sink(stage)
    report = run.bounded(Source(10**6), Fuser(failing(3, KeyboardInterrupt())), sink, out)
    assert report.interrupted
    assert sink.stems == ["0", "1", "2"]
    assert (report.written, sink.closed_by) == (3, [KeyboardInterrupt])


def test_an_interrupt_does_not_hide_that_writing_failed(run) -> None:
    def interrupt(index: int) -> None:
        time.sleep(STAGE_S)
        raise KeyboardInterrupt

    fuser = Fuser(lambda index: interrupt(index) if index else None)
    with pytest.raises(OutputError, match="disk full"):
        run.bounded(Source(9), fuser, Sink(failing(0, OutputError("disk full"))))


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_an_interrupt_while_a_camera_is_silent_ends_the_run(run) -> None:
    def silent(index: int) -> None:
        if index == 2:
            time.sleep(0.1)  # the frames before are fused, the loop waits
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sink = Sink()
        report = run.here(Source(10**6, silent), Fuser(), sink)
    finally:
        signal.signal(signal.SIGINT, before)
    assert report.interrupted
    assert sink.stems == ["0", "1"]
    assert sink.closed_by == [KeyboardInterrupt]


def test_a_second_interrupt_does_not_close_a_file_under_its_writer() -> None:
    class Pressed:
        presses = 2

        def exception(self) -> Exception | None:
            self.presses -= 1
            if self.presses >= 0:
                raise KeyboardInterrupt
            return CledEdgeError("the end")

    assert str(_wait_for_end(Pressed())) == "the end"


def test_a_camera_is_fused_at_its_newest_pair_and_the_others_are_counted(run) -> None:
    """While pair 0 is fused, pairs 1 to 5 come; 5 is next."""
    first_is_taken, five_are_there, rest_may_come = threading.Event(), threading.Event(), threading.Event()

    def camera(index: int) -> None:
        if index == 1:
            first_is_taken.wait(5)
        if index == 6:  # asked for only when pair 5 is handed over
            five_are_there.set()
            rest_may_come.wait(5)

    def fuse(index: int) -> None:
        if index == 0:
            first_is_taken.set()
            five_are_there.wait(5)
        else:
            rest_may_come.set()

    sink = Sink()
    report = run.bounded(Source(7, camera), Fuser(fuse), sink, live=True)
    assert sink.stems == ["0", "5", "6"]
    assert (report.read, report.written, report.dropped) == (3, 3, 4)
    assert report.as_dict()["dropped"] == 4


@pytest.mark.parametrize("newest_only", [False, True])
def test_memory_does_not_grow_with_the_run(run, newest_only: bool) -> None:
    alive: set[int] = set()
    most = 0

    class Counted(Source):
        def __iter__(self) -> Iterator[FramePair]:
            for pair in super().__iter__():
                nonlocal most
                alive.add(index := int(pair.name))
                weakref.finalize(pair.infrared, alive.discard, index)
                most = max(most, len(alive))
                yield pair

    run.bounded(Counted(60), Fuser(), Sink(), live=newest_only)
    # In the reader's hand, held, in the fuser; held, in the writer; and names that loops have not bound anew.
    assert most <= 8
    assert not alive


def test_a_closed_relay_gives_what_it_holds_and_takes_no_more() -> None:
    relay: Relay[int] = Relay()
    assert relay.put(1)
    relay.close()
    assert not relay.put(2)
    assert relay.get() == 1
    assert relay.get() is None
