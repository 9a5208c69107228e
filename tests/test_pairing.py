"""Pairing: by stem for pictures, by sequence for streams, and what does not fit together."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge.errors import NoPairsError, OptionError, SourceMissingError, SourceUnreadableError, UnmatchedStemsError
from cled_edge.frame import MEDIA, Frame
from cled_edge.pairing import cropped, open_pair, pair_by_stem
from tests.fakes.frames import frame_of, write_timed_video, write_video


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


def test_pairs_come_sorted_whatever_the_suffix() -> None:
    pairs = pair_by_stem(paths("b.png", "a.tif"), paths("a.jpg", "b.jpg"))
    assert [(stem, i.name, v.name) for stem, i, v in pairs] == [("a", "a.tif", "a.jpg"), ("b", "b.png", "b.jpg")]


def test_lonely_stems_are_named_on_both_sides() -> None:
    with pytest.raises(UnmatchedStemsError) as caught:
        pair_by_stem(paths("a.png", "b.png"), paths("a.png", *(f"c{i}.png" for i in range(5))))
    assert "1 only in infrared: b" in str(caught.value)
    assert "5 only in visible: c0, c1, c2 and 2 more" in str(caught.value)


def test_a_stem_twice_is_refused() -> None:
    with pytest.raises(UnmatchedStemsError, match="infrared stem 'a' occurs twice"):
        pair_by_stem(paths("a.png", "a.jpg"), paths("a.png"))


def test_a_modality_without_pictures_is_no_pairs() -> None:
    with pytest.raises(NoPairsError, match="there are no visible pictures; needed one at least"):
        pair_by_stem(paths("a.png"), [])


def test_two_single_pictures_pair_whatever_their_names(write_pairs) -> None:
    infrared, visible = write_pairs(("a", "b"))
    with open_pair(str(infrared / "a.png"), str(visible / "b.png")) as pairs:
        assert [pair.name for pair in pairs] == ["b"]
        assert pairs.announced == (1, 1)


def test_a_picture_and_a_folder_pair_by_stem(write_pairs) -> None:
    infrared, visible = write_pairs(("a", "b"))
    with pytest.raises(UnmatchedStemsError, match="1 only in infrared: b"):
        open_pair(str(infrared), str(visible / "a.png"))


def test_folders_and_globs_pair_in_the_order_of_stems(write_pairs) -> None:
    infrared, visible = write_pairs(("a-b", "a", "c"))
    (visible / "a.png").rename(visible / "a.bmp")  # by file name, a-b.png is before a.png and after a.bmp
    with open_pair(str(infrared / "[a]*"), str(visible / "a*")) as pairs:
        names = [(pair.infrared.name, pair.visible.name, pair.name) for pair in pairs]
    assert names == [("a", "a", "a"), ("a-b", "a-b", "a-b")]


def test_videos_of_one_rate_pair_until_the_shorter_ends(tmp_path: Path) -> None:
    for name, count in (("infrared", 3), ("visible", 5)):
        write_video(tmp_path / f"{name}.mp4", [np.zeros((48, 64, 3), np.uint8)] * count, 20.0)
    with open_pair(str(tmp_path / "infrared.mp4"), str(tmp_path / "visible.mp4")) as pairs:
        assert (pairs.announced, pairs.rate_hz, pairs.is_live) == ((3, 5), 20.0, False)
        assert [path.name for path in pairs.files] == ["infrared.mp4", "visible.mp4"]
        found = list(pairs)
    assert [pair.name for pair in found] == ["000000", "000001", "000002"]
    assert [pair.infrared.timestamp_ns for pair in found] == [0, 50_000_000, 100_000_000]
    assert {pair.visible.clock for pair in found} == {MEDIA}
    assert [pair.skew_ns for pair in found] == [0, 0, 0]


def test_a_name_too_long_for_the_system_is_refused(write_pairs) -> None:
    infrared, _ = write_pairs(("a",))
    with pytest.raises(SourceUnreadableError, match="cannot be read"):
        open_pair("x" * 5000, str(infrared))


def test_mixed_kinds_and_missing_cameras(write_pairs, tmp_path: Path) -> None:
    infrared, _ = write_pairs(("a",))
    video, broken = tmp_path / "whole.mp4", tmp_path / "broken.mp4"
    write_video(video, [np.zeros((48, 64, 3), np.uint8)], 20.0)
    broken.write_bytes(b"not a video")
    with pytest.raises(OptionError, match="different kinds"):
        open_pair(str(infrared), str(video))
    with pytest.raises(SourceUnreadableError, match=r"broken\.mp4"):
        open_pair(str(broken), str(broken))
    with pytest.raises(SourceMissingError, match="/dev/video97 does not exist"):
        open_pair("97", "98")


def test_cameras_that_do_not_pair_are_closed(monkeypatch: pytest.MonkeyPatch, write_pairs, tmp_path: Path) -> None:
    from cled_edge.camera.video_file import VideoFile

    infrared, _ = write_pairs(("a",))
    video = tmp_path / "whole.mp4"
    write_video(video, [np.zeros((48, 64, 3), np.uint8)], 20.0)
    closed = []
    monkeypatch.setattr(VideoFile, "close", lambda self: closed.append(self.address.text))
    for other in (str(infrared), str(tmp_path / "none")):
        with pytest.raises((OptionError, SourceMissingError)):
            open_pair(str(video), other)
    assert closed == [str(video)] * 2


def timed_video(path: Path, times_ms: list[int], **how) -> str:
    """A video whose brightness tells its time: one grey level for 40 ms."""
    write_timed_video(path, [np.full((16, 16), time // 40 % 256, np.uint8) for time in times_ms], times_ms, **how)
    return str(path)


def skews_ms(pairs) -> list[float]:
    return [abs(pair.skew_ns) / 1e6 for pair in pairs]


def test_a_slow_and_a_fast_stream_pair_by_time(tmp_path: Path) -> None:
    infrared = timed_video(tmp_path / "infrared.mkv", [round(k * 1000 / 9) for k in range(18)])
    visible = timed_video(tmp_path / "visible.mkv", [round(k * 1000 / 30) for k in range(60)])
    for one, other in ((infrared, visible), (visible, infrared)):
        with open_pair(one, other) as pairs:
            found = list(pairs)
        assert len(found) == 18
        assert max(skews_ms(found)) <= 1000 / 60 + 1
        assert sum(pairs.left_out) == 40


def test_a_pause_shifts_no_later_pair(tmp_path: Path) -> None:
    times = [100 * k for k in range(50)]
    infrared = timed_video(tmp_path / "infrared.mkv", [time for time in times if not 1000 <= time < 3000])
    visible = timed_video(tmp_path / "visible.mkv", times)
    with open_pair(infrared, visible) as pairs:
        found = list(pairs)
    assert len(found) == 30
    assert max(skews_ms(found)) == 0
    assert pairs.left_out == [0, 20]


def test_frames_lost_on_either_side_shift_no_later_pair(tmp_path: Path) -> None:
    times = [40 * k for k in range(100)]
    infrared = timed_video(tmp_path / "infrared.mkv", [time for time in times if time % 440])
    visible = timed_video(tmp_path / "visible.mkv", [time + 5 for time in times if time % 520])
    with open_pair(infrared, visible) as pairs:
        found = list(pairs)
    assert len(found) == 100 - 10 - 8 + 1
    assert max(skews_ms(found)) == pytest.approx(0, abs=5)


def test_pauses_of_both_at_different_times_pair_nothing_across(tmp_path: Path) -> None:
    infrared = timed_video(tmp_path / "infrared.mkv", [0, 100, 200, 2500, 2600])
    visible = timed_video(tmp_path / "visible.mkv", [0, 100, 1000, 1100, 2500])
    with open_pair(infrared, visible) as pairs:
        assert skews_ms(pairs) == [0, 0, 0]


def test_recordings_of_one_clock_keep_their_distance_and_say_so(tmp_path: Path) -> None:
    infrared = timed_video(tmp_path / "infrared.mkv", [2000 + 40 * k for k in range(50)])
    visible = timed_video(tmp_path / "visible.mkv", [40 * k for k in range(100)])
    with open_pair(infrared, visible) as pairs:
        found = list(pairs)
    assert [pair.visible.timestamp_ns for pair in found] == [pair.infrared.timestamp_ns for pair in found]
    assert found[0].visible.timestamp_ns == 2_000_000_000
    assert "the infrared begins 2.00 s after the visible" in found[0].infrared.notes[0]


def test_the_delay_of_an_encoder_is_no_distance(tmp_path: Path) -> None:
    infrared = timed_video(tmp_path / "infrared.mkv", [80 + 40 * k for k in range(20)])
    visible = timed_video(tmp_path / "visible.mkv", [40 * k for k in range(20)])
    with open_pair(infrared, visible) as pairs:
        found = list(pairs)
    assert len(found) == 20
    assert [pair.infrared.sequence for pair in found] == [pair.visible.sequence for pair in found]


def test_recordings_of_other_times_are_no_pairs(tmp_path: Path) -> None:
    infrared = timed_video(tmp_path / "infrared.mkv", [0, 40, 80])
    visible = timed_video(tmp_path / "visible.mkv", [30_000, 30_040, 30_080])
    with (
        open_pair(infrared, visible) as pairs,
        pytest.raises(NoPairsError, match=r"infrared has 0.00 to 0.08 s, visible 30.00 to 30.0. s"),
    ):
        list(pairs)


def test_streams_without_times_pair_by_count_and_say_so(tmp_path: Path) -> None:
    how = {"codec": "libx264", "pixels": "yuv420p"}
    raw = timed_video(tmp_path / "raw.h264", [0, 40, 80], **how)
    with open_pair(raw, raw) as pairs:
        found = list(pairs)
    assert [pair.skew_ns for pair in found] == [None] * 3
    assert "paired by count" in found[0].infrared.notes[0]
    with (
        open_pair(raw, timed_video(tmp_path / "clip.mkv", [0, 40, 80])) as pairs,
        pytest.raises(SourceUnreadableError, match=r"raw\.h264 has no times and the other stream has"),
    ):
        list(pairs)


@pytest.mark.parametrize(("visible_rows", "kept"), [(20, 17), (17, 17)])
def test_a_crop_cuts_rows_off_the_infrared_and_off_a_visible_of_its_height(visible_rows: int, kept: int, rng) -> None:
    infrared = rng.integers(0, 255, (20, 8), np.uint8)
    visible = rng.integers(0, 255, (visible_rows, 8, 3), np.uint8)
    one, other = cropped(frame_of(infrared), frame_of(visible), (1, 2))
    assert np.array_equal(one.image, infrared[1:18])
    assert len(other.image) == kept
    assert cropped(frame_of(infrared), frame_of(visible), (0, 0))[0].image is infrared
    with pytest.raises(OptionError, match="the crop cuts 15 and 5 rows off 20 of the infrared"):
        cropped(frame_of(infrared), frame_of(visible), (15, 5))


def test_each_infrared_frame_is_processed_in_order_and_before_the_crop(write_pairs) -> None:
    infrared, visible = write_pairs(("a", "b", "c"))
    taken = []

    def process(frame: Frame) -> Frame:
        taken.append((frame.name, len(frame.image)))
        return replace(frame, image=frame.image + np.uint8(1), event="shutter")

    with open_pair(str(infrared), str(visible), crop_rows=(0, 2), process=process) as pairs:
        fused = list(pairs)
    rows = len(fused[0].visible.image)
    assert taken == [("a", rows + 2), ("b", rows + 2), ("c", rows + 2)]
    assert all(pair.infrared.event == "shutter" and not pair.visible.event for pair in fused)


def test_files_of_unequal_page_counts_are_refused(tmp_path: Path, rng) -> None:
    for name, count in (("a", 3), ("b", 2)):
        pages = [rng.integers(0, 255, (24, 32), np.uint8) for _ in range(count)]
        cv2.imwritemulti(str(tmp_path / f"{name}.tif"), pages)
    with pytest.raises(UnmatchedStemsError, match=r"a\.tif has 3 pages, .*b\.tif 2; needed as many in both"):
        open_pair(str(tmp_path / "a.tif"), str(tmp_path / "b.tif"))
    with open_pair(str(tmp_path / "a.tif"), str(tmp_path / "a.tif")) as pairs:
        assert len(list(pairs)) == 3
