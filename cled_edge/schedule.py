"""Few-step residual diffusion schedules, shared by training, export and the runtime (numpy, float64).

Legend, symbol -> meaning -> place in the paper (t counts from 0 in code, from 1 in the paper):

    A_t   residual_cum[t]  alpha-bar, a *sum*, not DDPM's product     Eq. 12
    B_t   noise_std[t]     beta-bar, standard deviation of the noise  Eq. 12
    D_t   shared_cum[t]    delta-bar, the shared distribution term    Eq. 12
    R     residual         I_res = I_in - I_0, degraded minus clean   Eq. 4
    x_t   state            I_t = I_0 + A_t R + B_t eps - D_t I_in     Eq. 12

"Fully clean" is t = -1, where A = B = D = 0.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cled_edge.contract import MAX_STEPS, MIN_STEPS
from cled_edge.errors import OptionError

Float64 = NDArray[np.float64]
ScheduleName = Literal["rddm09", "rddm09-noiseless", "rddm09-unshared", "diffuir"]
UpdateRule = Literal["eq6", "eq12", "eq14"]

SCHEDULE_NAMES: tuple[ScheduleName, ...] = get_args(ScheduleName)
TRAIN_STEPS = 1000
TIME_SCALE = 1000.0  # the network is told A_t * 1000, as in the lineage (not t)


@dataclass(frozen=True)
class StepTable:
    """The numbers of one few-step run: all that a runtime needs of the schedule.

    t: (S,) visited time steps, descending. time: (S,) time input of the network, A_t * 1000.
    coef: (S, 4) weights of the next state in (x_t, x0, R, x_in), see `Schedule.step_table`.
    start_input, start_noise: x_T = start_input * x_in + start_noise * eps (Eq. 12 at t = T).
    """

    t: NDArray[np.int64]
    time: Float64
    coef: Float64
    start_input: float
    start_noise: float

    @property
    def steps(self) -> int:
        """Number of network evaluations, S."""
        return len(self.t)

    @property
    def kept(self) -> Float64:
        """The share w of r' = w r + (1 - w) R: (S,), what a step keeps of the residual r that its state tells of.

        r is ((1 - D_t) x_in - x_t) / (1 - A_t), by Eq. 12 without noise, and R the step's own estimate.
        """
        left = 1 - self.time / TIME_SCALE
        return self.coef[:, 0] * left / np.append(left[1:], 1.0)


@dataclass(frozen=True)
class Schedule:
    """Cumulative coefficients of Eq. 12 over the T = 1000 training steps, float64, each (T,)."""

    name: ScheduleName
    residual_cum: Float64
    noise_std: Float64
    shared_cum: Float64
    start_noise: float
    update: UpdateRule

    @classmethod
    def named(cls, name: str) -> "Schedule":
        """Return the schedule of a name of `SCHEDULE_NAMES`; any other name is an OptionError."""
        if name == "rddm09":
            return _rddm09()
        if name == "rddm09-noiseless":
            return replace(_rddm09(), name="rddm09-noiseless", start_noise=0.0, update="eq12")
        if name == "rddm09-unshared":
            return replace(_rddm09(), name="rddm09-unshared", shared_cum=np.zeros(TRAIN_STEPS))
        if name == "diffuir":
            return _diffuir()
        raise OptionError(f"schedule {name!r} is unknown; known: {', '.join(SCHEDULE_NAMES)}")

    def visited(self, steps: int) -> NDArray[np.int64]:
        """Return the `steps` visited time steps, descending from T - 1 (truncated, as in the lineage)."""
        times = np.linspace(-1, TRAIN_STEPS - 1, check_steps(steps) + 1).astype(np.int64)
        return times[:0:-1].copy()

    def step_table(self, steps: int, update: UpdateRule | None = None) -> StepTable:
        """Return the coefficient rows of a run with `steps` network evaluations (1 to 10).

        Row k gives x_next = c0 x_t + c1 x0 + c2 R + c3 x_in, with x0 = x_in - R, by `update`:

        eq6   x_next = x0 + A' R + B' eps - D' x_in (Eq. 6 with the shared term of Eq. 10), where eps is the
              noise implied by Eq. 12: (x_t - x0 - A_t R + D_t x_in) / B_t. A' is A at the next t.
        eq12  x_next = x0 + A' R - D' x_in: eq6 with eps = 0. A start without noise has none later, and what Eq. 12
              then implies is the error of the estimate before, which eq6 would carry on.
        eq14  x_next = x_t - (A_t - A') R + (D_t - D') x_in, Eq. 14. The noise stays in the state, so the
              last row is replaced by x_next = x0, as the lineage does.
        """
        t = self.visited(steps)
        a, b, d = self.residual_cum[t], self.noise_std[t], self.shared_cum[t]
        a_next, b_next, d_next = (np.append(c[1:], 0.0) for c in (a, b, d))
        if (update or self.update) == "eq6":
            keep = b_next / b
            coef = np.stack([keep, 1 - keep, a_next - keep * a, keep * d - d_next], axis=1)
        elif (update or self.update) == "eq12":
            coef = np.stack([np.zeros_like(a), np.ones_like(a), a_next, -d_next], axis=1)
        else:
            coef = np.stack([np.ones_like(a), np.zeros_like(a), a_next - a, d - d_next], axis=1)
            coef[-1] = (0.0, 1.0, 0.0, 0.0)
        return StepTable(t, a * TIME_SCALE, coef, float(1 - d[0]), self.start_noise)


def check_steps(steps: int) -> int:
    """Return `steps` if it is a whole number in 1..10, else raise OptionError."""
    if not isinstance(steps, int) or not MIN_STEPS <= steps <= MAX_STEPS:
        raise OptionError(f"steps is {steps}; it must lie between {MIN_STEPS} and {MAX_STEPS}")
    return steps


def _diffuir() -> Schedule:
    """Lineage schedule: a DDPM linear schedule converted, so A_T = 0.9936 and D_T = 0.9005, not 1 and 0.9.

    Its sampler starts with noise 0.1, though B_T is 1: the mismatch is the lineage's and kept for its weights.
    """
    ddpm_product = np.cumprod(1 - np.linspace(1e-4, 2e-2, TRAIN_STEPS))
    shared = np.clip(np.cumsum(np.linspace(1e-6, 1.8e-3, TRAIN_STEPS)), 0, 1)
    return Schedule(
        "diffuir", 1 - np.sqrt(ddpm_product), np.sqrt(1 - ddpm_product), shared, start_noise=0.1, update="eq14"
    )


def _rddm09() -> Schedule:
    """Schedule that meets the limits stated under Eq. 12 exactly: A_T = 1, D_T = 0.9; B_T = 0.1."""
    index = np.arange(TRAIN_STEPS)
    total = TRAIN_STEPS * (TRAIN_STEPS + 1) / 2
    residual = np.cumsum((TRAIN_STEPS - index) / total)
    noise_variance = np.cumsum((index + 1) / total) * 0.1**2
    shared = np.cumsum(np.linspace(1e-6, 1.8e-3, TRAIN_STEPS))
    shared *= 0.9 / shared[-1]
    return Schedule("rddm09", residual, np.sqrt(noise_variance), shared, start_noise=0.1, update="eq6")
