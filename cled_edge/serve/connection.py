"""One connection to the page: so many at once, and none that asks for nothing; the run needs its descriptors."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 64
IDLE_S = 15.0  # without a whole request, or without the begin of its answer; looked at that often


class Connection(H11Protocol):
    """uvicorn's protocol with an end: strangers who connect and send nothing would hold every descriptor for ever.

    The first `MOST` are served and all above are closed, those of WebSockets included.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or close it at once."""
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
            return
        self.loop.call_later(IDLE_S, self._look, None)

    def _look(self, before: Any) -> None:
        """Close it if nothing was asked since the last look, or nothing answered. before: the request at that time."""
        if self not in self.connections:  # it was closed, or has become a WebSocket
            return
        asked = self.cycle
        is_waiting = asked is None or (asked is before and (asked.response_complete or not asked.response_started))
        if is_waiting:
            self.transport.abort()
            return
        self.loop.call_later(IDLE_S, self._look, asked)
