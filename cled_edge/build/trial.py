"""A trial: what an engine must compute before it is kept, and whether it did.

Inputs are made of a golden pair of the bundle; what is expected is what the bundle's FP32 graphs make of them in ONNX
Runtime on the CPU, which export verified against eager PyTorch. So an engine that gives wrong numbers, as a builder's
bug or FP16 can make one, never reaches the runner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.backend.choice import REFERENCE
from cled_edge.backend.opener import open_backend
from cled_edge.backend.tensorrt.build_options import BuildOptions
from cled_edge.backend.tensorrt.build_record import TrialRecord
from cled_edge.bundle.manifest import GOLDEN_NAME, REFERENCE_OPSET, GraphSpec
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import WARM_MAPS, Controls
from cled_edge.errors import BundleMissingError
from cled_edge.fuser import Fuser
from cled_edge.image import Uint8
from cled_edge.memory import Told
from cled_edge.size import Size
from cled_edge.tensors import Arrays, doubt_inputs, fusion_inputs, loop_inputs, maps_of, row_inputs, start_noise
from cled_edge.verify import NEEDED_DB, read_golden, worst


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
        raise BundleMissingError(
            f"{bundle.path / GOLDEN_NAME} holds no pair to try an engine on; get a bundle "
            "that was exported with this release"
        )
    infrared, visible = _tiled(cases[0].infrared, size), _tiled(cases[0].visible, size)
    controls = Controls.spread(spec.steps, 0.8, 0.9, 0.4).known_to(spec.inputs)
    with Fuser(bundle, open_backend(REFERENCE, bundle), opset=REFERENCE_OPSET) as fuser:
        if spec.role == "fused_loop":
            return _loop_trial(fuser, spec, infrared, visible, controls)
        step = _step_trial(fuser, infrared, visible)
        if spec.role == "unet_step":
            return step
        tensors = {**step.inputs, **step.expected}
        if spec.role == "doubt":
            noise, multiple = start_noise(Controls(start_noise=1.0), size), bundle.manifest.size_multiple
            expected = fuser.doubt(tensors["x_in"], tensors["residual"], noise)
            return Trial(doubt_inputs(spec, tensors, noise, multiple), _named(spec, expected))
        fused = fuser.fusion(tensors["x_in"], tensors["residual"], controls)
        return Trial(fusion_inputs(spec, tensors, controls), _named(spec, [fused]))


def judged(
    trial: Trial, outputs: Mapping[str, NDArray[Any]], options: BuildOptions, size: Size, how: str
) -> TrialRecord:
    """Return the verdict on an engine's outputs: the worst of them, by its precision's target in cled_edge/verify.py.

    TF32 rounds FP32 to FP16's mantissa, so FP16's target holds for it.
    """
    needed_db = NEEDED_DB["fp16" if options.tf32 and options.precision == "fp32" else options.precision]
    found = {name: (outputs[name], needed) for name, needed in trial.expected.items() if name in outputs}
    verdict, psnr_db, tensor = worst(found)
    return TrialRecord(
        size=size,
        tensor=tensor,
        psnr_db=round(psnr_db, 1),
        needed_db=needed_db,
        verdict="TOLERANCE" if verdict == "OK" and psnr_db < needed_db else verdict,
        launched=how,
    )


def _loop_trial(fuser: Fuser, spec: GraphSpec, infrared: Uint8, visible: Uint8, controls: Controls) -> Trial:
    shares = np.stack([infrared, visible[:, :, 0]], axis=2)
    if spec.maps == WARM_MAPS:  # no form step by step: what is expected is the FP32 loop's
        before = Told(np.dstack([infrared[::-1], visible[::-1]]), shares)
        fused, maps = fuser.in_one_graph(infrared, visible, controls, told=before), maps_of(None, before)
    else:
        strength_map = shares if spec.maps else None
        fused, maps = fuser.step_by_step(infrared, visible, controls, strength_map), maps_of(strength_map)
    inputs = loop_inputs(spec, infrared, visible, maps, controls, multiple=1)
    images = [fused.picture[None], fused.infrared[None, :, :, None], fused.visible[None]]
    # A step graph may tell kinds where an older loop does not.
    told = [fused.kinds] if spec.kinds and fused.kinds is not None else []
    return Trial(inputs, _named(spec, [*images, *told]))


def _step_trial(fuser: Fuser, infrared: Uint8, visible: Uint8) -> Trial:
    manifest, x_in = fuser.bundle.manifest, fuser.prepare(infrared, visible)
    inputs = {**fuser.start(x_in), **row_inputs(fuser.rows(Controls()), 0)}
    name = manifest.find("unet_step") or ""
    return Trial(inputs, _named(manifest.graphs[name], fuser.backend.run(name, inputs)))


def _named(spec: GraphSpec, outputs: Sequence[NDArray[Any]]) -> Arrays:
    return {tensor.name: output for tensor, output in zip(spec.outputs, outputs, strict=True)}


def _tiled(image: Uint8, size: Size) -> Uint8:
    """Return an image of any size, made of copies of one."""
    rows, columns = (np.arange(side) % seen for side, seen in zip(size, image.shape, strict=False))
    return np.ascontiguousarray(image[rows][:, columns])
