"""Pairing: by stem for pictures, by sequence for streams, and what does not fit together."""

from pathlib import Path

import numpy as np
import pytest

from cled_edge.errors import NoPairsError, OptionError, SourceMissingError, SourceUnreadableError, UnmatchedStemsError
from cled_edge.frame import MEDIA
from cled_edge.pairing import open_pair, pair_by_stem
from tests.fakes.frames import write_video


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


def test_videos_pair_by_sequence_until_the_shorter_ends(tmp_path: Path) -> None:
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
