"""One connection to the page: so many at once, and none that asks for nothing; the run needs its descriptors."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 64
IDLE_S = 5.0  # without a whole request, or without the begin of its answer; looked at that often


class Connection(H11Protocol):
    """uvicorn's protocol with an end: strangers who connect and send nothing would hold every descriptor for ever.

    `MOST` are served, those of WebSockets included. One more takes the place of the one that has asked for nothing for
    longest, so that strangers keep nobody out; where all are being answered, it is closed.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, and close another one, or this one, if there are too many."""
        super().connection_made(transport)
        self._begun_s, self._is_leaving = self.loop.time(), False
        staying = [each for each in self.connections if not getattr(each, "_is_leaving", False)]
        if len(staying) > MOST:
            idle = [each for each in staying if isinstance(each, Connection) and each._is_idle and each is not self]
            min(idle, key=lambda each: each._begun_s, default=self)._leave()
        if not self._is_leaving:
            self.loop.call_later(IDLE_S, self._look, None)

    @property
    def _is_idle(self) -> bool:
        """Whether there is no whole request that is not answered."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _leave(self) -> None:
        self._is_leaving = True
        self.transport.abort()

    def _look(self, before: Any) -> None:
        """Close it if nothing was asked since the last look, or nothing answered. before: the request at that time."""
        if self not in self.connections:  # it was closed, or has become a WebSocket
            return
        asked = self.cycle
        is_waiting = asked is None or (asked is before and (asked.response_complete or not asked.response_started))
        if is_waiting:
            self._leave()
            return
        self.loop.call_later(IDLE_S, self._look, asked)
