"""The rendered night street as a live camera: `synthetic:infrared` or `synthetic:visible`."""

import math
import time
from collections.abc import Callable, Iterator

from cled_edge.address import Address, split_options
from cled_edge.camera.pace import Pace
from cled_edge.camera.source import Camera
from cled_edge.errors import OptionError
from cled_edge.frame import MONOTONIC, Frame
from cled_edge.scene.night_street import night_street_at
from cled_edge.size import parse_number, parse_size

_SEED_DIGITS = 9


class SyntheticCamera(Camera):
    """One of the street's two cameras, in real time and without end.

    Options behind it, as in `synthetic:infrared?size=120x160&rate_hz=9`: size (height and width, 480x640), rate_hz (25)
    and seed (0). Both cameras of one seed see one street, on the same pixels where their sizes agree. Two that begin
    within two seconds keep together. timestamp_ns: when the frame was due, MONOTONIC.
    """

    is_live = True

    def __init__(self, address: Address, now: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(address)
        self._modality, options = split_options(address.place, ("size", "rate_hz", "seed"))
        if self._modality not in ("infrared", "visible"):
            raise OptionError(f"{address.text} is no camera of the street; needed synthetic:infrared or :visible")
        size, seed = parse_size(options.get("size", "480x640")), options.get("seed", "0")
        if not seed.isdecimal() or len(seed) > _SEED_DIGITS:
            raise OptionError(f"seed is {seed[:40]!r}; it must be a whole number from 0 to 999999999")
        self.rate_hz = parse_number(options.get("rate_hz", "25"), "rate_hz")
        self.pace = Pace(now)
        self._index = 0
        self._pairs = night_street_at(self._due(), size, int(seed), self.rate_hz)

    def __iter__(self) -> Iterator[Frame]:
        for pair in self._pairs:
            stamp_ns = self.pace.origin_ns + self._time_ns(self._index)
            yield Frame(getattr(pair, self._modality), stamp_ns, MONOTONIC, self._index, self.address.text)

    def _due(self) -> Iterator[int]:
        """Yield the numbers of frames when they are due; what cannot be rendered in time is left out."""
        self.pace.begin()
        index = 0
        while self.pace.wait(self._time_ns(index)):
            newest = math.floor(self.pace.time_ns / self._time_ns(1))
            self._index = index = max(index, newest)
            yield index
            index += 1

    def _time_ns(self, index: int) -> int:
        return round(index * 1e9 / (self.rate_hz or 1.0))

    def interrupt(self) -> None:
        """Let the frame that is waited for not come."""
        self.pace.end()
