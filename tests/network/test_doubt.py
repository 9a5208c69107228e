"""The network of doubt: no noise gives the estimate, samples have the deviation that is said, and old files open."""

import torch

from cled_edge.network.doubt import DoubtNet, fields, mixed
from cled_edge.network.presets import DoubtConfig, ModelConfig, preset


def images(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_in = torch.rand(2, 3, 64, 96, generator=generator) * 2 - 1
    residual = 0.1 * torch.randn(2, 3, 64, 96, generator=generator)
    return x_in, x_in - (x_in - residual).clamp(-1, 1)


def untrained(seed: int = 1) -> DoubtNet:
    """Return a network whose heads say something of every pixel."""
    torch.manual_seed(seed)
    net = DoubtNet(DoubtConfig((8, 8, 8))).eval()
    for head in (net.pattern_head, net.size_head[2], net.share_head):
        torch.nn.init.normal_(head.weight, std=0.1)
    return net


@torch.no_grad()
def test_no_noise_gives_the_residual_itself() -> None:
    x_in, residual = images()
    drawn, _ = untrained()(x_in, residual, torch.zeros_like(x_in))
    assert torch.equal(drawn, residual)


@torch.no_grad()
def test_uncertainty_does_not_depend_on_the_noise() -> None:
    x_in, residual = images()
    net = untrained()
    assert torch.equal(net(x_in, residual, torch.zeros_like(x_in))[1], net(x_in, residual, torch.randn(x_in.shape))[1])


@torch.no_grad()
def test_a_sample_is_an_image_and_its_noise_counts_in_proportion() -> None:
    x_in, residual = images()
    noise = torch.randn(x_in.shape, generator=torch.Generator().manual_seed(3))
    net = untrained()
    whole, half = (net(x_in, residual, share * noise)[0] for share in (1.0, 0.5))
    assert (x_in - whole).abs().max() <= 1 + 1e-6
    inside = (x_in - whole).abs().amax(dim=1, keepdim=True) < 0.9
    moved, moved_by_half = (whole - residual)[inside.expand_as(whole)], (half - residual)[inside.expand_as(half)]
    torch.testing.assert_close(2 * moved_by_half, moved, atol=1e-5, rtol=1e-4)
    assert moved.abs().max() > 0.01


def test_every_scale_of_noise_has_unit_variance() -> None:
    noise = torch.randn(250, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    for place, field in enumerate(fields(noise)):
        assert 0.85 < float(field.std()) < 1.2, place


@torch.no_grad()
def test_samples_have_unit_variance_whatever_the_shares_of_the_scales() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(250, 3, 96, 128, generator=generator)
    count = len(fields(noise))
    for _ in range(3):
        weights = torch.rand(1, count, 1, 1, generator=generator)
        weights = (weights / weights.sum()).sqrt().expand(250, count, 96, 128)
        assert 0.85 < float(mixed(noise, weights).std()) < 1.2


def test_a_configuration_without_doubt_reads_as_before_and_one_with_it_comes_back() -> None:
    values = preset("nano").as_dict()
    del values["doubt"]
    assert ModelConfig.from_dict(values).doubt is None
    values["doubt"] = {"widths": [8, 16, 24]}
    assert ModelConfig.from_dict(values).doubt == DoubtConfig((8, 16, 24))
    assert ModelConfig.from_dict(ModelConfig.from_dict(values).as_dict()) == ModelConfig.from_dict(values)
