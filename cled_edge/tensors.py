"""Images as the tensors that graphs take, and what graphs give as images; padded and cropped here alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.bundle.manifest import GraphSpec, StepRows
from cled_edge.contract import (
    NOISE,
    STEP_ROW,
    STEP_TO_DOUBT,
    STEP_TO_FUSION,
    STRENGTH_MAP,
    TOLD,
    TOLD_SHARE,
    Controls,
    TensorSpec,
    wired,
)
from cled_edge.errors import BackendError, OptionError
from cled_edge.image import Float32, Uint8, bytes_from_network, network_from_bytes, swapped
from cled_edge.memory import Told

Array = NDArray[Any]
Arrays = dict[str, Array]  # by the names of the contract
_AGAIN = "get the bundle again, or choose another precision or backend"


def pad(image: Array, multiple: int) -> Array:
    """Return (H, W) or (H, W, C), reflected at the bottom and right until both sides are multiples; maybe itself."""
    bottom, right = (-side % multiple for side in image.shape[:2])
    if not bottom and not right:
        return image
    padded = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    return np.asarray(padded, image.dtype).reshape(*padded.shape[:2], *image.shape[2:])


def pad_swapped(color: Uint8, multiple: int) -> Uint8:
    """Return RGB of BGR, and BGR of RGB, (H, W, 3), as `pad` pads it: in one pass over the image, not in two."""
    height, width = color.shape[:2]
    bottom, right = -height % multiple, -width % multiple
    if bottom >= height or right >= width:
        return np.asarray(pad(swapped(color), multiple), np.uint8)
    padded = np.empty((height + bottom, width + right, 3), np.uint8)
    cv2.cvtColor(color, cv2.COLOR_BGR2RGB, dst=padded[:height, :width])
    padded[height:, :width] = padded[height - 1 - bottom : height - 1, :width][::-1]
    padded[:, width:] = padded[:, width - 1 - right : width - 1][:, ::-1]
    return padded


def network_batch(infrared: Uint8, visible: Uint8, multiple: int) -> Float32:
    """Return grey (H, W) and RGB (H, W, 3) as one padded batch, (2, 3, H', W') in [-1, 1], infrared first."""
    grey, rgb = pad(infrared, multiple), pad(visible, multiple)
    x_in = np.empty((2, 3, *grey.shape), np.float32)
    x_in[0] = network_from_bytes(grey)
    x_in[1] = network_from_bytes(rgb).transpose(2, 0, 1)
    return x_in


def maps_of(strength_map: Uint8 | None, told: Told | None = None) -> dict[str, Uint8]:
    """Return the maps that a caller gave, by the names of the contract."""
    plain = {} if strength_map is None else {STRENGTH_MAP.name: strength_map}
    return plain if told is None else {**plain, TOLD.name: told.image, TOLD_SHARE.name: told.share}


def check_maps(maps: Mapping[str, Array], size: tuple[int, int]) -> None:
    """Raise OptionError unless each map is of the type, the channels and the size of the images."""
    needed = np.dtype(STRENGTH_MAP.dtype), (*size, STRENGTH_MAP.shape[-1])
    for name, values in maps.items():
        if not isinstance(values, np.ndarray):
            seen = type(values).__name__
            raise OptionError(f"{name} is a {seen}, needed an array {needed[0]} {needed[1]}; give it so")
        if (values.dtype, values.shape) != needed:
            raise OptionError(
                f"{name} is {values.dtype} {values.shape}, needed {needed[0]} {needed[1]}: height, width, infrared "
                "and visible; give it so"
            )


def shares_of(strength_map: Uint8, multiple: int) -> Float32:
    """Return what share of the residual holds at each pixel, (2, 1, H', W') in [0, 1], of a map (H, W, 2).

    The restored images and the fusion take strength times residual: a map may as well be part of the residual.
    """
    padded = pad(strength_map, multiple).transpose(2, 0, 1)[:, None]
    return padded.astype(np.float32) / np.float32(255)


def row_inputs(rows: StepRows, index: int) -> Arrays:
    """Return the inputs of a step that come from its row of the schedule table."""
    values = (rows.time[index],), rows.coef[index]
    return {name: np.array(value, np.float32) for name, value in zip(STEP_ROW, values, strict=True)}


def control_inputs(graph: GraphSpec, controls: Controls) -> Arrays:
    """Return the controls among the inputs of a graph. OptionError: see `Controls.inputs`."""
    return {**controls.inputs(graph.inputs, f"graph {graph.file} of this bundle")}


def fusion_inputs(graph: GraphSpec, step: Mapping[str, Array], controls: Controls) -> Arrays:
    """Return the inputs of a fusion graph, from the tensors of the last step. OptionError: see `Controls.inputs`."""
    return _ordered(graph.inputs, {**wired(STEP_TO_FUSION, step), **control_inputs(graph, controls)})


def start_noise(controls: Controls, size: tuple[int, int]) -> Float32 | None:
    """Return the start noise of a sample, eps of Eq. 12 times `start_noise`: (H, W, 4), infrared, then RGB; or None.

    The same bytes on every machine and backend, for the same seed and size.
    """
    if not controls.start_noise:
        return None
    noise = np.random.Generator(np.random.PCG64(controls.seed)).standard_normal((*size, 4), np.float32)
    noise *= np.float32(controls.start_noise)
    return noise


def noise_batch(noise: Float32 | None, shape: tuple[int, ...], multiple: int) -> Float32:
    """Return noise (H, W, 4) as the batch of that shape, (2, 3, H', W'), padded as images are; None is none at all.

    The infrared's is one number a pixel in three equal channels: divided by sqrt(3), what they share has variance 1.
    """
    batch = np.zeros(shape, np.float32)
    if noise is not None:
        padded = pad(noise, multiple)
        batch[0] = padded[:, :, 0] / np.float32(math.sqrt(3))
        batch[1] = padded[:, :, 1:].transpose(2, 0, 1)
    return batch


def doubt_inputs(graph: GraphSpec, step: Mapping[str, Array], noise: Float32 | None, multiple: int) -> Arrays:
    """Return the inputs of a doubt graph, from the tensors of the last step and start noise (H, W, 4) or None."""
    batch = noise_batch(noise, step["x_in"].shape, multiple)
    return _ordered(graph.inputs, {**wired(STEP_TO_DOUBT, step), NOISE: batch})


def loop_inputs(
    graph: GraphSpec, infrared: Uint8, visible: Uint8, maps: Mapping[str, Uint8], controls: Controls, multiple: int
) -> Arrays:
    """Return the inputs of a `fused_loop`, from grey (H, W), RGB (H, W, 3) and maps, padded to a multiple.

    OptionError: see `Controls.inputs`.
    """
    images = {"infrared": infrared[:, :, None], "visible": visible, **maps}
    arrays = {name: np.ascontiguousarray(pad(image, multiple))[None] for name, image in images.items()}
    return _ordered(graph.inputs, {**arrays, **control_inputs(graph, controls)})


def restored_images(x_in: Float32, residual: Float32, controls: Controls, size: tuple[int, int]) -> tuple[Uint8, Uint8]:
    """Return restored infrared (H, W) and visible (H, W, 3), RGB, of a batch and its residual, cropped to `size`."""
    height, width = size
    restored = less(x_in, residual, controls)[:, :, :height, :width]
    return grey_of(restored[0]), bytes_from_network(restored[1])


def less(x_in: Float32, residual: Float32, controls: Controls) -> Float32:
    """Return a batch without the share of its residual that the strengths say, (2, 3, H, W) in [-1, 1]."""
    strength = controls.tensors()["strength"]
    restored = x_in - strength[:, None, None, None] * residual
    # Up to 1 it lies between the input and the clean estimate, which are images both.
    return np.clip(restored, -1, 1, out=restored) if strength.max() > 1 else restored


def grey_of(infrared: Float32) -> Uint8:
    """Return the grey bytes, (H, W), of an infrared image (3, H, W) in [-1, 1]."""
    # The three infrared channels estimate one image; their mean is the better estimate.
    return bytes_from_network(infrared.mean(axis=0, keepdims=True))[:, :, 0]


def fused_image(fused: Float32, size: tuple[int, int]) -> Uint8:
    """Return the fused image, RGB (H, W, 3), of (1, 3, H', W') in [-1, 1], cropped to `size`."""
    return bytes_from_network(fused[0, :, : size[0], : size[1]])


def _ordered(specs: Iterable[TensorSpec], arrays: Mapping[str, Array]) -> Arrays:
    return {spec.name: arrays[spec.name] for spec in specs}


def check_outputs(spec: GraphSpec, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[NDArray[Any]]) -> None:
    """Raise BackendError unless outputs are as the manifest says: so many, of this type and shape."""
    if len(outputs) != len(spec.outputs):
        raise BackendError(f"{spec.file} gave {len(outputs)} outputs, its manifest says {len(spec.outputs)}; {_AGAIN}")
    sides: dict[str, int] = {}
    for told in spec.inputs:
        sides |= {n: side for n, side in zip(told.shape, inputs[told.name].shape, strict=True) if isinstance(n, str)}
    for told, seen in zip(spec.outputs, outputs, strict=True):
        shape = tuple(sides.get(side, side) if isinstance(side, str) else side for side in told.shape)
        if not isinstance(seen, np.ndarray) or seen.dtype.name != told.dtype or seen.shape != shape:
            found = f"{seen.dtype} {seen.shape}" if isinstance(seen, np.ndarray) else type(seen).__name__
            raise BackendError(f"{spec.file} gave {told.name} as {found}, needed {told.dtype} {shape}; {_AGAIN}")


def check_finite(name: str, values: NDArray[Any]) -> None:
    """Raise BackendError for an output that is not finite everywhere."""
    # A sum is a tenth of the time of looking at each, and finite if all are, short of an overflow.
    if values.dtype.kind == "f" and not np.isfinite(values.sum()) and not np.isfinite(values).all():
        raise BackendError(f"{name} is not finite: NaN or infinity came out of the network; {_AGAIN}")
