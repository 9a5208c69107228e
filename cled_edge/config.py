"""`robot.toml`: every option of `cled-edge fuse` as frozen models, read from a file and laid under the flags."""

import difflib
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cled_edge.areas import Area, AreaModality
from cled_edge.contract import CONTROLS, Controls
from cled_edge.errors import OptionError
from cled_edge.files import Reader
from cled_edge.json_text import needed, shown
from cled_edge.live_pairing import HOLD_NS, SLOP_NS, PairingPolicy
from cled_edge.output.sink import OutputSettings, Policy, Shown
from cled_edge.thermal import Gain, Polarity, Thermal, ThermalStream

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# TOML has numbers and no paths: a camera's index may be written without quotes.
_Place = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
_Rows = Annotated[int, Field(ge=0)]
_Path = Annotated[Path, Field(strict=False)]


_MAX_BYTES = 2**20
_CONFIGS = Reader(OptionError, OptionError, "give a TOML file", follow_links=True)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Cameras(_Table):
    """`[cameras]`: the addresses of both, see `cled_edge.camera.source.open_camera`; how they pair and are registered.

    infrared_range, infrared_polarity, infrared_repair: see `cled_edge.thermal.Thermal`. infrared_gain, infrared_lock_s,
    infrared_kelvin_per_count: see `cled_edge.thermal.ThermalStream`. infrared_crop: rows cut off above and below.
    pairing, slop_ms, hold_ms: of live cameras, see `TimePairer`. need_both_s: see `LivePairs`.
    calibration: the file of `cled-edge calibrate`. frame, frame_size, distance_m: see `Registrar`.
    """

    infrared: _Place | None = None
    visible: _Place | None = None
    names: tuple[str, str] | None = Field(default=None, strict=False)
    infrared_range: tuple[float, float] | None = Field(default=None, strict=False)
    infrared_polarity: Polarity = "white-hot"
    infrared_gain: Gain = "auto"
    infrared_lock_s: float | None = Field(default=None, gt=0)
    infrared_repair: bool = True
    infrared_kelvin_per_count: float | None = Field(default=None, gt=0)
    infrared_crop: tuple[_Rows, _Rows] = Field(default=(0, 0), strict=False)
    pairing: PairingPolicy = "latest"
    slop_ms: float = Field(default=SLOP_NS / 1e6, gt=0)
    hold_ms: float = Field(default=HOLD_NS / 1e6, gt=0)
    need_both_s: float | None = Field(default=None, gt=0)
    calibration: _Path | None = None
    frame: Literal["infrared", "visible"] = "visible"
    frame_size: str | None = None
    distance_m: float | None = Field(default=None, gt=0)

    def thermal_stream(self) -> ThermalStream:
        """Return what takes the frames of the infrared camera; OptionError for a value that is not allowed."""
        return ThermalStream(
            Thermal(self.infrared_range, self.infrared_polarity, self.infrared_repair),
            gain=self.infrared_gain,
            lock_after_s=self.infrared_lock_s,
            kelvin_per_count=self.infrared_kelvin_per_count,
            crop_rows=self.infrared_crop,
        )


class Model(_Table):
    """`[model]`: what fuses, and on what."""

    bundle: _Path | None = None
    require_signature: _Path | None = None
    backend: str = "onnxruntime"
    threads: int = Field(default=0, ge=0)
    cuda_binding: str = "cuda"
    allow_build: bool = False
    tile: str | None = None


class OutputTable(_Table):
    """One of `[[outputs]]`; see `OutputSettings`, which has the same fields."""

    to: str
    shows: Shown = "fused"
    policy: Policy | None = None
    queue_frames: int | None = None

    @model_validator(mode="after")
    def _check(self) -> "OutputTable":
        self.settings()
        return self

    def settings(self) -> OutputSettings:
        """Return it as the loop takes it."""
        return OutputSettings(**self.model_dump())


class Page(_Table):
    """`[page]`: the page of the run, see `PageAddress` and `PageServer`."""

    serve: _Place | None = None
    serve_token: str | None = None
    serve_token_file: _Path | None = None
    record_to: _Path = Path("recordings")


class AreaTable(_Table):
    """One of `[[areas]]`; see `cled_edge.areas.Area`, which has the same fields."""

    share: float | None = None
    modality: AreaModality = "both"
    polygon: tuple[Annotated[tuple[float, float], Field(strict=False)], ...] = Field(default=(), strict=False)
    mask: _Path | None = None
    valid: bool = True
    attention: float | None = None

    @model_validator(mode="after")
    def _check(self) -> "AreaTable":
        self.area()
        return self

    def area(self) -> Area:
        """Return it as the loop takes it."""
        return Area(self.share, self.modality, self.polygon, self.mask, self.valid, self.attention)


class Run(_Table):
    """`[run]`: when the run ends, and how it reports."""

    max_frames: int | None = Field(default=None, ge=1)
    evidence: bool = False
    as_json: bool = Field(default=False, alias="json")


_LISTS: dict[str, type[BaseModel]] = {"areas": AreaTable, "outputs": OutputTable}


class RobotConfig(_Table):
    """A whole `robot.toml`. controls: by the names of `Controls`; what is not there has its default."""

    cameras: Cameras = Cameras()
    model: Model = Model()
    controls: dict[str, Any] = Field(default_factory=dict)
    areas: tuple[AreaTable, ...] = Field(default=(), strict=False)
    outputs: tuple[OutputTable, ...] = Field(default=(), strict=False)
    page: Page = Page()
    run: Run = Run()

    def overlaid(self, given: Mapping[str, object], given_controls: Mapping[str, object]) -> "RobotConfig":
        """Return it with what is given in place of its own: values by the tables' fields, and controls by name."""
        tables = {
            name: table.model_copy(update={key: given[key] for key in type(table).model_fields if key in given})
            for name, table in (
                ("cameras", self.cameras),
                ("model", self.model),
                ("page", self.page),
                ("run", self.run),
            )
        }
        return self.model_copy(update={**tables, "controls": {**self.controls, **given_controls}})


def read_config(path: Path, replaced: Collection[str] = ()) -> RobotConfig:
    """Return the configuration of a TOML file.

    replaced: keys that are given elsewhere, as for `overlaid`, or "outputs": their values in the file do not count,
    and are not checked.

    OptionError, in one line that names the key, for an unknown key, with the nearest known one, and for a wrong value;
    also if the file cannot be read, or is not TOML.
    """
    text = _CONFIGS.read(path, _MAX_BYTES)
    try:
        values = tomllib.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{path} is not TOML: {shown(error, 200)}; needed lines such as threads = 2") from error
    if _has_nul(values):
        raise OptionError(f"{path} has a text with the character NUL, which no name can hold; remove it")
    _forget(values, replaced)
    try:
        config = RobotConfig.model_validate(values)
    except ValidationError as error:
        raise OptionError(f"{path}: {_first_problem(error)}") from error
    Controls.from_mapping(config.controls, f"{path}: [controls]")
    return config


def _has_nul(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_nul, (*value, *value.values())))
    return any(map(_has_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


def _forget(values: dict[str, Any], replaced: Collection[str]) -> None:
    """Take what is given elsewhere out of the values of a file; a key that no table knows stays, to be refused."""
    known = set(known_keys())
    names = {*replaced, *(("json",) if "as_json" in replaced else ())}
    for table, keys in values.items():
        if isinstance(keys, dict):
            for key in names & keys.keys():
                if f"{table}.{key}" in known:
                    del keys[key]
    if "outputs" in replaced:
        values.pop("outputs", None)


def known_keys() -> Iterator[str]:
    """Yield every key of the file by its full name, such as model.backend; outputs.to stands for all outputs."""
    for name, field in RobotConfig.model_fields.items():
        if name == "controls":
            yield from (f"controls.{entry.name}" for entry in CONTROLS)
        elif name in _LISTS:
            yield from (f"{name}.{key}" for key in _LISTS[name].model_fields)
        else:
            table: type[BaseModel] = type(field.default)
            yield from (f"{name}.{inner.alias or key}" for key, inner in table.model_fields.items())


def _first_problem(error: ValidationError) -> str:
    """Return what is wrong with the first wrong key, and what to do."""
    first = error.errors(include_url=False)[0]
    where = shown(".".join(str(part) for part in first["loc"]))
    if first["type"] == "missing":
        return f"{where} is missing; needed a value; write it"
    if first["type"] != "extra_forbidden":
        tables = {
            "tuple_type": f"needed tables, each below a line [[{where}]]",
            "model_type": f"needed a table, below a line [{where}]",
        }
        message = tables.get(first["type"]) or needed(first)
        return f"{where} is {shown(repr(first['input']), 40)}: {shown(message, 300)}"
    plain = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
    keys = list(known_keys())
    table, dot, _ = plain.rpartition(".")
    known = [key for key in keys if key.startswith(f"{table}.")] if dot else list(RobotConfig.model_fields)
    nearest = difflib.get_close_matches(plain, known if dot else [*known, *keys], 1, 0)[0]
    return f"{where} is unknown; known: {', '.join(known)}; write {nearest}"
