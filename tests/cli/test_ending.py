"""How runs end: signals, a killed process, a full disk, two runs at once, and what each leaves in the folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

# isort: split
import av
import typer

from cled_edge.cli import fusing
from cled_edge.errors import OutputError
from tests.fakes.frames import write_video

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
CONTAINERS = [".mp4", ".mkv", ".mov", ".avi"]


def arguments(folder: Path, out: str, *more: str) -> list[str]:
    places = "--infrared", str(folder / "infrared.mp4"), "--visible", str(folder / "visible.mp4")
    return [sys.executable, "-m", "cled_edge.cli", "fuse", *places, "--out", str(folder / out), *more]


def run(*words: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, **more)


def start(folder: Path, out: str, *more: str, ignored: tuple[signal.Signals, ...] = ()) -> subprocess.Popen[str]:
    """Start a run that lasts many seconds, and return when its video has a few frames."""

    def prepare() -> None:
        # A shell that runs the tests in the background hands down an ignored SIGINT.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    process = subprocess.Popen(
        arguments(folder, out, "--steps", "10", *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,  # noqa: PLW1509
    )
    partial = (folder / out).with_suffix(f".partial{Path(out).suffix}")
    deadline_s = time.monotonic() + 60
    while frames_by_opencv(partial) < 3 and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    return process


def frames_by_opencv(video: Path) -> int:
    if not video.exists():
        return 0
    capture, count = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG), 0
    while capture.read()[0]:
        count += 1
    return count


def frames_by_pyav(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.fixture
def cameras(tmp_path: Path) -> Path:
    """Write two long videos and return their folder."""
    for name in ("infrared", "visible"):
        write_video(tmp_path / f"{name}.mp4", (np.full((240, 320, 3), k, np.uint8) for k in range(250)), 25.0)
    return tmp_path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.stem not in ("infrared", "visible"))


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE"])
def test_a_signal_publishes_the_video_within_two_seconds(name: str, times: int, cameras: Path) -> None:
    process = start(cameras, "fused.mp4", "--json")
    told_s = time.monotonic()
    for _ in range(times):
        process.send_signal(getattr(signal, name))
        time.sleep(0.02)
    while not (cameras / "fused.mp4").exists() and time.monotonic() < told_s + 2:
        time.sleep(0.01)
    assert (cameras / "fused.mp4").exists(), "not published in time"
    output, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    report = json.loads(output)
    assert report["interrupted"]
    assert 3 <= report["written"] < 250
    assert frames_by_opencv(cameras / "fused.mp4") == frames_by_pyav(cameras / "fused.mp4") == report["written"]
    assert names_in(cameras) == ["fused.mp4"]


def test_a_run_under_nohup_outlives_its_terminal(cameras: Path) -> None:
    process = start(cameras, "fused.mp4", "--max-frames", "8", "--json", ignored=(signal.SIGHUP,))
    process.send_signal(signal.SIGHUP)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert json.loads(output)["written"] == 8


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_what_was_written_before_kill_9_plays_and_outlives_the_next_run(suffix: str, cameras: Path) -> None:
    process = start(cameras, f"fused{suffix}")
    process.kill()
    process.communicate(timeout=60)
    partial = cameras / f"fused.partial{suffix}"
    assert names_in(cameras) == [partial.name]
    kept = frames_by_opencv(partial)
    assert kept == frames_by_pyav(partial) >= 2
    done = run(*arguments(cameras, f"fused{suffix}", "--max-frames", "2"))
    assert done.returncode == 0, done.stderr
    assert f"an earlier run that did not end left {partial}" in done.stdout
    assert (frames_by_opencv(partial), frames_by_opencv(cameras / f"fused{suffix}")) == (kept, 2)
    assert names_in(cameras) == sorted([partial.name, f"fused{suffix}"])


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_disk_that_is_full_ends_with_exit_11_and_says_what_is_kept(suffix: str, tmp_path: Path, rng) -> None:
    resource = pytest.importorskip("resource")
    for name in ("infrared", "visible"):
        write_video(tmp_path / f"{name}.mp4", (rng.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(60)), 25.0)
    # As on a disk with room for so much: "File too large" stands for "No space left on device".
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # noqa: E731
    done = run(*arguments(tmp_path, f"fused{suffix}", "--steps", "1"), preexec_fn=limit)
    assert done.returncode == 11, done.stderr
    kept = frames_by_opencv(tmp_path / f"fused.partial{suffix}")
    assert 0 < kept < 60
    assert f"fused{suffix} cannot be written: File too large" in done.stderr
    assert "frames are kept in" in done.stderr
    assert names_in(tmp_path) == [f"fused.partial{suffix}"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("full", "code"), [("stdout", 11), ("stderr", 0)])
def test_a_full_disk_below_a_log_loses_no_frame(full: str, code: int, cameras: Path) -> None:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with open("/dev/full", "w") as nowhere:
        words = arguments(cameras, "fused.mp4", "--max-frames", "2", "-v", "--json")
        done = subprocess.run(words, check=False, text=True, timeout=120, **{**streams, full: nowhere})
    assert (done.returncode, frames_by_opencv(cameras / "fused.mp4")) == (code, 2)
    if done.stderr:
        assert "error: the standard output cannot be written: No space left on device; free room" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("out", ["fused.mp4", "fused"])
def test_of_two_runs_with_one_output_the_second_is_refused(out: str, cameras: Path) -> None:
    first = subprocess.Popen(
        arguments(cameras, out, "--steps", "10"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline_s = time.monotonic() + 60
        while not list(cameras.glob("fused.partial.mp4")) + list(cameras.glob("fused/*.png")):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        second = run(*arguments(cameras, out, "--max-frames", "1"))
        assert second.returncode == 11, second.stderr
        assert "another run" in second.stderr
        assert first.poll() is None, "the first goes on"
    finally:
        first.terminate()
        assert first.wait(timeout=60) == 130


@pytest.mark.parametrize("name", ["out.mp4", "out.png", "out"])
def test_a_pipe_is_refused_as_an_output_and_stays_a_pipe(name: str, cameras: Path) -> None:
    os.mkfifo(cameras / name)
    done = run(*arguments(cameras, name, "--max-frames", "1"))
    assert done.returncode == 11, done.stderr
    assert "it is a pipe" in done.stderr
    assert (cameras / name).is_fifo()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_lacks_a_letter_gets_the_report_without_it(encoding: str, cameras: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = run(*arguments(cameras, "夜.mp4", "--max-frames", "1"), env=environment)
    assert done.returncode == 0, done.stderr
    assert "?.mp4" in done.stdout
    assert (cameras / "夜.mp4").exists()


def test_a_report_that_nobody_reads_is_no_traceback(cameras: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        arguments(cameras, "fused.mp4", "--max-frames", "1"), stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
    assert frames_by_opencv(cameras / "fused.mp4") == 1


@pytest.mark.parametrize(("raised", "code"), [(None, 0), (typer.Exit(130), 130), (OutputError("the disk is full"), 11)])
def test_a_run_that_leaves_a_hanging_camera_has_the_code_of_what_it_did(raised, code, monkeypatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)

    def end() -> None:
        if raised:
            raise raised

    fusing._leave(end)
    assert codes == [code]


@pytest.mark.parametrize(
    ("state", "failure", "words"),
    [
        ("lost", "a: Connection refused; check it", ["infrared camera at the end: a: Connection refused; check it"]),
        ("opening", None, ["infrared camera at the end: being opened, it had given no frame yet"]),
        ("open", None, []),
    ],
)
def test_the_report_says_why_a_camera_gave_nothing(state: str, failure: str | None, words: list[str]) -> None:
    ledger = {"received": 0, "fused": 0, "dropped": {}, "unpaired": 0, "pending": 0}
    source = {"state": state, "failure": failure, "reopened": 0}
    live = {"age_ms": {}, "skew_ms": None, "degraded": {}, "ledger": {"infrared": ledger}}
    assert list(fusing._of_live({**live, "sources": {"infrared": source}}))[2:] == words


@pytest.mark.parametrize(("overtaken", "is_told"), [(50, False), (51, True)])
def test_the_report_says_how_a_loop_that_is_too_slow_gets_faster(overtaken: int, is_told: bool) -> None:
    ledger = {"received": 100, "fused": 49, "dropped": {"overtaken": overtaken}, "unpaired": 0, "pending": 0}
    source = {"state": "open", "failure": None, "reopened": 0}
    live = {"age_ms": {}, "skew_ms": None, "degraded": {}, "ledger": {"visible": ledger}}
    told = list(fusing._of_live({**live, "sources": {"visible": source}}))
    assert any("too slow for most visible frames" in line and "--backend auto" in line for line in told) == is_told
