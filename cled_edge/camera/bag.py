"""A topic of a recording as a camera: an MCAP file, or a bag of ROS 2 (MCAP or SQLite), without ROS."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from cled_edge.address import Address, existing_path, split_options
from cled_edge.camera.ros_image import COMPRESSED, RAW, decode_image, stamp_ns
from cled_edge.camera.source import Camera
from cled_edge.errors import BackendError, OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import MEDIA, Frame

_FIRST = 10  # messages that tell the rate
_MAX_CHUNK_BYTES = 256 * 2**20  # of a chunk or a message, in memory; recorders write chunks of 1 MiB
_TABLES = ("topics", "messages")
_KINDS = (RAW, COMPRESSED)
_Messages = Iterator[tuple[int, bytes]]  # when it was recorded, in ns, and what


class Bag(Camera):
    """`mcap:FILE?topic=/thermal/image`, or `bag:FOLDER?topic=...` for a bag of ROS 2; its images as they were recorded.

    The topic has sensor_msgs Image or CompressedImage messages; it can be left out where only one has.
    timestamp_ns: the stamp in the message, or the time of recording if that is 0; MEDIA, from `origin_ns`, which is the
    first frame's time unless somebody sets another. So two topics of one bag keep their distance in time. Frames whose
    stamp goes back are left out and counted in `oddities`.

    OptionError if the bag has no such topic, which lists those with images; BackendError if the package mcap lacks.
    """

    tells_time = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        place, options = split_options(address.place, ("topic",))
        path = Path(existing_path(place))
        if not path.exists():
            raise SourceMissingError(f"{place} does not exist; give an MCAP file, or the folder of a ROS 2 bag")
        self.files = _files_of(path)
        self._open = ExitStack()
        try:
            parts = [self._opened(file) for file in self.files]
            self._topic, self._kind = self._chosen(
                {t: kind for part in parts for t, kind in part.kinds.items()}, options
            )
            self.announced = sum(part.counts.get(self._topic, 0) for part in parts)
            self._parts = parts
            begin = [stamp_ns(data, self._kind, address.text) or at for at, data in islice(self._messages(), _FIRST)]
            self.start_ns = begin[0] if begin else None
            steps = sorted(after - before for before, after in pairwise(begin) if after > before)
            self.rate_hz = 1e9 / steps[len(steps) // 2] if steps else None
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            self.close()
            raise SourceUnreadableError(f"{address.text} cannot be read: {error}; check the file") from error
        except Exception:
            self.close()
            raise
        self.origin_ns = self.start_ns or 0

    def __iter__(self) -> Iterator[Frame]:
        name, last_ns = self.address.text, None
        for index, (recorded_ns, data) in enumerate(self._messages()):
            time_ns = (stamp_ns(data, self._kind, name) or recorded_ns) - self.origin_ns
            if last_ns is not None and time_ns <= last_ns:
                self.oddities["stamp goes back"] += 1
                continue
            last_ns = time_ns
            image, order = decode_image(data, self._kind, name)
            yield Frame(image, time_ns, MEDIA, index, name, order)

    def _messages(self) -> _Messages:
        for part in self._parts:
            yield from part.messages(self._topic)

    def _opened(self, file: Path) -> "_McapFile | _SqliteFile":
        if file.suffix == ".mcap":
            return _McapFile(file, self._open)
        if file.suffix == ".db3":
            return _SqliteFile(file, self._open)
        raise SourceUnreadableError(f"{file} is of another format; needed .mcap or .db3; unpack or convert it")

    def _chosen(self, kinds: dict[str, str], options: dict[str, str]) -> tuple[str, str]:
        """Return the topic that is meant and the kind of its messages."""
        name = self.address.text
        with_images = sorted(topic for topic, kind in kinds.items() if kind in _KINDS)
        listed = f"those with images: {', '.join(with_images)}" if with_images else "none of its topics has images"
        topic = options.get("topic")
        if topic is None:
            if len(with_images) != 1:
                raise OptionError(f"{name} names no topic; {listed}; write one behind, as in ?topic=/thermal/image")
            (topic,) = with_images
        if topic not in kinds:
            raise OptionError(f"{name}: the bag has no topic {topic}; {listed}; correct it")
        if kinds[topic] not in _KINDS:
            raise OptionError(f"{name}: topic {topic} has messages of {kinds[topic]}; {listed}; choose one of them")
        return topic, kinds[topic]

    def close(self) -> None:
        """Close all files."""
        self._open.close()


def _files_of(path: Path) -> tuple[Path, ...]:
    """Return a bag's files in the order in which they were written: NAME_9 comes before NAME_10."""
    if not path.is_dir():
        return (path,)
    found = [file for file in path.iterdir() if ".mcap" in file.suffixes or ".db3" in file.suffixes]
    if not found:
        raise SourceMissingError(f"{path} holds no .mcap and no .db3; needed the folder of a ROS 2 bag; check the name")
    return tuple(sorted(found, key=lambda file: [int(part) for part in re.findall(r"\d+", file.stem)[-1:]] or [0]))


class _McapFile:
    """kinds: of messages, and counts of them, by topic."""

    def __init__(self, file: Path, open_: ExitStack) -> None:
        try:
            from mcap.reader import make_reader  # noqa: PLC0415 (an extra)
        except ImportError as error:
            raise BackendError(f"reading {file} needs the package mcap; pip install 'cled-edge[bags]'") from error
        self._file = file
        try:
            self._reader: Any = make_reader(open_.enter_context(file.open("rb")))
            summary = self._reader.get_summary()
        except OSError as error:
            raise SourceUnreadableError(f"{file} cannot be read: {error.strerror}; check its permissions") from error
        except Exception as error:  # a file that was cut off ends in whatever error its last bytes make
            raise self._damaged() from error
        if summary is None or summary.statistics is None:
            raise self._damaged()
        largest = max((chunk.uncompressed_size for chunk in summary.chunk_indexes), default=0)
        if largest > _MAX_CHUNK_BYTES:
            raise SourceUnreadableError(
                f"{file} has a chunk of {largest} bytes, needed {_MAX_CHUNK_BYTES} at most; write smaller chunks"
            )
        channels = summary.channels.values()
        counts = summary.statistics.channel_message_counts
        self.kinds = {
            channel.topic: summary.schemas[channel.schema_id].name
            if channel.message_encoding == "cdr" and channel.schema_id in summary.schemas
            else f"encoding {channel.message_encoding}"
            for channel in channels
        }
        self.counts = {channel.topic: counts.get(channel.id, 0) for channel in channels}

    def _damaged(self) -> SourceUnreadableError:
        return SourceUnreadableError(f"{self._file} is no whole MCAP file; repair it with: mcap recover {self._file}")

    def messages(self, topic: str) -> _Messages:
        try:
            for _, _, message in self._reader.iter_messages(topics=[topic]):
                yield message.log_time, message.data
        except Exception as error:  # its chunks are unpacked here, which fails in whatever way the damage makes
            raise self._damaged() from error


class _SqliteFile:
    """kinds: of messages, and counts of them, by topic."""

    def __init__(self, file: Path, open_: ExitStack) -> None:
        self._file = file
        self._database = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        open_.callback(self._database.close)
        self._check_plain()
        found = self._database.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
        if not all(isinstance(text, str) for _, *texts in found for text in texts):
            raise self._damaged("a topic has no name")
        counts = {}
        for number, count, most in self._database.execute(
            "SELECT topic_id, COUNT(*), MAX(LENGTH(data)) FROM messages GROUP BY topic_id"
        ):
            if most is not None and most > _MAX_CHUNK_BYTES:
                raise self._damaged(f"a message has {most} bytes, needed {_MAX_CHUNK_BYTES} at most")
            counts[number] = count
        self.kinds = {topic: kind if form == "cdr" else f"encoding {form}" for _, topic, kind, form in found}
        self.counts = {topic: counts.get(number, 0) for number, topic, _, _ in found}
        self._numbers = {topic: number for number, topic, _, _ in found}

    def _check_plain(self) -> None:
        """SourceUnreadableError for tables that are computed: views and generated columns may go on without end."""
        stored = self._database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
        ).fetchall()
        columns = [row for name in _TABLES for row in self._database.execute(f"PRAGMA table_xinfo({name})")]
        if not {(name,) for name in _TABLES} <= set(stored) or any(hidden for *_, hidden in columns):
            raise self._damaged("it has no plain tables topics and messages")

    def _damaged(self, why: object) -> SourceUnreadableError:
        return SourceUnreadableError(f"{self._file} is damaged: {why}; needed a whole file; recover it")

    def messages(self, topic: str) -> _Messages:
        try:
            rows = self._database.execute(
                "SELECT timestamp, data FROM messages WHERE topic_id = ? ORDER BY timestamp, id",
                (self._numbers[topic],),
            )
            for at, data in rows:
                if not isinstance(at, int):
                    raise self._damaged("a message has no time")
                yield at, data
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._damaged(error) from error
