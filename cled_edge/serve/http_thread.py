"""A thread that serves an application over HTTP at one address, for as long as its context lasts."""

import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from cled_edge.errors import OutputError
from cled_edge.serve.guard import App, Guard
from cled_edge.serve.page_address import PageAddress, not_installed

if TYPE_CHECKING:
    import uvicorn

END_S = 0.4


class HttpThread:
    """Serves an application behind a `Guard`. address: its port is the one that was had.

    OutputError if none can be, or if what serves it is not installed.
    """

    def __init__(self, app: App, address: PageAddress) -> None:
        self._app, self.address = app, address
        self._server: uvicorn.Server

    @property
    def url(self) -> str:
        """Where it is, by this machine's name if it is at all of its addresses; it holds no token."""
        host = socket.gethostname() if self.address.host in ("0.0.0.0", "::") else self.address.host  # noqa: S104
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.address.port}/"

    def __enter__(self) -> "HttpThread":
        try:
            import uvicorn  # noqa: PLC0415

            from cled_edge.serve.connection import Connection  # noqa: PLC0415
        except ImportError as error:
            raise not_installed(error) from error
        listening = self._bound()
        config = uvicorn.Config(
            Guard(self._app, self.address.token),
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
        """End it, whoever is connected; it takes under a second."""
        self._server.should_exit = True
        self._thread.join(END_S)
        self._server.force_exit = True
