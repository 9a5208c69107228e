"""A recording that begins and ends on demand, beside the run's own outputs."""

import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

from cled_edge.errors import CledEdgeError, OptionError
from cled_edge.frame import FusedFrame
from cled_edge.output.fanout import Fanout
from cled_edge.output.sink import OutputSettings, Shown
from cled_edge.serve.asked_doubt import has_view

Kind = Literal["mp4", "mcap"]
_SCHEMES: dict[Kind, str] = {"mp4": "video", "mcap": "mcap"}
CLOSE_S = 0.4  # at the end of a run, which has 2 s for all


class Recorder:
    """Writes one view at a time into `folder`, as a video or a bag; the loop never waits for it.

    now_utc: the time that names a recording. A recording that fails ends, and `status` says why. view: what is being
    recorded, None if nothing is; a frame that cannot show it, as it has no uncertainty yet, is left out.
    """

    def __init__(self, folder: Path, now_utc: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> None:
        self.folder = folder
        self.rate_hz: float | None = None
        self.view: Shown | None = None
        self._now_utc = now_utc
        self._fanout: Fanout | None = None
        self._lock = threading.Lock()
        self._status: dict[str, Any] = {"is_on": False, "to": None, "written": 0, "dropped": 0, "failure": None}
        self._begun_s = 0.0

    def start(self, view: Shown = "fused", kind: Kind = "mp4") -> dict[str, Any]:
        """Begin a recording and return the status; OptionError if one is under way.

        kind: "mp4" is a video of the view; "mcap" a bag, which has the inputs and the facts of each frame too.
        """
        with self._lock:
            if self._fanout:
                raise OptionError(f"{self._status['to']} is being recorded; needed one recording at a time; end it")
            path = self._free(f"{self._now_utc():%Y%m%d-%H%M%S}-{view}", kind)
            self._fanout = Fanout(
                [OutputSettings(f"{_SCHEMES[kind]}:{path}", view)], is_live=True, rate_hz=self.rate_hz
            )
            self._status = {"is_on": True, "to": str(path), "written": 0, "dropped": 0, "failure": None}
            self._begun_s, self.view = time.monotonic(), view
        return self.status()

    def _free(self, stem: str, kind: Kind) -> Path:
        """Return a name that no recording has: two may begin in one second, and none is written over."""
        stems = chain([stem], (f"{stem}-{number}" for number in count(2)))
        return next(path for each in stems if not os.path.lexists(path := self.folder / f"{each}.{kind}"))

    def put(self, frame: FusedFrame) -> None:
        """Take a frame, if a recording is under way; never wait."""
        fanout, view = self._fanout, self.view
        if not fanout or not view or not has_view(frame, view):
            return
        if not fanout.put(frame):  # it has failed: another thread closes it
            threading.Thread(target=self.stop, name="recording", daemon=True).start()

    def stop(self, within_s: float | None = None) -> dict[str, Any]:
        """End the recording, if there is one, and return the status; it waits until all is written, or so long."""
        with self._lock:
            fanout, self._fanout, self.view = self._fanout, None, None
            if fanout:
                failed = fanout.close(within_s)
                self._status = {**self._counted(fanout), "is_on": False, "failure": _words(failed)}
        return self.status()

    def status(self) -> dict[str, Any]:
        """Return whether it is on, to which file, how long, frames written and dropped, and why the last one failed."""
        fanout = self._fanout
        status = self._counted(fanout) if fanout else self._status
        return {**status, "seconds": round(time.monotonic() - self._begun_s, 1) if fanout else None}

    def _counted(self, fanout: Fanout) -> dict[str, Any]:
        (report,) = fanout.report()
        return {**self._status, "written": report["written"], "dropped": report["dropped"]}


def _words(failed: list[BaseException]) -> str | None:
    if not failed:
        return None
    return str(failed[0]) if isinstance(failed[0], CledEdgeError) else f"{type(failed[0]).__name__}: {failed[0]}"
