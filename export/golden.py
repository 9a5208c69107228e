"""The pairs that a bundle is verified on, and what eager PyTorch makes of them in FP32."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from cled_edge.camera.picture_folder import find_pictures
from cled_edge.contract import Controls
from cled_edge.errors import NoPairsError
from cled_edge.image import Float32, Uint8, bytes_from_network, network_from_bytes, read_image
from cled_edge.network.fusion import remove
from cled_edge.network.sampler import CledFusion
from cled_edge.pairing import pair_by_stem
from cled_edge.scene.night_street import night_street
from cled_edge.size import Size
from cled_edge.verify import Case
from export.graphs import Plan

# What any-size graphs are verified at; no camera mode, so that they are, and the last is no multiple of anything.
SIZES: tuple[Size, ...] = ((464, 624), (320, 256), (300, 421))
LINEAGE_SIZES: tuple[Size, ...] = ((152, 208), (128, 96), (100, 141))  # a step of T takes 13 to 36 s at 480x640
GOLDEN_SIZES: tuple[Size, ...] = (
    (240, 320),
    (150, 213),
    (64, 96),
)  # of those that stay in the bundle; the last is noise
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


def whole_cases(model: CledFusion, pairs: Sequence[Pair], plan: Plan) -> Iterator[Case]:
    """Yield cases with whole expected pictures: every pair at a size in turn, and noise, at controls in turn.

    Each size of the plan and of SIZES comes up, and each number of steps that a loop is unrolled to.
    """
    sizes = (*(LINEAGE_SIZES if model.config.unet.form == "lineage" else SIZES), *plan.sizes)
    controls = cycle(_all_controls(model, plan))
    count = max(len(pairs), len(sizes))
    for index in range(count):
        size = sizes[index % len(sizes)]
        yield eager_case(model, cut(pairs[index % len(pairs)], size), next(controls))
    for index, size in enumerate(sizes):
        yield eager_case(model, noise(size, index), next(controls))
    # Every loop at every size that it is for, the smallest of them if it is for any.
    for steps in plan.steps:
        for size in plan.sizes or (GOLDEN_SIZES[0],):
            for has_map in (False, True) if plan.strength_map else (False,):
                pair = cut(pairs[0], size)
                yield eager_case(model, pair, Controls(steps, 0.8, 0.9, 0.5), _ramps(size) if has_map else None)


def golden_cases(model: CledFusion, pairs: Sequence[Pair], plan: Plan) -> Iterator[Case]:
    """Yield the cases that stay in the bundle: few, small, and samples of what is expected."""
    seed = 0
    for size in (*GOLDEN_SIZES, *plan.sizes):
        pair = noise(size, 9) if size == GOLDEN_SIZES[-1] else cut(pairs[seed % len(pairs)], size)
        for controls in _all_controls(model, plan) if size == GOLDEN_SIZES[0] else _loop_controls(model, plan):
            for strength_map in (None, _ramps(size)) if plan.strength_map else (None,):
                yield eager_case(model, pair, controls, strength_map).sampled(seed)
                seed += 1


def _all_controls(model: CledFusion, plan: Plan) -> list[Controls]:
    return list(dict.fromkeys((*_CONTROLS, *_loop_controls(model, plan))))


def _loop_controls(model: CledFusion, plan: Plan) -> list[Controls]:
    return [Controls(steps) for steps in plan.steps or (model.config.default_steps,)]


@torch.no_grad()
def eager_case(model: CledFusion, pair: Pair, controls: Controls, strength_map: Uint8 | None = None) -> Case:
    """Return what the networks make of a pair in eager PyTorch, FP32, padded and rounded as the fuser does."""
    controls = replace(controls, steps=controls.steps or model.config.default_steps)
    multiple = model.config.size_multiple
    height, width = pair.infrared.shape
    x_in = torch.from_numpy(
        np.stack([_padded(network_from_bytes(x), multiple) for x in (_three(pair.infrared), pair.visible)])
    )
    infrared, visible = (x[None] for x in x_in)
    residuals = model.restore(infrared, visible, controls.steps)
    shares = torch.ones(2, 1, 1, 1)
    if strength_map is not None:
        shares = torch.from_numpy(_padded(np.asarray(strength_map / 255, np.float32), multiple))[:, None]
    first, second = residuals[0] * shares[:1], residuals[1] * shares[1:]
    strength = torch.tensor([controls.strength_infrared, controls.strength_visible])
    fused = model.fusion(infrared, first, visible, second, strength, torch.tensor([controls.balance]))
    restored = remove(x_in, torch.cat([first, second]), strength.reshape(2, 1, 1, 1))[:, :, :height, :width].numpy()
    expected = {
        "residual": torch.cat(residuals).numpy(),
        "fused": fused.numpy(),
        "picture": bytes_from_network(fused[0, :, :height, :width].numpy()),
        "infrared": bytes_from_network(restored[0].mean(axis=0, keepdims=True))[:, :, 0],
        "visible": bytes_from_network(restored[1]),
    }
    return Case(pair.infrared, pair.visible, controls, expected, strength_map)


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


def noise(size: Size, seed: int) -> Pair:
    """Return a pair of uniform noise."""
    rng = np.random.default_rng(seed)
    return Pair(rng.integers(0, 256, size, np.uint8), rng.integers(0, 256, (*size, 3), np.uint8))


def _ramps(size: Size) -> Uint8:
    """Return a strength map: infrared from left to right, visible from top to bottom."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([255 * columns / max(1, width - 1), 255 * rows / max(1, height - 1)], axis=2).astype(np.uint8)


def _three(infrared: Uint8) -> Uint8:
    return np.repeat(infrared[:, :, None], 3, axis=2)


def _padded(picture: Float32, multiple: int) -> Float32:
    """Return (C, H', W') of (H, W, C), reflected at the bottom and right to a multiple."""
    bottom, right = (-side % multiple for side in picture.shape[:2])
    padded = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    return np.asarray(padded, np.float32).reshape(*padded.shape[:2], -1).transpose(2, 0, 1).copy()


def cut(pair: Pair, size: Size) -> Pair:
    """Tile and crop both to `size` (height, width), so that any picture serves for any size."""

    def fitted(picture: NDArray[np.uint8]) -> Uint8:
        repeats = [-(-needed // seen) for needed, seen in zip(size, picture.shape, strict=False)]
        tiled = np.tile(picture, repeats + [1] * (picture.ndim - 2))
        return np.ascontiguousarray(tiled[: size[0], : size[1]])

    return Pair(fitted(pair.infrared), fitted(pair.visible))
