"""A frame to measure on a GPU: a bundle's graphs at a size and number of steps, inputs, and what is to come out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cled_edge.backend.auto import REFERENCE
from cled_edge.backend.choice import open_backend
from cled_edge.backend.protocol import Array
from cled_edge.bundle import Bundle
from cled_edge.camera.synthetic import night_street
from cled_edge.errors import OptionError
from cled_edge.fuser import Controls, Fuser
from cled_edge.image import network_from_bytes
from cled_edge.manifest import REFERENCE_GRAPHS, GraphPrecision
from cled_edge.size import Size, padded, size_text
from cled_edge.verify import Case, judge, read_golden

EAGER, RUNTIME = "eager FP32, the bundle's golden pair", "FP32 in ONNX Runtime, verified against eager at export"
_LOOP_OUTPUTS, _STEP_OUTPUTS = ("picture", "infrared", "visible"), ("residual", "fused")


@dataclass(frozen=True)
class Form:
    """A way to compute a frame, ready to run.

    call: uploads, computes, downloads, and returns the outputs. gpu_ms: what the last call took on the GPU, None if
    the form does not tell. how: in which way it was launched. runtime: name and version. facts: numbers for the row.
    """

    call: Callable[[], Sequence[Array]]
    gpu_ms: Callable[[], float | None]
    how: Callable[[], str]
    runtime: str
    facts: dict[str, Any]
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Frame:
    """A frame of a bundle at `size` (height, width), of which its padding leaves nothing to do.

    Bytes in to bytes out where the bundle has that loop; else, as of the lineage, `x_t` and `x_in` to `residual` and
    `fused`, in floats. All strengths are 1, the balance is 0.5.
    """

    bundle: Bundle
    size: Size
    steps: int

    def __post_init__(self) -> None:
        """Refuse a size that would be padded with an OptionError."""
        multiple = self.bundle.manifest.size_multiple
        if padded(self.size, multiple) != self.size:
            raise OptionError(f"--sizes has {size_text(self.size)}, needed multiples of {multiple}; give another size")

    @property
    def key(self) -> dict[str, Any]:
        """What tells its rows from others."""
        return {"preset": self.bundle.manifest.name, "size": list(self.size), "steps": self.steps}

    @property
    def has_loop(self) -> bool:
        """Whether the bundle has the frame as one graph, in FP16."""
        return self.bundle.manifest.find("fused_loop", "fp16", size=self.size, steps=self.steps) is not None

    def graphs(self, opsets: Sequence[int], precision: GraphPrecision = "fp16") -> tuple[str, ...]:
        """Return the loop, or step and fusion, in the first opset that has them; OptionError if none does."""
        find = self.bundle.manifest.find
        for opset in opsets:
            if self.has_loop:
                names = [find("fused_loop", precision, opset, self.size, self.steps)]
            else:
                names = [find(role, precision, opset, self.size) for role in REFERENCE_GRAPHS]
            found = tuple(name for name in names if name is not None)
            if len(found) == len(names):
                return found
        raise OptionError(f"{self.bundle.path} has no {precision} graphs; export it again with --precision {precision}")

    @cached_property
    def case(self) -> Case | None:
        """The golden pair of this size and number of steps, if the bundle has one."""
        wanted = self.size, Controls(self.steps)
        found = (case for case in read_golden(self.bundle) if case.strength_map is None)
        return next((case for case in found if (case.size, case.controls) == wanted), None)

    @cached_property
    def pair(self) -> tuple[Array, Array]:
        """Infrared (H, W) and visible (H, W, 3), uint8: the golden pair, or else a rendered one."""
        if self.case is not None:
            return self.case.infrared, self.case.visible
        scene = next(iter(night_street(1, self.size)))
        return scene.infrared, scene.visible

    @cached_property
    def inputs(self) -> dict[str, Array]:
        """The inputs of the loop, or of all steps and the fusion together."""
        infrared, visible = self.pair
        controls = {"strength": np.ones(2, np.float32), "balance": np.full(1, 0.5, np.float32)}
        if self.has_loop:
            return {"infrared": infrared[None, :, :, None], "visible": visible[None], **controls}
        x_in = np.empty((2, 3, *self.size), np.float32)
        x_in[0], x_in[1] = network_from_bytes(infrared), network_from_bytes(visible).transpose(2, 0, 1)
        return {"x_t": x_in * np.float32(self.bundle.manifest.schedule.start_input), "x_in": x_in, **controls}

    @cached_property
    def expected(self) -> tuple[Case, str]:
        """What is to come out, and what says so: eager PyTorch in FP32, or the bundle's FP32 graphs on the CPU."""
        if self.case is not None:
            return self.case, EAGER
        controls = Controls(self.steps)
        with Fuser(self.bundle, open_backend(REFERENCE, self.bundle)) as fuser:
            if self.has_loop:
                fused = fuser.step_by_step(*self.pair, controls)
                expected = {name: getattr(fused, name) for name in _LOOP_OUTPUTS}
            else:
                outputs = fuser.residual_and_fused(self.inputs["x_in"], controls)
                expected = dict(zip(_STEP_OUTPUTS, outputs, strict=True))
        return Case(*self.pair, controls, expected), RUNTIME

    def psnr_db(self, outputs: Sequence[Array]) -> float:
        """Return the PSNR of a frame's outputs, the worst of them; 0 if one is not finite."""
        case, _ = self.expected
        if self.has_loop:
            picture, infrared, visible = (np.asarray(output)[0] for output in outputs)
            seen = dict(zip(_LOOP_OUTPUTS, (picture, infrared[:, :, 0], visible), strict=True))
        else:
            seen = dict(zip(_STEP_OUTPUTS, outputs, strict=True))
        return round(min(judge(*case.compared(name, np.asarray(value)))[1] for name, value in seen.items()), 1)
