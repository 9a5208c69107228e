"""An explanation is what the network did: an exact split, shares that add up, and what interventions show."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cled_edge import Fuser
from cled_edge.areas import Area, Areas
from cled_edge.bundle.manifest import ScheduleSpec
from cled_edge.contract import Controls
from cled_edge.errors import BackendError, BundleVersionError, OptionError, SizeMismatchError
from cled_edge.explain import Explanation, explain
from cled_edge.explain import recorder as recording_form
from cled_edge.explain.pixel_origin import luma_levels
from cled_edge.explain.spectrum import spectrum_of
from cled_edge.explain.terms import TERMS, weights_of
from cled_edge.schedule import Schedule
from tests.fakes.noisy_loop import noisy_fuser

SIZE = (90, 122)  # no multiple of 32: what is padded must not be seen


@pytest.fixture(scope="module")
def fuser():
    with noisy_fuser() as loaded:
        yield loaded


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    from cled_edge.scene.night_street import night_street

    frame = next(iter(night_street(1, SIZE)))
    return frame.infrared, np.rint(frame.visible_clean * 0.45 + 118).astype(np.uint8)


@pytest.fixture(scope="module")
def told(fuser: Fuser, pair) -> Explanation:
    return explain(fuser, *pair, Controls(steps=3, strength_visible=0.8), seeds=2)


def test_it_explains_the_very_images_that_the_fuser_makes(fuser: Fuser, pair, told: Explanation) -> None:
    fused = fuser.step_by_step(*pair, Controls(steps=3, strength_visible=0.8))
    assert np.array_equal(told.fused.picture, fused.picture)
    assert np.array_equal(told.fused.infrared, fused.infrared)
    assert np.array_equal(told.fused.visible, fused.visible)
    assert told.size == SIZE
    assert told.images(None)[0].tolist() == pair[0].tolist()
    assert told.images(None)[1].tolist() == pair[1].tolist()


def test_the_terms_of_every_step_add_up_to_its_change_of_the_state(told: Explanation) -> None:
    assert told.steps == 3
    for step in range(told.steps):
        terms = told.terms(step)
        assert tuple(terms) == TERMS
        assert np.allclose(sum(terms.values()), told.states[step + 1] - told.states[step], rtol=0, atol=1e-5)
    assert 0 < told.identity_error <= 1e-5
    assert np.allclose(told.states[-1], told.x_in - told.residuals[-1], rtol=0, atol=1e-5)  # the last: all is clean


@pytest.mark.parametrize("name", ["rddm09", "diffuir"])
@pytest.mark.parametrize("update", ["eq6", "eq14"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_weights_are_those_of_the_schedule_by_either_rule(name: str, update, steps: int) -> None:
    schedule = replace(Schedule.named(name), update=update)
    weights = weights_of(ScheduleSpec.from_schedule(schedule, 1), steps)
    t = schedule.visited(steps)
    for entry, cumulated in (("residual_cum", schedule.residual_cum), ("shared_cum", schedule.shared_cum)):
        now, following = ([getattr(w, n) for w in weights] for n in (entry, f"{entry}_next"))
        assert np.allclose(now, cumulated[t])
        assert np.allclose(following, [*cumulated[t][1:], 0.0])
    kept = schedule.noise_std[t][1:] / schedule.noise_std[t][:-1] if update == "eq6" else np.ones(steps - 1)
    assert np.allclose([w.kept for w in weights], [*kept, 0.0])


def test_a_table_of_another_update_is_refused() -> None:
    spec = ScheduleSpec.from_schedule(Schedule.named("rddm09"), 1)
    rows = spec.tables[2].model_copy(update={"coef": ((1.0, 1.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0))})
    with pytest.raises(BundleVersionError, match=r"step 1 of 2 of schedule rddm09 is no update by Eq. 6 or 14"):
        weights_of(spec.model_copy(update={"tables": {**spec.tables, 2: rows}}), 2)


def test_a_graph_whose_state_is_not_its_split_is_refused(fuser: Fuser, pair, monkeypatch) -> None:
    monkeypatch.setattr(recording_form, "weights_of", lambda *_: tuple(replace(w, kept=0.5) for w in weights_of(*_)))
    with pytest.raises(BackendError, match=r"a state differs from the split of its update by .*needed 1e-05 at most"):
        explain(fuser, *pair, Controls(steps=3))


def test_the_shares_of_all_steps_add_up_to_one_and_one_step_removes_all(fuser: Fuser, pair, told: Explanation) -> None:
    assert np.allclose(told.removed_share.sum(axis=0), 1)
    one = explain(fuser, *pair, Controls(steps=1))
    assert np.allclose(one.removed_share, 1)
    assert one.spread_levels is None


def test_flat_images_have_no_share_and_are_passed_through(fuser: Fuser, pair) -> None:
    told = explain(fuser, np.full_like(pair[0], 90), pair[1], Controls(steps=2))
    assert told.fused.controls.strength_infrared == 0
    assert (told.fused.infrared == 90).all()
    assert any("flat infrared" in note for note in told.fused.notes)


def test_the_parts_of_a_fused_pixel_add_up_to_it(told: Explanation, pair) -> None:
    origin = told.origin
    parts = origin.from_infrared + origin.from_visible + origin.from_restoring + origin.own
    assert np.allclose(parts, origin.fused, atol=1e-3)
    told_share = origin.infrared_share[~origin.is_alike]
    assert told_share.min() >= 0
    assert told_share.max() <= 1
    assert (origin.infrared_share[origin.is_alike] == 0.5).all()


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_at_the_ends_of_balance_every_pixel_is_of_one_modality(
    fuser: Fuser, pair, balance: float, share: float
) -> None:
    origin = explain(fuser, *pair, Controls(balance=balance)).origin
    assert origin.share_of_infrared == pytest.approx(share, abs=0.02)
    assert np.abs(origin.own).mean() < 0.5


def test_what_restoring_adds_to_the_fused_is_what_strength_zero_takes_away(fuser: Fuser, pair) -> None:
    both, neither = (
        explain(fuser, *pair, Controls(strength_infrared=s, strength_visible=s)).origin for s in (1.0, 0.0)
    )
    assert np.allclose(both.restoring.sum(axis=0), both.fused - neither.fused, atol=1e-3)
    assert np.abs(both.restoring).max() > 1
    assert (neither.from_restoring == 0).all()
    assert np.abs(neither.restoring).max() < 1e-3


def test_a_wrong_state_that_is_swapped_in_shows_in_the_trajectory_from_there_on(fuser: Fuser, pair) -> None:
    controls = Controls(steps=3)  # the third is the first that looks at the state
    right = explain(fuser, *pair, controls)
    wrong_state = np.flip(right.states[2], axis=3)
    wrong = explain(fuser, *pair, controls, states={2: wrong_state})
    assert np.array_equal(wrong.residuals[:2], right.residuals[:2])
    assert np.array_equal(wrong.states[2], wrong_state)  # what the third step met
    assert not np.array_equal(wrong.residuals[2], right.residuals[2])
    # The third step has to undo it: its terms are larger than those of the right trajectory.
    noise = TERMS.index("noise")
    assert (wrong.term_rms_levels[2, :, noise] > 2 * right.term_rms_levels[2, :, noise]).all()


def test_the_spread_over_start_noises_is_that_of_their_results(told: Explanation, fuser: Fuser, pair) -> None:
    assert told.spread_levels is not None
    assert told.spread_levels.shape == (2, *SIZE)
    assert (told.spread_levels.mean(axis=(1, 2)) > 0).all()
    again = explain(fuser, *pair, Controls(steps=3, strength_visible=0.8), seeds=2)
    assert np.array_equal(again.spread_levels, told.spread_levels)


def test_a_spectrum_holds_the_power_of_its_image_at_its_period() -> None:
    columns = np.arange(256, dtype=np.float32)
    wave = np.broadcast_to(7 + 10 * np.sin(2 * np.pi * columns / 11), (192, 256)).astype(np.float32)
    spectrum = spectrum_of(wave)
    assert spectrum.mean_level == pytest.approx(wave.mean())
    assert np.sqrt(np.sum(spectrum.rms_levels**2)) == pytest.approx(wave.std(), rel=0.03)
    assert spectrum.period_px[spectrum.rms_levels.argmax()] == pytest.approx(11, rel=0.2)
    noise = np.random.default_rng(0).normal(0, 5, (192, 256)).astype(np.float32)
    assert np.sqrt(np.sum(spectrum_of(noise).rms_levels ** 2)) == pytest.approx(5, rel=0.03)


def test_the_npz_holds_what_the_explanation_says(told: Explanation, tmp_path: Path) -> None:
    told.save_npz(tmp_path / "a.npz", {"more": np.arange(3)})
    with np.load(tmp_path / "a.npz") as kept:
        assert {"x_in", "states", "residuals", "removed_share", "spread_levels", "more"} <= set(kept.files)
        assert np.array_equal(kept["removed_share"], told.removed_share)
        assert np.array_equal(kept["origin_own"], told.origin.own)
        # The split can be made again of the file alone.
        n = (
            kept["states"][0]
            - (kept["x_in"] - kept["residuals"][0])
            - kept["weight_residual_cum"][0] * kept["residuals"][0]
        )
        n = n + kept["weight_shared_cum"][0] * kept["x_in"]
        assert np.allclose(-(1 - kept["weight_kept"][0]) * n, told.terms(0)["noise"], atol=1e-5)


def test_bad_input_is_refused_in_one_line(fuser: Fuser, pair) -> None:
    infrared, visible = pair
    with pytest.raises(SizeMismatchError, match="infrared is 90x122, visible 45x61"):
        explain(fuser, infrared, visible[::2, ::2])
    with pytest.raises(OptionError, match="strength_map is uint8"):
        explain(fuser, infrared, visible, strength_map=np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(OptionError, match="seeds is -1"):
        explain(fuser, infrared, visible, seeds=-1)
    with pytest.raises(OptionError, match="infrared pictures must be 8 or 16 bit"):
        explain(fuser, np.full(SIZE, np.nan, np.float32), visible)
    with pytest.raises(OptionError, match="balance is 2"):
        Controls(balance=2)
    with pytest.raises(OptionError, match="balance is nan"):
        Controls(balance=float("nan"))
    for state in (np.zeros((2, 3, 4, 4), np.float32), np.full((2, 3, *SIZE), np.nan, np.float32)):
        with pytest.raises(OptionError, match="the state before step 0 has shape"):
            explain(fuser, infrared, visible, states={0: state})


def test_a_map_of_zeros_leaves_a_modality_as_it_came(fuser: Fuser, pair) -> None:
    shares = np.full((*SIZE, 2), 255, np.uint8)
    shares[:, :, 0] = 0
    told = explain(fuser, *pair, strength_map=shares)
    assert np.array_equal(told.fused.infrared, pair[0])
    assert not np.array_equal(told.fused.visible, pair[1])
    assert np.allclose(luma_levels(told.x_in)[0], pair[0], atol=1e-2)


def test_areas_of_attention_and_of_a_blind_camera_are_in_the_image_and_in_its_origin(fuser: Fuser, pair) -> None:
    blind = Area.box(0, 0.6, 1, 1, modality="visible", valid=False)
    other = Fuser(fuser.bundle, fuser.backend, areas=Areas([Area.box(0, 0, 1, 0.5, attention=-1), blind]))
    told, fused = explain(other, *pair), other(*pair)
    assert np.abs(told.fused.picture.astype(int) - fused.picture).max() <= 1
    share, columns = told.origin.infrared_share, SIZE[1]
    apart = ~told.origin.is_alike
    assert share[:, : columns // 3][apart[:, : columns // 3]].max() < 0.01
    assert share[:, columns * 2 // 3 :][apart[:, columns * 2 // 3 :]].min() > 0.99
    assert np.abs(told.origin.fused - luma_levels(fused.picture.transpose(2, 0, 1) / 127.5 - 1)).max() < 2
    validity = np.full((*SIZE, 2), 255, np.uint8)
    validity[:30, :, 0] = 0
    found = explain(fuser, *pair, validity=validity)
    assert np.array_equal(found.fused.picture[:28], found.fused.visible[:28])
    assert found.origin.infrared_share[:28][~found.origin.is_alike[:28]].max() < 0.01
    with pytest.raises(OptionError, match="validity is uint8"):
        explain(fuser, *pair, validity=validity[:4])


def test_where_an_image_is_cut_and_where_both_are_flat_the_origin_is_that_of_the_run(fuser: Fuser) -> None:
    leaning = Fuser(fuser.bundle, fuser.backend, areas=Areas([Area(attention=1)]))
    red = np.full((*SIZE, 3), (230, 20, 20), np.uint8)
    red[::2] = (200, 30, 20)
    hot = np.full(SIZE, 240, np.uint8)
    hot[:, ::2] = 200
    flat = np.full(SIZE, 90, np.uint8), np.full((*SIZE, 3), (30, 90, 150), np.uint8)
    for of, pair in ((leaning, (hot, red)), (fuser, flat), (leaning, flat)):
        told, fused = explain(of, *pair), of(*pair)
        assert np.abs(told.fused.picture.astype(int) - fused.picture).max() <= 1
        shown = luma_levels(fused.picture.transpose(2, 0, 1) / 127.5 - 1)
        assert np.abs(told.origin.fused - shown).max() < 2
