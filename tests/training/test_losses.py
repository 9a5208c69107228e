"""Losses by their definitions."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

from pydantic import ValidationError  # noqa: E402

from cled_edge.network.presets import KINDS  # noqa: E402
from training.degradations import DEGRADATIONS  # noqa: E402
from training.losses import (  # noqa: E402
    balanced_target,
    fusion_losses,
    gain_loss,
    kinds_loss,
    pattern_loss,
    relative_loss,
    residual_loss,
    salient_maximum,
)
from training.recipe import FuseRecipe  # noqa: E402


def test_balanced_target_runs_from_visible_over_maximum_to_infrared() -> None:
    infrared, visible = torch.rand(5, 1, 6, 6), torch.rand(5, 1, 6, 6)
    target = balanced_target(infrared, visible, torch.tensor([[0.0], [0.25], [0.5], [0.75], [1.0]]))
    maximum = torch.maximum(infrared, visible)
    torch.testing.assert_close(target[0], visible[0])
    torch.testing.assert_close(target[1], (visible[1] + maximum[1]) / 2)
    torch.testing.assert_close(target[2], maximum[2])
    torch.testing.assert_close(target[3], (infrared[3] + maximum[3]) / 2)
    torch.testing.assert_close(target[4], infrared[4])


def test_fusion_losses_are_zero_at_their_targets_and_see_each_fault() -> None:
    grey = torch.rand(1, 1, 16, 16).repeat(1, 3, 1, 1)
    half = torch.tensor([[0.5]])
    perfect = fusion_losses(grey, grey, grey, half)
    assert all(part.item() < 1e-6 for part in perfect.values())
    assert fusion_losses(grey * 0.5, grey, grey, half)["intensity"] > 0.05
    assert fusion_losses(torch.full_like(grey, 0.5), grey, grey, half)["gradient"] > 0.1
    tinted = grey * torch.tensor([1.2, 1.0, 0.8]).reshape(1, 3, 1, 1)
    assert fusion_losses(tinted, grey, grey, half)["color"] > 0.02


def test_salient_maximum_keeps_the_contrast_of_the_hot_alone() -> None:
    infrared, visible = torch.full((1, 1, 128, 128), 0.2), torch.full((1, 1, 128, 128), 0.5)
    infrared[:, :, 60:68, 60:68] = 0.6  # a person, who the maximum leaves 0.1 above the smoke
    infrared[:, :, 10:18, 10:18] = 0.27  # a warm wall
    maximum = torch.maximum(infrared, visible)
    assert torch.equal(salient_maximum(infrared, visible, 0), maximum)
    target = salient_maximum(infrared, visible, 1)
    person, wall = (slice(0, 1), slice(0, 1), slice(61, 67), slice(61, 67)), (..., slice(11, 17), slice(11, 17))
    assert target[person].mean() - 0.5 == pytest.approx(0.4, abs=0.03)
    assert torch.equal(target[wall], maximum[wall])
    hotter = torch.where(infrared == 0.6, torch.tensor(0.95), infrared)
    assert salient_maximum(hotter, visible, 1)[person].mean() > 0.95
    assert salient_maximum(hotter, visible, 3).max() <= 1
    alone = torch.zeros_like(visible)  # nothing is lost where the infrared rules
    torch.testing.assert_close(salient_maximum(infrared, alone, 1.5), infrared)


def test_a_pattern_is_what_repeats_from_patch_to_patch() -> None:
    place = torch.zeros(1, 3, 4, 4)
    place[:, :, 1, 2] = 0.16  # of each patch; its mean is 0.01
    grid = place.repeat(1, 1, 16, 16)
    assert pattern_loss(grid, 4).item() == pytest.approx((0.15 + 15 * 0.01) / 16, rel=1e-4)
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    noise = torch.randn(1, 3, 64, 64) * 0.05
    assert pattern_loss(torch.full_like(grid, 0.5), 4) < 1e-6
    assert pattern_loss(noise, 4) < 0.3 * noise.abs().mean()
    assert pattern_loss(grid + ramp, 4) > pattern_loss(ramp, 4)


def test_what_is_hot_weighs_where_salience_raises_it_alone() -> None:
    infrared, visible = torch.full((1, 3, 128, 128), 0.2), torch.full((1, 3, 128, 128), 0.5)
    infrared[:, :, 60:68, 60:68] = 0.6
    maximum, half = torch.maximum(infrared, visible), torch.tensor([[0.5]])
    raised = salient_maximum(infrared[:, :1], visible[:, :1], 1).repeat(1, 3, 1, 1)
    assert "hot" not in fusion_losses(maximum, infrared, visible, half)
    assert fusion_losses(raised, infrared, visible, half, 1.0)["hot"] < 1e-6
    left = fusion_losses(maximum, infrared, visible, half, 1.0)
    assert left["hot"].item() == pytest.approx(left["intensity"].item(), rel=0.05)  # all that is missing is hot
    elsewhere = raised.clone()
    elsewhere[:, :, :40] += 0.2
    assert fusion_losses(elsewhere, infrared, visible, half, 1.0)["hot"] < 1e-6
    with pytest.raises(ValidationError, match="weight_hot weighs what salience raises"):
        FuseRecipe(iterations=1, batch=1, crop=32, learning_rate=1.0, weight_hot=1.0)


def test_weighting_by_share_counts_what_is_left_of_each_degradation() -> None:
    residual = torch.stack([torch.full((3, 8, 8), 0.9), torch.zeros(3, 8, 8)])
    predicted = torch.stack([torch.full((3, 8, 8), 0.4), torch.full((3, 8, 8), 0.05)])
    assert residual_loss(predicted, residual).item() == pytest.approx(0.275)
    assert residual_loss(predicted, residual, "share").item() == pytest.approx((0.5 / 1.2 + 0.05 / 0.3) / 2)
    weights = torch.tensor([1.0, 3.0])
    assert residual_loss(predicted, residual, "pixel", weights).item() == pytest.approx((0.5 + 3 * 0.05) / 2)


def test_of_squares_the_best_is_the_mean_and_of_absolute_errors_the_median() -> None:
    """One pixel in ten is rain: the least absolute error is to see none."""
    residual = torch.zeros(1, 3, 10, 10)
    residual[..., 0] = 1.0

    def best(square_share: float) -> float:
        levels = torch.linspace(0, 1, 101)
        found = [residual_loss(torch.full_like(residual, x), residual, "share", None, square_share) for x in levels]
        return float(levels[torch.stack(found).argmin()])

    assert best(0.0) == 0.0
    assert best(1.0) == pytest.approx(0.1, abs=0.011)
    assert 0 < best(0.9) < 0.1


def test_kinds_that_nobody_knows_are_left_out() -> None:
    logits = torch.zeros(2, 8)
    logits[0, 3] = 20.0
    known = torch.zeros(2, 8)
    known[0, 3] = 1.0
    right = kinds_loss(logits, known)
    assert right.item() == pytest.approx(15 / 16 * 0.6931, abs=1e-3)
    known[1] = torch.nan
    assert kinds_loss(logits, known).item() == pytest.approx(7 / 8 * 0.6931, abs=1e-3)
    assert kinds_loss(logits, torch.full((2, 8), torch.nan)).item() == 0
    assert set(KINDS) < {kind for kinds in DEGRADATIONS.values() for kind in kinds}


def test_a_step_that_loses_decibels_pays_three_times_what_one_earns_that_gains_them() -> None:
    truth = torch.zeros(2, 3, 8, 8)
    near, far = torch.full_like(truth, 0.1), torch.full_like(truth, 1.0)
    assert gain_loss(near, far, truth).item() == pytest.approx(-2, abs=0.01)  # 20 dB
    assert gain_loss(far, near, truth).item() == pytest.approx(6, abs=0.01)
    assert gain_loss(truth, truth + 1e-4, truth).item() == pytest.approx(0, abs=1e-2)  # which nobody sees


def test_the_relative_loss_sees_no_gain_and_level_and_no_colour() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand(1, 4, 1, 8, 8, generator=generator).expand(1, 4, 3, 8, 8).flatten(1, 2) + 0.3
    colour = torch.rand(1, 12, 8, 8, generator=generator)
    truth = torch.cat([grey, colour])
    assert relative_loss(torch.cat([0.5 * grey + 0.4, 0.1 * colour.square()]), truth) < 1e-5
    pressed = grey.clamp(0.4, 1.1)
    error = relative_loss(torch.cat([pressed, colour]), truth)
    assert error > 0.02
    assert relative_loss(torch.cat([pressed, colour])[:1], truth[:1]) == pytest.approx(float(error))
    assert relative_loss(colour, colour + 1) == 0  # none is grey
