"""As many steps as fit into a deadline, learnt from what frames take."""

from collections.abc import Callable

import pytest

from cled_edge.deadline import StepBudget


def run(
    budget: StepBudget, deadline_ms: float, frames: int, took: Callable[[int], float], choices=(1, 2, 3, 4)
) -> list[int]:
    """Return the steps of each frame of a machine on which so many steps take so long."""
    chosen = []
    for _ in range(frames):
        chosen.append(budget.choose(deadline_ms, choices))
        budget.ran(chosen[-1], took(chosen[-1]))
    return chosen


@pytest.mark.parametrize(("deadline_ms", "fits"), [(15, 1), (29, 1), (31, 2), (45, 3), (60, 4), (1000, 4)])
def test_as_many_steps_run_as_fit(deadline_ms: float, fits: int) -> None:
    """One step takes 20 ms, each further one 10."""
    chosen = run(StepBudget(), deadline_ms, 60, lambda steps: 10 + 10 * steps)
    assert chosen[0] == 1
    assert set(chosen[30:]) == {fits}


def test_while_it_learns_a_deadline_is_missed_by_one_step_at_most() -> None:
    chosen = run(StepBudget(), 45, 60, lambda steps: 10 + 10 * steps)
    assert max(chosen) == 4
    assert set(chosen[16:]) == {3}
    chosen = run(StepBudget(), 15, 60, lambda steps: 10 + 10 * steps)
    assert max(chosen) == 1


def test_a_slower_machine_takes_fewer_steps_and_comes_back() -> None:
    budget = StepBudget()
    assert run(budget, 45, 40, lambda steps: 10 + 10 * steps)[-1] == 3
    assert run(budget, 45, 60, lambda steps: 3 * (10 + 10 * steps))[-1] == 1
    assert run(budget, 45, 400, lambda steps: 10 + 10 * steps)[-1] == 3


def test_the_first_run_of_a_graph_says_nothing() -> None:
    seen: set[int] = set()

    def took(steps: int) -> float:
        first = steps not in seen
        seen.add(steps)
        return 900.0 if first else 10 + 10 * steps

    assert run(StepBudget(), 45, 60, took)[-1] == 3


def test_one_slow_frame_in_twenty_does_not_count() -> None:
    frames = iter(range(1000))
    assert run(StepBudget(), 45, 200, lambda steps: 300.0 if next(frames) % 25 == 24 else 10 + 10 * steps)[-1] == 3


def test_only_what_can_be_had_is_chosen() -> None:
    assert set(run(StepBudget(), 1000, 30, lambda steps: 10.0 * steps, choices=(2, 5))[10:]) == {5}
    assert set(run(StepBudget(), 1, 30, lambda steps: 10.0 * steps, choices=(2, 5))) == {2}
