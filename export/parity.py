"""Whether a bundle computes what its checkpoint does: the whole loop in ONNX Runtime against eager PyTorch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cled_edge.camera.source import find_pictures
from cled_edge.camera.synthetic import night_street
from cled_edge.errors import NoPairsError, ParityError
from cled_edge.fuser import Controls, Fuser
from cled_edge.image import Float32, Uint8, read_image
from cled_edge.manifest import VerificationSpec
from cled_edge.network.sampler import CledFusion
from cled_edge.pairing import pair_by_stem

MIN_PSNR_DB = 60.0
SIZES = ((480, 640), (320, 256), (300, 421))  # the last is no multiple of anything
_CONTROLS = (
    Controls(),
    Controls(steps=1, strength_infrared=0.0, strength_visible=1.0, balance=0.0),
    Controls(steps=3, strength_infrared=0.6, strength_visible=0.3, balance=0.8),
)


@dataclass(frozen=True)
class Pair:
    """A pair to verify on: infrared (H, W) and visible (H, W, 3), uint8."""

    infrared: Uint8
    visible: Uint8


def verify_bundle(bundle: Path, model: CledFusion, pairs: Sequence[Pair], inputs: str) -> VerificationSpec:
    """Run every pair at several sizes and controls; ParityError unless each output reaches 60 dB and is finite."""
    worst = math.inf
    sizes = []
    with Fuser.load(bundle) as fuser:
        for index, pair in enumerate(pairs):
            size = SIZES[index % len(SIZES)]
            sizes.append(size)
            cut = _cut(pair, size)
            controls = _CONTROLS[(index + index // len(SIZES)) % len(_CONTROLS)]
            # Compared before rounding to bytes, which would hide or inflate a difference.
            x_in = fuser.prepare(cut.infrared, cut.visible)
            residual = fuser.residual(x_in, controls)
            outputs = residual, fuser.fusion(x_in, residual, controls)
            where = f"pair {index}, {size[0]}x{size[1]}, {controls}"
            for name, seen, needed in zip(("residual", "fused"), outputs, _eager(model, x_in, controls), strict=True):
                worst = min(worst, _judge(name, seen, needed, 2.0, where))
            worst = min(worst, *_judge_loop(fuser, cut, controls, where))
    return VerificationSpec(
        min_psnr_db=round(min(worst, 200.0), 1), pairs=len(pairs), sizes=tuple(sorted(set(sizes))), inputs=inputs
    )


def _judge_loop(fuser: Fuser, pair: Pair, controls: Controls, where: str) -> list[float]:
    """Compare the bytes of `fused_loop`, if there is one and it serves these controls, with those of the two graphs."""
    loop = fuser.bundle.manifest.graphs.get("fused_loop")
    if loop is None:
        return []
    controls = replace(controls, steps=loop.steps)
    seen = fuser.in_one_graph(pair.infrared, pair.visible, controls)
    needed = fuser.step_by_step(pair.infrared, pair.visible, controls)
    names = ("picture", "infrared", "visible")
    return [_judge(f"loop {n}", getattr(seen, n), getattr(needed, n), 255.0, where) for n in names]


def read_pairs(folder: Path, count: int) -> list[Pair]:
    """Return `count` evenly spaced pairs of `folder/{infrared,visible}`."""
    halves = [find_pictures(str(folder / name)) or [] for name in ("infrared", "visible")]
    found = pair_by_stem(*halves)
    if not found:
        raise NoPairsError(f"{folder} holds no pairs under infrared/ and visible/")
    picked = [found[round(i)] for i in np.linspace(0, len(found) - 1, min(count, len(found)))]
    return [Pair(read_image(infrared, color=False), read_image(visible, color=True)) for _, infrared, visible in picked]


def synthetic_pairs(count: int) -> list[Pair]:
    """Return rendered pairs, for a machine that has no data."""
    return [Pair(frame.infrared, frame.visible) for frame in night_street(count)]


@torch.no_grad()
def _eager(model: CledFusion, x_in: Float32, controls: Controls) -> tuple[Float32, Float32]:
    """Return (residual of both, fused) of the PyTorch networks."""
    infrared, visible = (torch.from_numpy(x)[None] for x in x_in)
    residuals = model.restore(infrared, visible, controls.steps)
    strength = torch.tensor([controls.strength_infrared, controls.strength_visible])
    fused = model.fusion(infrared, residuals[0], visible, residuals[1], strength, torch.tensor([controls.balance]))
    return torch.cat(residuals).numpy(), fused.numpy()


def _judge(name: str, seen: Float32 | Uint8, needed: Float32 | Uint8, span: float, where: str) -> float:
    """Return the PSNR in dB over a range of `span`; ParityError tells not finite, constant and too far apart."""
    if not (np.isfinite(seen).all() and np.isfinite(needed).all()):
        raise ParityError(f"NONFINITE: {name} of {where} holds NaN or infinity; the bundle was not written")
    if float(np.ptp(seen)) == 0 and float(np.ptp(needed)) > 0:
        raise ParityError(f"CONSTANT: {name} of {where} is {seen.flat[0]} everywhere; the bundle was not written")
    error = float(np.mean(np.square(seen.astype(np.float64) - needed)))
    psnr_db = math.inf if error == 0 else 10 * math.log10(span**2 / error)
    if psnr_db < MIN_PSNR_DB:
        raise ParityError(
            f"TOLERANCE: {name} of {where} is {psnr_db:.1f} dB from eager, needed {MIN_PSNR_DB}; not written"
        )
    return psnr_db


def _cut(pair: Pair, size: tuple[int, int]) -> Pair:
    """Tile and crop both to `size` (height, width), so that any picture serves for any size."""

    def fitted(picture: NDArray[np.uint8]) -> Uint8:
        repeats = [-(-needed // seen) for needed, seen in zip(size, picture.shape, strict=False)]
        tiled = np.tile(picture, repeats + [1] * (picture.ndim - 2))
        return np.ascontiguousarray(tiled[: size[0], : size[1]])

    return Pair(fitted(pair.infrared), fitted(pair.visible))
