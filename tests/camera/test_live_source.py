"""A live source: its states, how it is opened again, what becomes of wrong stamps. Time is what the test says."""

import threading
from collections.abc import Callable, Iterator

import pytest

from cled_edge.camera.live_source import LiveSource, SourceState
from cled_edge.errors import OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import ARRIVAL, MEDIA, MONOTONIC, SENDER
from tests.fakes.live_camera import HANG, Clock, LiveCamera, Opener, frame

LOST = SourceUnreadableError("the cable is out")
PATIENCE_S = 20.0  # of a test; what it waits for takes far less


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def started() -> Iterator[Callable[..., LiveSource]]:
    sources = []

    def start(*cameras, clock: Clock | None = None, address: str = "fake", **how) -> LiveSource:
        source = LiveSource(address, open=Opener(*cameras), now=clock or Clock(), **how)
        sources.append(source)
        source.start()
        return source

    yield start
    for source in sources:
        source._stopping.set()


def wait(source: LiveSource, condition: Callable[[], bool], clock: Clock | None = None, by_s: float = 0.0) -> None:
    """Wait for a condition; the clock moves on by so much at every look, twenty times a second."""
    for _ in range(round(PATIENCE_S / 0.02)):
        with source.arrived:
            if condition() or source.arrived.wait_for(condition, 0.02):
                return
        if clock:
            clock.move(by_s)
    raise AssertionError(source.as_dict())


def test_every_frame_is_taken_once_in_order(started, released) -> None:
    clock = Clock()
    source = started(LiveCamera([frame(clock.ns - k, k) for k in (9, 8, 7)], released), clock=clock)
    wait(source, lambda: source.received == 3)
    assert source.state is SourceState.OPEN
    frames = source.take()
    assert [(f.timestamp_ns - clock.ns, f.arrival_ns, f.clock) for f in frames] == [
        (-9, clock.ns, MONOTONIC),
        (-8, clock.ns, MONOTONIC),
        (-7, clock.ns, MONOTONIC),
    ]
    assert source.take() == []


def test_of_frames_that_nobody_takes_the_newest_are_kept(started, released) -> None:
    clock = Clock()
    source = started(LiveCamera([frame(clock.ns - 99 + k, k) for k in range(10)], released), clock=clock, keep=3)
    wait(source, lambda: source.received == 10)
    assert [f.sequence for f in source.take()] == [7, 8, 9]
    assert source.dropped == {"overtaken": 7}


def test_a_camera_that_cannot_be_opened_is_tried_with_growing_pauses(started, released) -> None:
    clock = Clock()
    missing = SourceMissingError("rtsp://me:secret@host/a is not there")
    opener = (missing, missing, missing, LiveCamera([frame(clock.ns)], released))
    source = started(*opener, clock=clock)
    wait(source, lambda: source.state is SourceState.LOST)
    assert source.failure == "rtsp://***@host/a is not there"
    pauses_s, last_ns = [], clock.ns
    for opened in (1, 2, 3):
        wait(source, lambda opened=opened: source._open.opened > opened, clock, by_s=0.01)
        pauses_s.append((clock.ns - last_ns) / 1e9)
        last_ns = clock.ns
    assert all(least_s <= pause_s < least_s + 0.5 for least_s, pause_s in zip((0.1, 0.2, 0.4), pauses_s, strict=True))
    wait(source, lambda: source.received == 1)
    assert source.failure == ""
    assert source.reopened == 0


def test_pauses_between_attempts_end_at_half_a_second(started) -> None:
    clock = Clock()
    source = started(LOST, clock=clock)
    wait(source, lambda: source._open.opened >= 12, clock, by_s=0.25)
    begin_ns, opened = clock.ns, source._open.opened
    wait(source, lambda: source._open.opened >= opened + 4, clock, by_s=0.05)
    assert clock.ns - begin_ns < 3.5e9
    assert source.failure == "the cable is out"


def test_a_lost_camera_is_opened_again_and_counts_on(started, released) -> None:
    clock = Clock()
    cameras = [
        LiveCamera([frame(clock.ns - 9 + k, k) for k in range(3)] + [LOST], released),
        LiveCamera([frame(clock.ns - 5 + k, k) for k in range(2)], released),
    ]
    source = started(*cameras, clock=clock)
    wait(source, lambda: source.received == 5, clock, by_s=0.05)
    assert [f.sequence for f in source.take()] == [0, 1, 2, 3, 4]
    assert (source.reopened, source.state, source.failure) == (1, SourceState.OPEN, "")
    assert cameras[0].closed == 1


def test_a_read_that_blocks_makes_the_source_stale_then_lost_and_is_left_to_itself(started, released) -> None:
    clock = Clock()
    cameras = [LiveCamera([frame(clock.ns), HANG], released), LiveCamera([lambda: frame(clock.ns)], released)]
    source = started(*cameras, clock=clock)
    wait(source, lambda: source.received == 1)
    clock.move(0.49)
    assert source.state is SourceState.OPEN
    clock.move(0.02)
    wait(source, lambda: source.state is SourceState.STALE)
    clock.move(1.48)
    assert source.state is SourceState.STALE
    clock.move(0.02)
    wait(source, lambda: source.state is SourceState.LOST)
    assert source.failure == "fake gives no frame for 2.0 s; check its cable, power and network"
    wait(source, lambda: source.state is SourceState.OPEN, clock, by_s=0.05)
    assert (source.received, source.reopened) == (2, 1)
    assert cameras[0].closed == 0  # a camera is never closed under a thread that uses it
    released.set()
    wait(source, lambda: cameras[0].closed == 1)
    assert source.received == 2


def test_a_frame_of_a_reader_that_was_left_is_not_handed_on(started, released) -> None:
    clock = Clock()
    late = threading.Event()
    cameras = [
        LiveCamera([frame(clock.ns), lambda: late.wait(PATIENCE_S) and frame(clock.ns + 7, 1)], released),
        LiveCamera([lambda: frame(clock.ns)], released),
    ]
    source = started(*cameras, clock=clock)
    wait(source, lambda: source.reopened == 1, clock, by_s=0.1)
    late.set()
    wait(source, lambda: cameras[0].closed == 1)
    assert source.received == 2


def test_no_more_than_three_readers_hang(started, released) -> None:
    clock = Clock()
    source = started(LiveCamera([HANG], released), clock=clock)
    wait(source, lambda: len(source._left) == 3, clock, by_s=1.0)
    opened = source._open.opened
    begin_ns = clock.ns
    wait(source, lambda: clock.ns - begin_ns > 60e9, clock, by_s=1.0)
    assert source._open.opened == opened == 3
    assert source.failure == "fake gives no first frame; check its cable, power and network"


def test_a_slow_camera_is_not_stale_between_its_frames(started, released) -> None:
    clock = Clock()
    source = started(LiveCamera([frame(clock.ns)], released, rate_hz=0.5), clock=clock)
    wait(source, lambda: source.received == 1)
    clock.move(5.9)
    with source.arrived:
        assert not source.arrived.wait_for(lambda: source.state is not SourceState.OPEN, 0.2)
    clock.move(0.2)
    wait(source, lambda: source.state is SourceState.STALE)


def test_the_end_of_a_recording_is_no_loss(started, released) -> None:
    clock = Clock()
    source = started(LiveCamera([frame(clock.ns)], released, ends=True), clock=clock)
    wait(source, lambda: source.state is SourceState.ENDED)
    assert source.failure == ""
    assert len(source.take()) == 1


def test_a_wrong_option_ends_a_source_that_never_opened(started) -> None:
    source = started(OptionError("the camera gives YUYV, not Y16"))
    wait(source, lambda: source.state is SourceState.ENDED)
    assert source.failure == "the camera gives YUYV, not Y16"
    assert isinstance(source.error, OptionError)


def test_an_error_of_a_driver_is_a_loss_that_is_named_without_credentials(started, released) -> None:
    clock = Clock()
    camera = LiveCamera([ValueError("at rtsp://me:pa@ss@host/a?token=abc&x=1")], released)
    source = started(camera, clock=clock)
    wait(source, lambda: source.state is SourceState.LOST)
    assert source.failure == "ValueError: at rtsp://***@host/a?token=***&x=1"


@pytest.mark.parametrize(
    ("stamps", "clock_name", "oddity"),
    [
        ((-200, 0), MONOTONIC, "zero stamp"),
        ((-200, 0), SENDER, "zero stamp"),
        ((-200, 2_000_000), MONOTONIC, "future stamp"),
        ((-200, -200), MONOTONIC, "repeated stamp"),
        ((-200, -200), SENDER, "repeated stamp"),
        ((-200, -300), MONOTONIC, "stamp goes back"),
        ((-200, -(10**11)), MEDIA, "stamp goes back"),
        ((-200, 6 * 10**9), SENDER, "stamp jumps"),
    ],
)
def test_a_wrong_stamp_is_counted_noted_and_replaced_by_the_arrival(
    stamps: tuple[int, int], clock_name: str, oddity: str, started, released
) -> None:
    clock = Clock()
    given = [clock.ns + stamp if stamp else 0 for stamp in stamps]
    frames = [frame(stamp, k, level=k, clock=clock_name) for k, stamp in enumerate(given)]
    source = started(LiveCamera(frames, released), clock=clock)
    wait(source, lambda: source.received == 2)
    good, wrong = source.take()
    assert (good.timestamp_ns, good.clock, good.notes) == (given[0], clock_name, ())
    assert (wrong.timestamp_ns, wrong.clock) == (clock.ns, ARRIVAL)
    assert source.oddities == {oddity: 1}
    assert wrong.notes == (f"a stamp of fake is wrong, {oddity}: the time of arrival stands for it",)


def test_a_frame_that_comes_twice_is_dropped_as_repeated(started, released) -> None:
    clock = Clock()
    source = started(LiveCamera([frame(clock.ns), frame(clock.ns, 1)], released), clock=clock)
    wait(source, lambda: source.received == 2)
    assert len(source.take()) == 1
    assert source.dropped == {"repeated": 1}
    assert not source.oddities


def test_a_recording_may_begin_at_zero_and_a_new_connection_at_an_earlier_stamp(started, released) -> None:
    clock = Clock()
    cameras = [
        LiveCamera([frame(0, clock=MEDIA), frame(40, 1, clock=MEDIA), LOST], released),
        LiveCamera([frame(0, clock=MEDIA)], released),
    ]
    source = started(*cameras, clock=clock)
    wait(source, lambda: source.received == 3, clock, by_s=0.05)
    assert [f.timestamp_ns for f in source.take()] == [0, 40, 0]
    assert not source.oddities


def test_a_change_of_size_and_missing_frames_are_counted(started, released) -> None:
    clock = Clock()
    frames = [frame(clock.ns - 9), frame(clock.ns - 8, 4, size=(8, 6)), frame(clock.ns - 7, 5, size=(8, 6))]
    source = started(LiveCamera(frames, released), clock=clock)
    wait(source, lambda: source.received == 3)
    assert source.oddities == {"size changed": 1, "missing": 3}
    assert source.take()[1].notes == ("the size of fake changed from 4x6 to 8x6",)


def test_two_sources_notify_one_condition(started, released) -> None:
    clock, arrived = Clock(), threading.Condition()
    one, other = (started(LiveCamera([frame(clock.ns)], released), clock=clock, arrived=arrived) for _ in range(2))
    wait(one, lambda: one.pending == other.pending == 1)
    assert one.arrived is other.arrived is arrived


def test_what_processes_frames_runs_on_the_readers_thread_and_its_error_is_a_loss(started, released) -> None:
    clock = Clock()
    seen = []

    def process(given):
        seen.append(threading.current_thread().name)
        if given.sequence == 1:
            raise SourceUnreadableError("no counts")
        return frame(given.timestamp_ns, level=9)

    camera = LiveCamera([frame(clock.ns - 9), frame(clock.ns - 8, 1)], released)
    source = started(camera, clock=clock, process=process)
    wait(source, lambda: source.state is SourceState.LOST)
    assert source.failure == "no counts"
    assert source.take()[0].image.max() == 9
    assert seen == ["read fake", "read fake"]


def test_stop_ends_both_threads_and_closes_the_camera(started, released) -> None:
    camera = LiveCamera([frame(10**12)], released)
    source = started(camera)
    wait(source, lambda: source.received == 1)
    assert not source.stop(0.1)  # the camera still hangs
    released.set()
    assert source.stop(PATIENCE_S)
    assert source.state is SourceState.ENDED
    assert camera.closed == 1
    assert not source._watcher.is_alive()
    assert not source._reader.is_alive()


def test_stop_ends_the_reader_of_now_though_one_of_before_still_hangs(started, released) -> None:
    clock, ended = Clock(), threading.Event()

    class Endless(LiveCamera):
        def __iter__(self):
            while True:
                yield frame(clock.ns)

        def close(self) -> None:
            ended.set()

    source = started(LiveCamera([frame(clock.ns), HANG], released), Endless([], released), clock=clock)
    wait(source, lambda: source.reopened == 1, clock, 0.5)
    assert not source.stop(0.2), "one hangs"
    assert ended.wait(PATIENCE_S)


def test_a_reader_that_was_left_while_it_opened_reads_nothing(started, released) -> None:
    opening, ended = threading.Event(), threading.Event()

    class Slow(LiveCamera):
        def __iter__(self):
            raise AssertionError("it is read")

        def close(self) -> None:
            ended.set()

    def open_(_address: str) -> LiveCamera:
        opening.set()
        released.wait(PATIENCE_S)
        return Slow([], released)

    source = LiveSource("fake", open=open_)
    source.start()
    assert opening.wait(PATIENCE_S)
    assert not source.stop(0.1)
    released.set()
    assert ended.wait(PATIENCE_S)
    source._reader.join(PATIENCE_S)
    assert source._reader.error is None


def test_every_frame_received_is_taken_waiting_or_dropped_by_cause(started, released) -> None:
    clock = Clock()
    stamps = [k // 2 for k in range(20)]  # each twice
    frames = [frame(clock.ns - 50 + stamp, k) for k, stamp in enumerate(stamps)]
    source = started(LiveCamera(frames, released), clock=clock, keep=4)
    wait(source, lambda: source.received == 20)
    held = source.pending
    assert (held, sum(source.dropped.values())) == (4, 16)
    assert len(source.take()) + source.pending + sum(source.dropped.values()) == source.received
