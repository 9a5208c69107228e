"""Who may look and who may change: the owner of the token, and no other site in the owner's browser."""

import base64
import binascii
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from cled_edge.errors import OptionError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL = ("localhost", "127.0.0.1", "::1")
MIN_TOKEN = 16  # characters: shorter ones can be guessed
OPEN = ("/healthz", "/icon.svg", "/login", "/login.js", "/page.css")  # paths that need no token
MAX_BODY_BYTES = 64 * 1024
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def check_token(token: str) -> str:
    """Return a token; OptionError if it is too short, or of other than visible ASCII characters."""
    if len(token) < MIN_TOKEN or not all("!" <= letter <= "~" for letter in token):
        raise OptionError(
            f"the token of the page has {len(token)} characters; needed {MIN_TOKEN} or more, visible ASCII without "
            "spaces; make one: python3 -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


class Guard:
    """Wraps an ASGI application: what is refused never reaches it.

    token: None asks for none; then only requests to a name of this machine are taken, so that no page of another site
    reaches the server under a name of its own (DNS rebinding).
    A token comes as `Authorization: Bearer TOKEN`, as the password of `Basic`, or as the cookie that `/login` sets; it
    is never a part of an address. A request that a browser makes for another site is refused, whatever it carries.
    """

    def __init__(self, app: App, token: str | None) -> None:
        self._app, self._token = app, token
        self._session = secrets.token_urlsafe()
        self.cookie = f"cled_edge_{secrets.token_hex(4)}"  # two runs on one host do not log each other out

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request of HTTP or a WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._foreign(scope, headers) or self._unknown(scope, headers)
        if refusal is None:
            scope["cled_edge_guard"] = self
            await self._app(scope, receive, _with_headers(send))
            return
        status, words = refusal
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": words})
            return
        if status == 401 and scope["path"] == "/" and scope["method"] == "GET":
            await _answer(_with_headers(send), 303, b"", {"location": "/login"})
            return
        more = {"www-authenticate": 'Bearer realm="cled-edge"'} if status == 401 else {}
        body = json.dumps({"error": words}).encode()
        await _answer(_with_headers(send), status, body, {"content-type": "application/json", **more})

    def accepts(self, token: str) -> bool:
        """Say whether this is the token, in a time that tells nothing of it."""
        return self._token is None or hmac.compare_digest(token.encode(), self._token.encode())

    def set_cookie(self) -> str:
        """Return the header that logs a browser in: for this run, for this site, out of the reach of scripts."""
        return f"{self.cookie}={self._session}; HttpOnly; SameSite=Strict; Path=/"

    def _foreign(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return why a request is refused as another site's, or as no request of the page."""
        host = headers.get("host", "")
        if self._token is None and _name(host) not in LOCAL:
            return 403, f"the host is {host[:60]!r}; needed a name of this machine, such as localhost; go there"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "the request comes from another site; needed the page of this server; open it"
        site = headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none") and headers.get("sec-fetch-mode") != "navigate":
            return 403, "the request comes from another site; needed the page of this server; open it"
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return 415, "the request is no JSON; needed content-type application/json; send it so"
            length = headers.get("content-length", "")
            if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
                return 413, f"the request tells no length, or too great a one; needed {MAX_BODY_BYTES} bytes at most"
        return None

    def _unknown(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return why a request is refused as a stranger's."""
        if self._token is None or scope["path"] in OPEN:
            return None
        if self.accepts(_authorization(headers.get("authorization", ""))):
            return None
        if hmac.compare_digest(_cookie(headers.get("cookie", ""), self.cookie), self._session):
            return None
        return 401, "there is no token, or a wrong one; needed that of this run; log in, or send it as a bearer token"


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def _authorization(value: str) -> str:
    """Return the token of an Authorization header, "" if there is none."""
    kind, _, rest = value.partition(" ")
    if kind.lower() == "bearer":
        return rest.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found and found.value.isascii() else ""


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message.get("headers", ())}
            more = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in given]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    sent = {"content-length": str(len(body)), **headers}
    pairs = [(name.encode(), value.encode()) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
