"""The benchmark of controls: each number is what it says, on cases where it is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import control
from benchmarks.control import Trial, cut, shared_tenth, spearman, strength_rows, taken
from benchmarks.held_out import Scene
from cled_edge.as_seen import as_seen
from cled_edge.contract import UNCERTAINTY_DEVIATIONS


@pytest.fixture
def scene() -> Scene:
    from cled_edge.scene.night_street import night_street

    frame = next(iter(night_street(1, (96, 128))))
    return Scene("street", "0", frame.infrared, np.clip(frame.visible_clean * 2.0 + 20, 0, 255).astype(np.uint8))


def test_a_step_that_takes_half_of_what_is_left_is_told_so_and_one_that_errs_too(rng) -> None:
    true = rng.normal(0, 1, (3, 8, 8)).astype(np.float32)
    found = taken([0.5 * true, 0.75 * true, true * 0.75, true * 0.5], true)
    shares = [share for share, _ in found]
    assert shares == pytest.approx([0.5, 0.5, 0.0, -1.0], abs=1e-5)
    assert [cosine for _, cosine in found[:2]] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert np.isnan(found[2][1]), "a step that did nothing has no direction"
    assert found[3][1] == pytest.approx(-1.0, abs=1e-5)


def test_doubt_is_judged_by_the_tenth_that_it_shares_with_the_errors(rng) -> None:
    error = rng.permutation(1000).reshape(20, 50).astype(np.float32)
    assert shared_tenth(error, error) == 1.0
    assert shared_tenth(-error, error) == 0.0
    assert shared_tenth(rng.permutation(1000).reshape(20, 50).astype(np.float32), error) < 0.3
    assert np.isnan(shared_tenth(np.zeros((20, 50), np.float32), error)), "a map without doubt tells nothing"


def test_ranks_follow_order_and_not_distance() -> None:
    assert spearman(np.array([0, 0.1, 0.2]), np.array([1.0, 1.1, 30.0])) == pytest.approx(1)
    assert spearman(np.array([0, 0.1, 0.2]), np.array([3.0, 1.1, 0.0])) == pytest.approx(-1)
    assert np.isnan(spearman(np.array([0.0]), np.array([1.0])))


def test_the_best_strength_is_found_also_beyond_one(scene: Scene, monkeypatch) -> None:
    """A network that finds five sixths of what was added is best at 1.2."""

    class Found:
        def steps(self, _controls) -> int:
            return 1

    clean = np.full((2, 3, 16, 16), 0.1, np.float32)
    trial = Trial(scene, ("noise", "haze"), clean + np.float32(0.3), clean)
    monkeypatch.setattr(control, "residuals_of", lambda *_: [np.full_like(clean, 0.25)])
    rows = {row["modality"]: row for row in strength_rows(Found(), [trial])}
    for row in rows.values():
        assert row["best"] == 1.2
        assert row["best_db"] > row["at_1_db"] > row["at_0_db"]
        assert row["rank"] == 1.0


def test_every_kind_comes_up_and_cuts_are_of_the_middle(scene: Scene) -> None:
    from cled_edge import Fuser

    middle = cut(scene, (64, 96))
    assert np.array_equal(middle.infrared, scene.infrared[16:80, 16:112])
    assert cut(scene, (500, 500)).visible.shape == scene.visible.shape
    with Fuser.load() as fuser:
        trials = list(control.trials_of(fuser, middle))
        seen = {(modality, kind) for modality, kind, _, _ in control.each_kind(trials)}
        assert {kind for modality, kind in seen if modality == "infrared"} == set(control.ems.INFRARED)
        assert {kind for modality, kind in seen if modality == "visible"} == set(control.ems.VISIBLE)
        assert all(np.abs(t.x_in - t.clean)[p].max() > 0 for _, _, t, p in control.each_kind(trials))
        parts = [row["part"] for row in control.measured(fuser, [middle], ["leak", "balance", "taken"], (64, 96))]
    assert set(parts) == {"leak", "balance", "taken"}


def test_a_true_uncertainty_passes_and_a_bundle_without_it_has_no_rows(scene: Scene, rng) -> None:
    """Errors and samples are normal, of a deviation that the uncertainty knows."""
    from types import SimpleNamespace

    shape = (2, 3, 64, 96)
    levels = np.repeat(rng.uniform(1, 20, (2, 1, 64, 96)), 3, axis=1).astype(np.float32)
    deviation = levels / np.float32(127.5)

    class Knowing:
        bundle = SimpleNamespace(manifest=SimpleNamespace(find=lambda role: role))

        def steps(self, _controls) -> int:
            return 1

        def trajectory(self, x_in, *_):
            yield {"residual": np.zeros_like(x_in)}

        def doubt(self, _x_in, residual, noise=None):
            drawn = residual if noise is None else residual + deviation * np.repeat(noise[:, :, 0][None, None], 3, 1)
            return drawn, levels[:, :1] * np.float32(UNCERTAINTY_DEVIATIONS)

    clean = np.zeros(shape, np.float32)
    wrong = deviation * np.repeat(rng.standard_normal((2, 1, 64, 96)), 3, axis=1).astype(np.float32)
    trial = Trial(scene, ("noise", "haze"), clean + wrong, clean)
    rows = list(control.doubt_rows(Knowing(), [trial]))
    assert [(row["modality"], row["kind"]) for row in rows] == [
        ("infrared", "noise"), ("infrared", "mean of kinds"), ("visible", "haze"), ("visible", "mean of kinds"),
    ]  # fmt: skip
    for row in rows:
        assert 0.88 < row["inside"] < 0.92
        assert row["rank"] > 0.4
        assert row["share"] > 0.2
        assert 0.9 < row["spread"] < 1.1
        assert row["one_db"] < row["mean_db"] - 1
        assert row["mean_db"] < row["estimate_db"]
    without = SimpleNamespace(bundle=SimpleNamespace(manifest=SimpleNamespace(find=lambda role: None)))
    assert not list(control.doubt_rows(without, [trial]))


def test_what_changes_nothing_gains_nothing_in_colour_and_in_grey(scene: Scene) -> None:
    def still(_infrared, visible):
        return SimpleNamespace(visible=visible if visible.ndim == 3 else np.stack([visible] * 3, axis=2))

    rows = {row["kind"]: row for row in control.grey_rows(still, [scene])}
    assert rows.pop("clean") == {"part": "grey", "kind": "clean", "images": 1, "color_db": 99.0, "grey_db": 99.0}
    assert rows
    assert all((row["color_db"], row["grey_db"]) == (0, 0) for row in rows.values())


def test_light_tells_how_bright_nights_come_out_and_what_noise_costs(scene: Scene) -> None:
    """What only brightens and removes nothing: the noise costs as much after as before, and more with more light."""

    class Brightening:
        def as_seen(self, visible, controls):
            return as_seen(visible, controls, "RGB", tints_grey=False)

        def __call__(self, _infrared, visible, controls):
            seen = self.as_seen(visible, controls).image
            return SimpleNamespace(visible=seen, picture=seen)

    night = Scene("set", "night", scene.infrared, scene.visible // 8)
    rows = list(control.light_rows(Brightening(), [scene, night]))
    assert [row["light"] for row in rows] == list(control.LIGHTS)
    assert all(row["images"] == 1 and row["noisy_db"] == row["restored_db"] for row in rows)
    levels, decibels = ([row[name] for row in rows] for name in ("visible_levels", "noisy_db"))
    assert levels == sorted(levels)
    assert levels[-1] > 2 * levels[0]
    assert decibels == sorted(decibels, reverse=True)
    assert decibels[-1] < decibels[0] - 3
    assert not list(control.light_rows(Brightening(), [scene]))
