"""The addresses of the page: what is shown, streamed, told and changed at each."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, get_args

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.websockets import WebSocketDisconnect

from cled_edge.control_box import ControlBox
from cled_edge.errors import CledEdgeError, OptionError
from cled_edge.json_text import json_from_bytes, json_of
from cled_edge.output.sink import is_uncertainty
from cled_edge.output.view import VIEWS
from cled_edge.registration.warp import Registrar
from cled_edge.serve.asked_doubt import AskedDoubt, has_view
from cled_edge.serve.bare_application import bare_application, body_of
from cled_edge.serve.channel import Channel
from cled_edge.serve.drawn_areas import DrawnAreas
from cled_edge.serve.page_recorder import Kind, Recorder
from cled_edge.serve.shot import Shot, png_of, view_and_width
from cled_edge.serve.telemetry import Telemetry
from cled_edge.thermal import ThermalStream

MAX_VIEWERS = 8
MAX_VIEWS = 6  # in one stream
MOST_HZ = 30.0
STATUS_S = 1.0
_SNAPSHOT = ("fused", "infrared-input", "visible-input", "infrared", "visible")
_BOUNDARY = "cled-edge-frame"


@dataclass(frozen=True)
class Page:
    """What the addresses need. about: words on the run, such as its cameras, without any secret. pool: for JPEGs."""

    shots: Channel[Shot]
    box: ControlBox
    doubt: AskedDoubt
    areas: DrawnAreas
    telemetry: Telemetry
    recorder: Recorder
    about: dict[str, str]
    pool: Executor
    thermal: ThermalStream | None = None
    registrar: Registrar | None = None

    def status(self) -> dict[str, Any]:
        """Return all that changes and is not of one frame, in plain JSON types."""
        healthy, health = self.telemetry.health()
        return {
            **self.telemetry.status(),
            "healthy": healthy,
            "health": health,
            "rate_now_hz": self.telemetry.rate_hz(),
            "viewers": self.telemetry.viewers,
            "controls": asdict(self.box.current),
            "areas": self.areas.as_list(),
            "refusal": self.box.refusal,
            "recording": self.recorder.status(),
            "thermal": self.thermal_status(),
            "evidence": self.telemetry.evidence(),
            "frame": self.shots.item.facts() if self.shots.item else None,
        }

    def thermal_status(self) -> dict[str, Any] | None:
        """Return what becomes of the infrared counts just now; None where nothing does."""
        stream = self.thermal
        if stream is None:
            return None
        return {"is_locked": stream.is_locked, "events": dict(stream.events), "bad_pixels": stream.bad_pixels}


def application(page: Page) -> FastAPI:
    """Return the application; a `Guard` goes around it."""
    app = bare_application({"/": "index.html", **{f"/{name}": name for name in ("page.js", "charts.js", "areas.js")}})
    _add_told(app, page)
    _add_changes(app, page)
    _add_streams(app, page)
    return app


def _add_told(app: FastAPI, page: Page) -> None:
    @app.get("/about.json")
    async def about() -> dict[str, Any]:
        controls = [{**asdict(entry), "value": getattr(page.box.current, entry.name)} for entry in page.box.entries]
        views = [view for view in VIEWS if page.doubt.is_possible or not is_uncertainty(view)]
        return {"about": page.about, "controls": controls, "views": views}

    @app.get("/status.json")
    async def status() -> Response:
        return Response(json_of(await asyncio.to_thread(page.status)), media_type="application/json")

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        healthy, told = page.telemetry.health()
        return JSONResponse(told, 200 if healthy else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        text = await asyncio.to_thread(page.telemetry.prometheus)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/reading.json")
    async def reading(row: float, column: float) -> dict[str, Any]:
        """Tell what the infrared camera measured; row, column: shares of the image's height and width."""
        if not (0 <= row < 1 and 0 <= column < 1):
            raise OptionError(f"the point is {row:g}, {column:g}; needed shares of height and width, 0 to below 1")
        shot, thermal = _newest(page), page.thermal
        found = None
        if thermal is not None and shot.frame.pair is not None:
            height, width = shot.frame.pair.infrared.image.shape[:2]
            pixel: tuple[int, int] | None = int(row * height), int(column * width)
            if page.registrar is not None:
                pixel = page.registrar.infrared_pixel(row * height - 0.5, column * width - 0.5)
            found = thermal.reading(*pixel) if pixel else None
        return {"counts": found.counts if found else None, "kelvin": found.kelvin if found else None}

    @app.get("/snapshot.zip")
    async def snapshot() -> Response:
        shot = _newest(page)
        content = await asyncio.get_running_loop().run_in_executor(page.pool, _zipped, page, shot)
        name = f"cled-edge-{shot.number:06d}.zip"
        return Response(content, media_type="application/zip", headers=_download(name))

    @app.get("/snapshot/{view}.png")
    async def picture(view: str) -> Response:
        name, _ = view_and_width(view)
        _ask(page, name)
        shot = _newest(page)
        content = await asyncio.get_running_loop().run_in_executor(page.pool, png_of, shot.frame, name)
        return Response(content, media_type="image/png", headers=_download(f"cled-edge-{shot.number:06d}-{name}.png"))


def _add_changes(app: FastAPI, page: Page) -> None:
    @app.post("/controls")
    async def controls(request: Request) -> dict[str, Any]:
        return asdict(page.box.change(**await body_of(request)))

    @app.get("/areas")
    async def drawn() -> dict[str, Any]:
        return {"areas": page.areas.as_list()}

    @app.post("/areas")
    async def areas(request: Request) -> dict[str, Any]:
        body = await body_of(request)
        if body.keys() != {"areas"}:
            raise OptionError(f'the body has {sorted(body) or "nothing"}; needed {{"areas": [...]}}; send that')
        page.areas.draw(body["areas"])
        return {"areas": page.areas.as_list()}

    @app.post("/thermal")
    async def thermal(request: Request) -> dict[str, Any] | None:
        lock = (await body_of(request)).get("lock")
        if not isinstance(lock, bool) or page.thermal is None:
            raise OptionError(
                'the grey scale cannot be locked so; needed {"lock": true} or false, and a thermal camera'
            )
        page.thermal.is_locked = lock
        return page.thermal_status()

    @app.post("/record")
    async def record(request: Request) -> dict[str, Any]:
        wanted = await body_of(request)
        is_on, view = wanted.get("on"), wanted.get("view", "fused")
        kind: Any = wanted.get("kind", "mp4")
        if not isinstance(is_on, bool) or view not in [*VIEWS] or kind not in get_args(Kind):
            raise OptionError(
                'the body is no wish to record; needed {"on": true, "view": "fused", "kind": "mp4"} (or "mcap"), or '
                '{"on": false}; send one'
            )
        if is_on:
            _ask(page, view)
        recorder = page.recorder
        return await (asyncio.to_thread(recorder.start, view, kind) if is_on else asyncio.to_thread(recorder.stop))


def _add_streams(app: FastAPI, page: Page) -> None:
    @app.get("/stream/{view}.mjpg")
    async def mjpeg(view: str, most_hz: float = MOST_HZ) -> Response:
        name, width_px = view_and_width(view)
        _ask(page, name)
        if page.telemetry.viewers >= MAX_VIEWERS:
            return JSONResponse({"error": f"{MAX_VIEWERS} streams are open; close one"}, 503)
        period_s = 1 / min(max(most_hz, 0.1), MOST_HZ)
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        return StreamingResponse(_parts(page, name, width_px, period_s), media_type=kind)

    @app.websocket("/live")
    async def live(socket: WebSocket) -> None:
        if page.telemetry.viewers >= MAX_VIEWERS:
            await socket.close(1013, f"{MAX_VIEWERS} streams are open; close one")
            return
        await socket.accept()
        page.telemetry.viewers += 1
        try:
            await _Viewer(page, socket).run()
        except (CledEdgeError, ValueError) as error:
            with suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(1008, _reason(error))
        except (WebSocketDisconnect, RuntimeError):  # RuntimeError: sent into a socket that has just closed
            pass
        finally:
            page.telemetry.viewers -= 1


async def _parts(page: Page, view: str, width_px: int, period_s: float) -> AsyncIterator[bytes]:
    """Yield the parts of an MJPEG stream: always the newest frame, at most one in `period_s`."""
    page.telemetry.viewers += 1
    number, loop = 0, asyncio.get_running_loop()
    try:
        while (found := await page.shots.newer_than(number)) is not None:
            number, shot = found
            if is_uncertainty(view):
                page.doubt.ask()
            if not has_view(shot.frame, view):
                continue
            start_s = loop.time()
            jpeg = await shot.jpeg(view, width_px, page.pool)
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"
            await asyncio.sleep(max(0.0, period_s - (loop.time() - start_s)))
    finally:
        page.telemetry.viewers -= 1


class _Viewer:
    """One open page. It asks for each frame, with the views that it shows, and gets the newest: no frame queues up.

    A question is `{"views": ["fused@1280", ...], "after": NUMBER}`. The answer is binary: the length of a JSON text,
    4 bytes, little endian; that text: the frame's facts, `points` of the charts since the last answer, `views` and
    `bytes` of each; then the JPEGs. `missing` says why a view that was asked for is not among them. Once a second it
    has the `status` too. Without a new frame for a second an answer has no frame, so that a page tells a silent source
    from a broken line.
    """

    def __init__(self, page: Page, socket: WebSocket) -> None:
        self._page, self._socket = page, socket
        self._status_due_s = self._told_points = 0.0

    async def run(self) -> None:
        """Answer until the viewer leaves or the run ends."""
        while not self._page.shots.is_closed:
            await self._socket.send_bytes(await self._answer(json_from_bytes(await self._asked())))
        await self._socket.close(1001, "the run has ended")

    async def _asked(self) -> bytes:
        """Return the next message, whether it came as text or as bytes."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        return message.get("bytes") or (message.get("text") or "").encode()

    async def _answer(self, wish: Any) -> bytes:
        after = wish.get("after") if isinstance(wish, dict) else None
        texts = wish.get("views") if isinstance(wish, dict) else None
        if not isinstance(after, int) or not isinstance(texts, list) or len(texts) > MAX_VIEWS:
            raise OptionError('a viewer asks for nothing; needed {"views": [...], "after": NUMBER}; ask so')
        views = [view_and_width(str(text)) for text in texts]
        try:
            found = await asyncio.wait_for(self._page.shots.newer_than(after), STATUS_S)
        except (TimeoutError, asyncio.TimeoutError):
            found = None
        told: dict[str, Any] = {"points": self._points(), "frame": None, "views": [], "bytes": [], "missing": ""}
        jpegs: list[bytes] = []
        if any(is_uncertainty(name) for name, _ in views):
            self._page.doubt.ask()
        if found:
            told["frame"] = found[1].facts()
            shown = [place for place, (name, _) in enumerate(views) if has_view(found[1].frame, name)]
            jpegs = list(await asyncio.gather(*(found[1].jpeg(*views[place], self._page.pool) for place in shown)))
            if len(shown) < len(views):
                told["missing"] = self._page.doubt.reason or "this frame has no uncertainty"
            told |= {"views": [texts[place] for place in shown], "bytes": [len(jpeg) for jpeg in jpegs]}
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._status_due_s:
            self._status_due_s = now_s + STATUS_S
            told["status"] = await asyncio.to_thread(self._page.status)
        text = json.dumps(told, allow_nan=False).encode()
        return b"".join([len(text).to_bytes(4, "little"), text, *jpegs])

    def _points(self) -> list[dict[str, Any]]:
        points = [point for point in list(self._page.telemetry.points) if point["n"] > self._told_points]
        if points:
            self._told_points = points[-1]["n"]
        return points


def _ask(page: Page, view: str) -> None:
    """Ask for what a view takes of the next frames; OptionError if it cannot be had."""
    if is_uncertainty(view):
        if page.doubt.reason:
            raise OptionError(f"the view {view} cannot be had: {page.doubt.reason}; take another view")
        page.doubt.ask()


def _newest(page: Page) -> Shot:
    if page.shots.item is None:
        raise OptionError("there is no fused frame yet; needed one; wait until both cameras deliver")
    return page.shots.item


def _reason(error: Exception) -> str:
    """Return why a socket is closed, in the 123 bytes that the protocol has for it."""
    return str(error).encode()[:120].decode(errors="ignore")


def _zipped(page: Page, shot: Shot) -> bytes:
    """Return a zip file with all images of a frame as PNG, and its facts as JSON."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for view in _SNAPSHOT:
            archive.writestr(f"{shot.number:06d}/{view}.png", png_of(shot.frame, view))
        archive.writestr(f"{shot.number:06d}/frame.json", json_of({"about": page.about, "frame": shot.facts()}))
    return content.getvalue()


def _download(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}
