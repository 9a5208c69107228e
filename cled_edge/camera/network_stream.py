"""A stream from the network as a camera: RTSP, HTTP (Motion JPEG too), UDP and TCP, by FFmpeg."""

import struct
import time
from collections.abc import Iterator
from typing import Any

import cv2  # noqa: F401 (before av, see video_file.py)

# isort: split
import av

from cled_edge.address import Address
from cled_edge.camera.arrival_line import ArrivalLine
from cled_edge.camera.nal_units import CODECS, EncodedFrames
from cled_edge.camera.packet_reader import PacketReader
from cled_edge.camera.source import Camera
from cled_edge.camera.video_file import image_of
from cled_edge.errors import OptionError, SourceMissingError, SourceUnreadableError, without_credentials
from cled_edge.frame import ARRIVAL, SENDER, Frame

# PyAV lets nobody interrupt a read: by its own patience a reader that is not needed any more ends within 2 s.
OPEN_WITHIN_S, READ_WITHIN_S = 5.0, 1.9
LATE_NS = 300_000_000  # what comes so much later than the quickest was held up, and is only decoded to get past it
_MOST_LATE_NS = 1_000_000_000  # since the last frame: then even a late one is given, with its true time
_NS, _US = 10**9, 10**6
_PROTOCOLS = {  # what FFmpeg may open: a playlist must not lead it to files
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,srtp,udp,tcp,tls,crypto",
    "http": "http,tcp",
    "https": "https,http,tls,tcp,crypto",
    "udp": "udp",
    "tcp": "tcp",
}
# It is opened by what the sender tells of it, not by watching it for seconds; and nothing is kept back.
_QUICK = {"analyzeduration": "100000", "probesize": "32768", "fpsprobesize": "0", "fflags": "nobuffer"}
_UNPARSED = {**_QUICK, "fflags": "nobuffer+noparse+nofillin"}


class NetworkStream(Camera):
    """A stream of FFmpeg's: grey (H, W), 8 or 16 bit, or BGR (H, W, 3) uint8.

    `#transport=udp` behind an RTSP address takes UDP in place of TCP; multicast and http are its other words.

    timestamp_ns: by SENDER, the camera's own wall clock, as soon as it tells it (RTSP, after seconds); before and else
    by ARRIVAL: when it arrived, less what it was later than the quickest frames, where the stream has times. Then
    doubt_ns tells by how much it may be wrong, see `ArrivalLine`.
    What cannot be decoded is left out and counted in `oddities`, as "corrupt"; what a slow link or computer held up
    beyond 0.3 s as "late"; what came while a frame of Motion JPEG was decoded, but for the newest, as "overtaken".
    Whatever ends the stream is a SourceUnreadableError, and the address is shown without its password.
    """

    is_live = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.name = address.shown
        self._came_ns = self._count = 0  # when the last packet did, and how many
        url, _, option = address.text.partition("#")
        self._url = url
        self._has_times = address.scheme not in ("http", "https")  # those of Motion JPEG are made up
        self._options = {"protocol_whitelist": _PROTOCOLS[address.scheme]}
        if address.scheme.startswith("rtsp"):
            self._options["rtsp_transport"] = _transport(option, self.name)
        elif option:
            raise OptionError(f"{self.name} ends in an option that only RTSP has; leave out what is behind #")
        is_cut = address.scheme.startswith("rtsp")
        self._container = self._opened(_UNPARSED if is_cut else _QUICK)
        self._stream = self._video()
        codec = self._stream.codec_context.name
        self._joined = EncodedFrames(codec) if is_cut and codec in CODECS else None
        if is_cut and codec not in (*CODECS, "mjpeg"):
            self._container.close()
            self._container = self._opened(_QUICK)
            self._stream = self._video()
        self._reader: PacketReader | None = None
        context: Any = self._stream.codec_context
        context.thread_type = "SLICE"  # threads by frame would hold back as many frames
        rate = self._stream.average_rate
        self.rate_hz = float(rate) if rate and 0 < rate <= 1000 else None

    def __iter__(self) -> Iterator[Frame]:
        index, given_ns, came, line = 0, 0, self._count, ArrivalLine()
        for frame, wall_ns in self._frames():
            now_ns, late_ns = self._came_ns, 0
            if self._has_times and frame.pts is not None:
                late_ns = line.late_ns(round(frame.pts * self._stream.time_base * _NS), now_ns)
            elif not self._has_times:
                line.count(max(1, self._count - came), now_ns)
                came = self._count
            if late_ns > LATE_NS and now_ns - given_ns < _MOST_LATE_NS:
                self.oddities["late"] += 1
                continue
            stamp_ns, clock = (now_ns - late_ns, ARRIVAL) if wall_ns is None else (wall_ns, SENDER)
            image = image_of(frame, self.name)
            yield Frame(image, stamp_ns, clock, index, self.name, "BGR", arrival_ns=now_ns, doubt_ns=line.doubt_ns)
            index, given_ns = index + 1, now_ns
        raise SourceUnreadableError(f"{self.name} ended after {index} frames; check the camera and the network")

    def _frames(self) -> Iterator[tuple[Any, int | None]]:
        """Yield decoded frames, and when they were taken by the sender's wall clock, in ns from 1970 if it tells."""
        walls: dict[int, int] = {}
        decoder, is_new = self._stream.codec_context, False
        has_begun = False  # before the first key frame nothing can be decoded, and nothing is wrong
        for packet in self._packets():
            wall_ns = _wall_ns(packet)
            if wall_ns is not None and packet.pts is not None:
                walls[packet.pts] = wall_ns
                if len(walls) > 64:
                    del walls[next(iter(walls))]
            parts = self._parts(packet)
            if self._joined and not self._joined.units.sizes_tell and not is_new:
                # The frames that were broken look out of order, and the decoder would hold back as many for ever.
                decoder, is_new = self._new_decoder(), True
            for part in parts:
                try:
                    frames = decoder.decode(part)
                except av.error.FFmpegError:
                    self.oddities["corrupt"] += has_begun
                    continue
                for frame in frames:
                    has_begun = has_begun or frame.key_frame
                    if not frame.is_corrupt:
                        yield frame, walls.get(frame.pts)
                    elif has_begun:
                        self.oddities["corrupt"] += 1

    def _packets(self) -> Iterator[Any]:
        """Yield packets, and note when each came; of Motion JPEG, whose frames stand alone, only the newest."""
        is_mjpeg = self._stream.codec_context.name == "mjpeg"
        reader = self._reader = PacketReader(self._demuxed(), only_newest=is_mjpeg)
        skipped = 0
        for packet, self._came_ns in reader:
            self._count += 1 + reader.skipped - skipped
            if reader.skipped > skipped:
                self.oddities["overtaken"] += reader.skipped - skipped
                skipped = reader.skipped
            yield packet

    def _demuxed(self) -> Iterator[Any]:
        try:
            yield from (packet for packet in self._container.demux(self._stream) if packet.size)
        except (av.error.FFmpegError, OSError) as error:
            raise self._lost(error, READ_WITHIN_S) from None  # its words hold the address

    def _new_decoder(self) -> Any:
        decoder: Any = av.CodecContext.create(self._stream.codec_context.name, "r")
        decoder.extradata, decoder.thread_type = self._stream.codec_context.extradata, "SLICE"
        return decoder

    def _parts(self, packet: Any) -> list[Any]:
        """Return what the decoder takes: the packet, or the frames that it completes."""
        if self._joined is None:
            return [packet]
        parts = []
        for data, time_of in self._joined.add(bytes(packet), packet.pts):
            part = av.Packet(data)
            part.pts = part.dts = time_of
            part.time_base = packet.time_base
            parts.append(part)
        return parts

    def _opened(self, options: dict[str, str]) -> Any:
        begin_s = time.monotonic()
        try:
            return av.open(self._url, options={**self._options, **options}, timeout=(OPEN_WITHIN_S, READ_WITHIN_S))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            is_silent = time.monotonic() - begin_s >= OPEN_WITHIN_S  # for which FFmpeg has several errors
            raise self._lost(error, OPEN_WITHIN_S, is_silent) from None

    def _video(self) -> Any:
        if not self._container.streams.video:
            self._container.close()
            raise SourceUnreadableError(f"{self.name} has no video; needed a stream with pictures; check its path")
        return self._container.streams.video[0]

    def _lost(
        self, error: Exception, within_s: float, is_silent: bool = False
    ) -> SourceUnreadableError | SourceMissingError:
        """Return what to raise for an error of FFmpeg, whose own words hold the address."""
        if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
            return SourceUnreadableError(f"{self.name} refuses user or password; needed rtsp://USER:PASSWORD@HOST/PATH")
        if isinstance(error, av.error.HTTPNotFoundError):
            return SourceMissingError(f"{self.name}: the camera has no stream of that path; look it up in its manual")
        if is_silent or isinstance(error, (av.error.ExitError, av.error.TimeoutError)):
            return SourceUnreadableError(f"{self.name} is silent for {within_s:g} s; check its power and network")
        words = without_credentials(getattr(error, "strerror", None) or type(error).__name__)
        return SourceUnreadableError(f"{self.name} cannot be read: {words}; check address, power and network")

    def close(self) -> None:
        """Close the connection, unless somebody still reads from it, who then closes it."""
        if self._reader is None or self._reader.stop(READ_WITHIN_S):
            self._container.close()


def _transport(option: str, name: str) -> str:
    word, _, transport = option.partition("=")
    if not option:
        return "tcp"
    known = {"tcp": "tcp", "udp": "udp", "multicast": "udp_multicast", "http": "http"}
    if word != "transport" or transport not in known:
        raise OptionError(f"{name} ends in an unknown option; known: #transport={', '.join(known)}; correct it")
    return known[transport]


def _wall_ns(packet: Any) -> int | None:
    """Return the sender's time of a packet as FFmpeg has it from RTCP, None if PyAV or the sender does not tell it."""
    if not hasattr(packet, "has_sidedata") or not packet.has_sidedata("prft"):
        return None
    (microseconds,) = struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))
    return microseconds * 1000
