"""The page's server: a thread beside the loop, which hands it each fused frame and never waits for it."""

import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cled_edge.control_box import ControlBox
from cled_edge.errors import OptionError, OutputError
from cled_edge.files import Reader
from cled_edge.frame import FusedFrame
from cled_edge.registration.warp import Registrar
from cled_edge.serve.channel import Channel
from cled_edge.serve.guard import LOCAL, Guard, check_token
from cled_edge.serve.page_recorder import CLOSE_S, Recorder
from cled_edge.serve.seen_kinds import Told
from cled_edge.serve.shot import Shot
from cled_edge.thermal import ThermalStream

if TYPE_CHECKING:
    import uvicorn

    from cled_edge.serve.telemetry import Telemetry

INSTALL = "pip install 'cled-edge[serve]'"
NICE = 5  # of the thread that makes JPEGs: where both want a core, the loop has it
_TOKENS = Reader(OptionError, OptionError, "give a file that holds the token alone", follow_links=True)
_MAX_TOKEN_BYTES = 4096


@dataclass(frozen=True)
class PageAddress:
    """Where the page is served. host: an address of this machine. port: 0 is any free one. token: see `Guard`.

    OptionError for a host beyond this machine without a token: whoever reaches it could look and change.
    """

    host: str
    port: int
    token: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is not allowed."""
        if self.token is not None:
            check_token(self.token)
        elif self.host not in LOCAL:
            raise OptionError(
                f"the page is to be served at {self.host}, which others can reach; needed a token; give one, or serve "
                "it at localhost and open a tunnel: ssh -L PORT:localhost:PORT ROBOT"
            )

    @classmethod
    def parse(cls, text: str, token: str | None = None, token_file: Path | None = None) -> "PageAddress":
        """Return the address of `PORT`, `HOST:PORT` or `[IPv6]:PORT`; the host is 127.0.0.1 unless it is named.

        OptionError for another form, and for two tokens.
        """
        host, colon, port = text.rpartition(":")
        if not (port.isascii() and port.isdecimal() and int(port) <= 65535) or (colon and not host):
            raise OptionError(f"the page's address is {text!r}; needed [HOST:]PORT, such as 8080 or 0.0.0.0:8080")
        if token is not None and token_file is not None:
            raise OptionError("a token and a file with one are given; needed one of both; leave one out")
        if token_file is not None:
            token = _TOKENS.read(token_file, _MAX_TOKEN_BYTES).decode("utf-8", "replace").strip()
        return cls(host.removeprefix("[").removesuffix("]") or LOCAL[1], int(port), token)


class PageServer:
    """Serves the page of a run while its context lasts. It is a `Monitor` of `fuse_pairs`.

    about: what runs, in words that may be shown. record_to: the folder of recordings. thermal: what makes grey of the
    infrared camera's counts, to lock and to read; None where nothing does. registrar: of the run, None without a
    calibration. kinds: what the network says of a frame's
    kinds of degradation, `Fuser.kinds`.
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
    ) -> None:
        self.address, self._box, self._about, self._thermal = address, box, about, thermal
        self._registrar, self._kinds = registrar, kinds
        self.recorder = Recorder(record_to)
        self.shots: Channel[Shot] = Channel()
        self.telemetry: Telemetry
        self._server: uvicorn.Server
        self._status: Callable[[], dict[str, Any]] = dict

    @property
    def url(self) -> str:
        """Where the page is, by this machine's name if it is at all of its addresses; it holds no token."""
        host = socket.gethostname() if self.address.host in ("0.0.0.0", "::") else self.address.host  # noqa: S104
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.address.port}/"

    def begin(self, status: Callable[[], dict[str, Any]]) -> None:
        """Take what tells the state of the run; it is called when somebody asks, on a thread of the server."""
        self.telemetry.status = status

    def show(self, frame: FusedFrame) -> None:
        """Take a fused frame; this never waits."""
        shot = Shot(self.shots.number + 1, frame)
        self.telemetry.count(shot.number, frame)
        self.recorder.put(frame)
        self.shots.put(shot)

    def __enter__(self) -> "PageServer":
        try:
            import uvicorn  # noqa: PLC0415

            from cled_edge.serve.connection import Connection  # noqa: PLC0415
            from cled_edge.serve.routes import Page, application  # noqa: PLC0415
            from cled_edge.serve.seen_kinds import SeenKinds  # noqa: PLC0415
            from cled_edge.serve.telemetry import Telemetry  # noqa: PLC0415
        except ImportError as error:
            raise OutputError(f"the page needs the package {error.name}, which is not installed; {INSTALL}") from error
        listening = self._bound()
        self._pool = ThreadPoolExecutor(1, "jpeg", initializer=_be_nice)
        self.telemetry = Telemetry(self._box, self._about, kinds=SeenKinds(self._kinds))
        seen = self._thermal, self._registrar
        page = Page(self.shots, self._box, self.telemetry, self.recorder, self._about, self._pool, *seen)
        guard = Guard(application(page), self.address.token)
        config = uvicorn.Config(
            guard,
            log_config=None,
            access_log=False,
            lifespan="off",
            http=Connection,
            ws="websockets-sansio",
            ws_per_message_deflate=False,  # JPEGs do not get smaller
            ws_max_size=64 * 1024,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="page", daemon=True
        )
        self._thread.start()
        return self

    def _bound(self) -> socket.socket:
        """Return the listening socket; the address has its port from now on."""
        host, port = self.address.host, self.address.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, port), family=family, backlog=64)
        except OSError as error:
            reason = (error.strerror or str(error)).partition(" (while")[0]  # what Python 3.11 adds
            raise OutputError(
                f"the page cannot be served at {host}:{port}: {reason}; needed a free port of this "
                "machine; choose another, or 0 for any"
            ) from error
        self.address = PageAddress(host, listening.getsockname()[1], self.address.token)
        return listening

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End a recording and all streams; it takes under a second, whoever is connected."""
        self.recorder.stop(CLOSE_S)
        self.shots.close()
        self._server.should_exit = True
        self._thread.join(CLOSE_S)
        self._server.force_exit = True
        self._pool.shutdown(wait=False, cancel_futures=True)


def _be_nice() -> None:
    """Let the loop go first where a core is short; Linux has it for each thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
