"""Cameras: what an address means, what each kind yields, and what is refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge import open_camera
from cled_edge.camera import v4l2
from cled_edge.camera.picture_folder import find_pictures
from cled_edge.camera.source import CAMERAS, camera_address, is_live
from cled_edge.errors import NoPairsError, OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import ARRIVAL, MEDIA, MONOTONIC, ORDER
from tests.fakes.frames import write_video


@pytest.mark.parametrize(
    ("text", "scheme", "place"),
    [
        ("0", "v4l2", "0"),
        ("/dev/video2", "v4l2", "/dev/video2"),
        ("/dev/v4l/by-id/usb-FLIR-index0", "v4l2", "/dev/v4l/by-id/usb-FLIR-index0"),
        ("/dev/null", "v4l2", "/dev/null"),  # any character device
        ("v4l2:3", "v4l2", "3"),
        ("folder:0", "folder", "0"),
        ("video:clip", "video", "clip"),
        ("clip.mp4", "video", "clip.mp4"),
        ("a:b.mp4", "video", "a:b.mp4"),  # one letter is no scheme
        ("run:1.mp4", "video", "run:1.mp4"),  # exists
        ("a.png", "picture", "a.png"),
        ("pictures", "folder", "pictures"),
        ("pictures/*.png", "folder", "pictures/*.png"),
    ],
)
def test_what_an_address_means(
    text: str, scheme: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("clip.mp4", "a:b.mp4", "run:1.mp4", "a.png"):
        (tmp_path / name).touch()
    address = camera_address(text)
    assert (address.text, address.scheme, address.place) == (text, scheme, place)
    assert is_live(text) == (scheme == "v4l2")


def test_addresses_that_mean_nothing_are_refused() -> None:
    with pytest.raises(SourceMissingError, match="none does not exist; give a camera, a video"):
        camera_address("none")
    with pytest.raises(OptionError, match=r"unknown scheme 'rtsp'; known: folder, picture, v4l2, video; write \./rtsp"):
        camera_address("rtsp://host/stream?x=1")
    with pytest.raises(OptionError, match="an address is empty"):
        camera_address("")


def test_folders_globs_and_pictures(write_pairs, tmp_path: Path) -> None:
    infrared, _ = write_pairs(("a", "b"))
    assert [p.stem for p in find_pictures(str(infrared)) or []] == ["a", "b"]
    assert [p.stem for p in find_pictures(str(infrared / "b*.png")) or []] == ["b"]
    assert [p.stem for p in find_pictures(str(infrared / "a.png")) or []] == ["a"]
    (tmp_path / "v.mp4").touch()
    assert find_pictures(str(tmp_path / "v.mp4")) is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoPairsError):
        find_pictures(str(tmp_path / "empty"))
    with pytest.raises(NoPairsError):
        find_pictures(str(tmp_path / "*.png"))
    with pytest.raises(SourceMissingError):
        find_pictures(str(tmp_path / "none"))


def test_a_folder_yields_its_pictures_in_order_as_they_are_stored(tmp_path: Path) -> None:
    counts, color = np.full((4, 6), 30000, np.uint16), np.zeros((4, 6, 3), np.uint8)
    color[:, :, 0] = 200
    cv2.imwrite(str(tmp_path / "b.png"), counts)
    cv2.imwrite(str(tmp_path / "a.png"), color)
    with open_camera(f"folder:{tmp_path}") as camera:
        assert (camera.is_live, camera.has_names, camera.announced, camera.rate_hz) == (False, True, 2, None)
        first, second = camera
    assert (first.name, first.sequence, first.timestamp_ns, first.clock) == ("a", 0, 0, ORDER)
    assert (second.name, second.sequence, second.clock) == ("b", 1, ORDER)
    assert np.array_equal(first.image, color)
    assert first.color_order == "BGR"
    assert np.array_equal(second.image, counts)
    assert second.source == str(tmp_path / "b.png")


def test_a_video_has_presentation_times(tmp_path: Path, rng) -> None:
    images = [np.full((48, 64, 3), 20 * k, np.uint8) for k in range(6)]
    write_video(tmp_path / "clip.mp4", images, 12.5)
    with open_camera(str(tmp_path / "clip.mp4")) as camera:
        assert (camera.announced, camera.rate_hz, camera.has_names) == (6, 12.5, False)
        frames = list(camera)
    assert [frame.timestamp_ns for frame in frames] == [80_000_000 * k for k in range(6)]
    assert {frame.clock for frame in frames} == {MEDIA}
    assert [frame.sequence for frame in frames] == list(range(6))
    assert [int(frame.image.mean().round()) for frame in frames] == pytest.approx([20 * k for k in range(6)], abs=6)


class Capture:
    """An OpenCV capture of grey frames with the stamps that a driver gives, in ms."""

    def __init__(self, stamps_ms: list[float], rate_hz: float = 0.0, undecodable: int = -1) -> None:
        self.stamps_ms, self.rate_hz, self.undecodable, self.at = stamps_ms, rate_hz, undecodable, -1
        self.released = 0

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FPS: self.rate_hz, cv2.CAP_PROP_FRAME_COUNT: -1e15}.get(what) or self.stamps_ms[self.at]

    def grab(self) -> bool:
        self.at += 1
        return self.at < len(self.stamps_ms)

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return (False, None) if self.at == self.undecodable else (True, np.zeros((4, 6), np.uint8))

    def release(self) -> None:
        self.released += 1


def test_a_stream_without_times_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw.h264").touch()
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Capture([0.0, 0.0, 0.0]))
    with open_camera(str(tmp_path / "raw.h264")) as camera:
        assert (camera.announced, camera.rate_hz) == (None, None)
        assert [(f.timestamp_ns, f.clock) for f in camera] == [(0, MEDIA), (1, ORDER), (2, ORDER)]


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Capture([0.0, 40.0], undecodable=1))
    with (
        open_camera(str(tmp_path / "clip.mp4")) as camera,
        pytest.raises(SourceUnreadableError, match="frame 1 cannot"),
    ):
        list(camera)


@pytest.mark.parametrize(
    ("age_ms", "clock"), [(20.0, MONOTONIC), (4900.0, MONOTONIC), (5100.0, ARRIVAL), (-1.0, ARRIVAL), (1e12, ARRIVAL)]
)
def test_a_drivers_stamp_counts_where_it_is_plausible(age_ms: float, clock: str) -> None:
    now_ns = 86_400_000_000_000
    stamp_ns, found = v4l2.stamped(now_ns / 1e6 - age_ms, now_ns)
    assert found == clock
    assert stamp_ns == (pytest.approx(now_ns - age_ms * 1e6, abs=1e3) if clock == MONOTONIC else now_ns)


def test_a_device_is_live_and_its_end_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(v4l2.os.path, "exists", lambda path: True)
    capture = Capture([0.0, 0.0])
    monkeypatch.setattr(cv2, "VideoCapture", lambda *how: opened.append(how) or capture)
    with open_camera("7") as camera:
        assert (camera.is_live, camera.announced, camera.rate_hz, camera.files) == (True, None, 30.0, ())
        frames = iter(camera)
        assert [next(frames).clock for _ in range(2)] == [ARRIVAL] * 2
        with pytest.raises(SourceUnreadableError, match="camera 7 gives no more frames, after 2; check its cable"):
            next(frames)
    assert opened == [("/dev/video7", cv2.CAP_V4L2)]
    assert capture.released == 1


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(SourceMissingError, match="/dev/video97 does not exist; list cameras with: ls /dev/video"):
        open_camera("v4l2:97")


def test_every_kind_of_the_registry_loads() -> None:
    for scheme in CAMERAS:
        with pytest.raises((SourceMissingError, SourceUnreadableError)):
            list(open_camera(f"{scheme}:/none/at/all.png"))
