"""`calibration.yaml`: where visible pixels lie in the infrared image, at one distance or several; read and written.

The file is YAML of a plain kind, which is read here without a YAML library: `key: value` lines, whose values are
numbers, words and lists on one line, and a list of maps.
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cled_edge.errors import CalibrationError, SizeMismatchError
from cled_edge.files import Reader
from cled_edge.json_text import first_problem, json_from_bytes, shown
from cled_edge.registration.lens import Lens, PixelMap, Points
from cled_edge.size import Size, size_text

SCHEMA_VERSION = 1
_TODO = "calibrate again, or give the file that cled-edge calibrate wrote"
_FILES = Reader(CalibrationError, CalibrationError, _TODO, follow_links=True)
_MAX_BYTES = 2**16
_LINE = re.compile(r"(?P<item>  - |    |)(?P<key>[a-z_]+):(?: (?P<value>.*))?")
_HEAD = """\
# Written by cled-edge calibrate: where a visible pixel (x, y) lies in the infrared image.
# A visible point is straightened by visible_lens, moved by the 3x3 matrix, and bent by infrared_lens. Sizes are
# [height, width]. A lens is [fx, fy, cx, cy, k1, k2, p1, p2, k3] as in OpenCV, null is none. Errors are in pixels.
"""

_Side = Annotated[int, Field(ge=8, le=2**16)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Row = tuple[_Number, _Number, _Number]
_Lens = tuple[_Number, _Number, _Number, _Number, _Number, _Number, _Number, _Number, _Number]
Mode = Literal["scene", "board", "points"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


SURE = 0.5  # a confidence below it is low


class DistanceMap(_Table):
    """The map at one distance. distance_m: None where none was said.

    infrared_from_visible: homography of pixels without distortion. model: how much of it was free. error_px: of the
    map, in visible pixels; error_infrared_px: the same in infrared pixels. confidence: 0 to 1.
    """

    distance_m: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    model: Literal["similarity", "affine", "homography", "lenses", "rig"]
    infrared_from_visible: tuple[_Row, _Row, _Row]
    infrared_lens: _Lens | None = None
    visible_lens: _Lens | None = None
    error_px: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    error_infrared_px: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    confidence: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _can_be_undone(self) -> "DistanceMap":
        if abs(np.linalg.det(np.array(self.infrared_from_visible))) < 1e-12:
            raise ValueError("infrared_from_visible has no inverse")
        for lens in (self.infrared_lens, self.visible_lens):
            if lens and min(lens[:2]) <= 0:
                raise ValueError("a lens has a focal length of 0 or less")
        return self

    def pixel_map(self) -> PixelMap:
        """Return it as a function of points."""
        return PixelMap(np.array(self.infrared_from_visible), _lens(self.infrared_lens), _lens(self.visible_lens))


class Calibration(_Table):
    """What `cled-edge calibrate` found of a rig. Sizes are (height, width). maps: by increasing distance."""

    schema_version: Literal[1] = 1
    mode: Mode
    infrared_size: tuple[_Side, _Side]
    visible_size: tuple[_Side, _Side]
    maps: Annotated[tuple[DistanceMap, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _has_distances(self) -> "Calibration":
        distances = [each.distance_m for each in self.maps]
        if len(distances) > 1:
            known = [d for d in distances if d is not None]
            if len(known) < len(distances) or any(a >= b for a, b in pairwise(known)):
                raise ValueError("several maps need distances that increase")
        return self

    def check_sizes(self, infrared: Size, visible: Size) -> None:
        """Raise SizeMismatchError unless the cameras have the sizes for which this was made."""
        for name, seen, needed in (
            ("infrared", infrared, self.infrared_size),
            ("visible", visible, self.visible_size),
        ):
            if seen != needed:
                raise SizeMismatchError(
                    f"the {name} camera gives {size_text(seen)}, the calibration is of {size_text(needed)} (height x "
                    "width); set the camera to that size, or calibrate again"
                )

    def infrared_points(self, visible: Points, distance_m: float | None = None) -> Points:
        """Return where visible points (N, 2) lie in the infrared image, of things at a distance.

        Between two distances the place changes with the inverse of the distance; beyond the first and the last it
        stays. None is the distance in the middle of the list.
        """
        parts = [share * found.infrared_points(visible) for found, share in self._around(distance_m)]
        return np.sum(parts, axis=0)

    def visible_points(self, infrared: Points, distance_m: float | None = None) -> Points:
        """Return where infrared points (N, 2) lie in the visible image; see `infrared_points`."""
        parts = [share * found.visible_points(infrared) for found, share in self._around(distance_m)]
        return np.sum(parts, axis=0)

    def _around(self, distance_m: float | None) -> list[tuple[PixelMap, float]]:
        """Return the maps before and beyond a distance with their shares; one, if they have the same lenses."""
        if distance_m is None or len(self.maps) == 1:
            return [(self.maps[(len(self.maps) - 1) // 2].pixel_map(), 1.0)]
        inverse = [1 / (each.distance_m or np.inf) for each in self.maps]
        wanted = float(np.clip(1 / distance_m, inverse[-1], inverse[0]))
        first = max(k for k in range(len(inverse) - 1) if inverse[k] >= wanted)
        share = (inverse[first] - wanted) / (inverse[first] - inverse[first + 1])
        near, far = self.maps[first], self.maps[first + 1]
        if (near.infrared_lens, near.visible_lens) != (far.infrared_lens, far.visible_lens):
            return [(near.pixel_map(), 1 - share), (far.pixel_map(), share)]
        # With lenses side by side the third row is the same at all distances, and so is what the matrix is scaled by.
        matrix = (1 - share) * near.pixel_map().matrix + share * far.pixel_map().matrix
        return [(PixelMap(matrix, _lens(near.infrared_lens), _lens(near.visible_lens)), 1.0)]

    def text(self) -> str:
        """Return it as the file has it."""
        lines = [f"{key}: {_written(value)}" for key, value in self.model_dump().items() if key != "maps"]
        lines.append("maps:")
        for each in self.maps:
            rows = [f"{key}: {_written(value)}" for key, value in each.model_dump().items()]
            lines += [f"  - {rows[0]}", *(f"    {row}" for row in rows[1:])]
        return _HEAD + "\n".join(lines) + "\n"


def read_calibration(path: Path) -> Calibration:
    """Return the calibration of a file. CalibrationError, in one line, if it is none or cannot be read."""
    content = _FILES.read(path, _MAX_BYTES)
    try:
        values = _parsed(content.decode("utf-8-sig"))
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {shown(version, 20)}, needed {SCHEMA_VERSION}")
        return Calibration.model_validate(values)
    except ValidationError as error:
        raise CalibrationError(f"{path} is no calibration: {first_problem(error)}; {_TODO}") from error
    except ValueError as error:
        raise CalibrationError(f"{path} is no calibration: {shown(error, 200)}; {_TODO}") from error


def distance_map(
    found: PixelMap,
    model: Literal["similarity", "affine", "homography", "lenses", "rig"],
    visible_size: Size,
    error_px: float,
    confidence: float,
    distance_m: float | None = None,
) -> DistanceMap:
    """Return a map as the file has it: numbers rounded to what matters."""
    matrix = found.matrix / found.matrix[2, 2]
    return DistanceMap(
        distance_m=distance_m,
        model=model,
        infrared_from_visible=tuple(tuple(float(f"{v:.10g}") for v in row) for row in matrix),  # type: ignore[arg-type]
        infrared_lens=_numbers(found.infrared),
        visible_lens=_numbers(found.visible),
        error_px=round(error_px, 3),
        error_infrared_px=round(error_px * found.infrared_px_per_visible_px(visible_size), 3),
        confidence=round(confidence, 3),
    )


def _lens(numbers: tuple[float, ...] | None) -> Lens | None:
    if numbers is None:
        return None
    fx, fy, cx, cy, k1, k2, p1, p2, k3 = numbers
    return Lens((fx, fy), (cx, cy), (k1, k2, p1, p2, k3))


def _numbers(lens: Lens | None) -> Any:
    if lens is None:
        return None
    return tuple(float(f"{v:.8g}") for v in (*lens.focal_px, *lens.center_px, *lens.distortion))


def _written(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_written, value))}]"
    return str(value)


def _parsed(text: str) -> dict[str, Any]:
    """Return what the plain YAML holds; ValueError names the line that is none."""
    values: dict[str, Any] = {}
    items: list[dict[str, Any]] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.split("#")[0].strip():
            continue
        found = _LINE.fullmatch(line.rstrip())
        if found is None or (found["item"] and items is None):
            raise ValueError(f"line {number} is {shown(line, 40)!r}, needed `key: value`")
        if not found["item"]:
            target, items = values, None
        elif found["item"].strip() and items is not None:
            items.append(target := {})
        elif items:
            target = items[-1]
        else:
            raise ValueError(f"line {number} belongs to no item; an item begins with a hyphen")
        if found["key"] in target:
            raise ValueError(f"line {number} has {found['key']} a second time")
        plain = _without_comment(found["value"] or "")
        if not plain and not found["item"]:
            items = target[found["key"]] = []
        else:
            target[found["key"]] = _value(plain, number)
    return values


def _without_comment(text: str) -> str:
    """Return what stands before the first `#` outside of quotes."""
    end = 0
    for place, part in enumerate(text.split('"')):
        if place % 2 == 0 and "#" in part:
            return text[: end + part.index("#")].rstrip()
        end += len(part) + 1
    return text.rstrip()


def _value(text: str, number: int) -> Any:
    if re.fullmatch("[a-z]+", text) and text not in ("null", "true", "false"):
        return text
    try:
        return json_from_bytes(text.encode())
    except ValueError as error:
        raise ValueError(f"line {number} has the value {shown(text, 40)!r}: {error}") from error
