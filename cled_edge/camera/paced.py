"""A recording as a live camera: its frames come in real time, and nobody waits for who is late."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from cled_edge.address import Address
from cled_edge.camera.pace import Pace
from cled_edge.camera.source import Camera, open_camera, split_paced
from cled_edge.errors import NoPairsError, OptionError
from cled_edge.frame import MONOTONIC, ORDER, Frame
from cled_edge.size import parse_number

_NS = 10**9


class PacedCamera(Camera):
    """`paced:ADDRESS`, of a video, a folder or a bag, in real time by its own times or at `?rate_hz=`.

    `loop` begins again at the end, as in `paced:street.mp4?rate_hz=9&loop`. Two that begin within two seconds keep
    together. timestamp_ns: when the frame was due, MONOTONIC.

    OptionError for a camera that is live already, and for pictures without a rate.
    """

    is_live = True

    def __init__(self, address: Address, now: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(address)
        self._place, options = split_paced(address.place)
        self._loops = "loop" in options
        self._rate_hz = parse_number(options["rate_hz"], "rate_hz") if "rate_hz" in options else None
        self._camera: Camera | None = open_camera(self._place)
        if self._camera.is_live:
            self._camera.close()
            raise OptionError(f"{address.shown} is live already; needed a recording; leave paced: out")
        self.files = self._camera.files
        self.rate_hz = self._rate_hz or self._camera.rate_hz
        if self.rate_hz is None:
            self._camera.close()
            raise OptionError(f"{address.shown} has no times; needed a rate; write it behind, as in ?rate_hz=25")
        self.pace = Pace(now)

    def __iter__(self) -> Iterator[Frame]:
        period_ns = round(_NS / (self.rate_hz or 1.0))
        count, base_ns, missed_ns, has_begun = 0, 0, 0, False
        while self._camera is not None:
            last_ns, had = 0, count
            for frame in self._camera:
                if not has_begun:
                    self.pace.begin(self._camera.start_ns)
                    missed_ns, has_begun = self.pace.time_ns - period_ns, True
                by_rate = self._rate_hz or frame.clock == ORDER
                last_ns = (count - had) * period_ns if by_rate else frame.timestamp_ns
                if not self.pace.wait(base_ns + last_ns):
                    return
                count += 1
                if base_ns + last_ns < missed_ns:  # before this camera began
                    continue
                stamp_ns = self.pace.origin_ns + base_ns + last_ns
                yield replace(frame, timestamp_ns=stamp_ns, clock=MONOTONIC, sequence=count - 1, name="")
            self.close()
            if not self._loops or self.pace.is_over:
                return
            if count == had:
                raise NoPairsError(f"{self.address.shown} holds no frame; needed one at least; check it")
            base_ns += last_ns + period_ns
            self._camera = open_camera(self._place)

    def interrupt(self) -> None:
        """Let the frame that is waited for not come."""
        self.pace.end()

    def close(self) -> None:
        """Close the recording."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None
