"""Cameras: what an address means, what pictures yield, and what is refused."""

import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge import open_camera
from cled_edge.camera import network_stream
from cled_edge.camera.picture_folder import find_pictures
from cled_edge.camera.source import CAMERAS, camera_address, is_live
from cled_edge.errors import (
    BackendError,
    NoPairsError,
    OptionError,
    SourceMissingError,
    SourceUnreadableError,
    without_credentials,
)
from cled_edge.frame import ORDER


@pytest.mark.parametrize(
    ("text", "scheme", "place"),
    [
        ("0", "v4l2", "0"),
        ("/dev/video2", "v4l2", "/dev/video2"),
        ("/dev/v4l/by-id/usb-FLIR-index0", "v4l2", "/dev/v4l/by-id/usb-FLIR-index0"),
        ("/dev/null", "v4l2", "/dev/null"),  # any character device
        ("v4l2:3", "v4l2", "3"),
        ("folder:0", "folder", "0"),
        ("video:clip", "video", "clip"),
        ("clip.mp4", "video", "clip.mp4"),
        ("a:b.mp4", "video", "a:b.mp4"),  # one letter is no scheme
        ("run:1.mp4", "video", "run:1.mp4"),  # exists
        ("a.png", "picture", "a.png"),
        ("pictures", "folder", "pictures"),
        ("pictures/*.png", "folder", "pictures/*.png"),
    ],
)
def test_what_an_address_means(
    text: str, scheme: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("clip.mp4", "a:b.mp4", "run:1.mp4", "a.png"):
        (tmp_path / name).touch()
    address = camera_address(text)
    assert (address.text, address.scheme, address.place) == (text, scheme, place)
    assert is_live(text) == (scheme == "v4l2")


def test_addresses_that_mean_nothing_are_refused() -> None:
    with pytest.raises(SourceMissingError, match="none does not exist; give a camera, a video"):
        camera_address("none")
    with pytest.raises(
        OptionError, match=rf"unknown scheme 'ftp'; known: {', '.join(sorted(CAMERAS))}; write \./ftp://\*\*\*@host"
    ):
        camera_address("ftp://me:secret@host/stream?x=1")
    with pytest.raises(OptionError, match="an address is empty"):
        camera_address("")


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


def test_a_folder_yields_its_pictures_in_order_as_they_are_stored(tmp_path: Path) -> None:
    counts, color = np.full((4, 6), 30000, np.uint16), np.zeros((4, 6, 3), np.uint8)
    color[:, :, 0] = 200
    cv2.imwrite(str(tmp_path / "b.png"), counts)
    cv2.imwrite(str(tmp_path / "a.png"), color)
    with open_camera(f"folder:{tmp_path}") as camera:
        assert (camera.is_live, camera.has_names, camera.announced, camera.rate_hz) == (False, True, 2, None)
        first, second = camera
    assert (first.name, first.sequence, first.timestamp_ns, first.clock) == ("a", 0, 0, ORDER)
    assert (second.name, second.sequence, second.clock) == ("b", 1, ORDER)
    assert np.array_equal(first.image, color)
    assert first.color_order == "BGR"
    assert np.array_equal(second.image, counts)
    assert second.source == str(tmp_path / "b.png")


def test_every_kind_of_the_registry_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_stream, "OPEN_WITHIN_S", 0.2)
    for scheme in CAMERAS:
        with pytest.raises((SourceMissingError, SourceUnreadableError, OptionError, BackendError)):
            list(open_camera(f"{scheme}://127.0.0.1:1/none/at/all.png"))


def test_a_folder_called_0_is_a_folder_unless_there_is_a_camera_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "98").mkdir()
    assert camera_address("98").scheme == "folder"
    assert camera_address("97").scheme == "v4l2"
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/video98" or exists(path))
    with pytest.raises(OptionError, match=r"98 is a camera and a file or folder; write v4l2:98 or \./98"):
        camera_address("98")
    assert camera_address("./98").scheme == "folder"
    assert camera_address("v4l2:98").scheme == "v4l2"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_in_either_form_of_unicode(form: str, tmp_path: Path) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    folder = tmp_path / unicodedata.normalize(form, "nächte") / unicodedata.normalize(form, "café")
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    typed = unicodedata.normalize(other, str(folder))
    assert camera_address(typed).scheme == "folder"
    assert find_pictures(typed) == [folder / "a.png"]
    assert camera_address(f"folder:{typed}").place == str(folder)


def test_an_explicit_scheme_yields_to_a_file_of_the_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "video:1.png").touch()
    assert camera_address("video:1.png").scheme == "picture"


@pytest.mark.parametrize("text", ["rtsp://host/stream?x=1", "RTSP://host/a*", "http://host:80/[a].mp4"])
def test_a_url_is_no_glob(text: str) -> None:
    address = camera_address(text)
    assert (address.text, address.scheme) == (text, text[:4].lower())
    assert is_live(text)


def test_what_begins_with_a_dot_is_no_picture_of_a_folder(write_pairs) -> None:
    infrared, _ = write_pairs(("a", "b"))
    for name in ("._a.png", "._b.png", ".hidden.png"):
        (infrared / name).write_bytes(bytes(4096))
    for address in (infrared, infrared / "*.png", infrared / "*"):
        assert [path.name for path in find_pictures(str(address)) or []] == ["a.png", "b.png"]


@pytest.mark.parametrize("suffix", [".pgm", ".ppm", ".pnm", ".PGM"])
def test_any_maps_are_pictures(suffix: str, tmp_path: Path, rng) -> None:
    counts = rng.integers(7000, 9000, (24, 32)).astype(np.uint16)
    (tmp_path / f"a{suffix}").write_bytes(cv2.imencode(".pgm", counts)[1].tobytes())
    for address in (tmp_path / f"a{suffix}", tmp_path):
        with open_camera(str(address)) as camera:
            (frame,) = camera
        assert np.array_equal(frame.image, counts)


def test_a_tiff_of_several_pages_is_as_many_frames(tmp_path: Path, rng) -> None:
    pages = [rng.integers(7000, 9000, (24, 32)).astype(np.uint16) for _ in range(3)]
    cv2.imwritemulti(str(tmp_path / "stack.tif"), pages)
    with open_camera(str(tmp_path / "stack.tif")) as camera:
        frames = list(camera)
    assert camera.announced == 3
    assert [frame.name for frame in frames] == ["stack_000", "stack_001", "stack_002"]
    assert all(np.array_equal(frame.image, page) for frame, page in zip(frames, pages, strict=True))
    with open_camera(str(tmp_path)) as folder:
        (frame,) = folder
    assert "has 3 pages, of which the first is used" in frame.notes[0]


def test_an_address_with_a_password_and_no_scheme_is_told_what_it_lacks() -> None:
    with pytest.raises(OptionError, match=r"^address \*\*\*@cam/a has a password and no scheme; needed rtsp://"):
        open_camera("admin:secret@cam/a")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:p@ss/w@10.0.0.2:554/a?x=1", "rtsp://***@10.0.0.2:554/a?x=1"),
        ("rtsp://admin:p@ss@10.0.0.2:554/a?x=1", "rtsp://***@10.0.0.2:554/a?x=1"),
        ("http://cam/mjpg?user=a&password=b%20c&size=2", "http://cam/mjpg?user=***&password=***&size=2"),
        ("two: rtsp://a:b@c/d and http://e/f?token=g", "two: rtsp://***@c/d and http://e/f?token=***"),
        ("/dev/video0?format=Y16", "/dev/video0?format=Y16"),
        ("rtsp:/admin:secret@10.0.0.2/a", "rtsp:/***@10.0.0.2/a"),
        ("rtsp//admin:secret@10.0.0.2/a", "rtsp//***@10.0.0.2/a"),
        ("RTSP:admin:secret@10.0.0.2/a", "RTSP:***@10.0.0.2/a"),
        ("rtsp://admin:two words@10.0.0.2/a", "rtsp://***@10.0.0.2/a"),
        ("rtsp://10.0.0.2:554/a and folder:a@b", "rtsp://10.0.0.2:554/a and folder:a@b"),
        ("visible=user:p@ss/w@host:554/a at 12:30 @ b", "visible=***@host:554/a at 12:30 @ b"),
        ("'admin:secret@cam' and picture:shot@2x.png", "'***@cam' and picture:shot@2x.png"),
    ],
)
def test_credentials_are_never_shown(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
