"""The command line as a user runs it: a child process, its exit code, its one line of error, its files."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge.bundle.reader import shipped_bundle
from cled_edge.image import read_image
from tests.fakes.frames import write_video


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cled_edge.cli", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False)


def fuse(infrared: object, visible: object, out: object, *more: object) -> subprocess.CompletedProcess[str]:
    return run("fuse", "--infrared", infrared, "--visible", visible, "--out", out, *more)


@pytest.fixture
def videos(tmp_path: Path, rng) -> tuple[Path, Path]:
    paths = tmp_path / "infrared.mp4", tmp_path / "visible.mp4"
    for path in paths:
        write_video(path, (rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(7)), 12.0)
    return paths


def frames_of(video: Path) -> tuple[int, float, tuple[int, int]]:
    capture = cv2.VideoCapture(str(video))
    rate_hz = capture.get(cv2.CAP_PROP_FPS)
    count, size = 0, (0, 0)
    while True:
        read, frame = capture.read()
        if not read:
            return count, rate_hz, size
        count, size = count + 1, frame.shape[:2]


def test_folders_give_one_png_per_stem(write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a", "b", "c"), (40, 56))
    out, restored = tmp_path / "out", tmp_path / "restored"
    done = fuse(infrared, visible, out, "--restored", restored, "--json", "--strength-visible", 0)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["read"], report["written"], report["announced"], report["size"]) == (3, 3, [3, 3], [40, 56])
    stages = ("steps", "fusion") if "steps" in report["latency_ms"] else ("network",)  # as the bundle has it
    assert list(report["latency_ms"]) == ["wait", "decode", "prepare", *stages, "output", "write", "total"]
    assert 0 < report["first_frame_s"] < 60
    assert report["dropped"] == 0
    assert set(report["latency_ms"]["total"]) == {"p50", "p90", "p99", "max"}
    for folder in (out, restored / "infrared", restored / "visible"):
        assert sorted(p.name for p in folder.iterdir()) == ["a.png", "b.png", "c.png"]
    kept = read_image(restored / "visible" / "a.png", color=True)
    assert np.array_equal(kept, read_image(visible / "a.png", color=True))
    assert cv2.imread(str(restored / "infrared" / "a.png"), cv2.IMREAD_UNCHANGED).ndim == 2


def test_videos_keep_count_size_and_rate(videos, tmp_path: Path) -> None:
    out = tmp_path / "fused.mp4"
    done = fuse(*videos, out, "--steps", 1)
    assert done.returncode == 0, done.stderr
    assert frames_of(out) == (7, 12.0, (48, 64))
    assert "fused 7 pairs of 48x64" in done.stdout
    assert "p99" in done.stdout
    assert "Traceback" not in done.stderr


def test_max_frames_stops_early(videos, tmp_path: Path) -> None:
    done = fuse(*videos, tmp_path / "fused.mp4", "--steps", 1, "--max-frames", 3, "--json")
    assert json.loads(done.stdout)["written"] == 3
    assert frames_of(tmp_path / "fused.mp4")[0] == 3


@dataclass
class Call:
    """Arguments of a call that would work, for a case to spoil."""

    folder: Path
    infrared: Path
    visible: Path
    out: Path
    more: tuple[object, ...] = ()

    def with_bundle(self, damage: Callable[[Path], object]) -> None:
        bundle = Path(shutil.copytree(shipped_bundle(), self.folder / "damaged"))
        damage(bundle)
        self.more = ("--bundle", bundle)


def option(*more: object) -> Callable[[Call], None]:
    def spoil(call: Call) -> None:
        call.more = more

    return spoil


def missing(call: Call) -> None:
    call.infrared = call.folder / "none"


def unreadable(call: Call) -> None:
    call.infrared = call.visible = call.folder / "broken.mp4"
    call.infrared.write_bytes(b"\0" * 100)


def empty(call: Call) -> None:
    call.infrared = call.folder / "empty"
    call.infrared.mkdir()


def other_stem(call: Call) -> None:
    (call.visible / "b.png").rename(call.visible / "z.png")


def other_size(call: Call) -> None:
    cv2.imwrite(str(call.visible / "a.png"), np.zeros((40, 60, 3), np.uint8))


def cut(bundle: Path) -> None:
    graph = bundle / "fusion.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])


def alter(bundle: Path) -> None:
    graph = bundle / "fusion.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 0xFF
    graph.write_bytes(content)


def other_version(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 2', '"schema_version": 99'))


def bundle(damage: Callable[[Path], object]) -> Callable[[Call], None]:
    return lambda call: call.with_bundle(damage)


def under_a_file(name: str) -> Callable[[Call], None]:
    def spoil(call: Call) -> None:
        (call.folder / "file").touch()
        call.out = call.folder / "file" / name

    return spoil


def window(call: Call) -> None:
    call.out = Path("window")
    try:
        cv2.namedWindow("probe")
    except cv2.error:
        return
    pytest.skip("this OpenCV can open windows")


BAD_INPUT = {
    "steps 0": (option("--steps", 0), 2, "steps is 0; it must lie between 1 and 10"),
    "steps 11": (option("--steps", 11), 2, "steps is 11; it must lie between 1 and 10"),
    "strength": (option("--strength-visible", -1), 2, "strength_visible is -1.0; it must lie between 0 and 1.5"),
    "missing": (missing, 3, "does not exist"),
    "unreadable": (unreadable, 4, "is not a video"),
    "empty": (empty, 5, "holds no pictures"),
    "stems": (other_stem, 6, "1 only in infrared: b; 1 only in visible: z"),
    "sizes": (other_size, 7, "infrared is 40x56, visible 40x60"),
    "bundle lacks file": (bundle(lambda b: (b / "unet_step.onnx").unlink()), 8, "unet_step.onnx does not exist"),
    "bundle truncated": (bundle(cut), 9, "has 1000 bytes, its manifest says"),
    "bundle altered": (bundle(alter), 9, "has SHA-256"),
    "bundle version": (bundle(other_version), 10, "schema version 99, needed 2"),
    "output folder": (under_a_file("fused"), 11, "cannot be written"),
    "output video": (under_a_file("fused.mp4"), 11, "cannot be written"),
    "window": (window, 11, "pip uninstall opencv-python-headless"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_its_own_code(case: str, write_pairs, tmp_path: Path) -> None:
    spoil, code, words = BAD_INPUT[case]
    call = Call(tmp_path, *write_pairs(("a", "b")), tmp_path / "out")
    spoil(call)
    before = sorted(p.name for p in tmp_path.iterdir())
    done = fuse(call.infrared, call.visible, call.out, *call.more)
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == before, "something was left behind"


def test_a_late_pair_that_is_wrong_keeps_the_video_of_those_before(write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a", "b", "c", "d"))
    cv2.imwrite(str(visible / "c.png"), np.zeros((8, 8, 3), np.uint8))
    done = fuse(infrared, visible, tmp_path / "fused.mp4", "--steps", 1)
    assert done.returncode == 7
    assert "fused 2 pairs" in done.stdout
    assert "pair c: infrared is 40x56, visible 8x8" in done.stderr
    assert frames_of(tmp_path / "fused.mp4")[0] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fused.mp4", "infrared", "visible"]


def test_help_names_every_option_and_version_answers() -> None:
    done = run("fuse", "--help")
    assert done.returncode == 0
    options = "--infrared --out --restored --strength-visible --balance --bundle --max-frames --config --json -v -q"
    for option in options.split():
        assert option in done.stdout
    assert run("--version").stdout.strip() == "0.1.0"
    assert run("fuse", "--nonsense").returncode == 2


def test_videos_of_unequal_length_end_with_the_shorter_and_say_so(videos, tmp_path: Path, rng) -> None:
    longer = tmp_path / "longer.mp4"
    write_video(longer, (rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(9)), 12.0)
    done = fuse(videos[0], longer, tmp_path / "fused.mp4", "--steps", 1)
    assert done.returncode == 0, done.stderr
    assert frames_of(tmp_path / "fused.mp4")[0] == 7
    assert "announced: 7 infrared, 9 visible frames" in done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_inputs_are_never_overwritten(write_pairs, videos, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a", "b"))
    before = contents(tmp_path)
    for done in (
        fuse(infrared, visible, tmp_path / "out", "--restored", tmp_path),
        fuse(infrared, visible, visible),
        fuse(infrared / "a.png", visible / "a.png", tmp_path / "infrared" / ".." / "visible"),
        fuse(*videos, videos[1]),
    ):
        assert done.returncode == 2, done.stderr
        assert "would overwrite" in done.stderr
    both = fuse(infrared, visible, tmp_path / "r" / "infrared", "--restored", tmp_path / "r")
    assert both.returncode == 2
    assert "two outputs write" in both.stderr
    assert contents(tmp_path) == before


def test_a_file_that_is_no_video_is_not_made_a_folder(write_pairs, tmp_path: Path) -> None:
    done = fuse(*write_pairs(("a",)), tmp_path / "fused.webm", "--steps", 1)
    assert done.returncode == 2
    assert "names a file; give a folder, a video" in done.stderr
    assert not (tmp_path / "fused.webm").exists()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff"])
def test_one_pair_goes_to_one_picture(suffix: str, write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a", "b"))
    out = tmp_path / f"fused{suffix}"
    done = fuse(infrared / "a.png", visible / "a.png", out, "--steps", 1)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(out)).shape == (40, 56, 3)
    out.unlink()
    many = fuse(infrared, visible, out, "--steps", 1)
    assert many.returncode == 2
    assert "holds 1 picture, but 2 pairs come; give a folder or a video" in many.stderr
    assert not out.exists()
    assert fuse(infrared, visible, out, "--steps", 1, "--max-frames", 1).returncode == 0


@pytest.mark.parametrize("way", ["folder of links", "links to links", "hard link", "folder by a link"])
def test_inputs_behind_links_are_never_overwritten(way: str, write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a",))
    links, out = tmp_path / "links", tmp_path / "links"
    links.mkdir()
    if way == "folder by a link":
        links.rmdir()
        links.symlink_to(visible)
        given = out = links
    else:
        for stem in ("a.png",):
            (links / stem).hardlink_to(visible / stem) if way == "hard link" else (links / stem).symlink_to(
                visible / stem
            )
        given = links
    if way == "links to links":
        given = tmp_path / "more"
        given.mkdir()
        (given / "a.png").symlink_to(links / "a.png")
    before = contents(tmp_path)
    done = fuse(infrared, given, out, "--steps", 1)
    assert done.returncode == 2, done.stderr
    assert "would overwrite" in done.stderr
    assert contents(tmp_path) == before
    if way != "hard link":
        assert (links / "a.png").resolve() == visible / "a.png"


def test_odd_sides_are_padded_for_video_said_once_and_kept_in_a_folder(write_pairs, tmp_path: Path) -> None:
    pairs = write_pairs(("a", "b"), (45, 61))
    done = fuse(*pairs, tmp_path / "fused.mp4", "--steps", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("45x61 is padded to 46x62, as video needs even sides") == 1
    assert frames_of(tmp_path / "fused.mp4")[2] == (46, 62)
    assert fuse(*pairs, tmp_path / "fused", "--steps", 1).returncode == 0
    assert cv2.imread(str(tmp_path / "fused" / "a.png")).shape == (45, 61, 3)


def test_a_damaged_video_keeps_what_was_fused_and_says_so(tmp_path: Path, rng) -> None:
    whole, half = tmp_path / "whole.avi", tmp_path / "half.avi"
    write_video(whole, (rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(20)), 12.0)
    content = whole.read_bytes()
    half.write_bytes(content[: len(content) // 2])
    done = fuse(whole, half, tmp_path / "fused.mp4", "--steps", 1, "--json")
    assert done.returncode == 4
    assert "of 20 frames; the file is damaged" in done.stderr
    report = json.loads(done.stdout)
    assert 0 < report["written"] < 20
    assert "half.avi" in report["failure"]
    assert frames_of(tmp_path / "fused.mp4")[0] == report["written"]


def test_what_is_wrong_with_a_pair_names_it(write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a", "b"))
    cv2.imwrite(str(visible / "b.png"), np.zeros((40, 56, 3), np.uint16))
    done = fuse(infrared, visible, tmp_path / "out", "--steps", 1)
    assert done.returncode == 2
    assert "pair b: visible pictures must be 8 bit, this one is uint16" in done.stderr
    assert (tmp_path / "out" / "a.png").exists()


def test_any_number_of_outputs_at_once(videos, tmp_path: Path) -> None:
    outputs = [tmp_path / "fused.mp4", tmp_path / "pngs", f"infrared={tmp_path / 'infrared.avi'}"]
    more = [part for output in outputs[1:] for part in ("--out", output)]
    done = fuse(*videos, outputs[0], *more, "--steps", 1, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["clocks"] == ["media", "media"]
    assert [(each["to"], each["shows"], each["policy"]) for each in report["outputs"]] == [
        (str(outputs[0]), "fused", "wait"),
        (str(outputs[1]), "fused", "wait"),
        (str(tmp_path / "infrared.avi"), "infrared", "wait"),
    ]
    assert all((each["written"], each["dropped"]) == (7, 0) for each in report["outputs"])
    assert frames_of(outputs[0]) == frames_of(tmp_path / "infrared.avi") == (7, 12.0, (48, 64))
    assert [path.name for path in sorted(outputs[1].iterdir())] == [f"{k:06d}.png" for k in range(7)]


def test_a_file_gives_the_options_and_flags_win(write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a", "b"))
    config = tmp_path / "robot.toml"
    config.write_text(
        f"""
        [cameras]
        infrared = "{infrared}"
        visible = "{visible}"
        [controls]
        steps = 1
        strength_infrared = 0
        strength_visible = 0
        [[outputs]]
        to = "{tmp_path / "kept"}"
        shows = "visible"
        [[outputs]]
        to = "{tmp_path / "fused"}"
        [run]
        max_frames = 1
        json = true
        """
    )
    done = run("fuse", "--config", config, "--max-frames", 2, "--strength-infrared", 1)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["written"], report["steps"]) == (2, 1)
    kept = read_image(tmp_path / "kept" / "b.png", color=True)
    assert np.array_equal(kept, read_image(visible / "b.png", color=True)), "strength 0 is the file's"
    other = run("fuse", "--config", config, "--out", tmp_path / "other", "--no-json")
    assert (other.returncode, len(list((tmp_path / "other").iterdir()))) == (0, 1)
    assert "fused 1 pair of" in other.stdout


def test_what_is_missing_is_named_with_where_to_write_it(write_pairs, tmp_path: Path) -> None:
    infrared, _ = write_pairs(("a",))
    done = run("fuse", "--infrared", infrared, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "no visible camera is named; needed its address; give --visible, or visible under [cameras]" in done.stderr
    config = tmp_path / "robot.toml"
    config.write_text("[model]\nbackned = 1\n")
    done = run("fuse", "--config", config, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("write model.backend")


def test_infrared_is_read_as_the_options_say(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint16) * 10, (50, 1))
    counts = (7000 + ramp).astype(np.uint16)
    counts[-2:] = 65535  # telemetry
    cv2.imwrite(str(tmp_path / "I1_lwir.png"), counts)
    cv2.imwrite(str(tmp_path / "I1_rgb.png"), np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    options = ("--infrared-range", "7000,7630", "--infrared-polarity", "black-hot", "--infrared-crop", "0,2")
    done = fuse(
        tmp_path / "*_lwir.png",
        tmp_path / "*_rgb.png",
        tmp_path / "fused",
        *("--restored", tmp_path / "restored", "--strength-infrared", 0, *options),
    )
    assert done.returncode == 0, done.stderr
    assert "infrared: 7000 to 7630 counts; bad pixels replaced; polarity black-hot" in done.stdout
    restored = read_image(tmp_path / "restored" / "infrared" / "I1_rgb.png", color=False)
    assert restored.shape == (48, 64)
    assert np.abs(restored.astype(int) - (255 - np.rint(255 * (counts[:48] - 7000.0) / 630))).max() <= 1


def test_names_are_options_of_fuse_and_of_score(tmp_path: Path, rng) -> None:
    for name, channels in (("L1", ()), ("L2", ()), ("R1", (3,)), ("R2", (3,))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), rng.integers(0, 256, (48, 64, *channels), np.uint8))
    names = ("--names", "L{name}", "R{name}")
    done = fuse(tmp_path, tmp_path, tmp_path / "fused", "--steps", 1, *names)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "fused").iterdir()) == ["R1.png", "R2.png"]
    scored = run(
        "score", "--infrared", tmp_path, "--visible", tmp_path, "--fused", tmp_path / "fused", *names, "--json"
    )
    assert scored.returncode == 0, scored.stderr
    assert [row["stem"] for row in json.loads(scored.stdout)["rows"]] == ["R1", "R2"]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--infrared-range", "7000", "--infrared-range is '7000'; needed LOW,HIGH"),
        ("--infrared-range", "9,7", "needed a low and a higher value"),
        ("--infrared-crop", "a,b", "--infrared-crop is 'a,b'; needed ABOVE,BELOW"),
        ("--infrared-crop", "0,99", "needed fewer"),
        ("--infrared-crop", "-1,0", "none below 0"),
        ("--infrared-polarity", "hot", "known: white-hot, black-hot"),
    ],
)
def test_infrared_options_of_another_form_are_refused(
    option: str, value: str, words: str, write_pairs, tmp_path
) -> None:
    done = fuse(*write_pairs(("a",)), tmp_path / "out", option, value)
    assert done.returncode == 2
    assert words in done.stderr


def test_what_was_noted_of_the_inputs_is_said_once(write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a", "b"))
    for path in infrared.iterdir():
        cv2.imwrite(str(path), cv2.applyColorMap(cv2.imread(str(path), 0), cv2.COLORMAP_JET))
    done = fuse(infrared, visible, tmp_path / "out", "--steps", 1)
    assert done.stdout.count("an infrared image is coloured") == 1
    assert "(2 of 2 pairs)" in done.stdout
