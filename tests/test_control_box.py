"""The controls of a run under way: all of a change holds or nothing does, whoever changes them at the same time."""

import threading

import pytest

from cled_edge.contract import Controls
from cled_edge.control_box import ControlBox
from cled_edge.errors import OptionError


def test_a_change_leaves_the_other_controls_and_is_told_to_listeners() -> None:
    box, heard = ControlBox(Controls(steps=3, balance=0.2)), []
    box.listeners.append(heard.append)
    before = box.current
    now = box.change(strength_visible=0.5, deadline_ms=None)
    assert now == box.current == Controls(steps=3, balance=0.2, strength_visible=0.5)
    assert before == Controls(steps=3, balance=0.2)
    assert heard == [now]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"strength_visible": 0.5, "balance": 2}, "balance is 2; it must lie between 0 and 1"),
        ({"balance": "0.5"}, "balance is '0.5'; it must be a number between 0 and 1"),
        ({"ballance": 0.5}, "'ballance', which is no control; .*write balance"),
        ({"steps": 2.5}, "steps is 2.5; it must be a whole number"),
    ],
)
def test_a_wrong_change_is_refused_whole(values: dict[str, object], words: str) -> None:
    box, heard = ControlBox(), []
    box.listeners.append(heard.append)
    with pytest.raises(OptionError, match=words):
        box.change(**values)
    assert box.current == Controls()
    assert heard == []


def test_what_the_run_cannot_apply_is_refused_and_the_lock_is_free_again() -> None:
    def check(controls: Controls) -> None:
        if controls.balance != 0.5:
            raise OptionError("the bundle has no balance")

    box = ControlBox(check=check)
    with pytest.raises(OptionError, match="the bundle has no balance"):
        box.change(balance=0.7)
    assert box.change(steps=2) == box.current == Controls(steps=2)


def test_changes_of_several_threads_lose_nothing() -> None:
    box, begin = ControlBox(), threading.Barrier(3)

    def turn(name: str) -> None:
        begin.wait(5)
        for k in range(200):
            box.change(**{name: k / 199})

    threads = [
        threading.Thread(target=turn, args=(name,)) for name in ("balance", "strength_infrared", "strength_visible")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert box.current == Controls(balance=1.0, strength_infrared=1.0, strength_visible=1.0)


def test_controls_and_nothing_become_a_box_and_a_box_stays_itself() -> None:
    box = ControlBox()
    assert ControlBox.of(box) is box
    assert ControlBox.of(None).current == Controls()
    assert ControlBox.of(Controls(steps=2)).current == Controls(steps=2)
