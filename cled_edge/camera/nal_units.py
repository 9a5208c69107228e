"""H.264 as it comes by RTP, put together to whole units without waiting for the packet behind them."""

START = b"\x00\x00\x00\x01"
_LEAST_FULL = 1000  # bytes: a smaller packet ends its unit, as long as nothing else was seen


class NalUnits:
    """Puts the pieces of a unit (a slice, or a set of parameters) together, as FFmpeg hands them on packet by packet.

    FFmpeg keeps the mark of a frame's last packet to itself, and its parser waits for the next frame: one period late.
    The pieces of a unit are of one size but for the last, which is smaller; so it is known by its size. An encoder that
    cuts otherwise breaks three frames, and from then on a unit ends where the next one begins.
    """

    def __init__(self) -> None:
        self._held = b""
        self._full, self._before = _LEAST_FULL, 0
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
            size = len(data) - len(START) - 1  # a first piece has the unit's own byte before what is cut
        elif self._held:
            self._full = max(self._full, self._before)
            self._held += data
            size = len(data)
        else:  # of a unit that was taken for whole, or whose beginning was lost
            self._wrong += self._is_behind_whole
            self._is_behind_whole = False
            return []
        self._before = size
        self._is_behind_whole = False
        if self._wrong < 3 + self._count // 50 and size < self._full:
            whole.append(self._held)
            self._held = b""
            self._is_behind_whole = True
        return whole
