"""A trial: what an engine must compute before it is kept, and whether it did.

Inputs are made of a golden pair of the bundle; what is expected is what the bundle's FP32 graphs make of them in ONNX
Runtime on the CPU, which export verified against eager PyTorch. So an engine that gives wrong numbers, as a builder's
bug or FP16 can make one, never reaches the runner.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.backend.choice import REFERENCE
from cled_edge.backend.opener import open_backend
from cled_edge.backend.tensorrt.build_options import BuildOptions
from cled_edge.backend.tensorrt.build_record import TrialRecord
from cled_edge.bundle.manifest import GOLDEN_NAME, REFERENCE_OPSET
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import Controls
from cled_edge.errors import BundleMissingError
from cled_edge.fuser import Fuser
from cled_edge.size import Size
from cled_edge.verify import NEEDED_DB, judge, read_golden

Arrays = dict[str, NDArray[Any]]  # by the names of the graph's tensors


@dataclass(frozen=True)
class Trial:
    """Inputs of a graph at a size, and what it must make of them; types and shapes are the manifest's."""

    inputs: Arrays
    expected: Arrays


def make_trial(bundle: Bundle, graph_name: str, size: Size) -> Trial:
    """Return a trial of a graph at a size that it takes; BundleMissingError if the bundle has no golden pair."""
    spec = bundle.manifest.graphs[graph_name]
    cases = read_golden(bundle)
    if not cases:
        raise BundleMissingError(f"{bundle.path / GOLDEN_NAME} holds no pair to try an engine on; export it again")
    infrared, visible = _tiled(cases[0].infrared, size), _tiled(cases[0].visible, size)
    controls = Controls(spec.steps, strength_infrared=0.8, strength_visible=0.9, balance=0.4)
    with Fuser(bundle, open_backend(REFERENCE, bundle), opset=REFERENCE_OPSET) as fuser:
        if spec.role == "fused_loop":
            shares = np.stack([infrared, visible[:, :, 0]], axis=2) if spec.strength_map else None
            fused = fuser.step_by_step(infrared, visible, controls, shares)
            inputs: Arrays = {"infrared": infrared[None, :, :, None], "visible": visible[None], **controls.tensors()}
            expected = {
                "fused": fused.picture[None],
                "infrared_restored": fused.infrared[None, :, :, None],
                "visible_restored": fused.visible[None],
            }
            return Trial(inputs if shares is None else {**inputs, "strength_map": shares[None]}, expected)
        step = _first_step(fuser, infrared, visible)
        if spec.role == "unet_step":
            return step
        x_in, residual = step.inputs["x_in"], step.expected["residual"]
        inputs = {
            **controls.tensors(),
            "infrared": x_in[:1],
            "infrared_residual": residual[:1],
            "visible": x_in[1:],
            "visible_residual": residual[1:],
        }
        return Trial(inputs, {"fused": fuser.fusion(x_in, residual, controls)})


def judged(
    trial: Trial, outputs: Mapping[str, NDArray[Any]], options: BuildOptions, size: Size, how: str
) -> TrialRecord:
    """Return the verdict on an engine's outputs: the worst of them, by the bar of its precision in cled_edge/verify.py.

    TF32 rounds FP32 to FP16's mantissa, so FP16's bar holds for it.
    """
    needed_db = NEEDED_DB["fp16" if options.tf32 and options.precision == "fp32" else options.precision]
    found = [(*judge(outputs[name], needed), name) for name, needed in trial.expected.items() if name in outputs]
    verdict, psnr_db, tensor = min(found, key=lambda row: (row[0] == "OK", row[1]))
    return TrialRecord(
        size=size,
        tensor=tensor,
        psnr_db=round(psnr_db, 1),
        needed_db=needed_db,
        verdict="TOLERANCE" if verdict == "OK" and psnr_db < needed_db else verdict,
        launched=how,
    )


def _first_step(fuser: Fuser, infrared: NDArray[np.uint8], visible: NDArray[np.uint8]) -> Trial:
    schedule = fuser.bundle.manifest.schedule
    rows = schedule.tables[schedule.default_steps]
    x_in = fuser.prepare(infrared, visible)
    inputs = {
        "x_t": x_in * np.float32(schedule.start_input),
        "x_in": x_in,
        "t": np.array(rows.time[:1], np.float32),
        "coef": np.array(rows.coef[0], np.float32),
    }
    x_prev, residual = fuser.backend.run(fuser.bundle.manifest.find("unet_step") or "", inputs)
    return Trial(inputs, {"x_prev": x_prev, "residual": residual})


def _tiled(picture: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Return a picture of any size, made of copies of one."""
    rows, columns = (np.arange(side) % seen for side, seen in zip(size, picture.shape, strict=False))
    return np.ascontiguousarray(picture[rows][:, columns])
