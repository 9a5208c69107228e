"""The loop in its recording form: the bundle's reference graphs, one step after another, with every tensor kept."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cled_edge.contract import KINDS, Controls
from cled_edge.errors import BackendError, OptionError
from cled_edge.explain.explanation import Explanation
from cled_edge.explain.pixel_origin import LUMA, luma_levels, origin_of
from cled_edge.explain.terms import StepWeights, weights_of
from cled_edge.frame import Frame, FusedFrame
from cled_edge.fuser import Fuser, as_shown
from cled_edge.image import Float32, Uint8
from cled_edge.json_text import counted
from cled_edge.pair_facts import are_flat, check_sizes, examined
from cled_edge.schedule import SCHEDULE_NAMES, Schedule
from cled_edge.tensors import (
    check_finite,
    check_maps,
    fused_image,
    less,
    maps_of,
    restored_images,
    shares_of,
    start_noise,
)

MAX_SEEDS = 64
NOISELESS = "this bundle's schedule starts without noise, so no start noise was tried"
# Of a state of up to 3, by the precision that computes it: a few roundings of its type.
_TOLERANCE = {"fp32": 1e-5, "fp16": 2e-2, "bf16": 1e-1, "int8": 1e-1}


def explain(
    fuser: Fuser,
    infrared: NDArray[Any] | Frame,
    visible: NDArray[Any] | Frame,
    controls: Controls | None = None,
    *,
    strength_map: Uint8 | None = None,
    validity: Uint8 | None = None,
    seeds: int = 0,
    states: Mapping[int, Float32] | None = None,
) -> Explanation:
    """Restore and fuse a pair step by step, and keep what happened.

    infrared, visible, controls, strength_map, validity: as `Fuser.__call__` takes them; its areas count too. A
    deadline has no part in it.
    seeds: how many start noises to try, 0 to 64, for the spread of the result: samples of the bundle's doubt graph if
    it has one, else the loop starts from noise, and a schedule that starts without has none.
    states: to swap in before steps, by their number from 0, (2, 3, H, W): what the loop makes of a wrong state.

    The split of each update is checked against the state that the graph gave: BackendError if they differ by more than
    rounding. OptionError and SizeMismatchError as of the fuser; OptionError too for seeds or states that do not fit.
    """
    controls = Controls() if controls is None else controls
    if isinstance(seeds, bool) or not isinstance(seeds, int) or not 0 <= seeds <= MAX_SEEDS:
        raise OptionError(f"seeds is {seeds!r}; it must be a whole number between 0 and {MAX_SEEDS}")
    images = fuser.image(infrared), fuser.image(visible)
    check_sizes(images[0].shape, images[1].shape)
    controls, notes = examined(*images, replace(controls, deadline_ms=None))
    size = images[0].shape[0], images[0].shape[1]
    areas = fuser.areas
    if strength_map is None:
        strength_map = areas.strength_map(size)
    check_maps({**maps_of(strength_map), **({} if validity is None else {"validity": validity})}, size)
    shown = _Shown(are_flat(notes), areas.attention(size), areas.validity(size, validity))
    seen = fuser.as_seen(images[1], controls)
    with fuser.alone():
        recorder = _Recorder(fuser, controls, size, strength_map, shown)
        told = recorder.record(images[0], seen.image, seeds, states or {}, seen.notes)
    return replace(told, fused=as_shown(told.fused, seen, notes, areas, validity))


class _Shown(NamedTuple):
    """What is made of the graph's image afterwards: see `Areas.attention` and `Areas.validity`.

    is_flat: both images are, whose maximum is shown.
    """

    is_flat: bool
    attention: Float32 | None
    validity: Uint8 | None

    def of(self, fused: Float32, restored: Float32) -> Float32:
        """Return the image, (3, H, W) in [-1, 1], as it is shown. restored: both, (2, 3, H, W), infrared first."""
        infrared, visible = restored
        if self.is_flat:
            fused = np.maximum(infrared, visible)
        if self.attention is not None:
            luma = np.tensordot(np.array(LUMA, np.float32), visible, 1)
            aim = np.clip(np.where(self.attention > 0, visible + infrared - luma, visible), -1, 1)
            fused = fused + np.abs(self.attention) * (aim - fused)
        if self.validity is not None:
            for index, other in enumerate((visible, infrared)):
                share = self.validity[:, :, index] / np.float32(255)
                fused = other + share * (fused - other)
        return fused


class _Recorder:
    def __init__(
        self, fuser: Fuser, controls: Controls, size: tuple[int, int], strength_map: Uint8 | None, shown: _Shown
    ) -> None:
        self.fuser, self.controls, self.size, self.shown = fuser, controls, size, shown
        self.weights = weights_of(fuser.bundle.manifest.schedule, fuser.steps(controls))
        self.shares = None
        if strength_map is not None:
            self.shares = shares_of(strength_map, fuser.bundle.manifest.size_multiple)

    def record(
        self,
        infrared: NDArray[Any],
        visible: NDArray[Any],
        seeds: int,
        swapped: Mapping[int, Float32],
        notes: tuple[str, ...],
    ) -> Explanation:
        fuser, controls = self.fuser, self.controls
        x_in = fuser.prepare(infrared, visible)
        fuser.check_controls(controls, x_in)
        states, residuals, error, told = self.loop(x_in, self.padded(swapped, x_in))
        last, uncertainty = residuals[-1], None
        if fuser.can_doubt:
            noise = start_noise(controls, self.size)
            drawn, found = (each.copy() for each in fuser.doubt(x_in, last, noise))
            last, uncertainty = last if noise is None else drawn, self.cropped(found[:, 0])
        last = last if self.shares is None else last * self.shares

        def fuse(at: Controls) -> Float32:
            return self.cropped(fuser.fusion(x_in, last, at).copy())[0]

        fused = fuse(controls)
        check_finite("fused", fused)
        cut = self.cropped(x_in)

        def shown(at: Controls) -> Float32:
            return self.shown.of(fuse(at), less(cut, self.cropped(last), at))

        picture = fused_image(fused[None], self.size)
        ran = replace(controls, steps=len(self.weights))
        restored = restored_images(cut, self.cropped(last), controls, self.size)
        begin = self.start_noise() if seeds and not fuser.can_doubt else 0.0
        if seeds and not (begin or fuser.can_doubt):
            seeds, notes = 0, (*notes, NOISELESS)
        return Explanation(
            x_in=cut,
            states=self.cropped(np.stack(states)),
            residuals=self.cropped(np.stack(residuals)),
            weights=self.weights,
            fused=FusedFrame(picture, *restored, controls=ran, notes=notes),
            origin=origin_of(cut, self.cropped(last), controls, shown),
            spread_levels=self.spread(x_in, residuals[-1], seeds, begin) if seeds else None,
            uncertainty_levels=uncertainty,
            seeds=seeds,
            identity_error=error,
            heads=tuple(fuser.likely(each) for each in told),
            model=fuser.bundle.manifest.name,
            backend=fuser.backend.description,
        )

    def loop(
        self, x_in: Float32, swapped: Mapping[int, Float32]
    ) -> tuple[list[Float32], list[Float32], float, list[Float32]]:
        """Return the states before each step and after the last, the residuals, and the largest error of the split.

        Fourth comes what each step tells of kinds; nothing where the bundle tells none. The states that are kept are
        those that the steps met: where one is swapped in, that one.
        """
        states: list[Float32] = []
        residuals: list[Float32] = []
        told: list[Float32] = []
        error, last = 0.0, x_in
        for index, step in enumerate(self.fuser.trajectory(x_in, self.controls, swapped.get(0))):
            check_finite("residual", step["residual"])
            check_finite("x_prev", step["x_prev"])
            states.append(step["x_t"].copy())
            residuals.append(step["residual"].copy())
            if KINDS in step:
                check_finite(KINDS, step[KINDS])
                told.append(step[KINDS].copy())
            last = step["x_prev"].copy()
            error = max(error, split_error(self.weights[index], states[-1], x_in, residuals[-1], last))
            if index + 1 in swapped:
                step["x_prev"] = swapped[index + 1]
        precision = self.fuser.backend.choice.precision or "fp32"
        if not error <= _TOLERANCE[precision]:
            raise BackendError(
                f"a state differs from the split of its update by {error:.2g}, needed {_TOLERANCE[precision]:g} at "
                f"most in {precision}; get the bundle again, or choose another precision or backend"
            )
        return [*states, last], residuals, error, told

    def padded(self, swapped: Mapping[int, Float32], x_in: Float32) -> dict[int, Float32]:
        """Return the states to swap in, padded as the images are; OptionError if one does not fit."""
        needed, found = (2, 3, *self.size), {}
        for index, state in swapped.items():
            if index not in range(len(self.weights)) or state.shape != needed or not np.isfinite(state).all():
                raise OptionError(
                    f"the state before step {index} has shape {state.shape}; needed finite {needed} before one of "
                    f"{counted(len(self.weights), 'step')}, from 0; give it so"
                )
            below, right = (x_in.shape[k] - state.shape[k] for k in (2, 3))
            found[index] = np.pad(state.astype(np.float32), ((0, 0), (0, 0), (0, below), (0, right)), "reflect")
        return found

    def cropped(self, images: Float32) -> Float32:
        """Return images without their padding, contiguous."""
        return np.ascontiguousarray(images[..., : self.size[0], : self.size[1]])

    def start_noise(self) -> float:
        """Return the deviation of the schedule's start noise; 0 where it starts without. OptionError if unknown."""
        name = self.fuser.bundle.manifest.schedule.name
        if name not in SCHEDULE_NAMES:
            raise OptionError(f"the start noise of schedule {name!r} is unknown; try no seeds")
        return float(Schedule.named(name).start_noise)

    def sample(self, x_in: Float32, residual: Float32, seed: int) -> Float32:
        """Return the residual of a sample, with all start noise unless the controls say how much."""
        amount = self.controls.start_noise or 1.0
        noise = start_noise(Controls(start_noise=amount, seed=seed), self.size)
        return self.fuser.doubt(x_in, residual, noise)[0].copy()

    def spread(self, x_in: Float32, residual: Float32, seeds: int, noise: float) -> Float32:
        """Return the standard deviation over start noises of the last clean estimate's luma, (2, H, W) in levels.

        residual: the last one. noise: of the schedule's start, where no doubt graph draws samples.
        """
        start = self.fuser.start(x_in)["x_t"]
        lumas = []
        for seed in range(seeds):
            if self.fuser.can_doubt:
                found = self.sample(x_in, residual, seed)
            else:
                drawn = np.random.default_rng(seed).standard_normal(x_in.shape, np.float32)
                drawn[0] = drawn[0, :1]  # infrared has one channel
                *_, last = self.fuser.trajectory(x_in, self.controls, start + np.float32(noise) * drawn)
                found = last["residual"]
            lumas.append(luma_levels(self.cropped(x_in - found)))
        return np.std(lumas, axis=0, dtype=np.float32, ddof=1 if seeds > 1 else 0)


def split_error(weights: StepWeights, x_t: Float32, x_in: Float32, residual: Float32, x_next: Float32) -> float:
    """Return the largest difference between a state and the one before it with all terms added."""
    return float(np.abs(x_t + sum(weights.terms(x_t, x_in, residual).values()) - x_next).max())
