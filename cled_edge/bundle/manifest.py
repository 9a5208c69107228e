"""What a bundle says of itself: `manifest.json`, as models that refuse what they do not know."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cled_edge.contract import (
    CONTROL_TENSORS,
    GRAPHS,
    KINDS,
    MAPS,
    MAX_STEPS,
    MIN_STEPS,
    REFERENCE_GRAPHS,
    STRENGTH_MAP,
    STRENGTH_MAPS,
    WARM_MAPS,
    WARM_STEPS,
    GraphRole,
    TensorSpec,
)
from cled_edge.schedule import Schedule

SCHEMA_VERSION: Literal[2] = 2
MANIFEST_NAME = "manifest.json"
GOLDEN_NAME = "golden.safetensors"

GraphPrecision = Literal["fp32", "fp16", "int8"]
Verdict = Literal["OK", "NONFINITE", "CONSTANT", "TOLERANCE"]
REFERENCE_OPSET = 17  # the newest that TensorRT 8.6 parses
OPSETS = (REFERENCE_OPSET, 20)  # those that graphs are exported at


MAX_MULTIPLE = 256  # pixels that images are padded to a multiple of; our presets need 8 to 32
MAX_SIDE_PX = 32768  # of an image that a graph takes
MOST_GRAPHS, MOST_FILES = 256, 512
_NEWEST_OPSET = 64
_IMAGE_DIMENSIONS = 4
_MOST_OPERATORS = 1000  # names of them; ONNX has some 200
_MOST_KINDS = 64
Side = Annotated[int, Field(gt=0, le=MAX_SIDE_PX)]
Count = Annotated[int, Field(ge=0, le=10**6)]
Time = Annotated[float, Field(ge=0, le=1000)]  # A_t * 1000, of which A_t is at most 1
Coefficient = Annotated[float, Field(ge=-1000, le=1000)]  # 1 / B_t of the noise's last step is 190


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GraphSpec(_Model):
    """An ONNX file of the bundle.

    precision: of its weights and of the arithmetic that takes the time; inputs and outputs have types of their own.
    size: (height, width) of the images it takes, whatever the multiple; None if it takes any multiple.
    steps, strength_map: of `fused_loop` alone: how many steps it runs from bytes to bytes, and whether it takes a map.
    nodes: how many there are of each ONNX operator. inputs, outputs: those of its role in cled_edge/contract.py; of
    controls, maps and what it tells of kinds, those that the release knew which exported it. A loop that takes
    `told` and `told_share` is warm: its one step starts from the last frame's estimate.
    """

    role: GraphRole
    file: str
    precision: GraphPrecision
    opset: int = Field(ge=1, le=_NEWEST_OPSET)
    size: tuple[Side, Side] | None = None
    steps: int | None = Field(None, ge=MIN_STEPS, le=MAX_STEPS)
    strength_map: bool = False
    nodes: dict[str, Count] = Field(max_length=_MOST_OPERATORS)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @model_validator(mode="after")
    def _of_its_role(self) -> "GraphSpec":
        """Refuse a graph that lacks an input of its role, or has one that this release does not know."""
        role, names = GRAPHS[self.role], [spec.name for spec in self.inputs]
        if len(set(names)) < len(names):
            raise ValueError(f"inputs of a {self.role} are {', '.join(names)}: one is there twice")
        needed, maps = [spec.name for spec in role.inputs], [spec.name for spec in role.maps]
        known = [*needed, *(CONTROL_TENSORS if role.takes_controls else ()), *maps]
        if not set(needed) <= set(names) <= set(known):
            raise ValueError(f"inputs of a {self.role} are {', '.join(names)}: needed {', '.join(known)}")
        if self.strength_map != (STRENGTH_MAP.name in names):
            raise ValueError(f"strength_map is {self.strength_map}, but inputs are {', '.join(names)}")
        if self.maps not in ((), STRENGTH_MAPS, WARM_MAPS):
            raise ValueError(f"maps are {', '.join(self.maps)}: needed strength_map, or told and told_share, or none")
        if self.maps == WARM_MAPS and self.steps != WARM_STEPS:
            raise ValueError(f"a loop that takes told has {self.steps} steps: needed {WARM_STEPS}")
        plain, given = [spec.name for spec in role.outputs], [spec.name for spec in self.outputs]
        if given not in (plain, [*plain, *(spec.name for spec in role.told)]):
            raise ValueError(f"outputs of a {self.role} are {', '.join(given)}: needed {', '.join(plain)}")
        wanted = {spec.name: spec for spec in (*role.inputs_with(maps), *role.outputs, *role.told)}
        for spec in (*self.inputs, *self.outputs):
            _check_tensor(spec, wanted[spec.name])
        return self

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the maps among its inputs."""
        return tuple(spec.name for spec in self.inputs if spec.name in MAPS)

    @property
    def kinds(self) -> int:
        """How many kinds of degradation it tells apart; 0 if it tells none."""
        return next((int(spec.shape[1]) for spec in self.outputs if spec.name == KINDS), 0)


def _check_tensor(spec: TensorSpec, wanted: TensorSpec) -> None:
    """Raise ValueError unless a tensor is as the contract has it; of a control, older bundles have fewer values."""
    if (spec.dtype, len(spec.shape)) != (wanted.dtype, len(wanted.shape)):
        raise ValueError(f"{spec.name} is {spec.dtype} {spec.shape}: needed {wanted.dtype} {wanted.shape}")
    for place, (side, needed) in enumerate(zip(spec.shape, wanted.shape, strict=True)):
        if isinstance(side, str):
            fits = isinstance(needed, str) or (place == 0 and len(spec.shape) == _IMAGE_DIMENSIONS)  # a batch of one
        elif isinstance(needed, str):
            fits = 1 <= side <= MAX_SIDE_PX
        else:
            fits = 1 <= side <= needed if spec.name in CONTROL_TENSORS else side == needed
        if not fits:
            raise ValueError(f"{spec.name} has a dimension {side}: needed {needed}")


class StepRows(_Model):
    """Inputs `t` and `coef` of the step graph, one row per step."""

    time: tuple[Time, ...]
    coef: tuple[Annotated[tuple[Coefficient, ...], Field(min_length=4, max_length=4)], ...]

    @model_validator(mode="after")
    def _equal_lengths(self) -> "StepRows":
        if len(self.time) != len(self.coef):
            raise ValueError(f"{len(self.time)} times for {len(self.coef)} rows of coefficients")
        return self


class ScheduleSpec(_Model):
    """The few-step schedule, tabulated: a runtime needs no formula. x_T = start_input * x_in (zero start noise)."""

    name: str
    default_steps: int = Field(ge=MIN_STEPS, le=MAX_STEPS)
    start_input: Coefficient
    tables: dict[int, StepRows]

    @model_validator(mode="after")
    def _complete(self) -> "ScheduleSpec":
        if {n: len(rows.time) for n, rows in self.tables.items()} != {n: n for n in range(MIN_STEPS, MAX_STEPS + 1)}:
            raise ValueError(f"tables must hold n rows for each n from {MIN_STEPS} to {MAX_STEPS}")
        return self

    @classmethod
    def from_schedule(cls, schedule: Schedule, default_steps: int) -> "ScheduleSpec":
        """Tabulate 1 to 10 steps."""
        tables = {steps: schedule.step_table(steps) for steps in range(MIN_STEPS, MAX_STEPS + 1)}
        rows = {
            steps: StepRows(time=tuple(table.time.tolist()), coef=tuple(tuple(row) for row in table.coef.tolist()))
            for steps, table in tables.items()
        }
        return cls(
            name=schedule.name, default_steps=default_steps, start_input=tables[MIN_STEPS].start_input, tables=rows
        )


class KindSpec(_Model):
    """A kind of degradation that the network tells, in the place of its number in the graphs' output `kinds`.

    infrared, visible: (scale, offset) of its probability, 1 / (1 + exp(-(scale x + offset))) of the number x; None in
    the modality that never has this kind. As trained, uncalibrated, they are (1, 0).
    """

    name: str = Field(pattern="^[a-z][a-z0-9_]{0,63}$")
    infrared: tuple[Coefficient, Coefficient] | None = None
    visible: tuple[Coefficient, Coefficient] | None = None


class PreprocessingSpec(_Model):
    """How bytes become network values and back. One way so far: a bundle that needs another is refused."""

    pixels: Literal["x = byte / 127.5 - 1"] = "x = byte / 127.5 - 1"
    infrared: Literal["repeat to three channels"] = "repeat to three channels"
    batch: Literal["infrared, visible"] = "infrared, visible"
    padding: Literal["reflect at the bottom and right"] = "reflect at the bottom and right"


class FileSpec(_Model):
    """Size and hash of a file, checked before it is parsed."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class CheckSpec(_Model):
    """The worst of what graphs of one kind computed, against eager PyTorch in FP32, on `cases` pairs of one size.

    verdict: NONFINITE, CONSTANT (of what is not) and TOLERANCE (under needed_db) are failures. tensor: the worst one.
    """

    precision: GraphPrecision
    opset: int
    size: tuple[int, int]
    form: Literal["step by step", "one graph"]
    steps: int
    cases: int
    psnr_db: float
    needed_db: float
    verdict: Verdict
    tensor: str


class VerificationSpec(_Model):
    """What export verified, in ONNX Runtime, and of what pairs; `golden.safetensors` holds some to do it again."""

    inputs: str
    backend: str
    checks: tuple[CheckSpec, ...]

    @property
    def min_psnr_db(self) -> float:
        """Return the worst of the FP32 checks; 0 if there are none."""
        return min((check.psnr_db for check in self.checks if check.precision == "fp32"), default=0.0)


class Manifest(_Model):
    """`manifest.json`. Height and width of every image are padded to multiples of `size_multiple`.

    Graphs `unet_step` and `fusion`, in FP32 and for any size, are the reference form and always there. A `fused_loop`
    is the same in one graph, faster, for one number of steps. `doubt`, which a bundle may lack, draws samples and tells
    uncertainty. The others are these at another precision, opset or size.
    kinds: what the graphs' output `kinds` tells, in its order; none in a bundle whose graphs have no such output.
    tints_grey: whether a visible image that is exactly grey gets a faint tint before the graphs see it.
    """

    schema_version: Literal[2]
    name: str
    created_by: str
    size_multiple: int = Field(gt=0, le=MAX_MULTIPLE)
    graphs: dict[str, GraphSpec] = Field(max_length=MOST_GRAPHS)
    schedule: ScheduleSpec
    preprocessing: PreprocessingSpec
    kinds: tuple[KindSpec, ...] = Field((), max_length=_MOST_KINDS)
    tints_grey: bool = False
    files: dict[str, FileSpec] = Field(max_length=MOST_FILES)
    training: dict[str, object]
    verification: VerificationSpec

    @model_validator(mode="after")
    def _reference_graphs(self) -> "Manifest":
        for role in REFERENCE_GRAPHS:
            if self.find(role) is None:
                raise ValueError(f"graphs lacks the reference {role}: fp32, opset {REFERENCE_OPSET}, any size")
        return self

    @model_validator(mode="after")
    def _steps_of_the_loop(self) -> "Manifest":
        for name, graph in self.graphs.items():
            if (graph.steps is None) == (graph.role == "fused_loop"):
                raise ValueError(f"graph {name} has steps {graph.steps}: fused_loop needs them, no other graph has any")
        return self

    @model_validator(mode="after")
    def _kinds_of_the_graphs(self) -> "Manifest":
        names = [kind.name for kind in self.kinds]
        if len(set(names)) < len(names):
            raise ValueError(f"kinds are {', '.join(names)}: one is there twice")
        for name, graph in self.graphs.items():
            if graph.kinds not in (0, len(names)):
                raise ValueError(f"graph {name} tells {graph.kinds} kinds, but the manifest names {len(names)}")
        return self

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file by its name: what tells a result's bundle from another of the same name."""
        return {name: spec.sha256 for name, spec in self.files.items()}

    def find(
        self,
        role: GraphRole,
        precision: GraphPrecision = "fp32",
        opset: int = REFERENCE_OPSET,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        maps: tuple[str, ...] = (),
    ) -> str | None:
        """Return the name of the graph that does this, or None: one of just this size, or else one of any size.

        maps: names of the maps that it takes, in the order of the contract.
        """
        found = {
            graph.size: name
            for name, graph in self.graphs.items()
            if (graph.role, graph.precision, graph.opset) == (role, precision, opset)
            and (graph.steps, graph.maps) == (steps, maps)
        }
        return found.get(size, found.get(None))

    def precisions(self, *, any_size: bool) -> tuple[GraphPrecision, ...]:
        """Return those of its graphs at the reference opset, or only those in which it has graphs of any size."""
        graphs = [graph for graph in self.graphs.values() if graph.opset == REFERENCE_OPSET]
        found = {graph.precision for graph in graphs if graph.size is None or not any_size}
        return tuple(precision for precision in get_args(GraphPrecision) if precision in found)
