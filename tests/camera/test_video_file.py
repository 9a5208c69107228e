"""Videos as cameras: presentation times, and what cannot be decoded."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge import open_camera
from cled_edge.errors import SourceMissingError, SourceUnreadableError
from cled_edge.frame import MEDIA, ORDER
from tests.fakes.capture import Capture
from tests.fakes.frames import write_video


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


def test_a_pipe_is_refused_as_opencv_would_wait_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceUnreadableError, match="pipe is no regular file"):
        open_camera(f"video:{tmp_path / 'pipe'}")


@pytest.mark.parametrize("scheme", ["folder", "picture", "video", "v4l2"])
def test_an_address_without_a_place_is_refused(scheme: str) -> None:
    with pytest.raises(SourceMissingError, match=f"{scheme}: names no place; give one, such as {scheme}:PLACE"):
        open_camera(f"{scheme}:")
