"""Outputs: what an address means, colour order, which image is shown, and what each kind leaves behind."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge.errors import OptionError, OutputError
from cled_edge.frame import FusedFrame
from cled_edge.image import ColorOrder
from cled_edge.output.sink import OUTPUTS, OutputSettings, open_output, output_address
from cled_edge.output.window import window_toolkit

RED, GREEN, BLUE = (200, 20, 20), (20, 200, 20), (20, 20, 200)


def fused(color_order: ColorOrder = "RGB", name: str = "a", size: tuple[int, int] = (48, 64)) -> FusedFrame:
    """A red picture and a green restored visible, in the colour order; a restored infrared of level 90."""
    red, green = (
        np.full((*size, 3), color if color_order == "RGB" else color[::-1], np.uint8) for color in (RED, GREEN)
    )
    return FusedFrame(red, np.full(size, 90, np.uint8), green, color_order=color_order, name=name)


@pytest.mark.parametrize(
    ("text", "scheme", "place"),
    [
        ("window", "window", "window"),
        ("window:", "window", ""),
        ("a/fused.PNG", "picture", "a/fused.PNG"),
        ("a/fused.MP4", "video", "a/fused.MP4"),
        ("video:fused.mkv", "video", "fused.mkv"),
        ("fused", "folder", "fused"),
        ("a/run.mcap", "mcap", "a/run.mcap"),
        ("fused.mp4?segment_s=60&keep=3", "video", "fused.mp4?segment_s=60&keep=3"),
        ("rtsp://host:8554/fused", "rtsp", "//host:8554/fused"),
        ("folder:window", "folder", "window"),
        ("folder:fused.mp4", "folder", "fused.mp4"),
        ("./window", "folder", "./window"),
    ],
)
def test_what_an_address_means(text: str, scheme: str, place: str) -> None:
    address = output_address(text)
    assert (address.scheme, address.place) == (scheme, place)


def test_a_modality_before_the_address_says_what_is_shown() -> None:
    assert OutputSettings.parse("visible=a.mp4") == OutputSettings("a.mp4", "visible")
    assert OutputSettings.parse("fused=window") == OutputSettings("window")
    assert OutputSettings.parse("k=v") == OutputSettings("k=v"), "another name is a part of the path"
    assert OutputSettings.parse("./overly=a.mp4") == OutputSettings("./overly=a.mp4")


@pytest.mark.parametrize(("text", "near"), [("overly=a.mp4", "overlay"), ("side_by_side=b", "side-by-side")])
def test_a_misspelt_view_makes_no_folder_of_that_name(text: str, near: str) -> None:
    with pytest.raises(OptionError, match=rf"shows the unknown view .*; did you mean {near}\?"):
        OutputSettings.parse(text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"to": ""}, "an address is empty"),
        ({"to": "-"}, "- is standard output, to which nothing is streamed; give a file or a folder"),
        (
            {"to": "srt://me:secret@host/a"},
            rf"address srt://\*\*\*@host/a has the unknown scheme 'srt'; known: {', '.join(sorted(OUTPUTS))}",
        ),
        ({"to": "a.webm"}, "a.webm names a file; give a folder, a video"),
        ({"to": "a", "shows": "thermal"}, "shows is 'thermal'; needed one of fused, infrared, visible"),
        ({"to": "a", "policy": "hurry"}, "policy is 'hurry'; needed one of wait, drop"),
        ({"to": "a", "queue_frames": 0}, "queue_frames is 0; it must be 1 or more"),
        ({"to": "a", "queue_frames": 1.5}, "queue_frames is 1.5; it must be 1 or more, a whole number"),
        ({"to": "a", "queue_frames": True}, "queue_frames is True; it must be 1 or more"),
        ({"to": "a", "queue_frames": "3"}, "queue_frames is '3'; it must be 1 or more"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        OutputSettings(**values)


def test_places_that_the_kind_cannot_take_are_refused() -> None:
    with pytest.raises(OptionError, match=r"video:fused names no video; give a name that ends in \.avi"):
        open_output("video:fused")
    with pytest.raises(OptionError, match="folder: names no folder"):
        open_output("folder:")


def test_making_an_output_touches_nothing(tmp_path: Path) -> None:
    for address in (f"folder:{tmp_path / 'a'}", str(tmp_path / "b" / "c.mp4"), "window"):
        open_output(address)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
def test_a_folder_honours_the_colour_order_and_what_it_shows(color_order: ColorOrder, tmp_path: Path) -> None:
    for shows, expected in (("fused", RED[::-1]), ("visible", GREEN[::-1]), ("infrared", 90)):
        with open_output(f"{shows}=folder:{tmp_path / shows}") as output:
            assert output.target == tmp_path / shows
            assert output.write(fused(color_order))
        stored = cv2.imread(str(tmp_path / shows / "a.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(stored, np.broadcast_to(np.uint8(expected), stored.shape))
        assert stored.ndim == (2 if shows == "infrared" else 3)


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
@pytest.mark.parametrize(("shows", "expected"), [("fused", RED[::-1]), ("infrared", (90, 90, 90))])
def test_a_video_honours_them_too(color_order: ColorOrder, shows: str, expected: object, tmp_path: Path) -> None:
    path = tmp_path / "fused.mp4"
    with open_output(f"{shows}={path}", rate_hz=12.5) as output:
        output.write(fused(color_order))
        assert not path.exists(), "a draft until it is closed"
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == 12.5
    assert capture.read()[1].mean(axis=(0, 1)) == pytest.approx(expected, abs=8)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, OutputError, ZeroDivisionError])
def test_a_video_is_kept_whatever_ends_it(error: type[BaseException] | None, tmp_path: Path) -> None:
    output = open_output(str(tmp_path / "fused.mp4"))
    output.__enter__()
    output.write(fused())
    output.__exit__(error, error("the end") if error else None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["fused.mp4"]


def test_a_video_of_no_frame_leaves_no_file(tmp_path: Path) -> None:
    with open_output(str(tmp_path / "fused.mp4")):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
def test_a_window_shows_bgr_and_ends_on_q(color_order: ColorOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, shown, windows = [255, ord("q")], [], []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda title, flags: windows.append(title))
    monkeypatch.setattr(cv2, "destroyWindow", windows.remove)
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append((title, tuple(image[0, 0].tolist()))))
    monkeypatch.setattr(cv2, "waitKey", lambda delay_ms: keys.pop(0))
    with open_output("visible=window") as window:
        assert windows == ["cled-edge visible"]
        assert window.write(fused(color_order))
        assert not window.write(fused(color_order))
        assert (window.drops, window.on_main_thread, window.target) == (True, True, None)
    assert windows == []
    assert shown == [("cled-edge visible", GREEN[::-1])] * 2


def test_a_window_without_a_screen_is_refused_before_qt_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM", "OPENCV_UI_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("cled_edge.output.window.window_toolkit", lambda: "QT5")
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: pytest.fail("Qt would have ended the process"))
    with pytest.raises(OutputError, match="neither DISPLAY nor WAYLAND_DISPLAY is set"), open_output("window"):
        pass


@pytest.mark.parametrize(("gui", "toolkit"), [("NONE", ""), ("GTK2", "GTK2"), ("QT5", "QT5")])
def test_an_older_opencv_says_in_its_build_information_whether_it_has_windows(
    gui: str, toolkit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cv2, "currentUIFramework", raising=False)
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: f"  Video:\n  GUI:                           {gui}\n")
    assert window_toolkit() == toolkit


def test_every_kind_of_the_registry_loads(tmp_path: Path) -> None:
    for scheme in OUTPUTS:
        name = {"picture": "a.png", "rerun": "a.rrd"}.get(scheme, "a.mp4")
        assert open_output(f"{scheme}:{tmp_path / name}").address.scheme == scheme


def test_no_output_takes_frames_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_output("none:") as output:
        assert output.write(fused())
    assert list(tmp_path.iterdir()) == []
