"""Videos as cameras: presentation times, and what cannot be decoded."""

import os
import sys
from pathlib import Path

import cv2  # noqa: F401 (before av, as in the package)
import numpy as np
import pytest

# isort: split
import av

from cled_edge import open_camera
from cled_edge.camera.video_file import image_of
from cled_edge.errors import SourceMissingError, SourceUnreadableError
from cled_edge.frame import MEDIA, ORDER
from tests.fakes.frames import write_timed_video, write_video


def ramp(count: int) -> list[np.ndarray]:
    return [np.full((48, 64), 8 * k, np.uint8) for k in range(count)]


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


def test_a_stream_without_times_says_so(tmp_path: Path) -> None:
    write_timed_video(tmp_path / "raw.h264", ramp(5), codec="libx264", pixels="yuv420p")
    with open_camera(str(tmp_path / "raw.h264")) as camera:
        frames = list(camera)
    assert camera.announced is None
    assert {frame.clock for frame in frames} == {ORDER}
    assert [frame.timestamp_ns for frame in frames] == list(range(5))


@pytest.mark.parametrize("kind", ["gray", "gray16le", "gray10le", "gray12le"])
def test_grey_video_keeps_its_counts(kind: str, tmp_path: Path, rng) -> None:
    bits = 8 if kind == "gray" else int(kind.removeprefix("gray").removesuffix("le"))
    images = [rng.integers(0, 2**bits, (48, 66)).astype(np.uint8 if bits == 8 else np.uint16) for _ in range(3)]
    write_timed_video(tmp_path / "clip.mkv", images, pixels=kind)
    with open_camera(str(tmp_path / "clip.mkv")) as camera:
        for frame, image in zip(camera, images, strict=True):
            assert frame.image.dtype == image.dtype
            assert np.array_equal(frame.image, image)


PAUSES = [0, 120, 200, 320, 3000, 3120, 3200, 9000]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_uneven_times_are_those_of_the_file_and_no_damage(suffix: str, tmp_path: Path) -> None:
    write_timed_video(tmp_path / f"clip{suffix}", ramp(8), PAUSES, codec="libx264", pixels="yuv420p")
    with open_camera(str(tmp_path / f"clip{suffix}")) as camera:
        assert [round(frame.timestamp_ns / 1e6) for frame in camera] == PAUSES


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".avi"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.85])
def test_a_file_cut_short_is_damaged_however_it_begins(suffix: str, share: float, tmp_path: Path, rng) -> None:
    path = tmp_path / f"clip{suffix}"
    images = [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(60)]
    write_timed_video(path, images, codec="mjpeg", pixels="yuvj420p", fast_start=suffix in (".mp4", ".mov"))
    with open_camera(str(path)) as camera:
        assert len(list(camera)) == 60
    path.write_bytes(path.read_bytes()[: round(share * path.stat().st_size)])
    with open_camera(str(path)) as camera, pytest.raises(SourceUnreadableError, match="the file is damaged"):
        list(camera)


def test_a_damaged_frame_is_left_out_and_the_others_keep_their_times(tmp_path: Path, rng) -> None:
    path = tmp_path / "clip.mov"
    write_timed_video(path, [rng.integers(0, 256, (48, 64), np.uint8) for _ in range(20)], pixels="gray", codec="png")
    whole = bytearray(path.read_bytes())
    at = [k for k in range(len(whole)) if whole.startswith(b"IHDR", k)][7]
    whole[at : at + 60] = bytes(60)
    path.write_bytes(whole)
    with open_camera(str(path)) as camera:
        frames = list(camera)
    assert [frame.sequence for frame in frames] == [k for k in range(20) if k != 7]
    assert [round(frame.timestamp_ns / 40e6) for frame in frames] == [k for k in range(20) if k != 7]
    assert not frames[6].notes
    assert "cannot be decoded and are left out, 1 in all" in frames[7].notes[0]


@pytest.mark.parametrize("name", ["2024-05-01T12:00:00.mkv", "caf\udce9.mkv", "é ä%03d[1]?.mkv"])
def test_any_name_can_be_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_timed_video(tmp_path / "plain.mkv", ramp(3))
    try:
        os.rename("plain.mkv", name)
    except OSError:
        pytest.skip("needs a file system that takes names of any bytes")
    for address in (name, f"video:{name}", f"./{name}"):
        with open_camera(address) as camera:
            assert len(list(camera)) == 3


def test_a_playlist_that_calls_itself_a_video_opens_nothing_else(tmp_path: Path) -> None:
    write_timed_video(tmp_path / "secret.ts", ramp(30), codec="libx264", pixels="yuv420p")
    (tmp_path / "clip.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{tmp_path / 'secret.ts'}\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(SourceUnreadableError), open_camera(str(tmp_path / "clip.mp4")) as camera:
        list(camera)


def test_a_pipe_is_refused_as_opencv_would_wait_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceUnreadableError, match="pipe is no regular file"):
        open_camera(f"video:{tmp_path / 'pipe'}")


@pytest.mark.parametrize("scheme", ["folder", "picture", "video", "v4l2"])
def test_an_address_without_a_place_is_refused(scheme: str) -> None:
    with pytest.raises(SourceMissingError, match=f"{scheme}: names no place; give one, such as {scheme}:PLACE"):
        open_camera(f"{scheme}:")


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_converting_a_frame_starts_no_threads() -> None:
    frame = av.VideoFrame(160, 120, "yuv420p")
    before = len(os.listdir("/proc/self/task"))
    assert image_of(frame, "fake").shape == (120, 160, 3)
    assert len(os.listdir("/proc/self/task")) == before
