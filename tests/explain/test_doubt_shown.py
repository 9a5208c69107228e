"""What an explanation tells of doubt where a bundle has the graph: uncertainty, samples, and the sample in use."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cled_edge import Bundle, Fuser
from cled_edge.contract import Controls
from cled_edge.errors import OptionError
from cled_edge.explain import Explanation, explain
from cled_edge.explain.page import write_report
from tests.fakes.doubting_bundle import BY_NOISE, LEVELS, doubting_bundle, doubtless_bundle

SIZE = (70, 90)


@pytest.fixture(scope="module")
def fuser(tmp_path_factory):
    with Fuser.load(doubting_bundle(tmp_path_factory.mktemp("doubt") / "bundle").path) as loaded:
        loaded.bundle = replace(loaded.bundle, is_trusted=True)
        yield loaded


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    from cled_edge.scene.night_street import night_street

    frame = next(iter(night_street(1, SIZE)))
    return frame.infrared, frame.visible_clean


@pytest.fixture(scope="module")
def told(fuser: Fuser, pair) -> Explanation:
    return explain(fuser, *pair, Controls(steps=1), seeds=8)


def test_it_tells_the_uncertainty_and_the_spread_of_samples(told: Explanation, fuser: Fuser, pair) -> None:
    assert told.uncertainty_levels is not None
    assert told.spread_levels is not None
    assert told.uncertainty_levels.shape == told.spread_levels.shape == (2, *SIZE)
    assert told.seeds == 8
    assert np.abs(told.uncertainty_levels[0] - LEVELS * (0.5 + told.images(None)[0] / 255.0)).max() < 1e-3
    assert told.spread_levels[0].mean() == pytest.approx(BY_NOISE * 127.5 / 3**0.5, rel=0.1), "one channel, over sqrt 3"
    luma_of_three = sum(weight**2 for weight in (0.299, 0.587, 0.114)) ** 0.5
    assert told.spread_levels[1].mean() == pytest.approx(BY_NOISE * 127.5 * luma_of_three, rel=0.1), "three channels"
    half = explain(fuser, *pair, Controls(steps=1, start_noise=0.5), seeds=8)
    assert half.spread_levels is not None
    assert half.spread_levels.mean() == pytest.approx(told.spread_levels.mean() / 2, rel=1e-3)


def test_it_explains_the_sample_that_the_fuser_draws(fuser: Fuser, pair) -> None:
    controls = Controls(steps=1, start_noise=0.5, seed=6)
    told, fused = explain(fuser, *pair, controls), fuser(*pair, controls)
    for name in ("picture", "infrared", "visible"):
        assert np.array_equal(getattr(told.fused, name), getattr(fused, name))
    plain = explain(fuser, *pair, Controls(steps=1))
    assert not np.array_equal(plain.fused.visible, told.fused.visible)
    assert np.array_equal(plain.fused.visible, fuser.step_by_step(*pair, Controls(steps=1)).visible)


def test_the_page_says_what_both_maps_mean_and_the_npz_holds_them(told: Explanation, tmp_path: Path) -> None:
    numbers = write_report(told, tmp_path, "a").numbers
    page = (tmp_path / "index.html").read_text()
    assert "At nine of ten pixels the true brightness lies within so many grey levels" in page
    assert "Standard deviation: start noise 1 drew 8 samples, images that the restored ones may be as well" in page
    assert "starts without noise" not in page
    with np.load(tmp_path / "explanation.npz") as kept:
        assert np.array_equal(kept["uncertainty_levels"], told.uncertainty_levels)
    assert numbers["uncertainty_levels_mean"] == pytest.approx(float(told.uncertainty_levels.mean()))
    assert (tmp_path / "panels" / "spread.png").is_file()
    without = write_report(replace(told, spread_levels=None, seeds=0), tmp_path / "b", "a")
    assert "spread_levels_mean" not in without.numbers
    assert "Standard deviation: start" not in (tmp_path / "b" / "index.html").read_text()


def test_a_bundle_without_the_graph_explains_no_sample(tmp_path: Path, pair) -> None:
    bundle = doubtless_bundle(tmp_path / "bundle")
    with Fuser.load(bundle.path) as fuser:
        assert isinstance(fuser.bundle, Bundle)
        with pytest.raises(OptionError, match=r"start_noise is 0.5, but .* has no doubt graph"):
            explain(fuser, *pair, Controls(start_noise=0.5))
