"""Pairing by stem, and what a source string means."""

from pathlib import Path

import pytest

from cled_edge.camera.source import find_pictures, is_camera, open_pair
from cled_edge.errors import NoPairsError, OptionError, SourceMissingError, SourceUnreadableError, UnmatchedStemsError
from cled_edge.pairing import pair_by_stem


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


def test_an_empty_side_is_no_pairs() -> None:
    with pytest.raises(NoPairsError, match="visible side"):
        pair_by_stem(paths("a.png"), [])


@pytest.mark.parametrize(("source", "camera"), [("0", True), ("/dev/video2", True), ("a.mp4", False), ("-1", False)])
def test_cameras_are_told_by_name(source: str, camera: bool) -> None:
    assert is_camera(source) == camera


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


def test_two_single_pictures_pair_whatever_their_names(write_pairs) -> None:
    infrared, visible = write_pairs(("a", "b"))
    with open_pair(str(infrared / "a.png"), str(visible / "b.png")) as source:
        assert [pair.name for pair in source] == ["b"]


def test_globs_pair_by_stem(write_pairs) -> None:
    infrared, visible = write_pairs(("a", "b", "c"))
    with open_pair(str(infrared / "[ab].png"), str(visible / "[ab].png")) as source:
        assert [pair.name for pair in source] == ["a", "b"]


def test_a_name_too_long_for_the_system_is_refused(write_pairs) -> None:
    infrared, _ = write_pairs(("a",))
    with pytest.raises(SourceUnreadableError, match="cannot be read"):
        open_pair("x" * 5000, str(infrared))


def test_mixed_kinds_and_missing_cameras(write_pairs, tmp_path: Path) -> None:
    infrared, _ = write_pairs(("a",))
    video = tmp_path / "broken.mp4"
    video.write_bytes(b"not a video")
    with pytest.raises(OptionError, match="different kinds"):
        open_pair(str(infrared), str(video))
    with pytest.raises(SourceUnreadableError, match=r"broken\.mp4"):
        open_pair(str(video), str(video))
    with pytest.raises(SourceMissingError, match="/dev/video97 does not exist"):
        open_pair("97", "98")
