"""The pairs that a bundle is verified on, and what eager PyTorch makes of them in FP32."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cled_edge.camera.picture_folder import find_pictures
from cled_edge.contract import (
    KINDS,
    STEP_TO_DOUBT,
    STEP_TO_FUSION,
    UNCERTAINTY,
    WARM_STEPS,
    Controls,
    wired,
)
from cled_edge.errors import NoPairsError
from cled_edge.image import Float32, Uint8, read_image
from cled_edge.memory import Told
from cled_edge.network.sampler import CledFusion
from cled_edge.pairing import pair_by_stem
from cled_edge.scene.night_street import night_street
from cled_edge.size import Size
from cled_edge.tensors import fused_image, network_batch, noise_batch, restored_images, shares_of, start_noise
from cled_edge.verify import Case
from export.graphs import GraphSet

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
    Controls.spread(1, 0.0, 1.0, 0.0),
    Controls.spread(3, 0.4, 0.2, 0.8),
)
_SAMPLES = Controls(start_noise=1.0), Controls(strength_visible=0.7, start_noise=0.5, seed=2**31 - 1)


@dataclass(frozen=True)
class ImagePair:
    """A pair to verify on: infrared (H, W) and visible (H, W, 3), uint8."""

    infrared: Uint8
    visible: Uint8


def whole_cases(model: CledFusion, pairs: Sequence[ImagePair], graphs: GraphSet) -> Iterator[Case]:
    """Yield cases with whole expected images: every pair at a size in turn, and noise, at controls in turn.

    Each size of the graphs and of SIZES comes up, and each number of steps that a loop is unrolled to.
    """
    sizes = (*(LINEAGE_SIZES if model.config.unet.form == "lineage" else SIZES), *graphs.sizes)
    controls = cycle(_all_controls(model, graphs))
    count = max(len(pairs), len(sizes))
    for index in range(count):
        size = sizes[index % len(sizes)]
        yield eager_case(model, cut(pairs[index % len(pairs)], size), next(controls))
    for index, size in enumerate(sizes):
        yield eager_case(model, noise(size, index), next(controls))
    # Every loop at every size that it is for, the smallest of them if it is for any.
    for steps, maps in graphs.loops():
        for size in graphs.sizes or (GOLDEN_SIZES[0],):
            pair = cut(pairs[0], size)
            yield eager_case(model, pair, Controls.spread(steps, 0.8, 0.9, 0.5), _ramps(size) if maps else None)
    if graphs.warm:
        for sides in SIZES:
            yield _warm_case(model, cut(pairs[0], sides))
    if model.doubt is not None:
        for place, sides in enumerate(SIZES):
            yield eager_case(model, cut(pairs[place % len(pairs)], sides), _SAMPLES[place % len(_SAMPLES)])


def golden_cases(model: CledFusion, pairs: Sequence[ImagePair], graphs: GraphSet) -> Iterator[Case]:
    """Yield the cases that stay in the bundle: few, small, and samples of what is expected."""
    seed = 0
    for size in (*GOLDEN_SIZES, *graphs.sizes):
        pair = noise(size, 9) if size == GOLDEN_SIZES[-1] else cut(pairs[seed % len(pairs)], size)
        for controls in _all_controls(model, graphs) if size == GOLDEN_SIZES[0] else _loop_controls(model, graphs):
            has_map = graphs.maps and graphs.steps and controls.steps == graphs.steps[0]
            for strength_map in (None, _ramps(size)) if has_map else (None,):
                yield eager_case(model, pair, controls, strength_map).sampled(seed)
                seed += 1
    if graphs.warm:
        for size in GOLDEN_SIZES[:2]:
            yield _warm_case(model, cut(pairs[0], size)).sampled(seed)
            seed += 1
    if model.doubt is not None:
        for size, controls in zip(GOLDEN_SIZES, _SAMPLES, strict=False):
            yield eager_case(model, cut(pairs[0], size), controls).sampled(seed)
            seed += 1
    for place, size in enumerate(graphs.lone_sizes(), seed):
        controls = Controls(graphs.first_steps(model.config))
        yield eager_case(model, cut(pairs[place % len(pairs)], size), controls).sampled(place)


def _all_controls(model: CledFusion, graphs: GraphSet) -> list[Controls]:
    return list(dict.fromkeys((*_CONTROLS, *_loop_controls(model, graphs))))


def _loop_controls(model: CledFusion, graphs: GraphSet) -> list[Controls]:
    return [Controls(steps) for steps in graphs.steps or (model.config.default_steps,)]


def _warm_case(model: CledFusion, pair: ImagePair) -> Case:
    """Return a case that starts from something else than its input, here more and there less."""
    told = Told(np.dstack([pair.infrared[::-1], pair.visible[::-1]]) // 2 + 64, _ramps(pair.infrared.shape[:2]))
    return eager_case(model, pair, Controls.spread(WARM_STEPS, 0.8, 0.9, 0.5), told=told)


@torch.no_grad()
def eager_case(
    model: CledFusion,
    pair: ImagePair,
    controls: Controls,
    strength_map: Uint8 | None = None,
    told: Told | None = None,
) -> Case:
    """Return what the networks make of a pair in eager PyTorch, FP32; bytes become tensors as in the fuser."""
    steps = controls.steps or model.config.default_steps
    controls = replace(controls, steps=steps)
    multiple, size = model.config.size_multiple, (pair.infrared.shape[0], pair.infrared.shape[1])
    x_in = network_batch(pair.infrared, pair.visible, multiple)
    if told is None:
        residual = model.sampler(torch.from_numpy(x_in), steps).numpy()
    else:
        before = network_batch(told.image[:, :, 0], told.image[:, :, 1:], multiple)
        share = shares_of(told.share, multiple)
        residual = model.sampler.warm(*(torch.from_numpy(x) for x in (x_in, before, share))).numpy()
    if controls.start_noise:
        return _sampled_case(model, pair, controls, x_in, residual)
    removed = residual if strength_map is None else residual * shares_of(strength_map, multiple)
    fused = _fused(model, x_in, removed, controls)
    infrared, visible = restored_images(x_in, removed, controls, size)
    kinds = model.sampler.kinds(torch.from_numpy(x_in), steps)
    expected = {
        **({} if kinds is None else {KINDS: kinds.numpy()}),
        "residual": residual,
        "fused": fused,
        "picture": fused_image(fused, size),
        "infrared": infrared,
        "visible": visible,
    }
    return Case(pair.infrared, pair.visible, controls, expected, strength_map, told=told)


def _sampled_case(model: CledFusion, pair: ImagePair, controls: Controls, x_in: Float32, residual: Float32) -> Case:
    """Return the case of a sample: the last residual, what the doubt draws from it, and its uncertainty."""
    assert model.doubt is not None  # noqa: S101  no case has a start noise without it
    size = pair.infrared.shape[0], pair.infrared.shape[1]
    step = {"x_in": x_in, "residual": residual}
    noise = noise_batch(start_noise(controls, size), x_in.shape, model.config.size_multiple)
    inputs = (torch.from_numpy(each) for each in (*wired(STEP_TO_DOUBT, step).values(), noise))
    drawn, uncertainty = (each.numpy() for each in model.doubt(*inputs))
    fused = _fused(model, x_in, drawn, controls)
    expected = {"residual": residual, "drawn": drawn, UNCERTAINTY: uncertainty, "fused": fused}
    return Case(pair.infrared, pair.visible, controls, expected)


def _fused(model: CledFusion, x_in: Float32, residual: Float32, controls: Controls) -> Float32:
    inputs = wired(STEP_TO_FUSION, {"x_in": torch.from_numpy(x_in), "residual": torch.from_numpy(residual)})
    turned = {name: torch.from_numpy(values) for name, values in controls.tensors().items()}
    return np.asarray(model.fusion(**inputs, controls=turned).numpy(), np.float32)


def read_pairs(folder: Path, count: int) -> list[ImagePair]:
    """Return `count` evenly spaced pairs of `folder/{infrared,visible}`."""
    modalities = [find_pictures(str(folder / name)) or [] for name in ("infrared", "visible")]
    found = pair_by_stem(*modalities)
    if not found:
        raise NoPairsError(f"{folder} holds no pairs under infrared/ and visible/")
    picked = [found[round(i)] for i in np.linspace(0, len(found) - 1, min(count, len(found)))]
    return [
        ImagePair(read_image(infrared, color=False), read_image(visible, color=True)) for _, infrared, visible in picked
    ]


def synthetic_pairs(count: int) -> list[ImagePair]:
    """Return rendered pairs, for a machine that has no data."""
    return [ImagePair(frame.infrared, frame.visible) for frame in night_street(count)]


def noise(size: Size, seed: int) -> ImagePair:
    """Return a pair of uniform noise."""
    rng = np.random.default_rng(seed)
    return ImagePair(rng.integers(0, 256, size, np.uint8), rng.integers(0, 256, (*size, 3), np.uint8))


def _ramps(size: Size) -> Uint8:
    """Return a strength map: infrared from left to right, visible from top to bottom."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([255 * columns / max(1, width - 1), 255 * rows / max(1, height - 1)], axis=2).astype(np.uint8)


def cut(pair: ImagePair, size: Size) -> ImagePair:
    """Tile and crop both to `size` (height, width), so that any image serves for any size."""

    def fitted(image: NDArray[np.uint8]) -> Uint8:
        repeats = [-(-needed // seen) for needed, seen in zip(size, image.shape, strict=False)]
        tiled = np.tile(image, repeats + [1] * (image.ndim - 2))
        return np.ascontiguousarray(tiled[: size[0], : size[1]])

    return ImagePair(fitted(pair.infrared), fitted(pair.visible))
