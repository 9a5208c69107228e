"""What every page of ours has: its files, the log-in, and refusals in words."""

import asyncio
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from cled_edge.errors import CledEdgeError, OptionError
from cled_edge.json_text import json_from_bytes

WRONG_LOGIN_S = 1.0
_SHARED = {"/page.css": "page.css", "/icon.svg": "icon.svg", "/login": "login.html", "/login.js": "login.js"}
_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def bare_application(own: Mapping[str, str]) -> FastAPI:
    """Return an application with a page's own files, by their addresses, and what all pages share."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    folder = files("cled_edge.serve") / "static"
    for path, name in {**own, **_SHARED}.items():
        content, kind = (folder / name).read_bytes(), _KINDS[name.rpartition(".")[2]]

        async def answer(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind)

        app.add_api_route(path, answer, methods=["GET"])

    @app.post("/login")
    async def login(request: Request) -> JSONResponse:
        guard, token = request.scope["cled_edge_guard"], (await body_of(request)).get("token")
        if not isinstance(token, str) or not guard.accepts(token):
            await asyncio.sleep(WRONG_LOGIN_S)  # nobody tries many
            return JSONResponse({"error": "this is not the token; needed that of this run; look where it was set"}, 401)
        return JSONResponse({}, headers={"set-cookie": guard.set_cookie()})

    @app.exception_handler(CledEdgeError)
    async def refused(_request: Request, error: CledEdgeError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    return app


async def body_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request has sent; OptionError for anything else."""
    try:
        values = json_from_bytes(await request.body())
    except ValueError as error:
        raise OptionError(f"the body is no JSON: {error}; needed an object of names and values") from error
    if not isinstance(values, dict):
        raise OptionError("the body is no JSON object; needed names and values; send {...}")
    return values
