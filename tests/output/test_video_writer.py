"""A video as an output: its speed, its codec, what a power cut leaves of it, and what its notes say."""

import os
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

# isort: split
import av

from cled_edge.errors import OptionError, OutputError
from cled_edge.frame import ARRIVAL, MEDIA, MONOTONIC, ORDER, FusedFrame
from cled_edge.output import encoder, growing_file
from cled_edge.output.sink import open_output
from cled_edge.output.video_writer import Timeline

CONTAINERS = [".mp4", ".mkv", ".mov", ".avi"]


def fused(level: int, timestamp_ns: int | None = None, clock: str = ORDER, size=(48, 64), states=None) -> FusedFrame:
    color = np.full((*size, 3), level, np.uint8)
    images = color, color[:, :, 0].copy(), color
    return FusedFrame(*images, name=str(level), timestamp_ns=timestamp_ns, clock=clock, states=states)


def times_in(video: Path) -> list[float]:
    with av.open(str(video)) as container:
        return [frame.time for frame in container.decode(video=0)]


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_live_recording_plays_at_the_speed_at_which_it_was_taken(suffix: str, tmp_path: Path) -> None:
    """A camera that says 30 Hz, and gave 10 frames a second with a pause of 2 s."""
    taken_s = [0.0, 0.1, 0.2, 0.3, 2.3, 2.4]
    with open_output(str(tmp_path / f"a{suffix}"), rate_hz=30.0) as video:
        for index, second in enumerate(taken_s):
            video.write(fused(index, 10**15 + round(second * 1e9), MONOTONIC))
    assert times_in(tmp_path / f"a{suffix}") == pytest.approx(taken_s, abs=0.02)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_recorded_source_keeps_its_rate_to_every_reader(suffix: str, tmp_path: Path) -> None:
    rate_hz = 30000 / 1001
    with open_output(str(tmp_path / f"a{suffix}"), rate_hz=rate_hz) as video:
        for index in range(20):
            video.write(fused(index, round(index / rate_hz * 1e9), MEDIA))
    capture = cv2.VideoCapture(str(tmp_path / f"a{suffix}"), cv2.CAP_FFMPEG)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(rate_hz, rel=1e-3)
    assert sum(1 for _ in iter(lambda: capture.read()[0], False)) == 20
    assert times_in(tmp_path / f"a{suffix}") == pytest.approx([k / rate_hz for k in range(20)], abs=0.002)


def test_times_always_grow() -> None:
    times = Timeline(40)
    stamps = [(1000, MEDIA), (1040, MEDIA), (1040, MEDIA), (900, MEDIA), (930, MEDIA), (7, ARRIVAL), (9, ARRIVAL)]
    assert [times.of(*each) for each in stamps] == [0, 40, 80, 120, 150, 190, 192]
    assert times.of(None, ORDER) == 232
    assert times.of(11, ARRIVAL) == 272, "after the frame without a time"


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_power_cut_leaves_all_but_the_last_second(suffix: str, tmp_path: Path, monkeypatch) -> None:
    """Each copy is what the disk surely has: what was written before the last time that it was synchronised."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("copies an open file by /proc")
    on_disk = tmp_path / f"on_disk{suffix}"
    now_s, synced_at_s = 0.0, []

    def sync(descriptor: int) -> None:
        synced_at_s.append(now_s)
        shutil.copy(f"/proc/self/fd/{descriptor}", on_disk)

    monkeypatch.setattr(growing_file, "sync", sync)
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with open_output(str(tmp_path / f"a{suffix}"), rate_hz=10.0) as video:
        for index in range(60):
            now_s += 0.1
            video.write(fused(index))
            if index >= 12:
                assert len(times_in(on_disk)) >= index - 12
    assert max(np.diff(synced_at_s[:5])) < 1.2


def test_h264_is_written_and_what_browsers_do_not_play_is_said(tmp_path: Path, monkeypatch) -> None:
    for name, pixels in (("h264", "yuv420p"), ("mjpeg", "yuvj420p")):
        if name == "mjpeg":
            monkeypatch.setattr(encoder, "_ENCODERS", (("no_such_encoder", "H.264", "yuv420p", {}),))
        video = open_output(str(tmp_path / f"{name}.mp4"))
        with video:
            video.write(fused(7))
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            context = container.streams.video[0].codec_context
            assert (context.name, context.pix_fmt) == (name, pixels)
        words = "which browsers do not play: PyAV has no encoder of H.264"
        assert (words in " ".join(video.notes)) == (name == "mjpeg")


def test_a_frame_of_another_size_is_refused_and_those_before_are_kept(tmp_path: Path) -> None:
    with open_output(f"{tmp_path}/a.mp4") as video:
        for index in range(2):
            video.write(fused(index))
        with pytest.raises(OutputError, match="2 is 48x66, the video 48x64"):
            video.write(fused(2, size=(48, 66)))
    assert len(times_in(tmp_path / "a.mp4")) == 2


def test_a_live_frame_of_another_size_is_fitted_and_said_once(tmp_path: Path) -> None:
    with open_output(f"{tmp_path}/a.mp4") as video:
        for size in ((48, 64), (96, 64), (96, 64), (48, 64)):
            video.write(fused(200, size=size, states=("open", "open")))
    assert video.notes == [f"{tmp_path}/a.mp4: a camera changed its size; all is fitted into 48x64"]
    with av.open(str(tmp_path / "a.mp4")) as container:
        levels = [frame.to_ndarray(format="gray")[24] for frame in container.decode(video=0)]
    assert [row.shape for row in levels] == [(64,)] * 4
    assert levels[1][:12].max() < 30
    assert levels[1][20:44].min() > 150


def test_a_live_frame_of_another_size_begins_a_segment(tmp_path: Path) -> None:
    with open_output(f"{tmp_path}/a.mp4?segment_s=60") as video:
        for size in ((48, 64), (96, 64)):
            video.write(fused(9, size=size, states=("open", "open")))
    heights = set()
    for path in tmp_path.iterdir():
        with av.open(str(path)) as container:
            heights.add(container.streams.video[0].height)
    assert heights == {48, 96}


def test_an_older_video_stays_whole_until_the_new_one_is(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    path.chmod(0o640)
    with open_output(str(path)) as video:
        video.write(fused(1))
        assert path.read_bytes() == b"older"
    assert len(times_in(path)) == 1
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="makes symbolic links")
def test_a_link_at_the_target_or_at_the_partial_name_is_never_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    for name in ("a.mp4", "a.partial.mp4"):
        (tmp_path / name).symlink_to(victim)
    with open_output(f"{tmp_path}/a.mp4") as video:
        video.write(fused(1))
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "a.mp4").is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="nothing is locked there")
def test_a_second_writer_of_one_video_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with open_output(f"{tmp_path}/a.mp4") as first:
        first.write(fused(1))
        with pytest.raises(OutputError, match=r"a\.mp4 is being written by another run, as a\.partial\.mp4"):
            open_output(f"{tmp_path}/a.mp4").__enter__()
        first.write(fused(2))
    assert len(times_in(tmp_path / "a.mp4")) == 2


@pytest.mark.parametrize("module", ["cled_edge.output.encoder", "cled_edge.camera.video_file"])
def test_opencv_is_loaded_before_pyav(module: str) -> None:
    """The other way round, OpenCV's windows hang for ever: opencv#29195."""
    code = f"import sys, {module}; names = list(sys.modules); print(names.index('cv2') < names.index('av'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_a_segmented_video_begins_a_file_each_time_and_keeps_the_newest(tmp_path: Path) -> None:
    minutes = iter(range(100))
    video = open_output(f"{tmp_path}/a.mp4?segment_s=2&keep=3")
    video.now_utc = lambda: datetime(2026, 11, 28, 8, next(minutes), tzinfo=timezone.utc)
    with video:
        for index in range(22):  # 11 s at two a second
            video.write(fused(index, index * 500_000_000, MONOTONIC))
            assert len(list(tmp_path.iterdir())) <= 3
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["a-20261128-080300.mp4", "a-20261128-080400.mp4", "a-20261128-080500.mp4"]
    assert [times_in(tmp_path / name) for name in files] == [[0, 0.5, 1, 1.5], [0, 0.5, 1, 1.5], [0, 0.5]]


def test_segments_of_one_second_have_names_of_their_own(tmp_path: Path) -> None:
    video = open_output(f"{tmp_path}/a.mp4?segment_s=1")
    video.now_utc = lambda: datetime(2026, 11, 28, tzinfo=timezone.utc)
    with video:
        for index in range(3):
            video.write(fused(index, index * 10**9, MONOTONIC))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a-20261128-000000-2.mp4", "a-20261128-000000-3.mp4", "a-20261128-000000.mp4"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("segment_s=0", "segment_s is '0'; needed a number from 1"),
        ("segment_s=", "segment_s is ''; needed a number"),
        ("keep=3", "keeps some segments and has none; needed segment_s"),
        ("segments_s=3", "unknown option 'segments_s'; did you mean segment_s"),
    ],
)
def test_wrong_segments_are_refused(options: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        open_output(f"a.mp4?{options}")
