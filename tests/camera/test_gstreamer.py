"""Pipelines of GStreamer as cameras, on a fake capture; and what an OpenCV without GStreamer says."""

import cv2
import pytest

from cled_edge import open_camera
from cled_edge.camera.source import is_live
from cled_edge.errors import BackendError, SourceUnreadableError
from cled_edge.frame import ARRIVAL
from tests.fakes.capture import Capture

PIPELINE = "gst:rtspsrc location=rtsp://me:hunter2@cam/a user-id=me user-pw=hunter2 ! decodebin ! videoconvert"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list:
    found: list = []
    monkeypatch.setattr(cv2.videoio_registry, "getBackends", lambda: (cv2.CAP_GSTREAMER,))
    monkeypatch.setattr(cv2.videoio_registry, "isBackendBuiltIn", lambda _backend: True)

    def capture(*how) -> Capture:
        found.append(how)
        return Capture([0.0, 0.0, 0.0], rate_hz=60.0, undecodable=1)

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    return found


def test_a_pipeline_gives_what_arrives_and_hides_its_password(opened: list) -> None:
    assert is_live(PIPELINE)
    with open_camera(PIPELINE) as camera:
        assert camera.rate_hz == 60.0
        frames = iter(camera)
        first, second = next(frames), next(frames)
        with pytest.raises(SourceUnreadableError, match=r"gst:rtspsrc location=rtsp://\*\*\*@cam/a .* ended after 2"):
            next(frames)
    assert (first.clock, first.timestamp_ns, second.sequence) == (ARRIVAL, first.arrival_ns, 1)
    assert camera.oddities == {"corrupt": 1}
    assert "hunter2" not in first.source
    ((pipeline, backend),) = opened
    assert pipeline == PIPELINE.removeprefix("gst:") + " ! appsink drop=true max-buffers=1 sync=false"
    assert backend == cv2.CAP_GSTREAMER


def test_a_pipeline_with_a_sink_of_its_own_keeps_it(opened: list) -> None:
    with open_camera("gst:videotestsrc ! appsink max-buffers=4"):
        assert opened[0][0] == "videotestsrc ! appsink max-buffers=4"


def test_a_pipeline_that_does_not_start_is_named(opened: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "isOpened", lambda self: False)
    with pytest.raises(SourceUnreadableError, match="does not start; needed a pipeline that ends in raw video"):
        open_camera("gst:nosuchsrc")


def _no_plugin(_backend: int) -> None:
    raise cv2.error("Backend 'GSTREAMER' is not available")


@pytest.mark.parametrize("listed", [(), (cv2.CAP_GSTREAMER,)], ids=["no backend", "a plugin that is not there"])
def test_an_opencv_without_gstreamer_says_so(monkeypatch: pytest.MonkeyPatch, listed: tuple[int, ...]) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "getBackends", lambda: listed)
    monkeypatch.setattr(cv2.videoio_registry, "isBackendBuiltIn", lambda _backend: False)
    monkeypatch.setattr(cv2.videoio_registry, "getStreamBackendPluginVersion", _no_plugin)
    with pytest.raises(BackendError, match="this OpenCV has none; needed one built with it"):
        open_camera("gst:videotestsrc")
