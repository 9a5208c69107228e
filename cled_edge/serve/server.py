"""The page's server: a thread beside the loop, which hands it each fused frame and never waits for it."""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from cled_edge.control_box import ControlBox
from cled_edge.frame import FusedFrame
from cled_edge.output.sink import is_uncertainty
from cled_edge.registration.warp import Registrar
from cled_edge.serve.asked_doubt import AskedDoubt, Doubting
from cled_edge.serve.channel import Channel
from cled_edge.serve.drawn_areas import DrawnAreas, HasAreas
from cled_edge.serve.http_thread import HttpThread
from cled_edge.serve.page_address import PageAddress, not_installed
from cled_edge.serve.page_recorder import CLOSE_S, Recorder
from cled_edge.serve.seen_kinds import Told
from cled_edge.serve.shot import Shot
from cled_edge.thermal import ThermalStream

if TYPE_CHECKING:
    from cled_edge.serve.telemetry import Telemetry

NICE = 5  # of the thread that makes JPEGs: where both want a core, the loop has it


class Fusing(Doubting, HasAreas, Protocol):
    """What fuses, as the page turns it; see `Fuser`."""


class PageServer:
    """Serves the page of a run while its context lasts. It is a `Monitor` of `fuse_pairs`.

    about: what runs, in words that may be shown. record_to: the folder of recordings. thermal: what makes grey of the
    infrared camera's counts, to lock and to read; None where nothing does. registrar: of the run, None without a
    calibration. kinds: what the network says of a frame's kinds of degradation, `Fuser.kinds`. fuser: what takes the
    areas that are drawn, and tells its uncertainty while somebody looks at it; None does neither.
    OutputError if the address cannot be had, or a package is missing.
    """

    def __init__(
        self,
        address: PageAddress,
        box: ControlBox,
        *,
        about: dict[str, str],
        record_to: Path = Path("recordings"),
        thermal: ThermalStream | None = None,
        registrar: Registrar | None = None,
        kinds: Told = lambda _frame: None,
        fuser: Fusing | None = None,
    ) -> None:
        self._address, self._box, self._about, self._thermal = address, box, about, thermal
        self._registrar, self._kinds = registrar, kinds
        self._doubt, self._areas = AskedDoubt(fuser, box), DrawnAreas(fuser)
        self.recorder = Recorder(record_to)
        self.shots: Channel[Shot] = Channel()
        self.telemetry: Telemetry
        self._http: HttpThread
        self._status: Callable[[], dict[str, Any]] = dict

    @property
    def url(self) -> str:
        """See `HttpThread.url`."""
        return self._http.url

    @property
    def address(self) -> PageAddress:
        """Where the page is."""
        return self._http.address

    def begin(self, status: Callable[[], dict[str, Any]]) -> None:
        """Take what tells the state of the run; it is called when somebody asks, on a thread of the server."""
        self.telemetry.status = status

    def show(self, frame: FusedFrame) -> None:
        """Take a fused frame; this never waits."""
        shot = Shot(self.shots.number + 1, frame)
        self.telemetry.count(shot.number, frame)
        self.recorder.put(frame)
        self.shots.put(shot)
        if is_uncertainty(self.recorder.view or ""):
            self._doubt.ask()
        self._doubt.settle()

    def __enter__(self) -> "PageServer":
        try:
            import uvicorn  # noqa: F401, PLC0415

            from cled_edge.serve.routes import Page, application  # noqa: PLC0415
            from cled_edge.serve.seen_kinds import SeenKinds  # noqa: PLC0415
            from cled_edge.serve.telemetry import Telemetry  # noqa: PLC0415
        except ImportError as error:
            raise not_installed(error) from error
        self._pool = ThreadPoolExecutor(1, "jpeg", initializer=_be_nice)
        self.telemetry = Telemetry(self._box, self._about, kinds=SeenKinds(self._kinds))
        shown = self.shots, self._box, self._doubt, self._areas, self.telemetry, self.recorder
        page = Page(*shown, self._about, self._pool, self._thermal, self._registrar)
        self._http = HttpThread(application(page), self._address).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End a recording and all streams; it takes under a second, whoever is connected."""
        self.recorder.stop(CLOSE_S)
        self.shots.close()
        self._http.__exit__(kind, error, traceback)
        self._pool.shutdown(wait=False, cancel_futures=True)


def _be_nice() -> None:
    """Let the loop go first where a core is short; Linux has it for each thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
