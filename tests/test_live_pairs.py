"""Two live sources as pairs, and the loop on them: states, loss and return, the end, and that each frame is counted."""

import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import numpy as np
import pytest

from cled_edge import live
from cled_edge.address import Address
from cled_edge.areas import Areas
from cled_edge.camera.live_source import LiveSource
from cled_edge.camera.source import Camera
from cled_edge.errors import EngineError, OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import BOTH_LOST, MONOTONIC, Frame, FramePair, FusedFrame
from cled_edge.live_pairing import MODALITIES, TimePairer
from cled_edge.live_pairs import LivePairs, open_cameras
from cled_edge.output import fanout
from cled_edge.output.sink import Output, output_address
from cled_edge.output.view import shown_image

SHAPES = (4, 6), (4, 6, 3)
MS = 1_000_000


def until(is_true: Callable[[], object], within_s: float = 5) -> None:
    end = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)


class Fed(Camera):
    """Gives what a test feeds it: frames, an error to raise, or None for the end; it ends too once it is not wanted."""

    is_live = True
    rate_hz = 30.0

    def __init__(self, index: int) -> None:
        super().__init__(Address("fake", "fake", "fake"))
        self.shape, self.count, self.items = SHAPES[index], 0, queue.Queue()
        self.unwanted = threading.Event()

    def feed(self, level: int, taken_ns: int | None) -> None:
        stamp_ns = time.monotonic_ns() if taken_ns is None else taken_ns
        self.items.put(Frame(np.full(self.shape, level, np.uint8), stamp_ns, MONOTONIC, self.count, "fake"))
        self.count += 1

    def __iter__(self) -> Iterator[Frame]:
        while not self.unwanted.is_set():
            with suppress(queue.Empty):
                item = self.items.get(timeout=0.02)
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item


class Rig:
    """Two fed cameras, their sources and pairs. cameras: the current ones; a lost camera is opened as another."""

    def __init__(
        self,
        *,
        errors: tuple[Exception | None, Exception | None] = (None, None),
        need_both_s: float | None = None,
        **pairing,
    ) -> None:
        self.cameras = [Fed(0), Fed(1)]
        self.lines: list[str] = []
        arrived = threading.Condition()

        def opener(index: int) -> Callable[[str], Camera]:
            def open_(_address: str) -> Camera:
                if errors[index]:
                    raise errors[index]
                self.cameras[index].unwanted = self.sources[index]._stopping
                return self.cameras[index]

            return open_

        self.sources = [LiveSource(name, open=opener(k), arrived=arrived) for k, name in enumerate(MODALITIES)]
        self.pairs = LivePairs(*self.sources, TimePairer(**pairing), need_both_s=need_both_s, tell=self.lines.append)

    def feed(self, index: int, level: int = 9, taken_ns: int | None = None) -> None:
        """Feed a frame, and wait until it has arrived."""
        before = self.sources[index].received
        self.cameras[index].feed(level, taken_ns)
        until(lambda: self.sources[index].received > before)

    def feed_until(self, is_true: Callable[[], object], *indexes: int, level: int = 9) -> None:
        """Feed frames all the time: a slow machine may find one too old."""
        for _ in range(500):
            for index in indexes:
                self.cameras[index].feed(level, None)
            time.sleep(0.01)
            if is_true():
                return
        raise AssertionError("it did not come")

    def lose(self, index: int) -> None:
        lost, self.cameras[index] = self.cameras[index], Fed(index)
        lost.items.put(SourceUnreadableError("its cable is out; needed a camera; plug it in"))

    def close(self) -> None:
        for camera in self.cameras:
            camera.items.put(None)


@pytest.fixture
def rig():
    made = []

    def make(**settings) -> Rig:
        made.append(Rig(**settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_newest_pair_comes_with_states_and_ages_and_every_frame_is_counted(rig) -> None:
    built = rig()
    with built.pairs as pairs:
        now_ns = time.monotonic_ns()
        for index, earlier_ms in ((0, 40), (1, 70), (1, 38), (1, 5)):
            built.feed(index, taken_ns=now_ns - earlier_ms * MS)
        pair, spent_ns = pairs.next()
        assert pair.states == ("open", "open")
        assert pair.skew_ns == -35 * MS
        assert all(age < 5000 * MS for age in pair.ages_ns(time.monotonic_ns()))
        assert 0 < spent_ns < 1000 * MS
    told = pairs.as_dict()
    assert told["ledger"]["visible"]["dropped"] == {"overtaken": 2}
    for source, ledger in zip(built.sources, pairs.ledgers.values(), strict=True):
        assert ledger.holds
        assert ledger.received == source.received
    assert told["sources"]["infrared"]["state"] == "open", "as it was when the run ended"
    assert pairs.rate_hz == 30


def test_who_waits_is_woken_by_a_frame_and_by_stop(rig) -> None:
    built = rig()
    with built.pairs as pairs, ThreadPoolExecutor(1) as pool, stopped(pairs):
        asked = pool.submit(pairs.next)
        built.feed(0)
        built.feed(1)
        assert asked.result(5) is not None
        asked = pool.submit(pairs.next)
        pairs.stop()
        assert asked.result(5) is None


def test_one_lost_camera_leaves_the_other_until_it_is_back(rig) -> None:
    built = rig(hold_ns=300 * MS)
    with built.pairs as pairs:
        built.feed(0)
        built.feed(1)
        assert pairs.next()[0].degraded == ""
        built.lose(0)
        until(lambda: built.sources[0].state == "lost")
        time.sleep(0.3)  # until what it gave is older than the hold
        built.feed(1, level=7)
        pair, _ = pairs.next()
        assert (pair.degraded, pair.states[0], pair.visible.image[0, 0, 0]) == ("infrared lost", "lost", 7)
        built.feed(0)
        built.feed(1)
        assert pairs.next()[0].degraded == ""
    assert built.lines == [
        "infrared camera is lost: its cable is out; needed a camera; plug it in",
        "infrared camera is back",
    ]
    assert built.sources[0].reopened == 1


def test_a_camera_that_changes_its_size_is_left_out_until_that_is_back(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    built, sink = rig(hold_ns=150 * MS), Sink()
    monkeypatch.setattr(fanout, "open_output", lambda *_: sink)

    with ThreadPoolExecutor(1) as pool, stopped(built.pairs):
        run = pool.submit(live.fuse_pairs, built.pairs, FakeFuser(), ["fake"])
        built.feed_until(lambda: sink.shown(""), 0, 1)
        built.cameras[1].shape = (8, 12, 3)
        built.feed_until(lambda: sink.shown("visible lost"), 0, 1)
        built.cameras[1].shape = SHAPES[1]
        whole = len(sink.shown(""))
        built.feed_until(lambda: len(sink.shown("")) > whole, 0, 1)
        for camera, shape in zip(built.cameras, ((8, 12), (8, 12, 3)), strict=True):
            camera.shape = shape
        built.feed_until(lambda: sink.shown("")[-1].picture.shape == (8, 12, 3), 0, 1)
        built.pairs.stop()
        report = run.result(5)
    assert report.failure is None
    assert {frame.infrared.shape for frame in sink.shown("visible lost")} == {SHAPES[0]}
    ledger = report.as_dict()["live"]["ledger"]
    assert ledger["visible"]["dropped"]["another size"] > 0
    assert all(each["holds"] for each in ledger.values())
    assert built.lines[:2] == [
        "visible camera changed its size from 4x6: it is left out until that is back",
        "visible camera fits again",
    ]


def test_cameras_that_go_over_to_a_size_without_an_engine_are_left_out_until_one_is_back(rig, monkeypatch) -> None:
    built, sink = rig(hold_ns=150 * MS), Sink()
    monkeypatch.setattr(fanout, "open_output", lambda *_: sink)

    with ThreadPoolExecutor(1) as pool, stopped(built.pairs):
        run = pool.submit(live.fuse_pairs, built.pairs, OneSize(), ["fake"])
        built.feed_until(lambda: sink.shown(""), 0, 1)
        for camera, shape in zip(built.cameras, ((8, 12), (8, 12, 3)), strict=True):
            camera.shape = shape
        built.feed_until(lambda: sink.shown(BOTH_LOST), 0, 1)
        whole = len(sink.shown(""))
        built.cameras[0].shape = SHAPES[0]
        built.feed_until(lambda: sink.shown("visible lost"), 0, 1)
        built.cameras[1].shape = SHAPES[1]
        built.feed_until(lambda: len(sink.shown("")) > whole, 0, 1)
        built.pairs.stop()
        report = run.result(5)
    assert report.failure is None
    told = [line for line in built.lines if "no engine of 8x12" in line]
    assert len(told) == 1, "of a size it is tried once"
    assert told[0].startswith("infrared 8x12 and visible 8x12 cannot be fused: ")
    assert told[0].endswith("; left out until 4x6 and 4x6 are back")
    for ledger in report.as_dict()["live"]["ledger"].values():
        assert ledger["holds"]
        assert ledger["dropped"]["another size"] > 0


def test_a_camera_that_is_alone_in_a_size_without_an_engine_is_left_out(rig, monkeypatch) -> None:
    built, sink = rig(hold_ns=100 * MS), Sink()
    monkeypatch.setattr(fanout, "open_output", lambda *_: sink)

    with ThreadPoolExecutor(1) as pool, stopped(built.pairs):
        run = pool.submit(live.fuse_pairs, built.pairs, OneSize(), ["fake"])
        built.feed_until(lambda: sink.shown(""), 0, 1)
        built.lose(0)
        built.feed_until(lambda: sink.shown("infrared lost"), 1)
        built.cameras[1].shape = (8, 12, 3)
        built.feed_until(lambda: sink.shown(BOTH_LOST), 1)
        built.pairs.stop()
        assert run.result(5).failure is None
    assert any(line.startswith("visible 8x12 cannot be fused: ") for line in built.lines)


def test_a_camera_that_is_alone_may_change_its_size(rig) -> None:
    built = rig(hold_ns=100 * MS)
    with built.pairs as pairs:
        built.feed(0)
        built.feed(1)
        assert pairs.next()[0].degraded == ""
        built.lose(0)
        until(lambda: built.sources[0].state == "lost")
        built.cameras[1].shape = (8, 12, 3)

        def next_one() -> FramePair:
            built.feed(1)
            return pairs.next()[0]

        until(lambda: next_one().infrared.image.shape == (8, 12))


def test_a_camera_that_takes_long_to_open_is_told_of_once(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cled_edge.live_pairing.START_NS", 20 * MS)
    built = rig()
    with built.pairs as pairs, ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            asked = pool.submit(pairs.next)
            built.feed_until(asked.done, 0)
            assert asked.result(5)[0].degraded == "visible lost"
    assert built.lines == [
        "visible camera has given no frame yet; until it does, the other one is fused alone",
    ]


@pytest.mark.parametrize("error", [SourceMissingError("no such device"), OptionError("no such format")])
def test_a_camera_that_is_wrong_from_the_start_ends_the_run(rig, error: Exception) -> None:
    with rig(errors=(None, error)).pairs as pairs, pytest.raises(type(error), match="no such"):
        pairs.next()


def test_two_cameras_that_never_give_a_frame_end_the_run(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cled_edge.live_pairs.FIRST_WITHIN_NS", 30 * MS)
    with rig().pairs as pairs, pytest.raises(SourceUnreadableError, match="neither infrared nor visible gives"):
        pairs.next()


def test_two_recordings_that_ended_are_the_end(rig) -> None:
    built = rig()
    with built.pairs as pairs:
        built.feed(0)
        built.feed(1)
        built.close()
        until(lambda: {source.state for source in built.sources} == {"ended"})
        assert pairs.next() is not None
        assert pairs.next() is None


def test_rows_are_cut_off_both_and_off_what_is_valid(rig) -> None:
    built = rig()
    built.pairs.sizes.crop_rows = (0, 1)
    with built.pairs as pairs:
        built.feed(0)
        built.feed(1)
        pair, _ = pairs.next()
        assert (pair.infrared.image.shape, pair.visible.image.shape) == ((3, 6), (3, 6, 3))


def test_sources_without_a_common_condition_are_refused() -> None:
    with pytest.raises(OptionError, match="needed one that they share"):
        LivePairs(LiveSource("a"), LiveSource("b"), TimePairer())


@pytest.mark.parametrize(
    ("infrared", "visible"),
    [
        ("0", "/dev/video0"),
        ("v4l2:0?format=Y16", "0"),
        ("rtsp://host/a", "rtsp://host/a"),
        ("synthetic:visible", "synthetic:visible"),
    ],
)
def test_one_camera_for_both_is_refused(infrared: str, visible: str) -> None:
    with pytest.raises(OptionError, match="is both the infrared and the visible camera; needed two"):
        open_cameras(infrared, visible, TimePairer())


def test_a_live_camera_and_a_recording_are_refused(tmp_path) -> None:
    (tmp_path / "visible").mkdir()
    with pytest.raises(OptionError, match=r"/dev/video9 is live and .*visible is a recording"):
        open_cameras("/dev/video9", str(tmp_path / "visible"), TimePairer())


@contextmanager
def stopped(pairs: LivePairs) -> Iterator[None]:
    """Stop the pairs at the end, so that nobody waits for a run that a failed test left behind."""
    try:
        yield
    finally:
        pairs.stop()


class FakeFuser:
    """Returns what it got."""

    color_order = "BGR"
    thermal = None
    backend = SimpleNamespace(description="a fake")
    bundle = SimpleNamespace(manifest=SimpleNamespace(name="fake", schedule=SimpleNamespace(default_steps=1)))

    def __init__(self) -> None:
        self.warmed: list[tuple[int, int]] = []
        self.areas, self.is_looked_at = Areas(()), False

    def warm_up(self, size: tuple[int, int], controls: object) -> None:
        self.warmed.append(size)

    def give_up_look(self, _reason: str) -> bool:
        return False

    def fuse_pair(self, pair: FramePair, controls: object, *_more: object) -> FusedFrame:
        images = pair.visible.image, pair.infrared.image, pair.visible.image
        ages = pair.ages_ns(time.monotonic_ns())
        return FusedFrame(
            *images, name=pair.name, degraded=pair.degraded, infrared_age_ns=ages[0], skew_ns=pair.skew_ns
        )


class OneSize(FakeFuser):
    """Has an engine of one size, that of `SHAPES`."""

    def fuse_pair(self, pair: FramePair, controls: object, *_more: object) -> FusedFrame:
        if pair.visible.image.shape != SHAPES[1]:
            raise EngineError("there is no engine of 8x12; needed one; build it")
        return super().fuse_pair(pair, controls)


class Sink(Output):
    def __init__(self) -> None:
        super().__init__(output_address("fake"))
        self.frames: list[FusedFrame] = []

    def write(self, frame: FusedFrame) -> bool:
        self.frames.append(frame)
        return True

    def shown(self, degraded: str) -> list[FusedFrame]:
        return [frame for frame in self.frames if frame.degraded == degraded]


def test_the_loop_goes_on_while_cameras_are_lost_and_shows_that_they_are(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    built, sink = rig(hold_ns=150 * MS), Sink()
    monkeypatch.setattr(fanout, "open_output", lambda *_: sink)

    with ThreadPoolExecutor(1) as pool, stopped(built.pairs):
        run = pool.submit(live.fuse_pairs, built.pairs, FakeFuser(), ["fake"])
        built.feed_until(lambda: sink.shown(""), 0, 1)
        built.lose(0)
        built.feed_until(lambda: sink.shown("infrared lost"), 1)
        built.lose(1)
        until(lambda: len(sink.shown(BOTH_LOST)) >= 2)
        whole = len(sink.shown(""))
        built.feed_until(lambda: len(sink.shown("")) > whole, 0, 1, level=4)
        built.pairs.stop()
        report = run.result(5)
    dead = sink.shown(BOTH_LOST)[0].picture
    assert dead.shape == SHAPES[1]
    assert dead.max() < 250
    assert shown_image(sink.shown(BOTH_LOST)[0], "side-by-side").shape == (4, 18, 3)
    assert sink.shown("")[-1].picture.max() == 4
    told = report.as_dict()
    assert report.failure is None
    assert report.clocks == (MONOTONIC, MONOTONIC)
    assert sink.shown(BOTH_LOST)[1].timestamp_ns - sink.shown(BOTH_LOST)[0].timestamp_ns >= 400 * MS
    assert told["live"]["degraded"]["infrared lost"] == len(sink.shown("infrared lost"))
    assert told["live"]["degraded"][BOTH_LOST] == len(sink.shown(BOTH_LOST))
    assert set(told["live"]["age_ms"]) == {"infrared"}
    assert told["live"]["skew_ms"]["max"] < 150
    assert told["live"]["sources"]["visible"]["reopened"] == 1
    assert all(ledger["holds"] for ledger in told["live"]["ledger"].values())
    assert told["outputs"][0]["policy"] == "drop"
    assert "pair" in told["latency_ms"]
    assert len({frame.name for frame in sink.frames}) == len(sink.frames)


def test_the_backend_is_made_ready_when_the_first_camera_tells_the_size(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    built, fuser = rig(), FakeFuser()
    built.pairs.sizes.crop_rows = (0, 1)
    monkeypatch.setattr(fanout, "open_output", lambda *_: Sink())
    with ThreadPoolExecutor(1) as pool, stopped(built.pairs):
        run = pool.submit(live.fuse_pairs, built.pairs, fuser, ["fake"], max_frames=1)
        built.feed(0)
        until(lambda: fuser.warmed == [(3, 6)])
        built.feed_until(run.done, 0, 1)
        run.result(5)
    assert fuser.warmed == [(3, 6)]


def test_a_backend_that_cannot_be_made_ready_leaves_it_to_the_first_pair_to_say(rig, monkeypatch) -> None:
    built = rig()
    monkeypatch.setattr(fanout, "open_output", lambda *_: Sink())

    class Broken(FakeFuser):
        def warm_up(self, size: tuple[int, int], controls: object) -> None:
            raise OptionError("no graph")

        def fuse_pair(self, pair: FramePair, controls: object, *_more: object) -> FusedFrame:
            raise OptionError("no graph")

    with ThreadPoolExecutor(1) as pool, stopped(built.pairs):
        run = pool.submit(live.fuse_pairs, built.pairs, Broken(), ["fake"])
        built.feed_until(run.done, 0, 1)
        with pytest.raises(OptionError, match="pair 000000: no graph"):
            run.result(5)


def test_a_run_that_needs_both_cameras_ends_when_one_is_lost_for_too_long(rig, monkeypatch) -> None:
    built, sink = rig(hold_ns=100 * MS, need_both_s=0.2), Sink()
    monkeypatch.setattr(fanout, "open_output", lambda *_: sink)
    with ThreadPoolExecutor(1) as pool, stopped(built.pairs):
        run = pool.submit(live.fuse_pairs, built.pairs, FakeFuser(), ["fake"])
        built.feed_until(lambda: any(not frame.degraded for frame in sink.frames), 0, 1)
        built.lose(0)
        built.feed_until(run.done, 1)
        report = run.result(5)
    assert type(report.failure) is SourceUnreadableError
    assert re.match(r"infrared lost for 0\.\d s; needed both cameras within 0\.2 s; ", str(report.failure))
    assert any(frame.degraded == "infrared lost" for frame in sink.frames), "until then it is shown"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_for_both_cameras_that_cannot_be_is_refused(rig, seconds: float) -> None:
    with pytest.raises(OptionError, match=r"need_both_s is .*; needed seconds above 0"):
        rig(need_both_s=seconds)


def test_a_live_run_ends_after_so_many_frames(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    built = rig()
    monkeypatch.setattr(fanout, "open_output", lambda *_: Sink())
    with ThreadPoolExecutor(1) as pool, stopped(built.pairs):
        run = pool.submit(live.fuse_pairs, built.pairs, FakeFuser(), ["fake"], max_frames=1)
        built.feed_until(run.done, 0, 1)
        report = run.result(5)
    assert (report.read, report.interrupted, report.is_stuck) == (1, False, False)


def test_counts_may_be_asked_for_on_another_thread_while_pairs_come(rig) -> None:
    built, asked = rig(), []
    with built.pairs as pairs, ThreadPoolExecutor(1) as pool:
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                asked.append((pairs.left_out, pairs.dropped, pairs.as_dict()["ledger"]["visible"]["holds"]))

        asking = pool.submit(ask)
        for _ in range(60):
            for index in (0, 1):
                built.cameras[index].feed(9, None)
            pairs.next()
        over.set()
        asking.result(5)
    assert all(holds for _, _, holds in asked)
    assert asked
