"""V4L2 devices as cameras, on a fake capture: whose clock stamps the frames, and how a loss is told."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge import open_camera
from cled_edge.camera import v4l2
from cled_edge.camera.live_source import LiveSource, SourceState
from cled_edge.errors import OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import ARRIVAL, MONOTONIC
from tests.fakes.capture import Capture
from tests.fakes.live_camera import Clock


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


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch):
    def put(**how) -> Capture:
        capture = Capture([0.0], **how)
        monkeypatch.setattr(v4l2.os.path, "exists", lambda path: True)
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
        return capture

    return put


@pytest.mark.parametrize("is_flattened", [False, True])
@pytest.mark.parametrize(
    ("address", "formats"),
    [("7", ("Y16 ",)), ("/dev/video7?format=Y16", ("YUYV", "Y16 ")), ("v4l2:7?format=Y12", ("YUYV", "Y12 "))],
)
def test_raw_grey_keeps_its_counts(address: str, formats: tuple[str, ...], is_flattened: bool, fake) -> None:
    capture = fake(formats=formats, is_flattened=is_flattened)
    with open_camera(address) as camera:
        image = next(iter(camera)).image
    assert image.dtype == np.uint16
    assert np.array_equal(image, capture.counts)


def test_a_format_that_a_camera_has_not_is_refused(fake) -> None:
    fake(formats=("YUYV",))
    with pytest.raises(OptionError, match="the camera gives YUYV, not Y16; choose one that v4l2-ctl lists"):
        open_camera("v4l2:7?format=Y16")


def test_a_frame_that_cannot_be_decoded_is_named(fake) -> None:
    fake(undecodable=0)
    with open_camera("7") as camera, pytest.raises(SourceUnreadableError, match="frame 0 cannot be decoded"):
        list(camera)


def test_opencv_gets_the_device_that_a_link_leads_to(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    (tmp_path / "usb-FLIR?Boson-video-index0").symlink_to("/dev/null")
    monkeypatch.setattr(cv2, "VideoCapture", lambda *how: opened.append(how) or Capture([0.0]))
    camera = open_camera(str(tmp_path / "usb-FLIR?Boson-video-index0"))
    assert camera.is_live
    assert opened == [("/dev/null", cv2.CAP_V4L2)]


def test_size_and_rate_are_asked_for_with_the_format(fake) -> None:
    capture = fake(formats=("YUYV", "MJPG"), sizes=((720, 1280),), rates_hz=(60.0,))
    with open_camera("/dev/video7?format=MJPG&size=720x1280&rate_hz=60") as camera:
        assert camera.rate_hz == 60.0
    assert (capture.format, capture.rate_hz, capture.get(cv2.CAP_PROP_FRAME_WIDTH)) == ("MJPG", 60.0, 1280.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=480x640", "the camera gives 4x6, not 480x640; choose one that v4l2-ctl lists"),
        ("rate_hz=9", "the camera gives 60 Hz, not 9 Hz; choose"),
        ("size=480", "size is '480'; it must be HEIGHTxWIDTH"),
        ("fomat=Y16", "/dev/video7.fomat=Y16 has the unknown option 'fomat'; did you mean format?"),
    ],
)
def test_what_a_camera_does_not_honour_is_refused_and_the_camera_closed(options: str, message: str, fake) -> None:
    capture = fake(rate_hz=60.0)
    with pytest.raises(OptionError, match=message):
        open_camera(f"/dev/video7?{options}")
    assert capture.released or "unknown" in message


def test_a_camera_that_returns_as_another_device_is_found_by_its_name(tmp_path, monkeypatch) -> None:
    link, clock = tmp_path / "usb-FLIR_Boson-video-index0", Clock()
    devices = [tmp_path / "video0", tmp_path / "video2"]
    opened = []

    def plug(device) -> None:
        device.touch()
        link.symlink_to(device)

    class Plugged(Capture):
        def isOpened(self) -> bool:  # noqa: N802
            return opened[-1].exists()

        def grab(self) -> bool:
            if len(opened) == 1 and self.at == 1:  # the reset of its USB port
                link.unlink()
                devices[0].unlink()
            return super().grab() and opened[-1].exists()

    def open_device(device: str, _kind: int) -> Capture:
        opened.append(Path(device))
        return Plugged([clock.ns / 1e6] * (3 if len(opened) == 1 else 10**6))

    monkeypatch.setattr(cv2, "VideoCapture", open_device)
    plug(devices[0])
    source = LiveSource(f"v4l2:{link}", now=clock)
    source.start()
    with source.arrived:
        assert source.arrived.wait_for(lambda: source.state is SourceState.LOST, 20)
    assert source.failure.endswith("gives no more frames, after 2; check its cable and power")
    for _ in range(1000):
        clock.move(0.1)
        with source.arrived:
            if source.arrived.wait_for(lambda: "does not exist" in source.failure, 0.02):
                break
    plug(devices[1])
    for _ in range(1000):
        clock.move(0.1)
        with source.arrived:
            if source.arrived.wait_for(lambda: source.reopened == 1, 0.02):
                break
    assert opened == devices
    assert source.stop(20)
