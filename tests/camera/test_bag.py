"""Bags of ROS 2 as cameras: images of every encoding, times of one clock, topics that are not there."""

import sqlite3
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cled_edge import open_camera
from cled_edge.camera.live_source import LiveSource
from cled_edge.camera.ros_image import decode_image
from cled_edge.errors import BackendError, CledEdgeError, OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import MEDIA
from cled_edge.pairing import open_pair
from tests.fakes.bags import COMPRESSED, RAW, Cdr, compressed, raw, write_db3, write_mcap

BEGIN_NS = 1_760_000_000_000_000_000
MS = 10**6
WRITERS = {"a.mcap": write_mcap, "a.db3": write_db3}


def messages(count: int = 6) -> list:
    """Return a thermal topic at 9 Hz that begins 40 ms after a visible one at 30 Hz, recorded 5 ms after each stamp."""
    found = []
    for k in range(count):
        at_ns = BEGIN_NS + 40 * MS + k * 111 * MS
        found.append(
            ("/thermal/image", RAW, at_ns + 5 * MS, raw(np.full((12, 16), 7000 + k, np.uint16), "mono16", at_ns))
        )
    for k in range(3 * count):
        at_ns = BEGIN_NS + k * 33 * MS
        image = np.full((12, 16, 3), k, np.uint8)
        found.append(("/visible/compressed", COMPRESSED, at_ns + 5 * MS, compressed(image, at_ns)))
    found.append(("/imu", "sensor_msgs/msg/Imu", BEGIN_NS, b"\0\1\0\0"))
    return sorted(found, key=lambda message: message[2])


@pytest.mark.parametrize("name", WRITERS)
def test_a_topic_gives_its_images_with_the_times_of_their_messages(name: str, tmp_path: Path) -> None:
    bag = WRITERS[name](tmp_path / name, messages())
    for address in (f"mcap:{bag}?topic=/thermal/image", f"{bag}?topic=/thermal/image"):
        with open_camera(address) as camera:
            assert (camera.is_live, camera.has_names, camera.announced) == (False, False, 6)
            assert (camera.files, camera.start_ns) == ((bag,), BEGIN_NS + 40 * MS)
            assert camera.rate_hz == pytest.approx(1000 / 111)
            frames = list(camera)
        assert [frame.timestamp_ns for frame in frames] == [k * 111 * MS for k in range(6)]
        assert {frame.clock for frame in frames} == {MEDIA}
        assert [int(frame.image.max()) for frame in frames] == [7000 + k for k in range(6)]
        assert frames[0].image.dtype == np.uint16


@pytest.mark.parametrize("name", WRITERS)
def test_two_topics_of_one_bag_pair_by_its_clock(name: str, tmp_path: Path) -> None:
    bag = WRITERS[name](tmp_path / name, messages())
    with open_pair(f"mcap:{bag}?topic=/thermal/image", f"mcap:{bag}?topic=/visible/compressed") as pairs:
        drawn = [pair.skew_ns for pair in pairs]
    assert drawn == [7 * MS, -14 * MS, -2 * MS, 10 * MS, -11 * MS, 34 * MS]  # the visible ends before


def test_the_files_of_a_ros_bag_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for k in (0, 9, 10):
        at_ns = BEGIN_NS + k * MS
        write_mcap(
            tmp_path / f"rosbag2_{k}.mcap", [("/t", RAW, at_ns, raw(np.full((2, 3), k, np.uint8), "mono8", at_ns))]
        )
    (tmp_path / "metadata.yaml").touch()
    with open_camera(f"bag:{tmp_path}") as camera:
        assert camera.announced == 3
        assert [int(frame.image.max()) for frame in camera] == [0, 9, 10]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("encoding", "shape", "kind"),
    [
        ("mono8", (4, 6), np.uint8),
        ("16UC1", (4, 6), np.uint16),
        ("bgr8", (4, 6, 3), np.uint8),
        ("rgb8", (4, 6, 3), np.uint8),
        ("bgra8", (4, 6, 4), np.uint8),
        ("rgba8", (4, 6, 4), np.uint8),
    ],
)
def test_images_of_every_encoding_keep_their_values(
    encoding: str, shape: tuple, kind: type, order: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    image = rng.integers(0, np.iinfo(kind).max, shape).astype(kind)
    for padding, frame in ((0, ""), (8, "a"), (2, "abc")):
        bag = write_mcap(tmp_path / "a.mcap", [("/t", RAW, 1, raw(image, encoding, 1, order, padding, frame))])
        with open_camera(f"mcap:{bag}") as camera:
            (found,) = camera
        assert np.array_equal(found.image, image[:, :, :3] if image.ndim == 3 else image)
        assert found.color_order == ("RGB" if encoding.startswith("rgb") else "BGR")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("?topic=/none", "has no topic /none; those with images: /thermal/image, /visible/compressed; correct it"),
        ("?topic=/imu", "topic /imu has messages of sensor_msgs/msg/Imu; those with images: /thermal"),
        ("", "names no topic; those with images: /thermal/image, /visible/compressed; write one behind"),
        ("?topik=/imu", "unknown option 'topik'; did you mean topic?"),
    ],
)
def test_a_topic_that_cannot_be_read_lists_those_that_can(address: str, message: str, tmp_path: Path) -> None:
    bag = write_mcap(tmp_path / "a.mcap", messages())
    with pytest.raises(OptionError, match=message.replace("?", r"\?")):
        open_camera(f"mcap:{bag}{address}")


def test_bags_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    whole = write_mcap(tmp_path / "a.mcap", messages()).read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceUnreadableError, match=r"cut.mcap is no whole MCAP file; repair it with: mcap recover"):
        open_camera(f"mcap:{tmp_path}/cut.mcap?topic=/thermal/image")
    (tmp_path / "no.db3").write_bytes(b"SQLite it is not, for sure")
    with pytest.raises(SourceUnreadableError, match=r"no.db3.* cannot be read: .*; check the file"):
        open_camera(f"bag:{tmp_path}/no.db3")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceMissingError, match=r"holds no .mcap and no .db3"):
        open_camera(f"bag:{tmp_path}/folder")
    (tmp_path / "folder" / "a_0.db3.zstd").touch()
    with pytest.raises(SourceUnreadableError, match=r"a_0.db3.zstd is of another format"):
        open_camera(f"bag:{tmp_path}/folder")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (raw(np.zeros((4, 6), np.uint8), "bayer_rggb8", 1), "encoding 'bayer_rggb8'; needed one of mono8"),
        (raw(np.zeros((4, 6), np.uint8), "mono8", 1)[:-5], "no sensor_msgs/msg/Image in CDR; the bag is damaged"),
        (b"\0\1\0\0", "no sensor_msgs/msg/Image in CDR"),
        (b"", "no sensor_msgs/msg/Image in CDR"),
    ],
)
def test_a_message_that_is_no_image_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    bag = write_mcap(tmp_path / "a.mcap", [("/t", RAW, 1, data)])
    with pytest.raises(SourceUnreadableError, match=message):
        list(open_camera(f"mcap:{bag}"))


def test_a_stamp_of_zero_is_the_time_of_recording_and_one_that_goes_back_is_left_out(tmp_path: Path) -> None:
    stamps = (BEGIN_NS, 0, BEGIN_NS - 5, BEGIN_NS + 30)
    image = np.zeros((4, 6), np.uint8)
    sent = [("/t", RAW, BEGIN_NS + 10 * k, raw(image, "mono8", stamp)) for k, stamp in enumerate(stamps)]
    with open_camera(f"mcap:{write_mcap(tmp_path / 'a.mcap', sent)}") as camera:
        assert [frame.timestamp_ns for frame in camera] == [0, 10, 30]
        assert camera.oddities == {"stamp goes back": 1}


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = write_mcap(tmp_path / "a.mcap", messages())
    monkeypatch.setitem(sys.modules, "mcap.reader", None)
    with pytest.raises(BackendError, match=r"needs the package mcap; pip install 'cled-edge\[bags\]'"):
        open_camera(f"mcap:{bag}?topic=/thermal/image")


def test_two_topics_in_real_time_keep_their_distance(tmp_path: Path) -> None:
    bag, arrived = write_db3(tmp_path / "a.db3", messages(3)), threading.Condition()
    topics = ("/visible/compressed", "/thermal/image")
    sources = [LiveSource(f"paced:bag:{bag}?topic={topic}", arrived=arrived) for topic in topics]
    for source in sources:
        source.start()
        with arrived:
            assert arrived.wait_for(lambda source=source: source.received > 0, 20), source.as_dict()
    visible, thermal = (source.take()[0] for source in sources)
    assert thermal.timestamp_ns - visible.timestamp_ns == 40 * MS
    assert all(source.stop(20) for source in sources)


@pytest.mark.parametrize("value", [None, "text", 5, b"\0"])
def test_a_value_of_a_database_that_is_no_message_is_named(tmp_path: Path, value: object) -> None:
    path = write_db3(tmp_path / "run.db3", [("/a", RAW, 1, value)])
    with pytest.raises(SourceUnreadableError, match="the bag is damaged"), open_camera(f"{path}?topic=/a") as bag:
        list(bag)


@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_whatever_byte_is_wrong_a_bag_ends_in_one_line(tmp_path: Path, suffix: str) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    messages = [("/a", RAW, at, raw(image, "mono8", at)) for at in range(1, 10**9, 10**8)]
    path = tmp_path / f"run{suffix}"
    content = {".mcap": write_mcap, ".db3": write_db3}[suffix](path, messages).read_bytes()
    random, refused = np.random.default_rng(1), 0
    for _ in range(100):
        spoiled = bytearray(content)
        for place in random.integers(len(content), size=3):
            spoiled[place] = random.integers(256)
        path.write_bytes(bytes(spoiled))
        try:
            with open_camera(f"{path}?topic=/a") as bag:
                list(bag)
        except CledEdgeError:
            refused += 1
    assert refused > 10


TOPICS = "CREATE TABLE topics(id, name, type, serialization_format)"
TOPIC = "INSERT INTO topics VALUES (1, '/a', 'sensor_msgs/msg/Image', 'cdr')"
ENDLESS = "WITH RECURSIVE c(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM c) SELECT id, 1 AS topic_id FROM c"
MESSAGES = "CREATE TABLE messages(id, topic_id, timestamp, data)"


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        ([TOPICS, TOPIC, f"CREATE VIEW messages AS {ENDLESS}"], "no plain tables"),
        ([TOPICS, TOPIC, MESSAGES.replace("data", "data AS (zeroblob(1000000000))")], "no plain tables"),
        ([TOPICS, TOPIC, MESSAGES, "INSERT INTO messages VALUES (1, 1, 'noon', 'text')"], "a message has no time"),
        ([TOPICS, TOPIC, MESSAGES, "INSERT INTO messages VALUES (1, 1, 1, zeroblob(300000000))"], "300000000 bytes"),
        ([TOPICS, TOPIC.replace("'/a'", "x'ff'"), MESSAGES], "a topic has no name"),
    ],
)
def test_a_database_that_is_no_recording_ends_at_once(statements: list[str], words: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "run.db3") as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    with pytest.raises(SourceUnreadableError, match=words), open_camera(str(tmp_path / "run.db3")) as bag:
        list(bag)


def test_a_chunk_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cled_edge.camera.bag._MAX_CHUNK_BYTES", 10_000)
    image = np.zeros((100, 200), np.uint8)
    path = write_mcap(tmp_path / "run.mcap", [("/a", RAW, 1, raw(image, "mono8", 1))])
    with pytest.raises(SourceUnreadableError, match="has a chunk of 20"):
        open_camera(f"{path}?topic=/a")


@pytest.mark.parametrize(
    ("image", "encoding"),
    [
        (np.zeros((2, 6), np.uint8), "yuyv"),
        (np.zeros((4, 0), np.uint8), "mono8"),
    ],
)
def test_an_image_that_cannot_be_one_is_named(image: np.ndarray, encoding: str) -> None:
    message = raw(image, encoding, 1)
    if encoding == "yuyv":  # two bytes a pixel, and the colour of two pixels is one
        message = message.replace(struct.pack("<II", 2, 6), struct.pack("<II", 2, 3))
    with pytest.raises(SourceUnreadableError, match="the bag is damaged"):
        decode_image(message, RAW, "bag")


def test_a_compressed_image_of_fractions_or_of_nothing_is_refused() -> None:
    with pytest.raises(SourceUnreadableError, match="needed 8 or 16 bit"):
        decode_image(compressed(np.zeros((4, 4), np.float32), 1, ".tiff"), COMPRESSED, "bag")
    with pytest.raises(SourceUnreadableError, match="the bag is damaged"):
        decode_image(Cdr().head(1).text("jpeg").octets(b"").whole(), COMPRESSED, "bag")
