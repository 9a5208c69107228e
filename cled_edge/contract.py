"""The contract of the graphs, as data, once: what a user controls, the tensors of each role, how they are wired.

A new control is one field of `Controls` here and one line of the network. The graphs, the manifest, the fuser, the
trial of engines, the command line and `robot.toml` read the rest of it from here. The file is long
because it is one table: a reader sees all that graphs share in one place.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from itertools import cycle
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from cled_edge.errors import OptionError
from cled_edge.size import Size

if TYPE_CHECKING:  # the command line's help reads the controls: it need not wait for NumPy
    import numpy as np
    from numpy.typing import NDArray

GraphRole = Literal["unet_step", "fusion", "fused_loop", "doubt"]
MIN_STEPS, MAX_STEPS = 1, 10
MAX_SEED = 2**31 - 1
REFERENCE_GRAPHS: tuple[GraphRole, ...] = ("unet_step", "fusion")
T = TypeVar("T")


# --- What a user controls ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """A value that a user turns for each frame: an entry of the contract, made of a field of `Controls`.

    low, high: its range, both included. default: None leaves the value to the bundle. neutral: the value at which a
    graph that has no such control computes the same.
    tensor, place: the graphs' input that carries it, and where in it; None if no input does. is_whole: no fractions.
    """

    name: str
    low: float
    high: float
    default: float | None
    neutral: float | None
    meaning: str
    tensor: str | None
    place: int
    is_whole: bool

    def check(self, value: object, where: str = "") -> None:
        """Raise OptionError unless the value lies in the range, or is None where the default is."""
        if value is None and self.default is None:
            return
        kind: type = Integral if self.is_whole else Real
        if isinstance(value, bool) or not isinstance(value, kind):
            number = "a whole number" if self.is_whole else "a number"
            raise OptionError(f"{where}{self.name} is {value!r}; it must be {number} between {self.bounds(' and ')}")
        if not self.low <= value <= self.high:  # type: ignore[operator]
            raise OptionError(f"{where}{self.name} is {value}; it must lie between {self.bounds(' and ')}")

    def bounds(self, between: str = " to ") -> str:
        """Return its range in words, such as `0 to 1.5`."""
        return between.join(f"{end:.0f}" if self.is_whole else f"{end:g}" for end in (self.low, self.high))


def control(
    default: float | None,
    low: float,
    high: float,
    meaning: str,
    *,
    neutral: float | None = None,
    tensor: str | None = "",
    place: int = 0,
) -> Any:
    """Return a field of `Controls`. neutral: None is the default. tensor: "" is an input of the field's own name."""
    values = {"low": low, "high": high, "meaning": meaning, "tensor": tensor, "place": place}
    return field(default=default, metadata={**values, "neutral": default if neutral is None else neutral})


@dataclass(frozen=True)
class Controls:
    """What the user may turn for each frame. OptionError for a value outside its range, and for an unknown name.

    steps: network evaluations, 1 to 10; None is the bundle's default.
    strength_infrared, strength_visible: share of the estimated degradation to remove, 0 (none) to 1 (all), and on to
        1.5, beyond the estimate. A bundle of an older release takes up to 1.
    balance: 0 leans on the visible, 1 on the infrared, 0.5 is what the paper trains.
    light: how far a dark visible image is brightened before its degradation is removed, see `light.py`: 0 leaves a
        night dark, 1 brightens it as a long exposure does.
    deadline_ms: a frame takes as many steps as fit into it, up to `steps`, one at least; None sets none.
    steadiness: of a stream: the share of the last frame's estimate that a frame starts from where the scene holds
        still. 0 fuses every frame for itself.
    start_noise: how much noise a sample of the restored images is drawn with, 0 to 1; 0 is the estimate itself. seed:
        which sample. Both need a bundle with a `doubt` graph.
    """

    steps: int | None = control(None, MIN_STEPS, MAX_STEPS, "network evaluations", tensor=None)
    strength_infrared: float = control(
        1.0, 0, 1.5, "share of the infrared degradation to remove", tensor="strength", place=0
    )
    strength_visible: float = control(
        1.0, 0, 1.5, "share of the visible degradation to remove", tensor="strength", place=1
    )
    balance: float = control(0.5, 0, 1, "0 leans on the visible, 1 on the infrared")
    light: float = control(0.0, 0, 1, "how far a dark visible image is brightened; 0 leaves a night dark", tensor=None)
    deadline_ms: float | None = control(None, 1, 60_000, "as many steps as fit into so many ms a frame", tensor=None)
    steadiness: float = control(
        0.0, 0, 0.9, "share of the last frame's estimate to start from, where the scene holds still", tensor=None
    )
    start_noise: float = control(0.0, 0, 1, "noise to draw a sample of the restored images with", tensor=None)
    seed: int = control(0, 0, MAX_SEED, "which sample start_noise draws", tensor=None)

    if not TYPE_CHECKING:  # which knows the fields' names from the class: at run time a wrong one has our words

        def __new__(cls, *_values: Any, **named: Any) -> "Controls":
            """Refuse an unknown name with an OptionError."""
            _refuse_unknown(named, "Controls(...)")
            return super().__new__(cls)

    def __post_init__(self) -> None:
        """Refuse values outside their ranges with an OptionError."""
        for entry in CONTROLS:
            entry.check(getattr(self, entry.name))

    @classmethod
    def from_mapping(cls, values: Mapping[str, object], where: str) -> "Controls":
        """Return the controls that a mapping names, such as a table of a file; `where` says which, for messages.

        OptionError for an unknown name, which names the nearest known one, and for a value outside its range.
        """
        _refuse_unknown(values, where)
        for entry in CONTROLS:
            if entry.name in values:
                entry.check(values[entry.name], f"{where}: ")
        return cls(**values)  # type: ignore[arg-type]  # each was checked

    @classmethod
    def spread(cls, steps: int | None, *shares: float) -> "Controls":
        """Return controls that lie at these shares of their ranges, in turn, to verify graphs with."""
        carried = [entry for entry in CONTROLS if entry.tensor is not None]
        at = zip(carried, cycle(shares), strict=False)
        values: dict[str, Any] = {entry.name: entry.low + share * (entry.high - entry.low) for entry, share in at}
        return cls(steps, **values)

    def tensors(self) -> "dict[str, NDArray[np.float32]]":
        """Return every tensor of controls, by the name of the graphs' input."""
        import numpy as np  # noqa: PLC0415

        return {
            name: np.array([getattr(self, entry.name) for entry in entries], np.float32)
            for name, entries in CONTROL_TENSORS.items()
        }

    def known_to(self, taken: Sequence["TensorSpec"]) -> "Controls":
        """Return these controls, but neutral where a graph with these inputs has none, and the rest in its ranges."""
        known: dict[str, Any] = {}
        for entry, high in _highest(taken):
            known[entry.name] = min(getattr(self, entry.name), high)
        known.update((entry.name, entry.neutral) for entry in lacking(taken))
        return replace(self, **known)

    def inputs(self, taken: Sequence["TensorSpec"], where: str) -> "dict[str, NDArray[np.float32]]":
        """Return the tensors among the inputs that a graph takes, `where` names the graph for messages.

        OptionError if the graph, of an older bundle, has no such control and it is not at its neutral value, or if the
        graph takes less of it.
        """
        lengths = _lengths(taken)
        for entry in lacking(taken):
            value = getattr(self, entry.name)
            if value != entry.neutral:
                raise OptionError(
                    f"{entry.name} is {value:g}, but {where} has no such control; leave it at {entry.neutral:g}, "
                    "or take a bundle that was exported with this release"
                )
        for entry, high in _highest(taken):
            value = getattr(self, entry.name)
            if value > high:
                raise OptionError(
                    f"{entry.name} is {value:g}, but {where} takes up to {high:g}; give no more, or take a bundle that "
                    "was exported with this release"
                )
        tensors = self.tensors()
        return {name: tensors[name][:length] for name, length in lengths.items()}


def _entry(told: Field[Any]) -> Control:
    values = {
        **told.metadata,
        "name": told.name,
        "default": told.default,
        "is_whole": told.type not in (float, float | None),
    }
    return Control(**{**values, "tensor": told.name if told.metadata["tensor"] == "" else told.metadata["tensor"]})


CONTROLS: tuple[Control, ...] = tuple(map(_entry, fields(Controls)))
CONTROL_TENSORS: dict[str, tuple[Control, ...]] = {
    name: tuple(sorted((c for c in CONTROLS if c.tensor == name), key=lambda c: c.place))
    for name in dict.fromkeys(c.tensor for c in CONTROLS if c.tensor is not None)
}


def _refuse_unknown(names: Iterable[str], where: str) -> None:
    """Raise OptionError for a name that is no control, with the nearest that is one."""
    known = [entry.name for entry in CONTROLS]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0)
            raise OptionError(f"{where} has {name!r}, which is no control; known: {', '.join(known)}; write {near[0]}")


def lacking(taken: Sequence["TensorSpec"]) -> list[Control]:
    """Return the controls that a graph with these inputs has not: it was exported before they came."""
    lengths = _lengths(taken)
    return [entry for entry in CONTROLS if entry.tensor and entry.place >= lengths.get(entry.tensor, 0)]


def controls_of(taken: Sequence["TensorSpec"]) -> tuple[Control, ...]:
    """Return all controls, each with the range that a graph with these inputs takes."""
    highest = {entry.name: high for entry, high in _highest(taken)}
    return tuple(replace(entry, high=min(entry.high, highest.get(entry.name, entry.high))) for entry in CONTROLS)


def _highest(taken: Sequence["TensorSpec"]) -> list[tuple[Control, float]]:
    """Return the controls that a graph with these inputs has, each with the most that it takes."""
    bounds = {spec.name: spec.range[1] for spec in taken}
    return [(entry, bounds[entry.tensor]) for entry in CONTROLS if entry.tensor in bounds]


def _lengths(taken: Sequence["TensorSpec"]) -> dict[str, int]:
    return {spec.name: int(spec.shape[0]) for spec in taken if spec.name in CONTROL_TENSORS}


# --- The tensors of each role -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph. A dimension is a number or the name of one that the caller chooses."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # manifests hold these

    name: str
    dtype: Literal["float32", "uint8"]
    shape: tuple[int | str, ...]
    range: tuple[float, float]
    layout: Literal["NCHW", "NHWC", "NK", "vector"]
    color_order: Literal["RGB"] | None
    meaning: str


@dataclass(frozen=True)
class RoleSpec:
    """What graphs of a role take and give. batch: how many images are one batch. meaning: what such a graph computes.

    inputs: those that every graph of the role has. takes_controls: after them come the tensors of the controls, as many
    as there were when the graph was exported. maps: inputs that a graph may have after these. told: outputs that a
    graph of a network that tells kinds of degradation apart has after `outputs`; an older bundle has none.
    """

    meaning: str
    batch: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    takes_controls: bool = False
    maps: tuple[TensorSpec, ...] = ()
    told: tuple[TensorSpec, ...] = ()

    def inputs_with(self, maps: Iterable[str] = ()) -> tuple[TensorSpec, ...]:
        """Return all inputs of a graph that is exported now, with the maps of these names."""
        controls = tuple(_controls()) if self.takes_controls else ()
        return (*self.inputs, *controls, *(spec for spec in self.maps if spec.name in maps))

    def outputs_with(self, kinds: int) -> tuple[TensorSpec, ...]:
        """Return all outputs of a graph that tells so many kinds apart; 0 is none."""
        told = (replace(spec, shape=(spec.shape[0], kinds)) for spec in self.told)
        return (*self.outputs, *told) if kinds else self.outputs


def _image(name: str, bounds: tuple[float, float], meaning: str) -> TensorSpec:
    return TensorSpec(name, "float32", ("batch", 3, "height", "width"), bounds, "NCHW", "RGB", meaning)


def _frame(name: str, channels: int, meaning: str) -> TensorSpec:
    order: Literal["RGB"] | None = "RGB" if channels == 3 else None
    return TensorSpec(name, "uint8", (1, "height", "width", channels), (0, 255), "NHWC", order, meaning)


def _vector(name: str, length: int, bounds: tuple[float, float], meaning: str) -> TensorSpec:
    return TensorSpec(name, "float32", (length,), bounds, "vector", None, meaning)


def _kinds(images: int | str) -> TensorSpec:
    meaning = (
        "log odds of each kind of degradation in infrared and visible; the manifest names and calibrates the kinds"
    )
    return TensorSpec(KINDS, "float32", (images, "kinds"), _LOG_ODDS, "NK", None, meaning)


def _controls() -> Iterable[TensorSpec]:
    for name, entries in CONTROL_TENSORS.items():
        bounds = min(entry.low for entry in entries), max(entry.high for entry in entries)
        yield _vector(name, len(entries), bounds, "; ".join(entry.meaning for entry in entries))


_IMAGE, _RESIDUAL, _STATE, _LOG_ODDS = (-1.0, 1.0), (-2.0, 2.0), (-3.0, 3.0), (-100.0, 100.0)
_NOISE = (-8.0, 8.0)  # normal: beyond it lies one value of 10^15
KINDS, NOISE, UNCERTAINTY = "kinds", "noise", "uncertainty"
UNCERTAINTY_DEVIATIONS = 1.645  # of a normal distribution, that hold nine tenths of it as an uncertainty does
STRENGTH_MAP = _frame("strength_map", 2, "share of strength at a pixel, infrared then visible; 255, neutral, is all")
TOLD = _frame("told", 4, "clean estimate of the last frame, infrared then visible, RGB")
TOLD_SHARE = _frame("told_share", 2, "how far `told` counts at a pixel, infrared then visible; 255 is all")
GRAPHS: dict[GraphRole, RoleSpec] = {
    "unet_step": RoleSpec(
        "one step of the loop, on infrared and visible as one batch",
        2,
        (
            _image("x_t", _STATE, "state, I_t of Eq. 12"),
            _image("x_in", _IMAGE, "degraded input"),
            _vector("t", 1, (0.0, 1000.0), "time input, A_t * 1000, from the schedule table"),
            _vector("coef", 4, _STATE, "weights of x_t, x0, residual and x_in in x_prev, from the schedule table"),
        ),
        (
            _image("x_prev", _STATE, "next state"),
            _image("residual", _RESIDUAL, "estimated I_res; x_in - residual is the clean estimate"),
        ),
        told=(_kinds("batch"),),
    ),
    "fusion": RoleSpec(
        "the fused image of both inputs and their residuals",
        1,
        (
            _image("infrared", _IMAGE, "degraded infrared, one channel repeated three times"),
            _image("infrared_residual", _RESIDUAL, "its last residual"),
            _image("visible", _IMAGE, "degraded visible"),
            _image("visible_residual", _RESIDUAL, "its last residual"),
        ),
        (_image("fused", _IMAGE, "fused image"),),
        takes_controls=True,
    ),
    "fused_loop": RoleSpec(
        "all of a frame, bytes to bytes, for one number of steps",
        1,
        (_frame("infrared", 1, "degraded infrared"), _frame("visible", 3, "degraded visible")),
        (
            _frame("fused", 3, "fused image"),
            _frame("infrared_restored", 1, "infrared less its degradation"),
            _frame("visible_restored", 3, "visible less its degradation"),
        ),
        takes_controls=True,
        maps=(STRENGTH_MAP, TOLD, TOLD_SHARE),
        told=(_kinds(2),),
    ),
    "doubt": RoleSpec(
        "a sample of the loop's last residual, and how far off the estimate may be, infrared and visible as one batch",
        2,
        (
            _image("x_in", _IMAGE, "degraded input"),
            _image("residual", _RESIDUAL, "the loop's last one"),
            _image(
                NOISE,
                _NOISE,
                "start noise, eps of Eq. 12, times start_noise; infrared is one, over sqrt 3, thrice",
            ),
        ),
        (
            _image("drawn", _RESIDUAL, "residual of the sample; without noise it is `residual`"),
            TensorSpec(
                UNCERTAINTY,
                "float32",
                ("batch", 1, "height", "width"),
                (0.0, 255.0),
                "NCHW",
                None,
                "grey levels within which the true luma lies around the estimate's, at 9 of 10 pixels; whatever noise",
            ),
        ),
    ),
}
MAPS: tuple[str, ...] = tuple(spec.name for spec in GRAPHS["fused_loop"].maps)
# The sets of them that a loop may take. One with WARM_MAPS is warm: its single step starts from what the last told.
STRENGTH_MAPS, WARM_MAPS = (STRENGTH_MAP.name,), (TOLD.name, TOLD_SHARE.name)
WARM_STEPS = 1


def dimensions(role: GraphRole, size: Size) -> dict[str, int]:
    """Return the numbers for the names of a graph's dimensions; a step takes infrared and visible as one batch."""
    return {"batch": GRAPHS[role].batch, "height": size[0], "width": size[1]}


# --- How they are wired -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wire:
    """An input of a graph, `target`, that is a tensor of the step before it, `source`.

    image: which of the step's batch, 0 infrared or 1 visible; None is all of it.
    """

    target: str
    source: str
    image: int | None = None


STEP_ROW = ("t", "coef")  # inputs of a step that come from its row of the schedule table, in this order
STEP_TO_STEP = (Wire("x_t", "x_prev"),)
STEP_TO_FUSION = (
    Wire("infrared", "x_in", 0),
    Wire("infrared_residual", "residual", 0),
    Wire("visible", "x_in", 1),
    Wire("visible_residual", "residual", 1),
)
STEP_TO_DOUBT = (Wire("x_in", "x_in"), Wire("residual", "residual"))
DOUBT_TO_STEP = (Wire("residual", "drawn"),)  # what a sample puts in the place of the step's, before fusion


def wired(wires: Iterable[Wire], step: Mapping[str, T]) -> dict[str, T]:
    """Return the wires' targets out of the tensors of a step, its inputs and outputs: arrays or torch tensors."""
    found: dict[str, T] = {}
    for wire in wires:
        source: Any = step[wire.source]
        found[wire.target] = source if wire.image is None else source[wire.image : wire.image + 1]
    return found
