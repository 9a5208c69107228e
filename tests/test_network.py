"""The networks: published sizes, the controls' exact ends, and the loop against its formula."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import numpy as np  # noqa: E402

from cled_edge.network.blocks import UnshuffleConv2d  # noqa: E402
from cled_edge.network.fusion import FusionNet, remove  # noqa: E402
from cled_edge.network.presets import PRESETS, FusionConfig, ModelConfig, UNetConfig  # noqa: E402
from cled_edge.network.sampler import CledFusion, Sampler  # noqa: E402
from cled_edge.network.unet import ResidualUNet, StandardisedConv2d  # noqa: E402
from cled_edge.schedule import Schedule  # noqa: E402

TINY = ModelConfig(
    "tiny",
    UNetConfig((8, 8, 16), unshuffle=2, blocks=1, attention="channel", normalisation="group", affine_head=True),
    FusionConfig((8, 8, 16, 16), heads=(1, 2, 2, 2), windows=(4, 4, 4, 4), unshuffle=2, gated_head=True),
)


def randomised(module, seed: int = 0):
    """Give every parameter a value: several start at zero, where a wrong formula would not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


def pictures(count: int, size: tuple[int, int] = (64, 128), seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, *size, generator=generator) * 2 - 1 for _ in range(count)]


@pytest.mark.parametrize(("name", "millions"), [("T", "0.886"), ("S", "3.269"), ("B", "12.407"), ("L", "36.261")])
def test_lineage_parameter_counts(name: str, millions: str) -> None:
    count = sum(p.numel() for p in ResidualUNet(PRESETS[name].unet).parameters())
    assert f"{count / 1e6:.3f}" == millions


@pytest.mark.parametrize("name", ["nano", "edge"])
def test_own_presets_leave_nothing_to_fold(name: str) -> None:
    config = PRESETS[name].unet
    assert not any(isinstance(m, StandardisedConv2d) for m in ResidualUNet(config).modules())
    assert config.unshuffle > 1
    assert PRESETS[name].fusion.unshuffle > 1


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    import json

    config = PRESETS[name]
    assert ModelConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_unet_keeps_the_shape_at_its_multiple(name: str) -> None:
    config = PRESETS[name].unet
    size = (config.size_multiple, 2 * config.size_multiple)
    x, x_in = pictures(2, size)
    with torch.no_grad():
        assert ResidualUNet(config).eval()(x, x_in, torch.tensor([500.0])).shape == (1, 3, *size)


@pytest.mark.parametrize("merges", ["concat", "channel", "spatial"])
def test_fusion_keeps_shape_and_range(merges) -> None:
    config = FusionConfig((8, 8, 16, 16), heads=(1, 2, 2, 2), windows=(4, 4, 4, 4), merges=(merges,) * 4)
    assert config.size_multiple == 32
    a, r, b, q = pictures(4, (32, 64))
    fused = randomised(FusionNet(config))(a, r, b, q, torch.ones(2), torch.tensor([0.5]))
    assert fused.shape == a.shape
    assert fused.abs().max() <= 1


def test_window_attention_matches_a_slow_reference() -> None:
    """Every query against the keys of its overlapping window, one window and one head at a time."""
    from cled_edge.network.blocks import _WindowSelfAttention

    width, heads, window = 8, 2, 4
    layer = randomised(_WindowSelfAttention(width, heads, window))
    x = torch.randn(1, width, 8, 12, generator=torch.Generator().manual_seed(2))
    q, k, v = layer.to_qkv(x.permute(0, 2, 3, 1))[0].split(width, dim=-1)
    wanted = torch.zeros(8, 12, width)
    reach, margin, head_width = 6, 1, width // heads
    for top in range(0, 8, window):
        for left in range(0, 12, window):
            for head in range(heads):
                part = slice(head * head_width, (head + 1) * head_width)
                for i in range(window * window):
                    iy, ix = divmod(i, window)
                    scores, values = [], []
                    for j in range(reach * reach):
                        jy, jx = divmod(j, reach)
                        y, z = top - margin + jy, left - margin + jx
                        inside = 0 <= y < 8 and 0 <= z < 12
                        key = k[y, z, part] if inside else torch.zeros(head_width)
                        values.append(v[y, z, part] if inside else torch.zeros(head_width))
                        offset = (jy - iy + window - 1) * (window + reach - 1) + jx - ix + window - 1
                        bias = layer.position[head, offset]
                        scores.append(q[top + iy, left + ix, part] @ key * head_width**-0.5 + bias)
                    weights = torch.stack(scores).softmax(0)
                    wanted[top + iy, left + ix, part] = (weights[:, None] * torch.stack(values)).sum(0)
    wanted = layer.to_out(wanted).permute(2, 0, 1)[None]
    torch.testing.assert_close(layer(x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_unshuffle_convolution_is_what_it_says(factor: int) -> None:
    layer = randomised(UnshuffleConv2d(6, 8, factor))
    x = torch.randn(2, 6, 16, 24, generator=torch.Generator().manual_seed(3))
    unshuffled = torch.nn.functional.pixel_unshuffle(x, factor)
    wanted = torch.nn.functional.conv2d(unshuffled, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), wanted, atol=1e-5, rtol=1e-5)


def test_strength_zero_is_the_input_bit_for_bit_and_one_the_clean_estimate() -> None:
    model = randomised(CledFusion(TINY))
    infrared, visible = pictures(2)
    with torch.no_grad():
        residuals = model.restore(infrared, visible, 2)
        assert residuals[0].abs().max() > 0.01
        _, a0, b0 = model(infrared, visible, torch.zeros(2), torch.tensor([0.5]), 2)
        _, a1, b1 = model(infrared, visible, torch.ones(2), torch.tensor([0.5]), 2)
    assert torch.equal(a0, infrared)
    assert torch.equal(b0, visible)
    assert torch.equal(a1, infrared - residuals[0])
    assert torch.equal(b1, visible - residuals[1])
    assert max(a1.abs().max(), b1.abs().max()) <= 1 + 1e-6


def test_strength_acts_per_modality_and_in_proportion() -> None:
    x, r = pictures(2)
    moved = [(remove(x, r, torch.tensor(s)) - x).abs().mean() for s in (0.25, 0.5, 1.0)]
    assert moved[1] / moved[0] == pytest.approx(2, rel=1e-3)
    assert moved[2] / moved[0] == pytest.approx(4, rel=1e-3)
    model = randomised(CledFusion(TINY))
    infrared, visible = pictures(2)
    with torch.no_grad():
        _, _, one = model(infrared, visible, torch.tensor([0.2, 0.7]), torch.tensor([0.5]), 1)
        _, _, other = model(infrared, visible, torch.tensor([0.9, 0.7]), torch.tensor([0.5]), 1)
    assert torch.equal(one, other)


def test_controls_reach_the_fused_picture() -> None:
    model = randomised(CledFusion(TINY))
    infrared, visible = pictures(2)

    def fuse(strength: list[float], balance: float):
        with torch.no_grad():
            return model(infrared, visible, torch.tensor(strength), torch.tensor([balance]), 1)[0]

    base = fuse([1, 1], 0.5)
    for other in (fuse([0, 1], 0.5), fuse([1, 0], 0.5), fuse([1, 1], 0.0), fuse([1, 1], 1.0)):
        assert (other - base).abs().max() > 1e-4


class Oracle(torch.nn.Module):
    """Knows the residual."""

    def __init__(self, residual) -> None:
        super().__init__()
        self.residual = residual

    def forward(self, x_t, x_in, time):
        return self.residual


@pytest.mark.parametrize("name", ["rddm09", "diffuir"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
def test_sampler_with_an_oracle_lands_on_the_clean_picture(name: str, steps: int) -> None:
    clean, x_in, noise = pictures(3)
    sampler = Sampler(Oracle(x_in - clean), Schedule.named(name))
    states = list(sampler.trajectory(x_in, steps, noise))
    assert len(states) == steps
    torch.testing.assert_close(states[-1][0], clean, atol=1e-6, rtol=0)
    torch.testing.assert_close(x_in - sampler(x_in, steps), clean, atol=1e-6, rtol=0)


def test_dark_pictures_are_not_cut_by_the_residual_clamp() -> None:
    """The lineage clamps R to [-1, 1]; white made black has R = -2."""
    clean = torch.ones(1, 3, 8, 8)
    x_in = -clean
    residual = Sampler(Oracle(x_in - clean), Schedule.named("rddm09"))(x_in, 1)
    assert torch.equal(x_in - residual, clean)


def test_loop_equals_the_step_table_by_hand() -> None:
    model = randomised(CledFusion(TINY))
    (x_in,) = pictures(1)
    table = model.sampler.schedule.step_table(3)
    x = table.start_input * x_in
    with torch.no_grad():
        for time, c in zip(table.time, table.coef, strict=True):
            predicted = model.unet(x, x_in, torch.tensor([time], dtype=torch.float32)).clamp(-2, 2)
            x0 = (x_in - predicted).clamp(-1, 1)
            x = float(c[0]) * x + float(c[1]) * x0 + float(c[2]) * (x_in - x0) + float(c[3]) * x_in
        torch.testing.assert_close(model.sampler(x_in, 3), x_in - x0, atol=1e-5, rtol=0)
    np.testing.assert_allclose(x.numpy(), x0.numpy(), atol=1e-6)
