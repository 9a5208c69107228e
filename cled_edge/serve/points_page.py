"""The page on which a person marks the same points in both cameras' images, and a calibration is fitted to them."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fastapi import FastAPI, Request, Response
from numpy.typing import NDArray

from cled_edge.errors import CalibrationError, OptionError
from cled_edge.files import write_whole
from cled_edge.registration.calibration import SURE, Calibration, DistanceMap, distance_map
from cled_edge.registration.overlay import levelled, overlay
from cled_edge.registration.points import LEAST_POINTS, MarkedPoints, map_of
from cled_edge.serve.bare_application import bare_application, body_of

MOST_POINTS = 200


class PointsPage:
    """Pairs of one rig, the newest map through points, and where it is saved.

    pairs: infrared and visible, grey (H, W) of any depth, of one size for each camera, at least one. names: of the
    pairs. out: the file of the calibration; no request names it. distance_m: of what is marked, if it is known.

    found: the map that was saved last, and what was told of it; None before. ended: set when the page says so.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]],
        names: Sequence[str],
        out: Path,
        distance_m: float | None = None,
    ) -> None:
        self.pairs, self.names, self.out, self.distance_m = list(pairs), list(names), out, distance_m
        self.found: tuple[DistanceMap, dict[str, Any]] | None = None
        self.ended = threading.Event()
        self._overlay: bytes | None = None
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """Return what the page needs to begin with, in plain JSON types."""
        infrared, visible = self.pairs[0]
        sizes = {"infrared_size": list(infrared.shape), "visible_size": list(visible.shape)}
        return {**sizes, "pairs": self.names, "to": str(self.out), "least": LEAST_POINTS, "most": MOST_POINTS}

    def picture(self, modality: str, number: int) -> bytes:
        """Return a picture of even contrast as PNG. OptionError if there is none such."""
        if modality not in ("infrared", "visible") or not 0 <= number < len(self.pairs):
            raise OptionError(f"there is no image {modality[:20]} {number}; needed one of {len(self.pairs)} pairs")
        return _png(levelled(self.pairs[number][modality == "visible"]))

    def overlay(self) -> bytes:
        """Return before and after of the newest map as PNG. OptionError before the first."""
        if self._overlay is None:
            raise OptionError("nothing is fitted yet; needed points in both images; mark some, and calibrate")
        return self._overlay

    def calibrate(self, values: Any, number: Any = 0) -> dict[str, Any]:
        """Fit a map to points, save it if it is sure, and return what is found.

        values: a list of [infrared x, y, visible x, y], in pixels from 0. number: the pair to lay over each other.
        OptionError for another form, CalibrationError for points that give no map.
        """
        marked = self._marked(values)
        if not isinstance(number, int) or not 0 <= number < len(self.pairs):
            raise OptionError(f"there is no such pair; needed a number below {len(self.pairs)}; send one")
        sizes = self.pairs[0][0].shape, self.pairs[0][1].shape
        fit = map_of(marked, *sizes)
        found = distance_map(fit.found, fit.model, sizes[1], fit.error_px, fit.confidence, self.distance_m)
        worst, off_px = fit.worst
        told = {"points": len(marked.infrared), "worst_point": worst, "worst_px": round(off_px, 2)}
        says = f"error {found.error_px:.1f} px, confidence {found.confidence:.2f}"
        image = overlay(*self.pairs[number], found.pixel_map(), says)
        is_sure = found.confidence >= SURE
        with self._lock:
            self._overlay = _png(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            if is_sure:
                whole = Calibration(mode="points", infrared_size=sizes[0], visible_size=sizes[1], maps=(found,))
                write_whole(self.out, whole.text())
                self.found = found, told
        model = {"model": found.model, "error_px": found.error_px, "error_infrared_px": found.error_infrared_px}
        return {**told, **model, "confidence": found.confidence, "saved": str(self.out) if is_sure else None}

    def _marked(self, values: Any) -> MarkedPoints:
        rows = values if isinstance(values, list) else []
        if not all(isinstance(row, list) and len(row) == 4 and all(map(_is_number, row)) for row in rows):
            rows = []
        if not 0 < len(rows) <= MOST_POINTS:
            raise OptionError(
                f"there are no points; needed 1 to {MOST_POINTS} of four numbers each: infrared x and y, visible x and "
                "y; mark the same point in both images"
            )
        array = np.array(rows, np.float64)
        if not np.isfinite(array).all():
            raise CalibrationError("a point is not finite; needed pixels; mark it again")
        return MarkedPoints(array[:, :2], array[:, 2:], self.distance_m)


def points_application(page: PointsPage) -> FastAPI:
    """Return the application; a `Guard` goes around it."""
    app = bare_application({"/": "points.html", "/points.js": "points.js"})

    @app.get("/rig.json")
    async def rig() -> dict[str, Any]:
        return page.about()

    @app.get("/picture/{modality}/{number}.png")
    async def picture(modality: str, number: int) -> Response:
        return Response(await asyncio.to_thread(page.picture, modality, number), media_type="image/png")

    @app.get("/overlay.png")
    async def shown() -> Response:
        return Response(page.overlay(), media_type="image/png")

    @app.post("/calibrate")
    async def calibrate(request: Request) -> dict[str, Any]:
        wish = await body_of(request)
        return await asyncio.to_thread(page.calibrate, wish.get("points"), wish.get("pair", 0))

    @app.post("/done")
    async def done(request: Request) -> dict[str, Any]:
        await body_of(request)
        page.ended.set()
        return {}

    return app


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _png(image: NDArray[Any]) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])
