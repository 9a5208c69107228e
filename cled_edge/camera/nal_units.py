"""H.264 and H.265 as they come by RTP, put together to whole frames without waiting for the packet behind them."""

from collections import deque
from collections.abc import Callable

START = b"\x00\x00\x00\x01"
# Of each codec, by FFmpeg's name: bytes of a unit's header, and whether a unit of that first byte holds a part of the
# image: ITU-T H.264, table 7-1, and H.265, table 7-1.
CODECS: dict[str, tuple[int, Callable[[int], bool]]] = {
    "h264": (1, lambda first: first & 31 in (1, 5)),
    "hevc": (2, lambda first: first >> 1 & 63 < 32),
}
_LEAST_SEEN, _REMEMBERED = 3, 32  # frames that tell how many slices one has


class NalUnits:
    """Puts the pieces of a unit (a slice, or a set of parameters) together, as FFmpeg hands them on packet by packet.

    FFmpeg keeps the mark of a frame's last packet to itself, and its parser waits for the next frame: one period late.
    The pieces of a unit are of one size but for the last, which is smaller. So it is known by its size, as soon as one
    unit in pieces was seen, a key frame's. An encoder that cuts otherwise breaks three frames; from then on
    `sizes_tell` is False, and a unit ends where the next one begins.
    """

    def __init__(self, codec: str = "h264") -> None:
        self.sizes_tell = True
        self._header = CODECS[codec][0]
        self._held = b""
        self._full, self._before = 0, 0  # bytes of a full piece, and of the piece before
        self._is_behind_whole = False
        self._count, self._wrong = 0, 0  # units that began; pieces that came behind a unit that was taken for whole

    def add(self, data: bytes) -> list[bytes]:
        """Take a packet's bytes and return the units that are whole now, each with its start code."""
        whole = []
        if data.startswith(START):
            if self._held:
                whole.append(self._held)
            self._held = data
            self._count += 1
            size = len(data) - len(START) - self._header  # which a first piece has before what is cut
        elif self._held:
            self._full = max(self._full, self._before)
            self._held += data
            size = len(data)
        else:  # of a unit that was taken for whole, or whose beginning was lost
            self._wrong += self._is_behind_whole
            self._is_behind_whole = False
            self.sizes_tell = self.sizes_tell and self._wrong < 3 + self._count // 50
            return []
        self._before = size
        self._is_behind_whole = False
        if self.sizes_tell and size < self._full:
            whole.append(self._held)
            self._held = b""
            self._is_behind_whole = True
        return whole


class EncodedFrames:
    """Puts packets together to frames, each as soon as it has as many slices as frames had of late.

    A frame with fewer, as one whose slice was lost, is whole when the next one begins.
    """

    def __init__(self, codec: str = "h264") -> None:
        self.units = NalUnits(codec)
        self._is_slice = CODECS[codec][1]
        self._held = b""
        self._time: int | None = None
        self._slices = 0
        self._counts: deque[int] = deque(maxlen=_REMEMBERED)

    def add(self, data: bytes, time: int | None) -> list[tuple[bytes, int | None]]:
        """Take a packet's bytes and the time of its frame; return the frames that are whole now, with their times."""
        whole = []
        for unit in self.units.add(data):
            if time != self._time:
                if self._held:
                    whole.append((self._held, self._time))
                if self._slices:
                    self._counts.append(self._slices)
                self._held, self._time, self._slices = b"", time, 0
            self._held += unit
            if self._is_slice(unit[len(START)]):
                self._slices += 1
                if len(self._counts) >= _LEAST_SEEN and self._slices == max(self._counts):
                    whole.append((self._held, time))
                    self._held = b""
        return whole
