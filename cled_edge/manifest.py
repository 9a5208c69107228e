"""What a bundle says of itself: `manifest.json`, as models that refuse what they do not know."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cled_edge.schedule import MAX_STEPS, MIN_STEPS, Schedule

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"

GraphName = Literal["unet_step", "fusion", "fused_loop"]
REFERENCE_GRAPHS: tuple[GraphName, ...] = ("unet_step", "fusion")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorSpec(_Model):
    """An input or output of a graph. A dimension is a number or the name of one that the caller chooses."""

    name: str
    dtype: Literal["float32", "uint8"]
    shape: tuple[int | str, ...]
    range: tuple[float, float]
    layout: Literal["NCHW", "NHWC", "vector"]
    color_order: Literal["RGB"] | None
    meaning: str


class GraphSpec(_Model):
    """An ONNX file of the bundle. `steps`, for `fused_loop` alone, is how many steps it runs from bytes to bytes."""

    file: str
    steps: int | None = Field(None, ge=MIN_STEPS, le=MAX_STEPS)
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class StepRows(_Model):
    """Inputs `t` and `coef` of the step graph, one row per step."""

    time: tuple[float, ...]
    coef: tuple[Annotated[tuple[float, ...], Field(min_length=4, max_length=4)], ...]

    @model_validator(mode="after")
    def _equal_lengths(self) -> "StepRows":
        if len(self.time) != len(self.coef):
            raise ValueError(f"{len(self.time)} times for {len(self.coef)} rows of coefficients")
        return self


class ScheduleSpec(_Model):
    """The few-step schedule, tabulated: a runtime needs no formula. x_T = start_input * x_in (zero start noise)."""

    name: str
    default_steps: int = Field(ge=MIN_STEPS, le=MAX_STEPS)
    start_input: float
    tables: dict[int, StepRows]

    @model_validator(mode="after")
    def _complete(self) -> "ScheduleSpec":
        if any(len(self.tables.get(n, StepRows(time=(), coef=())).time) != n for n in range(MIN_STEPS, MAX_STEPS + 1)):
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


class PreprocessingSpec(_Model):
    """How bytes become network values and back. One way so far: a bundle that needs another is refused."""

    pixels: Literal["x = byte / 127.5 - 1"] = "x = byte / 127.5 - 1"
    infrared: Literal["repeat to three channels"] = "repeat to three channels"
    batch: Literal["infrared, visible"] = "infrared, visible"
    padding: Literal["reflect at the bottom and right"] = "reflect at the bottom and right"


class FileSpec(_Model):
    """Size and hash of a file, checked before it is parsed."""

    bytes: int = Field(ge=0)
    sha256: str


class VerificationSpec(_Model):
    """Whole loop in ONNX Runtime against eager PyTorch, both FP32, at export: the worst case found."""

    min_psnr_db: float
    pairs: int
    sizes: tuple[tuple[int, int], ...]
    inputs: str


class Manifest(_Model):
    """`manifest.json`. Height and width of every picture are padded to multiples of `size_multiple`.

    `unet_step` and `fusion` are the reference form and always there; `fused_loop` is the same in one graph, faster, for
    one number of steps.
    """

    schema_version: Literal[1]
    name: str
    created_by: str
    size_multiple: int = Field(gt=0)
    graphs: dict[GraphName, GraphSpec]
    schedule: ScheduleSpec
    preprocessing: PreprocessingSpec
    files: dict[str, FileSpec]
    training: dict[str, object]
    verification: VerificationSpec

    @model_validator(mode="after")
    def _reference_graphs(self) -> "Manifest":
        missing = set(REFERENCE_GRAPHS) - self.graphs.keys()
        if missing:
            raise ValueError(f"graphs lacks {', '.join(sorted(missing))}")
        return self

    @model_validator(mode="after")
    def _steps_of_the_loop(self) -> "Manifest":
        for name, graph in self.graphs.items():
            if (graph.steps is None) == (name == "fused_loop"):
                raise ValueError(f"graph {name} has steps {graph.steps}: fused_loop needs them, no other graph has any")
        return self
