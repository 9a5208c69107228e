"""The exact split of a step's update into a residual, a shared and a noise term, from the schedule table alone.

Legend: x_t the state, x_in the input, R the step's residual, x_0 = x_in - R its clean estimate (Eq. 4), A_t, B_t and
D_t the cumulative residual, noise and shared coefficients of Eq. 12, A', B', D' those of the next state, (c0, c1, c2,
c3) the table's row, see `cled_edge.schedule.Schedule.step_table`.

    x_t    = x_0 + A_t R + n - D_t x_in                n = B_t eps, by Eq. 12 with the estimated x_0 and R
    x_next = x_t - (A_t - A') R + (D_t - D') x_in - (1 - c0) n

The middle two are the residual and the shared term of Eq. 14. The last is the noise term of Eq. 13, B' / B_t = c0;
where Eq. 14 leaves the noise in the state, c0 is 1. For rows with c1 = 1 - c0, which both rules give, this is an
identity: c2 = A' - c0 A_t and c3 = c0 D_t - D'. So A' and D' follow from a row and A_t, D_t; at the start D_T is
1 - start_input.

Without start noise n is no noise: it is what the state says of the clean image beside this step's own estimate.
"""

from dataclasses import dataclass

import numpy as np

from cled_edge.bundle.manifest import ScheduleSpec
from cled_edge.errors import BundleVersionError
from cled_edge.image import Float32
from cled_edge.schedule import TIME_SCALE

_ROUNDING = 1e-6  # of coefficients near 1 that a manifest holds as text
TERMS = ("residual", "shared", "noise")


@dataclass(frozen=True)
class StepWeights:
    """The coefficients of one step: A_t, A', D_t, D' and c0, see the legend of the module."""

    residual_cum: float
    residual_cum_next: float
    shared_cum: float
    shared_cum_next: float
    kept: float

    def terms(self, x_t: Float32, x_in: Float32, residual: Float32) -> dict[str, Float32]:
        """Return what each of `TERMS` adds to the state, the shape of the images; their sum is x_next - x_t."""
        clean = x_in - residual
        noise = x_t - clean - np.float32(self.residual_cum) * residual + np.float32(self.shared_cum) * x_in
        return {
            "residual": -np.float32(self.residual_cum - self.residual_cum_next) * residual,
            "shared": np.float32(self.shared_cum - self.shared_cum_next) * x_in,
            "noise": -np.float32(1 - self.kept) * noise,
        }


def weights_of(schedule: ScheduleSpec, steps: int) -> tuple[StepWeights, ...]:
    """Return the weights of each of `steps` steps; BundleVersionError for a table whose update is no such split."""
    rows = schedule.tables[steps]
    residual_cum, shared_cum = rows.time[0] / TIME_SCALE, 1 - schedule.start_input
    found = []
    for index, (c0, c1, c2, c3) in enumerate(rows.coef):
        told = rows.time[index] / TIME_SCALE
        if abs(c1 - (1 - c0)) > _ROUNDING or abs(told - residual_cum) > _ROUNDING:
            raise BundleVersionError(
                f"step {index + 1} of {steps} of schedule {schedule.name} is no update by Eq. 6 or 14, needed to split "
                "it into its terms; take a bundle that was exported with this release"
            )
        following = c2 + c0 * told, c0 * shared_cum - c3
        found.append(StepWeights(told, following[0], shared_cum, following[1], c0))
        residual_cum, shared_cum = following
    return tuple(found)
