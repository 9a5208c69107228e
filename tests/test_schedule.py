"""The schedule: golden values of the lineage, and the algebra of the sampler with a perfect oracle."""

import numpy as np
import pytest

from cled_edge.errors import OptionError
from cled_edge.schedule import SCHEDULE_NAMES, Schedule, StepTable

DIFFUIR_GOLDEN = {
    1: ([999], [0.993647], [0.999980], [0.900500]),
    2: ([999, 499], [0.993647, 0.719666], [0.999980, 0.959902], [0.900500, 0.225150]),
    3: (
        [999, 665, 332],
        [0.993647, 0.894487, 0.433621],
        [0.999980, 0.994418, 0.824145],
        [0.900500, 0.399444, 0.099878],
    ),
    4: (
        [999, 749, 499, 249],
        [0.993647, 0.942116, 0.719666, 0.276063],
        [0.999980, 0.998323, 0.959902, 0.689866],
        [0.900500, 0.506550, 0.225150, 0.056300],
    ),
    5: (
        [999, 799, 599, 399, 199],
        [0.993647, 0.960858, 0.839129, 0.558246, 0.188188],
        [0.999980, 0.999234, 0.986975, 0.897136, 0.583919],
        [0.900500, 0.576336, 0.324204, 0.144104, 0.036036],
    ),
}
RDDM09_GOLDEN = {
    3: ([1, 0.888222, 0.554889], [0.1, 0.066617, 0.033333]),
    5: ([1, 0.959840, 0.839760, 0.639760, 0.359840], [0.1, 0.080010, 0.060020, 0.040030, 0.020040]),
}


@pytest.mark.parametrize("steps", DIFFUIR_GOLDEN)
def test_diffuir_golden_values(steps: int) -> None:
    schedule = Schedule.named("diffuir")
    times, a, b, d = DIFFUIR_GOLDEN[steps]
    t = schedule.visited(steps)
    assert t.tolist() == times
    np.testing.assert_allclose(schedule.residual_cum[t], a, atol=1e-5)
    np.testing.assert_allclose(schedule.noise_std[t], b, atol=1e-5)
    np.testing.assert_allclose(schedule.shared_cum[t], d, atol=1e-5)
    np.testing.assert_allclose(schedule.step_table(steps).time, np.array(a) * 1000, atol=1e-2)


@pytest.mark.parametrize("steps", RDDM09_GOLDEN)
def test_rddm09_golden_values(steps: int) -> None:
    schedule = Schedule.named("rddm09")
    t = schedule.visited(steps)
    np.testing.assert_allclose(schedule.residual_cum[t], RDDM09_GOLDEN[steps][0], atol=1e-5)
    np.testing.assert_allclose(schedule.noise_std[t], RDDM09_GOLDEN[steps][1], atol=1e-5)


def test_end_and_start_of_the_lineage() -> None:
    schedule = Schedule.named("diffuir")
    first = schedule.residual_cum[0], schedule.noise_std[0], schedule.shared_cum[0]
    np.testing.assert_allclose(first, (5.0e-5, 0.0100, 1e-6), atol=1e-6)


def test_rddm09_meets_the_limits_under_eq_12() -> None:
    schedule = Schedule.named("rddm09")
    assert schedule.residual_cum[-1] == pytest.approx(1, abs=1e-12)
    assert schedule.shared_cum[-1] == pytest.approx(0.9, abs=1e-12)
    assert schedule.noise_std[-1] == pytest.approx(0.1, abs=1e-12)
    assert schedule.step_table(3).start_input == pytest.approx(0.1, abs=1e-12)


def run_with_oracle(table: StepTable, clean: np.ndarray, x_in: np.ndarray, x_t: np.ndarray) -> np.ndarray:
    residual = x_in - clean
    for row in table.coef:
        x_t = row[0] * x_t + row[1] * clean + row[2] * residual + row[3] * x_in
    return x_t


@pytest.fixture
def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    clean, degraded = rng.uniform(-1, 1, (2, 64, 64))
    return clean, degraded, rng.standard_normal((64, 64))


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("name", SCHEDULE_NAMES)
@pytest.mark.parametrize("update", ["eq6", "eq12", "eq14"])
def test_oracle_lands_on_the_clean_picture(name: str, update, steps: int, scene) -> None:
    clean, x_in, noise = scene
    table = Schedule.named(name).step_table(steps, update)
    start = table.start_input * x_in + table.start_noise * noise
    assert np.abs(run_with_oracle(table, clean, x_in, start) - clean).max() < 1e-12


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_eq6_states_follow_the_forward_process(name: str, scene) -> None:
    """Started on the true x_T, every state is I_0 + A R + B eps - D I_in of the next t (Eq. 12), noise included."""
    clean, x_in, noise = scene
    schedule = Schedule.named(name)
    table = schedule.step_table(5, "eq6")
    a, b, d = schedule.residual_cum, schedule.noise_std, schedule.shared_cum

    def state(t: int) -> np.ndarray:
        return clean + a[t] * (x_in - clean) + b[t] * noise - d[t] * x_in

    x_t = state(table.t[0])
    for row, t_next in zip(table.coef[:-1], table.t[1:], strict=True):
        x_t = row[0] * x_t + row[1] * clean + row[2] * (x_in - clean) + row[3] * x_in
        np.testing.assert_allclose(x_t, state(t_next), atol=1e-12)


def test_eq12_states_are_those_of_the_newest_estimate_without_noise(scene) -> None:
    """Whatever the state was, the next is I_0 + A R - D I_in of the estimates: no error of an earlier one stays."""
    estimate, x_in, wrong = scene
    schedule = Schedule.named("rddm09-noiseless")
    table = schedule.step_table(4)
    assert table.start_noise == 0
    for row, t_next in zip(table.coef[:-1], table.t[1:], strict=True):
        x_next = row @ np.stack([wrong.ravel(), estimate.ravel(), (x_in - estimate).ravel(), x_in.ravel()])
        a, d = schedule.residual_cum[t_next], schedule.shared_cum[t_next]
        np.testing.assert_allclose(x_next, (estimate + a * (x_in - estimate) - d * x_in).ravel(), atol=1e-12)


def test_shared_term_enters_with_a_plus(scene) -> None:
    """Eq. 14 adds delta I_in: with the sign flipped, all but the last step leave the forward process."""
    clean, x_in, _ = scene
    schedule = Schedule.named("diffuir")
    table = schedule.step_table(3, "eq14")
    a, d = schedule.residual_cum, schedule.shared_cum
    x_t = clean + a[999] * (x_in - clean) - d[999] * x_in
    wanted = clean + a[332] * (x_in - clean) - d[332] * x_in
    flipped = table.coef * (1, 1, 1, -1)
    for coef, lands in ((table.coef, True), (flipped, False)):
        x = x_t
        for row in coef[:-1]:
            x = row[0] * x + row[1] * clean + row[2] * (x_in - clean) + row[3] * x_in
        assert (np.abs(x - wanted).max() < 1e-12) == lands


def test_eq14_needs_its_last_step_rule(scene) -> None:
    """Without it B_T eps stays in the state, for any number of steps (method: the leftover is the start noise)."""
    clean, x_in, noise = scene
    schedule = Schedule.named("rddm09")
    for steps in (1, 3, 10):
        table = schedule.step_table(steps, "eq14")
        t = table.t
        last_a, last_d = schedule.residual_cum[t[-1]], schedule.shared_cum[t[-1]]
        coef = table.coef.copy()
        coef[-1] = (1, 0, -last_a, last_d)
        start = table.start_input * x_in + table.start_noise * noise
        left_over = run_with_oracle(StepTable(t, table.time, coef, 0, 0), clean, x_in, start) - clean
        np.testing.assert_allclose(left_over, 0.1 * noise, atol=1e-12)


@pytest.mark.parametrize("steps", [-1, 0, 11])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(OptionError, match=f"steps is {steps}; it must lie between 1 and 10"):
        Schedule.named("rddm09").step_table(steps)


def test_unknown_schedule_names_the_known_ones() -> None:
    with pytest.raises(OptionError, match="known: rddm09, rddm09-noiseless, rddm09-unshared, diffuir"):
        Schedule.named("cosine")
