"""MCAP files: a reader finds every message, stamps of live cameras are since 1970, and little is ever lost."""

import json
import struct
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge.errors import OutputError
from cled_edge.frame import MEDIA, MONOTONIC, Frame, FramePair, FusedFrame
from cled_edge.output.sink import open_output

reader = pytest.importorskip("mcap.reader", reason="needs the extra bags")
SIZE = 24, 32


def scene(index: int, clock: str = MEDIA, at_ns: int | None = None, counts: bool = False) -> FusedFrame:
    at_ns = index * 40_000_000 if at_ns is None else at_ns
    heat = np.full(SIZE, 7000 + index if counts else 60, np.uint16 if counts else np.uint8)
    color = np.full((*SIZE, 3), (200, 100, 50), np.uint8)
    pair = FramePair(Frame(heat, at_ns, clock, index, "ir"), Frame(color, at_ns, clock, index, "vis"))
    grey = np.full(SIZE, 60, np.uint8)
    return FusedFrame(color, grey, color, name=str(index), pair=pair, timestamp_ns=at_ns, clock=clock)


def messages(path: Path) -> dict[str, list[tuple[int, bytes]]]:
    found: dict[str, list[tuple[int, bytes]]] = {}
    with path.open("rb") as file:
        for _, channel, message in reader.make_reader(file).iter_messages():
            found.setdefault(channel.topic, []).append((message.log_time, message.data))
    return found


def jpeg_of(message: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(message[message.index(b"\xff\xd8") :], np.uint8), cv2.IMREAD_COLOR)


def test_a_bag_holds_inputs_fused_image_and_status(tmp_path: Path) -> None:
    with open_output(f"{tmp_path}/a.mcap") as bag:
        for index in range(3):
            bag.write(scene(index, counts=True))
    found = messages(tmp_path / "a.mcap")
    assert {topic: len(each) for topic, each in found.items()} == {
        "/infrared/image": 3,
        "/visible/image/compressed": 3,
        "/fused/image/compressed": 3,
        "/cled_edge/status": 3,
    }
    assert [stamp for stamp, _ in found["/infrared/image"]] == [0, 40_000_000, 80_000_000]
    image = found["/infrared/image"][2][1]
    assert np.frombuffer(image[-2 * SIZE[0] * SIZE[1] :], "<u2").tolist() == [7002] * (SIZE[0] * SIZE[1]), "lossless"
    assert b"mono16" in image
    assert abs(jpeg_of(found["/fused/image/compressed"][0][1]).astype(int) - (50, 100, 200)).max() < 4
    text = found["/cled_edge/status"][1][1]
    assert json.loads(text[8:-1])["name"] == "1"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.mcap"]


def test_a_message_is_laid_out_as_cdr_has_it(tmp_path: Path) -> None:
    from cled_edge.output.ros_message import image_message

    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    expected = b"\x00\x01\x00\x00" + struct.pack("<iI", 3, 7) + struct.pack("<I", 3) + b"ir\x00" + b"\x00"
    expected += (
        struct.pack("<III", 2, 3, 6) + b"mono8\x00" + b"\x00" + b"\x00" + struct.pack("<II", 3, 6) + bytes(range(6))
    )
    assert image_message(image, "mono8", 3 * 10**9 + 7, "ir") == expected


def test_live_frames_are_stamped_by_the_wall_clock(tmp_path: Path) -> None:
    taken_ns = time.monotonic_ns() - 500_000_000
    with open_output(f"mcap:{tmp_path}/a") as bag:
        bag.write(scene(0, MONOTONIC, taken_ns))
    ((stamp_ns, _),) = messages(tmp_path / "a")["/infrared/image"]
    assert 0.4 < (time.time_ns() - stamp_ns) / 1e9 < 10


def test_another_view_has_a_topic_of_its_name(tmp_path: Path) -> None:
    with open_output(f"side-by-side={tmp_path}/a.mcap") as bag:
        bag.write(scene(0))
    assert jpeg_of(messages(tmp_path / "a.mcap")["/side_by_side/image/compressed"][0][1]).shape == (24, 96, 3)


def test_nothing_is_left_without_a_frame(tmp_path: Path) -> None:
    with open_output(f"{tmp_path}/a.mcap"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_power_cut_leaves_what_was_written(tmp_path: Path) -> None:
    from mcap.stream_reader import StreamReader

    bag = open_output(f"{tmp_path}/a.mcap")
    bag.__enter__()
    for index in range(300):
        bag.write(scene(index))
    (partial,) = tmp_path.iterdir()
    with partial.open("rb") as file:
        seen = 0
        try:
            for record in StreamReader(file).records:
                seen += type(record).__name__ == "Message"
        except Exception:  # it ends in the middle
            assert seen
    assert seen > 4 * 300 - 1000
    bag.__exit__(None, None, None)


def test_a_full_disk_is_said_and_what_is_there_is_kept(tmp_path: Path, monkeypatch) -> None:
    from cled_edge.output import growing_file

    bag = open_output(f"{tmp_path}/a.mcap")
    bag.__enter__()
    bag.write(scene(0))
    monkeypatch.setattr(
        growing_file.os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )

    def write_on() -> None:
        for index in range(1, 1000):
            bag.write(scene(index))

    words = r"a\.mcap cannot be written: No space left on device; the first .* frames are"
    with pytest.raises(OutputError, match=words):
        write_on()
    bag.__exit__(None, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.mcap"]


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mcap.writer", None)
    with pytest.raises(
        OutputError, match=r"needs the package mcap; it is not installed; pip install 'cled-edge\[bags\]'"
    ):
        open_output(f"{tmp_path}/a.mcap").__enter__()
