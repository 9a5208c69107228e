"""V4L2 devices as cameras, on a fake capture: whose clock stamps the frames, and how a loss is told."""

import cv2
import numpy as np
import pytest

from cled_edge import open_camera
from cled_edge.camera import v4l2
from cled_edge.errors import OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import ARRIVAL, MONOTONIC
from tests.fakes.capture import Capture


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
