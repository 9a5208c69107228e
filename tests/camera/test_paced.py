"""Recordings and the rendered street in real time: when frames come, their stamps, how two keep together."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from cled_edge import open_camera
from cled_edge.address import Address
from cled_edge.camera import pace as pace_module
from cled_edge.camera.live_source import LiveSource, SourceState
from cled_edge.camera.paced import PacedCamera
from cled_edge.camera.source import files_of, is_live
from cled_edge.camera.synthetic import SyntheticCamera
from cled_edge.errors import OptionError, SourceMissingError
from cled_edge.frame import MONOTONIC
from cled_edge.scene.night_street import night_street
from tests.fakes.live_camera import Clock


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "_begun", None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a clock that a wait moves on, so that no test waits."""
    clock = Clock()

    class Waits:
        def __init__(self) -> None:
            self.flag = False

        def is_set(self) -> bool:
            return self.flag

        def set(self) -> None:
            self.flag = True

        def wait(self, seconds: float) -> None:
            clock.move(seconds + 1e-9)

    monkeypatch.setattr(pace_module.threading, "Event", Waits)
    return clock


def paced(text: str, clock: Clock) -> PacedCamera:
    return PacedCamera(Address(f"paced:{text}", "paced", text), clock)


def since_s(frames: Iterator, origin_ns: int) -> list[float]:
    return [round((frame.timestamp_ns - origin_ns) / 1e9, 3) for frame in frames]


def test_pictures_come_at_a_rate_and_stamped_with_when_they_were_due(write_pairs, clock: Clock) -> None:
    folder, _ = write_pairs(("a", "b", "c"))
    begin_ns = clock.ns
    with paced(f"{folder}?rate_hz=4", clock) as camera:
        assert (camera.is_live, camera.rate_hz, len(camera.files)) == (True, 4.0, 3)
        frames = list(camera)
    assert since_s(frames, begin_ns) == [0.0, 0.25, 0.5]
    assert clock.ns - begin_ns == pytest.approx(0.5e9, abs=1e3)
    assert {frame.clock for frame in frames} == {MONOTONIC}
    assert [frame.name for frame in frames] == [""] * 3  # a name would call outputs, which come again in a loop


def test_a_loop_begins_again_one_period_after_the_last_frame(write_pairs, clock: Clock) -> None:
    folder, _ = write_pairs(("a", "b"))
    begin_ns = clock.ns
    with paced(f"{folder}?rate_hz=10&loop", clock) as camera:
        frames = list(islice(camera, 5))
    assert since_s(frames, begin_ns) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3, 4]


def test_cameras_that_begin_together_count_from_one_origin_and_later_ones_do_not(write_pairs, clock: Clock) -> None:
    infrared, visible = write_pairs(tuple("abcdefgh"))
    begin_ns = clock.ns
    first = next(iter(paced(f"{infrared}?rate_hz=4", clock)))
    clock.move(1.1)
    assert since_s(paced(f"{visible}?rate_hz=4", clock), begin_ns)[:2] == [1.0, 1.25]  # what was due before is past
    clock.move(60)
    assert next(iter(paced(f"{visible}?rate_hz=4", clock))).timestamp_ns == clock.ns
    assert first.timestamp_ns == begin_ns


def test_what_cannot_be_paced_is_refused(write_pairs) -> None:
    folder, _ = write_pairs(("a",))
    with pytest.raises(OptionError, match=r"has no times; needed a rate; write it behind, as in \?rate_hz=25"):
        open_camera(f"paced:{folder}")
    with pytest.raises(OptionError, match="is live already"):
        open_camera("paced:synthetic:infrared")
    with pytest.raises(OptionError, match="unknown option 'rate'; did you mean rate_hz"):
        open_camera(f"paced:{folder}?rate=9")
    with pytest.raises(OptionError, match="rate_hz is 'fast'; it must be a number above 0"):
        open_camera(f"paced:{folder}?rate_hz=fast")
    with pytest.raises(SourceMissingError):
        open_camera("paced:/none.mp4")


def test_the_files_of_a_paced_recording_are_known_before_it_is_opened(write_pairs, tmp_path: Path) -> None:
    folder, _ = write_pairs(("a", "b"))
    (tmp_path / "a.mp4").touch()
    assert is_live(f"paced:{folder}?rate_hz=9")
    assert set(files_of(f"paced:{folder}?rate_hz=9&loop")) == {folder / "a.png", folder / "b.png"}
    assert files_of(f"paced:{tmp_path}/a.mp4") == (tmp_path / "a.mp4",)
    assert files_of("rtsp://host/a") == files_of("paced:none") == ()


def test_both_synthetic_cameras_see_one_street_at_one_time(clock: Clock) -> None:
    cameras = [
        SyntheticCamera(Address(text, "synthetic", text.removeprefix("synthetic:")), clock)
        for text in ("synthetic:infrared?size=64x96&rate_hz=5", "synthetic:visible?size=64x96&rate_hz=5")
    ]
    begin_ns = clock.ns
    infrared, visible = (next(iter(camera)) for camera in cameras)
    (pair,) = night_street(1, (64, 96), rate_hz=5)
    assert np.array_equal(infrared.image, pair.infrared)
    assert np.array_equal(visible.image, pair.visible)
    assert infrared.timestamp_ns == visible.timestamp_ns == begin_ns
    second = next(iter(cameras[0]))
    assert (since_s([second], begin_ns), second.clock, second.sequence) == ([0.2], MONOTONIC, 1)


def test_frames_of_the_street_that_cannot_be_rendered_in_time_are_left_out(clock: Clock) -> None:
    camera = SyntheticCamera(Address("synthetic:infrared?size=64x96", "synthetic", "infrared?size=64x96"), clock)
    frames = iter(camera)
    next(frames)
    clock.move(1.0)
    assert next(frames).sequence == 25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("synthetic:thermal", "synthetic:thermal is no camera of the street; needed synthetic:infrared"),
        ("synthetic:infrared?size=9", "size is '9'; it must be HEIGHTxWIDTH"),
        ("synthetic:infrared?seed=x", "seed is 'x'"),
        (f"synthetic:infrared?seed={'9' * 5000}", "from 0 to 999999999"),
        ("synthetic:infrared?speed=2", "unknown option 'speed'"),
    ],
)
def test_a_wrong_synthetic_camera_is_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        open_camera(text)


def test_stop_ends_a_camera_that_waits_for_its_next_frame(write_pairs) -> None:
    folder, _ = write_pairs(("a", "b"))
    source = LiveSource(f"paced:{folder}?rate_hz=0.01")
    source.start()
    with source.arrived:
        assert source.arrived.wait_for(lambda: source.received == 1, 20)
    assert source.files
    assert source.stop(20)
    assert source.state is SourceState.ENDED
