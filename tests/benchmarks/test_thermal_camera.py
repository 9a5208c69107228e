"""The benchmark of thermal cameras: a fuser that does nothing, one that is perfect, and one that turns heat dark."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.held_out import Scene
from benchmarks.thermal_camera import darker_targets, rows_of, summary, with_dead_pixels, with_hot_target
from cled_edge.image import Uint8


@pytest.fixture
def scene() -> Scene:
    rng = np.random.default_rng(0)
    infrared = (60 + 20 * rng.random((96, 128))).astype(np.uint8)
    infrared[40:48, 60:72] = 200  # 0.8 % of it
    return Scene("street", "0", infrared, np.full((96, 128, 3), 90, np.uint8))


def fused(infrared: Uint8, luma: Uint8) -> SimpleNamespace:
    return SimpleNamespace(infrared=infrared, picture=np.stack([luma] * 3, axis=2))


def values_of(fuser, scene: Scene) -> dict[str, float]:
    return {row["case"]: row["value"] for row in summary(list(rows_of(fuser, scene)))}


def test_what_changes_nothing_gains_nothing_and_shows_another_gain_as_it_is(scene: Scene) -> None:
    values = values_of(lambda infrared, _visible: fused(infrared, infrared), scene)
    assert {values[case] for case in values if case.startswith(("dead", "low"))} == {0.0}
    assert values["another AGC"] < 25
    assert values["hot target"] == 0


def test_what_knows_the_scene_gains_all(scene: Scene) -> None:
    values = values_of(lambda _infrared, _visible: fused(scene.infrared, scene.infrared), scene)
    assert all(value > 40 for case, value in values.items() if case != "hot target")


def test_a_target_that_turns_dark_is_counted(scene: Scene) -> None:
    values = values_of(lambda infrared, _visible: fused(infrared, 255 - infrared), scene)
    assert values["hot target"] == 1
    seen, hot = with_hot_target(scene.infrared, 0.3, 80.0)
    assert darker_targets(255 - seen, seen, hot) == 1
    assert darker_targets(seen, seen, hot) == 0


def test_so_many_pixels_die(scene: Scene) -> None:
    big = np.full((400, 400), 90, np.uint8)
    dead = with_dead_pixels(big, 0.01, np.random.default_rng(1))
    assert np.mean(dead == 0) == pytest.approx(0.005, abs=0.001)
    assert np.mean(dead == 255) == pytest.approx(0.005, abs=0.001)
    assert np.mean(dead == 90) == pytest.approx(0.99, abs=0.002)
