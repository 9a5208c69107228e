"""H.264 as it comes by RTP, put together to whole units without waiting for the packet behind them."""

START = b"\x00\x00\x00\x01"
_LEAST_FULL = 1000  # bytes: a smaller packet ends its unit, as long as nothing else was seen


class NalUnits:
    """Puts the pieces of a unit (a slice, or a set of parameters) together, as FFmpeg hands them on packet by packet.

    FFmpeg keeps the mark of a frame's last packet to itself, and its parser waits for the next frame: one period late.
    The pieces of a unit are of one size but for the last, which is smaller; so it is known by its size. An encoder that
    cuts otherwise breaks one frame, and from then on a unit ends where the next one begins.
    """

    def __init__(self) -> None:
        self._held = b""
        self._full, self._before = _LEAST_FULL, 0
        self._sizes_tell = True

    def add(self, data: bytes) -> list[bytes]:
        """Take a packet's bytes and return the units that are whole now, each with its start code."""
        whole = []
        if data.startswith(START):
            if self._held:
                whole.append(self._held)
            self._held = data
            size = len(data) - len(START) - 1  # a first piece has the unit's own byte before what is cut
        elif self._held:
            self._full = max(self._full, self._before)
            self._held += data
            size = len(data)
        else:  # of a unit that was taken for whole
            self._sizes_tell = False
            return []
        self._before = size
        if self._sizes_tell and size < self._full:
            whole.append(self._held)
            self._held = b""
        return whole
