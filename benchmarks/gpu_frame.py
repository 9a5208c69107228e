"""A frame to measure on a GPU: a bundle's loop at a size and number of steps, inputs, and what is to come out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cled_edge.backend.choice import REFERENCE
from cled_edge.backend.opener import open_backend
from cled_edge.backend.protocol import Array
from cled_edge.bundle.manifest import GraphPrecision
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import Controls
from cled_edge.errors import OptionError
from cled_edge.fuser import Fuser
from cled_edge.scene.night_street import night_street
from cled_edge.size import Size, padded, size_text
from cled_edge.verify import Case, judge, read_golden

EAGER, RUNTIME = "eager FP32, the bundle's golden pair", "FP32 in ONNX Runtime, verified against eager at export"
_OUTPUTS = "picture", "infrared", "visible"


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
    """A frame of a bundle, bytes in to bytes out, at `size` (height, width), of which padding leaves nothing to do.

    All strengths are 1, the balance is 0.5.
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

    def loop(self, opsets: Sequence[int], precision: GraphPrecision = "fp16") -> str:
        """Return the name of the loop in the first opset that has it; OptionError if none does."""
        for opset in opsets:
            found = self.bundle.manifest.find("fused_loop", precision, opset, self.size, self.steps)
            if found is not None:
                return found
        raise OptionError(
            f"{self.bundle.path} has no {precision} loop of {self.steps} steps for {size_text(self.size)}; export it "
            f"again with --precision {precision} --unrolled {self.steps}"
        )

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
        """The inputs of the loop."""
        infrared, visible = self.pair
        pair = {"infrared": infrared[None, :, :, None], "visible": visible[None]}
        return pair | {"strength": np.ones(2, np.float32), "balance": np.full(1, 0.5, np.float32)}

    @cached_property
    def expected(self) -> tuple[Case, str]:
        """What is to come out, and what says so: eager PyTorch in FP32, or the bundle's FP32 graphs on the CPU."""
        if self.case is not None:
            return self.case, EAGER
        controls = Controls(self.steps)
        with Fuser(self.bundle, open_backend(REFERENCE, self.bundle)) as fuser:
            fused = fuser.step_by_step(*self.pair, controls)
        expected = {name: getattr(fused, name) for name in _OUTPUTS}
        return Case(*self.pair, controls, expected), RUNTIME

    def psnr_db(self, outputs: Sequence[Array]) -> float:
        """Return the PSNR of a frame's outputs, the worst of them; 0 if one is not finite."""
        case, _ = self.expected
        picture, infrared, visible = (np.asarray(output)[0] for output in outputs)
        seen = dict(zip(_OUTPUTS, (picture, infrared[:, :, 0], visible), strict=True))
        return round(min(judge(*case.compared(name, value))[1] for name, value in seen.items()), 1)
