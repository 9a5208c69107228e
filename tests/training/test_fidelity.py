"""The measures that training can be asked for agree with those of `cled_edge.metrics`, and have gradients."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import numpy as np  # noqa: E402

from benchmarks.baselines import luma_of  # noqa: E402
from cled_edge.metrics import fused as score  # noqa: E402
from cled_edge.metrics.edges import edge_preservation as scored_edges  # noqa: E402
from cled_edge.scene.night_street import night_street  # noqa: E402
from training.fidelity import edge_preservation, information_fidelity, sobel  # noqa: E402
from training.losses import fusion_losses  # noqa: E402

METHODS = {
    "average": lambda a, b: (a + b) / 2,
    "maximum": np.maximum,
    "visible": lambda a, b: b,
    "dimmed": lambda a, b: np.maximum(a, b) * 0.6,
}


@pytest.fixture(scope="module")
def lumas() -> tuple[np.ndarray, np.ndarray]:
    """Of a rendered street, float64, 0 to 255."""
    scene = next(iter(night_street(1, (240, 320))))
    return scene.infrared.astype(np.float64), luma_of(scene.visible).astype(np.float64)


def unit(luma: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(luma / 255).float()[None, None]


@pytest.mark.parametrize("method", METHODS)
def test_both_measures_are_those_of_the_scores(lumas, method: str) -> None:
    a, b = lumas
    fused = METHODS[method](a, b).round()
    edges = edge_preservation(unit(a), unit(b), unit(fused)).item()
    assert edges == pytest.approx(scored_edges(a, b, fused), abs=0.04)
    information = information_fidelity(unit(a), unit(b), unit(fused)).item()
    wanted = score.information_fidelity(a, fused) + score.information_fidelity(b, fused)
    assert information == pytest.approx(wanted, rel=0.04)


def test_a_copy_keeps_all_and_more_contrast_than_the_source_earns_nothing(lumas) -> None:
    a = unit(lumas[0])
    assert edge_preservation(a, a, a).item() > 0.97
    assert information_fidelity(a, a, a).item() == pytest.approx(2, abs=1e-3)
    stretched = 0.5 + 1.5 * (a - 0.5)
    assert score.information_fidelity(lumas[0], 255 * stretched[0, 0].double().numpy()) > 1.02
    assert information_fidelity(a, a, stretched).item() <= 2


def test_gradients_are_finite_on_flat_and_equal_pictures_and_lead_upwards(lumas) -> None:
    flat, a, b = torch.full((1, 1, 64, 64), 0.5), unit(lumas[0]), unit(lumas[1])
    for sources, start in (((flat, flat), flat), ((a, b), a), ((a, b), (a + b) / 2)):
        fused = start.clone().requires_grad_(True)
        value = edge_preservation(*sources, fused).sum() + information_fidelity(*sources, fused).sum()
        value.backward()
        assert torch.isfinite(fused.grad).all()
    risen = ((a + b) / 2 + 1e-3 * fused.grad.sign()).detach()
    assert edge_preservation(a, b, risen) > edge_preservation(a, b, (a + b) / 2)
    assert information_fidelity(a, b, risen) > information_fidelity(a, b, (a + b) / 2)


def test_losses_ask_for_measures_only_at_even_balance_and_when_told_to() -> None:
    generator = torch.Generator().manual_seed(0)
    fused, infrared, visible = (torch.rand(2, 3, 64, 64, generator=generator) for _ in range(3))
    uneven, even = torch.tensor([[0.5], [0.2]]), torch.tensor([[0.5], [0.5]])
    assert fusion_losses(fused, infrared, visible, even).keys() == {"intensity", "gradient", "color"}
    both = fusion_losses(fused, infrared, visible, even, measured=True)
    one = fusion_losses(fused, infrared, visible, uneven, measured=True)
    first = fusion_losses(fused[:1], infrared[:1], visible[:1], even[:1], measured=True)
    for name in ("edges", "information"):
        assert one[name] == pytest.approx(first[name].item() / 2, rel=1e-4)
        assert both[name] > one[name]
        assert fusion_losses(fused, infrared, visible, even * 0, measured=True)[name] == 0


def test_information_needs_a_window_at_its_coarsest_scale() -> None:
    small = torch.zeros(1, 1, 40, 64)
    with pytest.raises(ValueError, match="VIF needs 41 pixels a side"):
        information_fidelity(small, small, small)


def test_sobel_of_a_ramp_is_eight_times_its_slope() -> None:
    ramp = torch.arange(8.0).repeat(1, 1, 8, 1) * 0.1
    along, across = sobel(ramp)
    torch.testing.assert_close(along[0, 0, 1:-1, 1:-1], torch.full((6, 6), 0.8))
    assert across.abs().max() < 1e-6
    assert torch.equal(sobel(-ramp)[0], -along)
