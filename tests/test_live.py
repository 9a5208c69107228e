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
from cled_edge.areas import Area, Areas
from cled_edge.contract import Controls
from cled_edge.control_box import ControlBox
from cled_edge.errors import (
    BackendError,
    CledEdgeError,
    EngineError,
    OptionError,
    OutOfMemoryError,
    OutputError,
    SizeMismatchError,
    SourceUnreadableError,
)
from cled_edge.frame import FramePair, FusedFrame
from cled_edge.output import fanout
from cled_edge.output.sink import Output, OutputSettings, output_address
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
    files = ()
    announced = None
    left_out = (0, 0)

    is_live = False

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
        self.is_looked_at = False
        self.areas = Areas(())

    def give_up_look(self, _reason: str) -> bool:
        given_up, self.is_looked_at = self.is_looked_at, False
        return given_up

    def fuse_pair(self, pair: FramePair, controls: Controls, *_more: object) -> FusedFrame:
        infrared, visible = pair.infrared.image, pair.visible.image
        self.step(int(infrared[0, 0]))
        return FusedFrame(visible, infrared, visible, latency_ns={"network": 1_000_000}, name=pair.name)


class Sink(Output):
    """Keeps names, on which threads they came, and how it was closed."""

    def __init__(self, step: Step = nothing, stop_at: int | None = None, closing: Exception | None = None) -> None:
        super().__init__(output_address("fake"))
        self.step, self.stop_at, self.closing = step, stop_at, closing
        self.names: list[str] = []
        self.threads: set[int] = set()
        self.closed_by: list[object] = []

    def write(self, frame: FusedFrame) -> bool:
        self.step(int(frame.name))
        self.names.append(frame.name)
        self.threads.add(threading.get_ident())
        return int(frame.name) != self.stop_at

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.closed_by.append(kind)
        if self.closing:
            raise self.closing


class Window(Sink):
    drops = True
    on_main_thread = True


@pytest.fixture
def run(monkeypatch):
    """Run the loop on fakes; a run that hangs fails after 10 s and leaves only daemons behind."""

    def call(source: Source, fuser: Fuser, *sinks: Sink, policy: str | None = None, **more) -> live.Report:
        left = iter(sinks)
        monkeypatch.setattr(fanout, "open_output", lambda *_: next(left))
        outputs = [OutputSettings(f"out{k}", policy=policy) for k in range(len(sinks))]
        return live.fuse_pairs(source, fuser, outputs, **more)

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
    assert sink.names == [str(k) for k in range(9)]
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
    assert report.written == len(sink.names) == at
    assert sink.closed_by == [None]


@pytest.mark.parametrize("error", [OptionError("too dark"), SizeMismatchError("too wide"), BackendError("unplugged")])
@pytest.mark.parametrize("where", ["source", "fuser"])
def test_what_is_wrong_with_a_later_pair_keeps_what_was_fused_before(run, where: str, error: CledEdgeError) -> None:
    sink, steps = Sink(stage), {"source": nothing, "fuser": nothing, where: failing(3, error)}
    report = run.bounded(Source(10**6, steps["source"]), Fuser(steps["fuser"]), sink)
    assert str(error) in str(report.failure)
    assert type(report.failure) is type(error)
    assert sink.names == ["0", "1", "2"]
    assert (report.read, report.written, sink.closed_by) == (3, 3, [None])


def test_what_is_wrong_with_the_first_pair_is_raised_and_opens_no_output(run) -> None:
    sink = Sink()
    with pytest.raises(SizeMismatchError, match="pair 0: too wide"):
        run.bounded(Source(9), Fuser(failing(0, SizeMismatchError("too wide"))), sink)
    assert sink.closed_by == []


@pytest.mark.parametrize("where", ["source", "fuser"])
def test_a_defect_reaches_the_caller_and_the_outputs_keep_the_pairs_before_it(run, where: str) -> None:
    steps = {"source": nothing, "fuser": nothing, where: failing(3, ZeroDivisionError("a defect"))}
    sink = Sink(stage)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        run.bounded(Source(9, steps["source"]), Fuser(steps["fuser"]), sink)
    assert sink.names == ["0", "1", "2"]
    assert sink.closed_by == [None]


def test_too_little_memory_for_a_pair_is_said(run) -> None:
    with pytest.raises(OutOfMemoryError, match="pair 0: there is too little memory for 4x6"):
        run.bounded(Source(9), Fuser(failing(0, MemoryError())), Sink())


@pytest.mark.parametrize("slow", ["source", "fuser", "none"])
def test_an_error_of_the_sink_reaches_the_caller(run, slow: str) -> None:
    sink = Sink(failing(2, OutputError("disk full")))
    source = Source(10**6, stage if slow == "source" else nothing)
    with pytest.raises(OutputError, match="disk full"):
        run.bounded(source, Fuser(stage if slow == "fuser" else nothing), sink)
    assert sink.names == ["0", "1"]
    assert sink.closed_by == [OutputError]


def test_an_error_of_the_sink_at_the_last_frame_is_not_lost(run) -> None:
    with pytest.raises(OutputError, match="disk full"):
        run.bounded(Source(3), Fuser(), Sink(failing(2, OutputError("disk full"))))


def test_a_sink_that_wants_no_more_ends_the_run(run) -> None:
    sink = Sink(stop_at=2)
    report = run.bounded(Source(10**6), Fuser(), sink)
    assert sink.names == ["0", "1", "2"]
    assert (report.written, sink.closed_by) == (3, [None])


def test_max_frames_is_exact_and_little_more_is_read(run) -> None:
    source, sink = Source(10**6), Sink(stage)
    report = run.bounded(source, Fuser(), sink, max_frames=4)
    assert (report.read, report.written, len(sink.names)) == (4, 4, 4)
    assert source.drawn <= 6, "one held, one in the reader's hand"


def test_a_window_is_written_on_the_calling_thread_a_file_is_not(run) -> None:
    for kind, is_calling in ((Window, True), (Sink, False)):
        sink = kind(stop_at=3)
        report = run.here(Source(9), Fuser(), sink, policy="wait")
        assert (sink.threads == {threading.get_ident()}) == is_calling
        assert report.written == 4


@pytest.mark.parametrize("kind", [Window, Sink])
def test_an_interrupt_keeps_what_was_fused(run, kind: type[Sink]) -> None:
    sink = kind(stage)
    report = run.bounded(Source(10**6), Fuser(failing(3, KeyboardInterrupt())), sink, policy="wait")
    assert report.interrupted
    assert sink.names == ["0", "1", "2"]
    assert (report.written, sink.closed_by) == (3, [None])


def test_an_interrupt_does_not_hide_that_writing_failed(run) -> None:
    def interrupt(index: int) -> None:
        time.sleep(STAGE_S)
        raise KeyboardInterrupt

    fuser = Fuser(lambda index: interrupt(index) if index else None)
    with pytest.raises(OutputError, match="disk full"):
        run.bounded(Source(9), fuser, Sink(failing(0, OutputError("disk full"))))


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE"])
def test_a_signal_while_a_camera_hangs_for_ever_ends_the_run_in_two_seconds(run, name: str) -> None:
    number = getattr(signal, name)
    before, told, may_end = signal.getsignal(number), [], threading.Event()

    def hangs(index: int) -> None:
        if index == 2:
            time.sleep(0.1)  # the frames before are fused, the loop waits
            told.append(time.monotonic())
            for _ in range(2):
                os.kill(os.getpid(), number)
                time.sleep(0.02)
            may_end.wait(20)

    try:
        sink = Sink()
        report = run.here(Source(10**6, hangs), Fuser(), sink)
        assert time.monotonic() - told[0] < 2
    finally:
        may_end.set()
    assert (report.interrupted, report.is_stuck) == (True, True)
    assert sink.names == ["0", "1"]
    assert sink.closed_by == [None]
    assert signal.getsignal(number) == before


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_outputs_are_closed_in_two_seconds_though_a_frame_is_still_being_fused(run) -> None:
    sink, closed, reports = Sink(), threading.Event(), []

    def hangs(index: int) -> None:
        if index == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            assert closed.wait(2), "the outputs are still open"

    def overdue(report: live.Report, failure: BaseException | None) -> None:
        reports.append((report.interrupted, report.written, failure, list(sink.closed_by)))
        closed.set()

    run.here(Source(10**6), Fuser(hangs), sink, overdue=overdue)
    assert reports == [(True, 2, None, [None])]


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_a_handler_of_the_callers_own_is_left_to_it(run) -> None:
    def tell(index: int) -> None:
        if index == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        report = run.here(Source(3), Fuser(tell), Sink())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (heard, report.interrupted, report.written) == ([signal.SIGTERM], False, 3)


def test_a_monitor_sees_each_frame_and_reads_the_report_while_the_run_goes_on(run) -> None:
    class Watch:
        def __init__(self) -> None:
            self.names: list[str] = []
            self.read: list[int] = []

        def begin(self, status: Callable[[], dict]) -> None:
            self.status = status
            self.read.append(status()["read"])

        def show(self, frame: FusedFrame) -> None:
            self.names.append(frame.name)
            self.read.append(self.status()["read"])
            assert {"wait", "network"} <= frame.latency_ns.keys()

    watch = Watch()
    report = run.bounded(Source(3), Fuser(), Sink(), monitors=[watch])
    assert watch.names == ["0", "1", "2"]
    assert watch.read == [0, 1, 2, 3]
    assert watch.status()["written"] == report.written == 3


def test_controls_that_cannot_be_applied_are_withdrawn_and_no_frame_is_lost(run) -> None:
    box, taken = ControlBox(Controls(steps=1)), []

    class Limited(Fuser):
        def fuse_pair(self, pair: FramePair, controls: Controls, *_more: object) -> FusedFrame:
            if controls.steps != 1:
                raise EngineError("there is no engine of 3 steps")
            taken.append(pair.name)
            if len(taken) == 2:
                box.change(steps=3, balance=0.9)
            return super().fuse_pair(pair, controls)

    sink = Sink()
    report = run.bounded(Source(4), Limited(), sink, controls=box)
    assert sink.names == ["0", "1", "2", "3"]
    assert report.failure is None
    assert box.current == Controls(steps=1)
    assert "there is no engine of 3 steps" in box.refusal


class Limited(Fuser):
    """Has no engine for a share, nor for 3 steps; `changes` are made after the frame of their number."""

    def __init__(self, changes: dict[str, Step]) -> None:
        super().__init__()
        self.changes, self.taken = changes, []

    def fuse_pair(
        self, pair: FramePair, controls: Controls, _memory: object = None, areas: Areas | None = None
    ) -> FusedFrame:
        if areas is not None and areas.strength_map((4, 6)) is not None:
            raise EngineError("there is no engine with a strength map")
        if controls.steps != 1:
            raise EngineError("there is no engine of 3 steps")
        self.taken.append((pair.name, areas, controls))
        self.changes.get(pair.name, nothing)(0)
        return super().fuse_pair(pair, controls)


SHARE, LEAN = Areas([Area(0)]), Areas([Area(attention=0.5)])


def test_areas_that_cannot_be_applied_are_withdrawn_and_the_page_says_why(run) -> None:
    box = ControlBox(Controls(steps=1))
    fuser = Limited({"1": lambda _: setattr(fuser, "areas", SHARE), "2": lambda _: setattr(fuser, "areas", LEAN)})
    begun, sink = fuser.areas, Sink()
    told: list[str] = []  # on the loop's own thread, after each frame
    watch = SimpleNamespace(begin=lambda _status: None, show=lambda _frame: told.append(box.refusal))
    report = run.bounded(Source(4), fuser, sink, controls=box, monitors=[watch])
    assert (sink.names, report.failure) == (["0", "1", "2", "3"], None)
    assert [areas for _, areas, _ in fuser.taken] == [begun, begun, begun, LEAN]
    assert told == ["", "", "there is no engine with a strength map", ""], "good areas clear what was said of bad ones"


def test_of_areas_and_controls_only_what_is_at_fault_is_withdrawn(run) -> None:
    box = ControlBox(Controls(steps=1))

    def both(areas: Areas, steps: int, balance: float) -> None:
        fuser.areas = areas
        box.change(steps=steps, balance=balance)

    fuser = Limited({"0": lambda _: both(LEAN, 3, 0.9), "1": lambda _: both(SHARE, 1, 0.2)})
    report = run.bounded(Source(3), fuser, Sink(), controls=box)
    assert report.failure is None
    assert [(areas, controls.balance) for _, areas, controls in fuser.taken[1:]] == [(LEAN, 0.5), (LEAN, 0.2)]
    assert fuser.areas is LEAN


def test_areas_that_came_while_a_frame_failed_and_before_the_first_one_are_kept_apart(run) -> None:
    class Busy(Limited):
        def fuse_pair(self, pair: FramePair, controls: Controls, _memory: object = None, areas: object = None):
            if areas is SHARE:
                self.areas = LEAN  # posted meanwhile
            return super().fuse_pair(pair, controls, _memory, areas)

    fuser = Busy({})
    source = Source(3, lambda index: setattr(fuser, "areas", SHARE) if index == 0 else None)
    report = run.bounded(source, fuser, Sink(), controls=ControlBox(Controls(steps=1)))
    assert report.failure is None
    assert fuser.areas is LEAN
    assert fuser.taken[-1][1] is LEAN


def test_a_look_at_the_uncertainty_ends_no_run_and_takes_no_control_with_it(run) -> None:
    box, looked = ControlBox(Controls(steps=1)), []

    class Doubting(Fuser):
        def fuse_pair(self, pair: FramePair, controls: Controls, *_more: object) -> FusedFrame:
            looked.append(self.is_looked_at)
            if self.is_looked_at:
                raise EngineError("there is no engine of doubt")
            if pair.name == "1":
                self.is_looked_at = True
                box.change(balance=0.9)
            return super().fuse_pair(pair, controls)

    sink = Sink()
    report = run.bounded(Source(4), Doubting(), sink, controls=box)
    assert sink.names == ["0", "1", "2", "3"]
    assert looked == [False, False, True, True, False, False]
    assert (report.failure, box.refusal, box.current.balance) == (None, "", 0.9)


def test_frames_are_iterated_over_as_the_outputs_get_them() -> None:
    names = []
    for fused in live.fused_frames(Source(5), Fuser(), ControlBox()):
        assert "decode" in fused.latency_ns
        names.append(fused.name)
        if len(names) == 3:
            break
    assert names == ["0", "1", "2"]
    broken = live.fused_frames(Source(5, failing(2, SourceUnreadableError("it broke"))), Fuser())
    assert [next(broken).name for _ in range(2)] == ["0", "1"]
    with pytest.raises(SourceUnreadableError, match="it broke"):
        next(broken)


def test_a_change_of_controls_holds_from_the_next_frame_on(run) -> None:
    box, taken = ControlBox(Controls(balance=0.1)), []

    class Watched(Fuser):
        def fuse_pair(self, pair: FramePair, controls: Controls, *_more: object) -> FusedFrame:
            taken.append(controls.balance)
            if len(taken) == 2:
                box.change(balance=0.9)
            return super().fuse_pair(pair, controls)

    run.bounded(Source(4), Watched(), Sink(), controls=box)
    assert taken == [0.1, 0.1, 0.9, 0.9]


def test_memory_does_not_grow_with_the_run(run) -> None:
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

    run.bounded(Counted(60), Fuser(), Sink())
    # In the reader's hand, held, in the fuser; up to four held, in the writer; and names not yet bound anew.
    assert most <= 11
    assert not alive


def test_every_output_gets_every_frame_of_a_recorded_source(run) -> None:
    sinks = Sink(), Sink(stage), Sink()
    report = run.bounded(Source(9), Fuser(), *sinks)
    for sink in sinks:
        assert sink.names == [str(k) for k in range(9)]
    assert len({thread for sink in sinks for thread in sink.threads}) == 3, "a thread each"
    counts = [(each["to"], each["policy"], each["written"], each["dropped"]) for each in report.outputs]
    assert counts == [(f"out{k}", "wait", 9, 0) for k in range(3)]


def test_a_slow_output_that_drops_holds_up_neither_the_loop_nor_another(run) -> None:
    """The slow one is in its first frame until the source has ended: it keeps four more, the newest."""
    is_over = threading.Event()

    def stuck(index: int) -> None:
        if index == 0:
            is_over.wait(5)

    slow, fast = Sink(stuck), Sink(lambda index: is_over.set() if index == 29 else None)
    report = run.bounded(Source(30, lambda _: time.sleep(0.002)), Fuser(), slow, fast, policy="drop")
    assert is_over.is_set()
    assert slow.names[0] == "0"
    assert slow.names[-1] == "29"
    by_output = {each["to"]: each for each in report.outputs}
    assert by_output["out0"]["written"] + by_output["out0"]["dropped"] == 30
    assert by_output["out0"]["written"] <= 6
    assert by_output["out1"]["written"] + by_output["out1"]["dropped"] == 30
    assert report.written == by_output["out0"]["written"], "of the first output"


def test_a_slow_window_takes_a_quarter_of_the_loop_at_most(run) -> None:
    window = Window(stage)
    start = time.perf_counter()
    report = run.here(Source(40), Fuser(lambda _: time.sleep(0.01)), window)
    assert time.perf_counter() - start < 40 * 0.02, "no stage of the window for each frame"
    (output,) = report.outputs
    assert output["dropped"] > 20
    assert output["written"] + output["dropped"] == 40


def test_an_error_of_one_output_reaches_the_caller_and_leaves_the_others_whole(run) -> None:
    broken, other = Sink(failing(2, OutputError("disk full"))), Sink(stage)
    with pytest.raises(OutputError, match="disk full"):
        run.bounded(Source(10**6), Fuser(), broken, other)
    assert (broken.closed_by, other.closed_by) == ([OutputError], [None]), "the other keeps what it wrote"


def test_an_output_that_cannot_be_closed_leaves_the_others_whole(run) -> None:
    broken, other = Sink(closing=OutputError("holds 2 of 3 frames")), Sink()
    with pytest.raises(OutputError, match="holds 2 of 3 frames"):
        run.bounded(Source(3), Fuser(), broken, other)
    assert other.closed_by == [None]


def test_no_output_and_two_of_one_place_are_refused() -> None:
    with pytest.raises(OptionError, match="there is no output; needed one at least"):
        fanout.Fanout([])
    with pytest.raises(OptionError, match=r"two outputs write a\.mp4; needed a place for each"):
        fanout.Fanout(["a.mp4", "infrared=./a.mp4"])
