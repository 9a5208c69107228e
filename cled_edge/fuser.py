"""The one call that users make: an infrared and a visible image in, the fused and both restored ones out."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.areas import Areas
from cled_edge.as_seen import Seen, as_seen
from cled_edge.attention import check_attention
from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.opener import open_backend
from cled_edge.backend.protocol import Backend, FrameBackend
from cled_edge.backend.tensorrt.run_options import CudaOptions
from cled_edge.bundle.manifest import GraphSpec, StepRows
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import (
    KINDS,
    MAX_STEPS,
    MIN_STEPS,
    REFERENCE_GRAPHS,
    STEP_TO_STEP,
    UNCERTAINTY,
    WARM_MAPS,
    WARM_STEPS,
    Control,
    Controls,
    GraphRole,
    controls_of,
    wired,
)
from cled_edge.deadline import StepBudget
from cled_edge.errors import BackendError, OptionError
from cled_edge.evidence.told import Evidence, probabilities
from cled_edge.frame import MONOTONIC, Frame, FramePair, FusedFrame
from cled_edge.image import ColorOrder, Float32, Uint8, check_color_order, grey_from_any, rgb_from_any, swapped
from cled_edge.json_text import counted
from cled_edge.light import Moment, Steady
from cled_edge.memory import Memory, Told
from cled_edge.pair_facts import are_flat, check_sizes, completed, examined, timed
from cled_edge.size import Size
from cled_edge.stage_times import Stopwatch
from cled_edge.tensors import (
    check_finite,
    check_maps,
    check_outputs,
    control_inputs,
    doubt_inputs,
    fused_image,
    fusion_inputs,
    loop_inputs,
    maps_of,
    network_batch,
    pad_swapped,
    restored_images,
    row_inputs,
    shares_of,
    start_noise,
)
from cled_edge.thermal import Thermal

COLD = "steadiness is off: part of the image has a strength of its own, and what it leaves is no estimate"
Way = Callable[[NDArray[Any], NDArray[Any], Controls, Uint8 | None], FusedFrame]  # as `Fuser.fuse`


def as_shown(
    fused: FusedFrame,
    seen: Seen,
    notes: tuple[str, ...],
    areas: Areas,
    validity: Uint8 | None = None,
    attention: Float32 | None = None,
) -> FusedFrame:
    """Return what the graphs made as it leaves: in the camera's colours, as the areas say, with notes of the inputs.

    notes: those of `examined`; two flat images give their maximum. validity, attention: see `Areas.finished`.
    """
    fused = replace(seen.finish(fused), notes=(*notes, *fused.notes))
    if are_flat(notes):  # the network would draw a faint pattern of its own
        np.maximum(fused.infrared[:, :, None], fused.visible, out=fused.picture)
    return areas.finished(fused, validity, attention)


class Fuser:
    """Fuses pairs with one bundle on one backend. Use one per thread; threads may share only one of ONNX Runtime.

    opset: of the graphs to run; None leaves it to the backend. thermal: how infrared values become grey. areas: parts
    of the picture with a strength or an attention of their own. uncertainty: whether results tell it, see `FusedFrame`.
    It, and a start noise, take the bundle's separate graphs, which are slower than the loop in one.
    is_looked_at: whether results tell it where they can, as long as somebody looks at it. look_failure: why that was
    given up for good, "" if it was not. These may be changed between two pairs.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        color_order: ColorOrder = "RGB",
        opset: int | None = None,
        *,
        thermal: Thermal | None = None,
        areas: Areas | None = None,
        uncertainty: bool = False,
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.color_order = color_order
        self.opsets = backend.opsets if opset is None else (opset,)
        self.thermal = Thermal() if thermal is None else thermal
        self.areas = Areas(()) if areas is None else areas
        self.uncertainty = uncertainty
        self.is_looked_at, self.look_failure = False, ""
        self._budgets: dict[tuple[Size, int | None, bool], tuple[StepBudget, int]] = {}

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
        thermal: Thermal | None = None,
        areas: Areas | None = None,
        uncertainty: bool = False,
    ) -> "Fuser":
        """Open a bundle on a backend; close it, or use it in a `with` statement.

        bundle: folder of an exported bundle; None is the one shipped inside the package.
        backend: NAME or NAME:PRECISION. The default gives the same images wherever it runs. "openvino:bf16" is faster
            where the CPU has bfloat16. "auto" is refused: `cled_edge.select.choose` measures what is fastest here.
        threads: of the CPU; 0 is the backend's choice.
        color_order: of all arrays given and returned: RGB, or BGR as OpenCV has it.
        public_key: a PEM file; a bundle that its owner has not signed is then refused.
        cuda: options of backend "tensorrt" alone.
        thermal: what becomes of infrared values; None stretches 16 bit image by image, replaces bad pixels, and takes
            heat for bright.
        areas: parts of the picture with a strength or an attention of their own, or that one camera does not show;
            None has none. `fuser.areas` may be replaced at any time.
        uncertainty: whether results tell theirs, for which the bundle needs a `doubt` graph.

        OptionError for an unknown name or order. BundleMissingError, BundleCorruptError, BundleVersionError or
        SignatureError if the bundle cannot be trusted. BackendError if the backend cannot run on this machine.
        """
        check_color_order(color_order)
        choice = BackendChoice.parse(backend) if isinstance(backend, str) else backend
        opened = Bundle.open(bundle, public_key=public_key)
        running = open_backend(choice, opened, threads, cuda)
        return cls(opened, running, color_order, thermal=thermal, areas=areas, uncertainty=uncertainty)

    def __call__(
        self,
        infrared: NDArray[Any] | Frame,
        visible: NDArray[Any] | Frame,
        controls: Controls | None = None,
        *,
        strength_map: Uint8 | None = None,
        validity: Uint8 | None = None,
        attention: Float32 | None = None,
        areas: Areas | None = None,
        memory: Memory | None = None,
        moment: Moment | None = None,
        way: Way | None = None,
    ) -> FusedFrame:
        """Fuse a pair of equal height and width, at least 1 pixel each; arrays and frames stay as they are.

        infrared: uint8 or uint16, (H, W) or (H, W, 3). visible: uint8, (H, W, 3) or (H, W). Arrays are in the fuser's
            colour order; frames say their own, and give the result its ages, its skew and its name.
        controls: None is Controls(). fuser(infrared, visible, Controls(strength_visible=0.5)) removes half of it.
        strength_map: uint8 (H, W, 2), infrared and visible: the share of either strength that holds at a pixel, 255 is
            all of it; None is what the fuser's areas say.
        validity: uint8 (H, W, 2), infrared and visible: 255 where that camera shows the scene, 0 where it does not, and
            the fused image is the other one's. Give the same array for the next pair, and do not write to it. Areas
            that are not valid count too.
        attention: float32 (H, W): how far a pixel leans on one restored image, beyond what the balance gives: -1 is the
            visible, 1 the infrared; None is what the fuser's areas say.
        areas: of this pair, instead of the fuser's.
        memory: of the stream that the pair belongs to, for `Controls.steadiness`, and so that its light does not jump;
            None fuses it for itself. moment: when the pair was taken, and by which clock; None is now.
        way: how the images are fused once they are as the network is to see them; None is whole, by `fuse`.

        The result holds arrays of its own; its notes say what the user should know of the inputs. A flat image passes
        through as it is: its strength is 0, and two flat ones give their maximum. A grey visible image gives grey ones,
        see `monochrome.py`; a dark one is brightened as `Controls.light` says.

        OptionError for another type or shape, and for a control that this bundle has not and that is not at its neutral
        value. SizeMismatchError for two sizes. BackendError or EngineError if the backend cannot run the graphs at this
        size.
        """
        controls = Controls() if controls is None else controls
        if not isinstance(controls, Controls):
            raise OptionError(f"controls is of type {type(controls).__name__}; needed Controls(...) or None")
        images = self.image(infrared), self.image(visible)
        check_sizes(images[0].shape, images[1].shape)
        size = images[0].shape[0], images[0].shape[1]
        check_maps({} if validity is None else {"validity": validity}, size)
        check_attention(attention, size)
        controls, notes = examined(*images, controls)
        areas = self.areas if areas is None else areas  # others may take their place while this pair is fused
        moment = (time.monotonic_ns(), MONOTONIC) if moment is None else moment
        begun_ns = time.perf_counter_ns()
        seen = self.as_seen(images[1], controls, None if memory is None else memory.light.at(moment))
        images, seen_ns = (images[0], seen.image), time.perf_counter_ns() - begun_ns
        asked_ms = controls.deadline_ms
        if asked_ms is not None:
            controls = replace(controls, deadline_ms=max(1.0, asked_ms - seen_ns / 1e6))
        if strength_map is None:
            strength_map = areas.strength_map(size)
        if way is not None or memory is None or not controls.steadiness:
            fused = (way or self.fuse)(*images, controls, strength_map)
        else:
            self._refuse_doubt(controls)
            self._refuse_cold(controls)
            fused = self._fuse_on(images, controls, strength_map, memory, moment)
        fused.latency_ns["prepare"] += seen_ns
        begun_ns = time.perf_counter_ns()
        ran = replace(fused.controls, deadline_ms=asked_ms)
        fused = replace(as_shown(fused, seen, notes, areas, validity, attention), controls=ran)
        fused.latency_ns["output"] += time.perf_counter_ns() - begun_ns
        if isinstance(infrared, Frame) and isinstance(visible, Frame):
            return timed(fused, FramePair(infrared, visible))
        return fused

    def fuse_pair(
        self,
        pair: FramePair,
        controls: Controls | None = None,
        memory: Memory | None = None,
        areas: Areas | None = None,
    ) -> FusedFrame:
        """Fuse a pair as `__call__` does its images; see `completed` for what the result has beside them.

        A degraded pair starts cold, and so does the one after it.
        """
        if memory is not None and pair.degraded:
            memory.forget()
            memory = None
        images = self.image(pair.infrared), self.image(pair.visible)
        fused = self(*images, controls, validity=pair.validity, areas=areas, memory=memory, moment=pair.time)
        return completed(fused, pair)

    def fuse(
        self,
        infrared: NDArray[Any],
        visible: NDArray[Any],
        controls: Controls,
        strength_map: Uint8 | None = None,
        noise: Float32 | None = None,
    ) -> FusedFrame:
        """Fuse as `__call__` does, whatever the images show, by the graph that this bundle has for their size.

        noise: the start noise, see `tensors.start_noise`; None draws what the controls say.
        """
        size = infrared.shape[0], infrared.shape[1]
        maps = maps_of(strength_map)
        check_maps(maps, size)
        if controls.deadline_ms is None:
            return self._fuse(infrared, visible, controls, strength_map, noise)
        budget, most = self._budget(size, controls)
        steps = budget.choose(controls.deadline_ms, range(1, most + 1))
        begun = time.perf_counter()
        fused = self._fuse(infrared, visible, replace(controls, steps=steps), strength_map, noise)
        budget.ran(steps, (time.perf_counter() - begun) * 1e3)
        return fused

    def _fuse_on(
        self,
        images: tuple[NDArray[Any], NDArray[Any]],
        controls: Controls,
        strength_map: Uint8 | None,
        memory: Memory,
        moment: Moment,
    ) -> FusedFrame:
        """Fuse from what the memory tells of the last frame, or cold where it tells nothing, and leave it this one.

        With a strength map frames start cold: what the map left in place is no estimate.
        """
        if strength_map is not None:
            memory.forget()
            fused = self.fuse(*images, controls, strength_map)
            return replace(fused, notes=(*fused.notes, COLD))
        start_ns = time.perf_counter_ns()
        inputs = self._bytes(*images)
        told = memory.told(*inputs, controls.steadiness, moment)
        looked_ns = time.perf_counter_ns() - start_ns
        if told is None:
            fused = self.fuse(*images, controls)
        else:
            with self.alone():
                fused = self.in_one_graph(*images, controls, told=told)
        start_ns = time.perf_counter_ns()
        visible = swapped(fused.visible) if self.color_order == "BGR" else fused.visible
        memory.keep(inputs, (fused.infrared, visible), controls, moment)
        stages = fused.latency_ns
        stages["prepare"] += looked_ns
        stages["output"] += time.perf_counter_ns() - start_ns
        return fused

    def _refuse_cold(self, controls: Controls) -> None:
        """Raise OptionError for a steadiness if no graph starts from the last frame."""
        if controls.steadiness and not self._has_warm_loop():
            raise OptionError(
                f"steadiness is {controls.steadiness:g}, but {self.bundle.path} has no warm loop in "
                f"{self.backend.choice.graphs}; leave it at 0, or take a bundle that was exported with one, on a "
                "backend that runs FP32 graphs"
            )

    @property
    def can_doubt(self) -> bool:
        """Whether this backend runs a doubt graph of the bundle."""
        return any(graph.role == "doubt" for graph in self._own_graphs())

    def doubts(self, controls: Controls) -> bool:
        """Say whether a frame takes the doubt graph: its uncertainty is to be told, or a sample to be drawn."""
        may_tell = self.is_looked_at and self.can_doubt and not controls.steadiness
        return may_tell or self._must_doubt(controls)

    def _must_doubt(self, controls: Controls) -> bool:
        return self.uncertainty or controls.start_noise > 0

    def give_up_look(self, reason: str) -> bool:
        """Go on without the uncertainty that somebody looks at, and say whether there was one: it may have failed."""
        if not self.is_looked_at:
            return False
        self.is_looked_at, self.look_failure = False, reason
        return True

    def _refuse_doubt(self, controls: Controls) -> None:
        """Raise OptionError for a start noise, or an uncertainty, that no graph gives."""
        if not self._must_doubt(controls):
            return
        asked = f"start_noise is {controls.start_noise:g}" if controls.start_noise else "uncertainty is asked for"
        if controls.steadiness:
            raise OptionError(
                f"{asked}, and steadiness is {controls.steadiness:g}; the warm loop takes no noise and tells no "
                "uncertainty; leave steadiness at 0, or the other out"
            )
        if not self.can_doubt:
            raise OptionError(
                f"{asked}, but {self.bundle.path} has no doubt graph in {self.backend.choice.graphs}; leave it out, or "
                "take a bundle that was exported with one, on a backend that runs FP32 graphs"
            )

    def _has_warm_loop(self) -> bool:
        return any(graph.maps == WARM_MAPS for graph in self._own_graphs())

    def _own_graphs(self) -> list[GraphSpec]:
        """Return the graphs that this backend runs."""
        graphs = self.bundle.manifest.graphs.values()
        return [g for g in graphs if g.precision == self.backend.choice.graphs and g.opset in self.opsets]

    def warm_up(self, size: Size, controls: Controls | None = None) -> None:
        """Make ready what the first pair of a size, (height, width), needs: compiled graphs, and the backend's memory.

        It takes as long as the first pair would, which is quick after it. Errors as in `__call__`.
        """
        controls = Controls() if controls is None else controls
        steps = controls.steps if controls.deadline_ms is None else MIN_STEPS  # with a deadline the first has the least
        black = np.zeros(size, np.uint8)
        self._fuse(black, black, replace(controls, steps=steps, deadline_ms=None), self.areas.strength_map(size))
        if controls.steadiness and self._has_warm_loop():
            told = Told(np.zeros((*size, 4), np.uint8), np.zeros((*size, 2), np.uint8))
            with self.alone():
                self.in_one_graph(black, black, controls, told=told)

    def _fuse(
        self,
        infrared: NDArray[Any],
        visible: NDArray[Any],
        controls: Controls,
        strength_map: Uint8 | None,
        noise: Float32 | None = None,
    ) -> FusedFrame:
        size = infrared.shape[0], infrared.shape[1]
        with self.alone():
            if self.doubts(controls) or self.loop_graph(size, controls, tuple(maps_of(strength_map))) is None:
                return self.step_by_step(infrared, visible, controls, strength_map, noise)
            return self.in_one_graph(infrared, visible, controls, strength_map)

    def _budget(self, size: Size, controls: Controls) -> tuple[StepBudget, int]:
        """Return what frames of a size have taken, and the most steps: those asked for, or the most in one graph."""
        key = size, controls.steps, self.doubts(controls)
        if key not in self._budgets:
            looped = [n for n in range(MIN_STEPS, MAX_STEPS + 1) if self.loop_graph(size, replace(controls, steps=n))]
            self._budgets[key] = StepBudget(), controls.steps or max([self.steps(controls), *looped])
        return self._budgets[key]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Refuse a second thread with an OptionError where outputs belong to the backend: the next run changes them."""
        lock = self.backend.in_use
        if lock is None:
            yield
            return
        if not lock.acquire(blocking=False):
            raise OptionError(
                f"a Fuser of backend {self.backend.choice} is used by two threads at once, needed one; load a Fuser "
                "for each thread"
            )
        try:
            yield
        finally:
            lock.release()

    def _run(self, graph: str, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run a graph; BackendError if what comes out is not what the manifest says."""
        outputs = self.backend.run(graph, inputs)
        check_outputs(self.bundle.manifest.graphs[graph], inputs, outputs)
        return outputs

    def image(self, frame: NDArray[Any] | Frame) -> NDArray[Any]:
        """Return an image in this fuser's colour order; OptionError if it is no array of two or three dimensions."""
        image = frame.image if isinstance(frame, Frame) else frame
        if image is None:
            raise OptionError(
                "an image is None, as cv2.imread returns for a file that it cannot read; needed an array "
                "(height, width) or (height, width, 3); check the file's path"
            )
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            seen = f"an array {image.shape}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
            raise OptionError(
                f"an image is {seen}; needed an array (height, width) or (height, width, 3); read or convert it"
            )
        image = image.astype(image.dtype.newbyteorder("="), copy=False)
        is_other = isinstance(frame, Frame) and frame.color_order != self.color_order
        is_color = image.ndim == 3 and image.shape[2] == 3 and image.size and image.dtype in (np.uint8, np.uint16)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if is_other and is_color else image

    def as_seen(self, visible: NDArray[Any], controls: Controls, steady: Steady | None = None) -> Seen:
        """Return a visible image as the network is to see it, and what makes its result that of the camera again.

        steady: of a stream, see `SteadyLight`.
        """
        return as_seen(visible, controls, self.color_order, self.bundle.manifest.tints_grey, steady)

    def with_thermal(self, thermal: Thermal) -> "Fuser":
        """Return this fuser, on the same backend, with other settings for infrared values."""
        other = copy(self)
        other.thermal = thermal
        return other

    def steps(self, controls: Controls) -> int:
        """Return how many steps run: those asked for, or the bundle's default."""
        return controls.steps or self.bundle.manifest.schedule.default_steps

    @property
    def controls(self) -> tuple[Control, ...]:
        """What there is to turn, with the ranges that this bundle takes."""
        graphs = self.bundle.manifest.graphs
        return controls_of(graphs[self.bundle.manifest.find("fusion") or "fusion"].inputs)

    def refuse_unfit(self, controls: Controls) -> None:
        """Raise OptionError for controls that no graph of this bundle applies, before a frame meets them."""
        own = self._own_graphs()
        steps = self.steps(controls)
        fitting = [g for g in own if g.role == "fusion" or (g.role, g.steps) == ("fused_loop", steps)]
        if not fitting:
            known = sorted({g.steps for g in own if g.steps})
            raise OptionError(
                f"{self.bundle.path} has no graph of {counted(steps, 'step')}; known: {', '.join(map(str, known))}; "
                "take one of them"
            )
        control_inputs(fitting[0], controls)
        self._refuse_doubt(controls)
        self._refuse_cold(controls)

    def loop_graph(self, size: Size, controls: Controls, maps: tuple[str, ...] = ()) -> str | None:
        """Return the name of the `fused_loop` for images of `size`, (height, width), that takes these maps, or None."""
        return self._find("fused_loop", size, self.steps(controls), maps)

    def in_one_graph(
        self,
        infrared: NDArray[Any],
        visible: NDArray[Any],
        controls: Controls,
        strength_map: Uint8 | None = None,
        told: Told | None = None,
    ) -> FusedFrame:
        """Fuse by `fused_loop`: bytes in, bytes out. Arguments as in `__call__`; OptionError without one.

        told: of the last frame; the warm loop then runs its one step, whatever the controls say.
        """
        clock = Stopwatch()
        height, width = infrared.shape[:2]
        maps = maps_of(strength_map, told)
        if told is not None:
            controls = replace(controls, steps=WARM_STEPS)
        graph = self.loop_graph((height, width), controls, tuple(maps))
        if graph is None:
            raise OptionError(
                f"{self.bundle.path} has no fused_loop of {counted(self.steps(controls), 'step')} for "
                f"{height}x{width}; fuse step by step, or take a bundle that has one"
            )
        manifest = self.bundle.manifest
        multiple = 1 if manifest.graphs[graph].size else manifest.size_multiple
        grey = grey_from_any(infrared, self.color_order, self.thermal)
        is_bgr = self.color_order == "BGR" and visible.dtype == np.uint8 and visible.shape[2:] == (3,)
        rgb = pad_swapped(visible, multiple) if is_bgr else rgb_from_any(visible, self.color_order)
        inputs = loop_inputs(manifest.graphs[graph], grey, rgb, maps, controls, multiple)
        clock.lap("prepare")
        outputs = self._run(graph, inputs)
        clock.lap("network")
        # The backend will write over its outputs: what leaves here is a copy.
        picture, restored_infrared, restored_visible = (x[0, :height, :width] for x in outputs[:3])
        kinds = outputs[3].copy() if manifest.graphs[graph].kinds else None
        images = picture, restored_infrared[:, :, 0].copy(), restored_visible
        return replace(self._result(images, controls, clock, kinds), warm=told is not None)

    def step_by_step(
        self,
        infrared: NDArray[Any],
        visible: NDArray[Any],
        controls: Controls,
        strength_map: Uint8 | None = None,
        noise: Float32 | None = None,
    ) -> FusedFrame:
        """Fuse by `unet_step` and `fusion`, and `doubt` between: the reference form, for any steps; see `fuse`."""
        clock = Stopwatch()
        size = infrared.shape[0], infrared.shape[1]
        x_in = self.prepare(infrared, visible)
        self.check_controls(controls, x_in)
        clock.lap("prepare")
        uncertainty, doubts = None, self.doubts(controls)
        if strength_map is None and not doubts and isinstance(self.backend, FrameBackend):
            residual, fused, told = self.residual_and_fused(x_in, controls)
            clock.lap("network")
        else:
            residual, told = self.residual(x_in, controls)
            clock.lap("steps")
            if doubts:
                noise = start_noise(controls, size) if noise is None else noise
                drawn, uncertainty = self.doubt(x_in, residual, noise)
                residual = residual if noise is None else drawn
                uncertainty = uncertainty[:, 0, : size[0], : size[1]].copy()
                clock.lap("doubt")
            if strength_map is not None:
                residual = residual * shares_of(strength_map, self.bundle.manifest.size_multiple)
            fused = self.fusion(x_in, residual, controls)
            clock.lap("fusion")
        check_finite("residual", residual)
        check_finite("fused", fused)
        images = fused_image(fused, size), *restored_images(x_in, residual, controls, size)
        result = self._result(images, controls, clock, None if told is None else told.copy())
        return replace(result, uncertainty=uncertainty)

    def kinds(self, fused: FusedFrame) -> Evidence | None:
        """Return how likely each kind of degradation is in both inputs of a result, as the network tells; (0, 1).

        None if the bundle tells none, as those of older releases do.
        """
        return None if fused.kinds is None else self.likely(fused.kinds)

    def likely(self, told: Float32) -> Evidence:
        """Return the calibrated probabilities of what a graph told of kinds, (2, K)."""
        kinds = self.bundle.manifest.kinds
        infrared = probabilities(((kind.name, kind.infrared) for kind in kinds), told[0])
        return Evidence(infrared, probabilities(((kind.name, kind.visible) for kind in kinds), told[1]))

    def prepare(self, infrared: NDArray[Any], visible: NDArray[Any]) -> Float32:
        """Return both as one padded batch, (2, 3, H', W') in [-1, 1], infrared first."""
        return network_batch(*self._bytes(infrared, visible), self.bundle.manifest.size_multiple)

    def start(self, x_in: Float32) -> dict[str, NDArray[Any]]:
        """Return the images that the first step takes."""
        return {"x_t": x_in * np.float32(self.bundle.manifest.schedule.start_input), "x_in": x_in}

    def rows(self, controls: Controls) -> StepRows:
        """Return the rows of the schedule table, one for each step."""
        return self.bundle.manifest.schedule.tables[self.steps(controls)]

    def residual_and_fused(self, x_in: Float32, controls: Controls) -> tuple[Float32, Float32, Float32 | None]:
        """Return what `residual` and `fusion` do, in one call if the backend has it: residual, fused and kinds."""
        if not isinstance(self.backend, FrameBackend):
            residual, told = self.residual(x_in, controls)
            return residual, self.fusion(x_in, residual, controls), told
        step, fusion = (self._reference_graph(role, x_in.shape[2:]) for role in REFERENCE_GRAPHS)
        inputs = {**self.start(x_in), **control_inputs(self.bundle.manifest.graphs[fusion], controls)}
        return self.backend.fused_frame(step, fusion, self.rows(controls), inputs)

    def check_controls(self, controls: Controls, x_in: Float32) -> None:
        """Raise OptionError for a control that no graph applies, before any step runs for nothing."""
        self._refuse_doubt(controls)
        control_inputs(self.bundle.manifest.graphs[self._reference_graph("fusion", x_in.shape[2:])], controls)

    def residual(self, x_in: Float32, controls: Controls) -> tuple[Float32, Float32 | None]:
        """Run the few-step loop from x_T = start_input * x_in.

        Returns the last residual, shape of x_in, and what the last step tells of kinds, (2, K), or None.
        """
        *_, last = self.trajectory(x_in, controls)
        return last["residual"], last.get(KINDS)

    def trajectory(
        self, x_in: Float32, controls: Controls, x_t: Float32 | None = None
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Run the few-step loop; yield each step's inputs and outputs, by the names of the contract.

        x_t: the state to start from, None is start_input * x_in. Another array put in the place of a yielded `x_prev`
        is the state that the next step takes. Outputs may be overwritten by the step after the next one.
        """
        graph = self._reference_graph("unet_step", x_in.shape[2:])
        names = [spec.name for spec in self.bundle.manifest.graphs[graph].outputs]
        images, rows = self.start(x_in), self.rows(controls)
        if x_t is not None:
            images["x_t"] = x_t
        for index in range(len(rows.time)):
            inputs = {**images, **row_inputs(rows, index)}
            step = {**inputs, **dict(zip(names, self._run(graph, inputs), strict=True))}
            yield step
            images |= wired(STEP_TO_STEP, step)

    def doubt(self, x_in: Float32, residual: Float32, noise: Float32 | None = None) -> tuple[Float32, Float32]:
        """Run the doubt graph on the loop's last residual, with the start noise (H, W, 4) of a sample, or without.

        Returns the sample's residual, shape of x_in, and the uncertainty, (2, 1, H', W') in grey levels.
        """
        graph, multiple = self._reference_graph("doubt", x_in.shape[2:]), self.bundle.manifest.size_multiple
        inputs = doubt_inputs(self.bundle.manifest.graphs[graph], {"x_in": x_in, "residual": residual}, noise, multiple)
        drawn, uncertainty = self._run(graph, inputs)
        check_finite(UNCERTAINTY, uncertainty)
        return drawn, uncertainty

    def fusion(self, x_in: Float32, residual: Float32, controls: Controls) -> Float32:
        """Run the fusion graph; return (1, 3, H', W') in [-1, 1]."""
        graph = self._reference_graph("fusion", x_in.shape[2:])
        step = {"x_in": x_in, "residual": residual}
        return self._run(graph, fusion_inputs(self.bundle.manifest.graphs[graph], step, controls))[0]

    def close(self) -> None:
        """Give back what the backend holds."""
        self.backend.close()

    def __enter__(self) -> "Fuser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _find(self, role: GraphRole, size: Size, steps: int | None = None, maps: tuple[str, ...] = ()) -> str | None:
        manifest, precision = self.bundle.manifest, self.backend.choice.graphs
        found = (manifest.find(role, precision, opset, size, steps, maps) for opset in self.opsets)
        return next((name for name in found if name is not None), None)

    def _reference_graph(self, role: GraphRole, padded: tuple[int, ...]) -> str:
        height, width = padded
        found = self._find(role, (height, width))
        if found is None:
            raise BackendError(
                f"{self.bundle.path} has no {role} graph in {self.backend.choice.graphs}, opset "
                f"{' or '.join(map(str, self.opsets))}, for {height}x{width} (height x width); take an "
                "image size or a precision that it has, or a bundle with such graphs"
            )
        return found

    def _bytes(self, infrared: NDArray[Any], visible: NDArray[Any]) -> tuple[Uint8, Uint8]:
        """Return grey (H, W) and RGB (H, W, 3)."""
        return grey_from_any(infrared, self.color_order, self.thermal), rgb_from_any(visible, self.color_order)

    def _result(
        self, images: tuple[Uint8, Uint8, Uint8], controls: Controls, clock: Stopwatch, told: Float32 | None
    ) -> FusedFrame:
        """Return the fused, RGB, and both restored images as arrays of their own, in the caller's colour order."""
        fused, restored_infrared, restored_visible = images
        picture, restored_visible = (
            swapped(rgb) if self.color_order == "BGR" else rgb.copy() for rgb in (fused, restored_visible)
        )
        clock.lap("output")
        ran = replace(controls, steps=self.steps(controls))
        images = picture, restored_infrared, restored_visible
        return FusedFrame(*images, ran, self.color_order, clock.laps_ns, kinds=told)
