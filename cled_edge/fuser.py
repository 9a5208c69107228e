"""The one call that users make: an infrared and a visible picture in, the fused and both restored ones out."""

import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.opener import open_backend
from cled_edge.backend.protocol import Backend, FrameBackend
from cled_edge.backend.tensorrt.run_options import CudaOptions
from cled_edge.bundle.manifest import REFERENCE_GRAPHS, GraphRole
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import Controls
from cled_edge.errors import BackendError, OptionError, SizeMismatchError
from cled_edge.frame import MONOTONIC, Frame, FramePair, FusedFrame
from cled_edge.image import (
    ColorOrder,
    Float32,
    Uint8,
    bytes_from_network,
    grey_from_any,
    network_from_bytes,
    rgb_from_any,
    swapped,
)


class Fuser:
    """Fuses pairs with one bundle on one backend. Not thread-safe: use one per thread.

    opset: of the graphs to run; None leaves it to the backend.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, color_order: ColorOrder = "RGB", opset: int | None = None
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.color_order = color_order
        self.opsets = backend.opsets if opset is None else (opset,)

    @classmethod
    def load(
        cls,
        bundle: Path | str | None = None,
        *,
        backend: BackendChoice | str = "onnxruntime",
        threads: int = 0,
        color_order: ColorOrder = "RGB",
        public_key: Path | str | None = None,
        cuda: CudaOptions | None = None,
    ) -> "Fuser":
        """Open a bundle (None is the one shipped inside the package) on a backend, NAME or NAME:PRECISION.

        The default gives the same pictures wherever it runs. "openvino:bf16" is faster where the CPU has bfloat16.
        "auto" is refused with an OptionError: `cled_edge.select.choose` measures which backend is fastest here.
        color_order is that of all arrays given and returned: RGB, or BGR as OpenCV has it. With public_key, a PEM file,
        a bundle that its owner has not signed is refused with a SignatureError. cuda: of backend "tensorrt" alone.
        """
        if color_order not in ("RGB", "BGR"):
            raise OptionError(f"color_order {color_order!r} is unknown; known: RGB, BGR")
        choice = BackendChoice.parse(backend) if isinstance(backend, str) else backend
        opened = Bundle.open(bundle, public_key=public_key)
        return cls(opened, open_backend(choice, opened, threads, cuda), color_order)

    def __call__(
        self,
        infrared: NDArray[Any] | Frame,
        visible: NDArray[Any] | Frame,
        controls: Controls | None = None,
        *,
        strength_map: Uint8 | None = None,
    ) -> FusedFrame:
        """Fuse a pair of equal height and width.

        infrared: uint8 or uint16, (H, W) or (H, W, 3). visible: uint8, (H, W, 3) or (H, W). Arrays are in the fuser's
            colour order; frames say their own, and give the result its ages, its skew and its name.
        controls: None is Controls(). fuser(infrared, visible, Controls(strength_visible=0.5)) keeps half of it.
        strength_map: uint8 (H, W, 2), infrared and visible: the share of either strength that holds at a pixel, 255 is
            all of it; None is 255 everywhere.
        """
        controls = controls or Controls()
        images = self.image(infrared), self.image(visible)
        check_sizes(images[0].shape, images[1].shape)
        _check_map(strength_map, images[0].shape)
        has_loop = self.loop_graph(images[0].shape[:2], controls, strength_map is not None) is not None
        fuse = self.in_one_graph if has_loop else self.step_by_step
        fused = fuse(*images, controls, strength_map)
        if isinstance(infrared, Frame) and isinstance(visible, Frame):
            return timed(fused, FramePair(infrared, visible))
        return fused

    def image(self, frame: NDArray[Any] | Frame) -> NDArray[Any]:
        """Return an image in this fuser's colour order."""
        if not isinstance(frame, Frame):
            return frame
        is_other = frame.image.ndim == 3 and frame.image.shape[2] == 3 and frame.color_order != self.color_order
        return cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB) if is_other else frame.image

    def loop_graph(self, size: tuple[int, ...], controls: Controls, strength_map: bool = False) -> str | None:
        """Return the name of the `fused_loop` for pictures of `size`, (height, width), if the bundle has it."""
        steps = controls.steps or self.bundle.manifest.schedule.default_steps
        return self._find("fused_loop", size, steps, strength_map)

    def _find(
        self, role: GraphRole, size: tuple[int, ...], steps: int | None = None, strength_map: bool = False
    ) -> str | None:
        height, width = size
        precision = self.backend.choice.graphs
        found = (
            self.bundle.manifest.find(role, precision, opset, (height, width), steps, strength_map)
            for opset in self.opsets
        )
        return next((name for name in found if name is not None), None)

    def _reference_graph(self, role: GraphRole, size: tuple[int, ...]) -> str:
        found = self._find(role, size)
        if found is None:
            raise BackendError(
                f"{self.bundle.path} has no {role} graph in {self.backend.choice.graphs}, opset "
                f"{' or '.join(map(str, self.opsets))}, for "
                f"{size[0]}x{size[1]} (height x width); export it: python -m export.to_onnx --size {size[0]}x{size[1]}"
            )
        return found

    def in_one_graph(
        self, infrared: NDArray[Any], visible: NDArray[Any], controls: Controls, strength_map: Uint8 | None = None
    ) -> FusedFrame:
        """Fuse by `fused_loop`: bytes in, bytes out. OptionError if the bundle has none for this."""
        clock = _Stopwatch()
        height, width = infrared.shape[:2]
        graph = self.loop_graph((height, width), controls, strength_map is not None)
        if graph is None:
            raise OptionError(f"{self.bundle.path} has no fused_loop of {controls.steps} steps for {height}x{width}")
        multiple = 1 if self.bundle.manifest.graphs[graph].size else self.bundle.manifest.size_multiple
        grey, rgb = self._padded_bytes(infrared, visible, multiple)
        inputs: dict[str, NDArray[Any]] = {
            "infrared": grey[None, :, :, None],
            "visible": rgb[None],
            **controls.tensors(),
        }
        if strength_map is not None:
            bottom, right = (-side % multiple for side in (height, width))
            inputs["strength_map"] = _padded(strength_map, bottom, right)[None]
        clock.lap("prepare")
        outputs = self.backend.run(graph, inputs)
        clock.lap("network")
        # The backend will write over its outputs: what leaves here is a copy.
        picture, restored_infrared, restored_visible = (x[0, :height, :width] for x in outputs)
        fused = self._ordered_copy(picture), restored_infrared[:, :, 0].copy(), self._ordered_copy(restored_visible)
        clock.lap("output")
        return FusedFrame(*fused, self._ran(controls), self.color_order, clock.laps_ns)

    def step_by_step(
        self, infrared: NDArray[Any], visible: NDArray[Any], controls: Controls, strength_map: Uint8 | None = None
    ) -> FusedFrame:
        """Fuse by `unet_step` and `fusion`: the reference form, for any number of steps."""
        clock = _Stopwatch()
        height, width = infrared.shape[:2]
        x_in = self.prepare(infrared, visible)
        clock.lap("prepare")
        if strength_map is None and isinstance(self.backend, FrameBackend):
            residual, fused = self.residual_and_fused(x_in, controls)
            clock.lap("network")
            return self._outputs(x_in, residual, fused, controls, (height, width), clock)
        residual = self.residual(x_in, controls)
        if strength_map is not None:
            # Both uses below take strength times residual: the map may as well be part of the residual.
            bottom, right = (after - before for after, before in zip(x_in.shape[2:], (height, width), strict=True))
            shares = _padded(strength_map, bottom, right).transpose(2, 0, 1)[:, None].astype(np.float32)
            residual = residual * (shares / np.float32(255))
        clock.lap("steps")
        fused = self.fusion(x_in, residual, controls)
        clock.lap("fusion")
        return self._outputs(x_in, residual, fused, controls, (height, width), clock)

    def residual_and_fused(self, x_in: Float32, controls: Controls) -> tuple[Float32, Float32]:
        """Return what `residual` and `fusion` do, in one call if the backend has it; the shapes of both."""
        if not isinstance(self.backend, FrameBackend):
            residual = self.residual(x_in, controls)
            return residual, self.fusion(x_in, residual, controls)
        schedule = self.bundle.manifest.schedule
        step, fusion = (self._reference_graph(role, x_in.shape[2:]) for role in REFERENCE_GRAPHS)
        inputs = {
            "x_t": x_in * np.float32(schedule.start_input),
            "x_in": x_in,
            **controls.tensors(),
        }
        rows = schedule.tables[controls.steps or schedule.default_steps]
        return self.backend.fused_frame(step, fusion, rows, inputs)

    def _outputs(
        self,
        x_in: Float32,
        residual: Float32,
        fused: Float32,
        controls: Controls,
        size: tuple[int, int],
        clock: "_Stopwatch",
    ) -> FusedFrame:
        height, width = size
        strength = controls.tensors()["strength"]
        restored = (x_in - strength[:, None, None, None] * residual)[:, :, :height, :width]
        # The three infrared channels estimate one picture; their mean is the better estimate.
        restored_infrared = bytes_from_network(restored[0].mean(axis=0, keepdims=True))[:, :, 0]
        restored_visible = self._ordered_copy(bytes_from_network(restored[1]))
        picture = self._ordered_copy(bytes_from_network(fused[0, :, :height, :width]))
        clock.lap("output")
        images = picture, restored_infrared, restored_visible
        return FusedFrame(*images, self._ran(controls), self.color_order, clock.laps_ns)

    def _ran(self, controls: Controls) -> Controls:
        """Return the controls with the number of steps that ran."""
        return replace(controls, steps=controls.steps or self.bundle.manifest.schedule.default_steps)

    def prepare(self, infrared: NDArray[Any], visible: NDArray[Any]) -> Float32:
        """Return both as one padded batch, (2, 3, H', W') in [-1, 1], infrared first."""
        grey, rgb = self._padded_bytes(infrared, visible, self.bundle.manifest.size_multiple)
        x_in = np.empty((2, 3, *grey.shape), np.float32)
        x_in[0] = network_from_bytes(grey)
        x_in[1] = network_from_bytes(rgb).transpose(2, 0, 1)
        return x_in

    def _padded_bytes(self, infrared: NDArray[Any], visible: NDArray[Any], multiple: int) -> tuple[Uint8, Uint8]:
        """Return grey (H', W') and RGB (H', W', 3), padded by reflection to a multiple."""
        grey = grey_from_any(infrared, self.color_order)
        rgb = rgb_from_any(visible, self.color_order)
        bottom, right = (-side % multiple for side in grey.shape)
        if bottom or right:
            grey, rgb = (_padded(x, bottom, right) for x in (grey, rgb))
        return grey, rgb

    def residual(self, x_in: Float32, controls: Controls) -> Float32:
        """Run the few-step loop from x_T = start_input * x_in; return the last residual, shape of x_in."""
        schedule = self.bundle.manifest.schedule
        rows = schedule.tables[controls.steps or schedule.default_steps]
        graph = self._reference_graph("unet_step", x_in.shape[2:])
        x_t, residual = x_in * np.float32(schedule.start_input), x_in
        for step_time, coef in zip(rows.time, rows.coef, strict=True):
            inputs = {
                "x_t": x_t,
                "x_in": x_in,
                "t": np.array([step_time], np.float32),
                "coef": np.array(coef, np.float32),
            }
            x_t, residual = self.backend.run(graph, inputs)
        return residual

    def fusion(self, x_in: Float32, residual: Float32, controls: Controls) -> Float32:
        """Run the fusion graph; return (1, 3, H', W') in [-1, 1]."""
        inputs = {
            "infrared": x_in[:1],
            "infrared_residual": residual[:1],
            "visible": x_in[1:],
            "visible_residual": residual[1:],
            **controls.tensors(),
        }
        return self.backend.run(self._reference_graph("fusion", x_in.shape[2:]), inputs)[0]

    def _ordered_copy(self, rgb: Uint8) -> Uint8:
        """Return the picture as an array of its own, in the caller's colour order."""
        return swapped(rgb) if self.color_order == "BGR" else rgb.copy()

    def close(self) -> None:
        """Give back what the backend holds."""
        self.backend.close()

    def __enter__(self) -> "Fuser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def check_sizes(infrared: tuple[int, ...], visible: tuple[int, ...]) -> None:
    """Raise SizeMismatchError unless both shapes start with the same height and width."""
    if infrared[:2] != visible[:2]:
        (h, w), (other_h, other_w) = infrared[:2], visible[:2]
        raise SizeMismatchError(
            f"infrared is {h}x{w}, visible {other_h}x{other_w} (height x width); they must be registered to the same "
            "pixels: warp one onto the other, or crop and resize both to one size first"
        )


def _check_map(strength_map: Uint8 | None, shape: tuple[int, ...]) -> None:
    if strength_map is not None and (strength_map.dtype != np.uint8 or strength_map.shape != (*shape[:2], 2)):
        raise OptionError(
            f"strength_map is {strength_map.dtype} {strength_map.shape}, needed uint8 {(*shape[:2], 2)}: height, "
            "width, infrared and visible"
        )


def _padded(picture: Uint8, bottom: int, right: int) -> Uint8:
    padded = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    return np.asarray(padded, np.uint8)


def timed(fused: FusedFrame, pair: FramePair) -> FusedFrame:
    """Return the result with what its pair tells: how old both frames are by now, their skew and their name."""
    now_ns = time.monotonic_ns()
    ages = (
        now_ns - frame.timestamp_ns if frame.clock == MONOTONIC else None for frame in (pair.infrared, pair.visible)
    )
    infrared_age_ns, visible_age_ns = ages
    return replace(
        fused,
        infrared_age_ns=infrared_age_ns,
        visible_age_ns=visible_age_ns,
        skew_ns=pair.skew_ns,
        name=pair.name,
    )


class _Stopwatch:
    def __init__(self) -> None:
        self.laps_ns: dict[str, int] = {}
        self._last = time.perf_counter_ns()

    def lap(self, name: str) -> None:
        now = time.perf_counter_ns()
        self.laps_ns[name] = now - self._last
        self._last = now
