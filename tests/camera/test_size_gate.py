"""Cameras that change their size in a run: who is left out, and when they fit again."""

from cled_edge.camera.size_gate import SizeGate

SMALL, LARGE = (4, 6), (8, 12)


def paired(crop_rows=(0, 0), sizes=(SMALL, SMALL)) -> SizeGate:
    gate = SizeGate(crop_rows)
    for index in (0, 1):
        assert not gate.see(index, sizes[index], is_alone=False)
    gate.paired = sizes
    return gate


def test_nothing_is_left_out_before_the_first_pair() -> None:
    gate = SizeGate()
    assert not gate.see(0, SMALL, is_alone=False)
    assert not gate.see(1, LARGE, is_alone=False)
    assert gate.unfit == (False, False)


def test_a_camera_that_changes_its_size_is_left_out_until_that_is_back() -> None:
    gate = paired()
    assert gate.see(1, LARGE, is_alone=False)
    assert gate.unfit == (False, True)
    assert not gate.see(0, SMALL, is_alone=False), "the other one goes on"
    assert gate.see(1, SMALL, is_alone=False)
    assert gate.unfit == (False, False)


def test_two_cameras_go_over_to_a_size_that_both_have() -> None:
    gate = paired()
    gate.see(0, LARGE, is_alone=False)
    assert gate.see(1, LARGE, is_alone=False)
    assert (gate.unfit, gate.paired) == ((False, False), (LARGE, LARGE))


def test_rows_to_cut_off_count_for_what_fits() -> None:
    gate = paired(crop_rows=(0, 1), sizes=((5, 6), (4, 6)))
    gate.see(0, (9, 12), is_alone=False)
    gate.see(1, LARGE, is_alone=False)
    assert gate.unfit == (False, False)


def test_with_a_calibration_no_other_sizes_fit() -> None:
    gate = paired()
    gate.keeps = True
    gate.see(0, LARGE, is_alone=False)
    gate.see(1, LARGE, is_alone=True)
    assert gate.unfit == (True, True)


def test_a_camera_that_is_alone_may_have_any_size_until_the_other_is_back() -> None:
    gate = paired()
    assert gate.see(1, LARGE, is_alone=True)
    assert gate.unfit == (False, False)
    assert gate.see(0, SMALL, is_alone=False)
    assert gate.unfit == (False, True)


def test_a_size_that_was_refused_is_left_out_until_the_one_before_is_back() -> None:
    gate = paired()
    gate.prove((SMALL, SMALL))
    gate.see(0, LARGE, is_alone=False)
    gate.see(1, LARGE, is_alone=False)
    gate.refuse((0, 1))
    assert (gate.unfit, gate.paired) == ((True, True), (SMALL, SMALL))
    assert not gate.see(1, LARGE, is_alone=False), "it is known by now"
    assert gate.unfit == (True, True)
    assert gate.see(0, SMALL, is_alone=False)
    assert gate.unfit == (False, True)


def test_a_size_that_was_refused_before_the_first_pair_is_left_out() -> None:
    gate = SizeGate()
    gate.see(1, SMALL, is_alone=True)
    gate.see(1, LARGE, is_alone=True)
    gate.refuse((1,))
    gate.see(1, LARGE, is_alone=True)
    assert gate.unfit == (False, True)
    gate.see(1, SMALL, is_alone=True)
    assert gate.unfit == (False, False)
