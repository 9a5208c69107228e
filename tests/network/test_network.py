"""The networks: published sizes, the controls' exact ends, and the loop against its formula."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

from dataclasses import replace  # noqa: E402
from itertools import product  # noqa: E402

import numpy as np  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from cled_edge.errors import OptionError  # noqa: E402
from cled_edge.network.blocks import (  # noqa: E402
    ScaledConv2d,
    WindowSelfAttention,
    images_from_patches,
    patches_from_images,
)
from cled_edge.network.fusion import FusionNet, remove  # noqa: E402
from cled_edge.network.light_fusion import LightFusion  # noqa: E402
from cled_edge.network.lineage import LineageUNet  # noqa: E402
from cled_edge.network.presets import PRESETS, FusionConfig, ModelConfig  # noqa: E402
from cled_edge.network.sampler import CledFusion, FusedLoop, Sampler, make_unet  # noqa: E402
from cled_edge.schedule import Schedule  # noqa: E402
from tests.fakes.networks import LUMA, TINY, pictures, randomised  # noqa: E402
from training.losses import balanced_target  # noqa: E402


@pytest.mark.parametrize(("name", "millions"), [("T", "0.886"), ("S", "3.269"), ("B", "12.407"), ("L", "36.261")])
def test_lineage_parameter_counts(name: str, millions: str) -> None:
    count = sum(p.numel() for p in LineageUNet(PRESETS[name].unet).parameters())
    assert f"{count / 1e6:.3f}" == millions


def test_patches_are_rows_columns_colours_and_come_back() -> None:
    x = torch.arange(2 * 3 * 4 * 8.0).reshape(2, 3, 4, 8)
    patches = patches_from_images(x, 2)
    assert patches.shape == (2, 12, 2, 4)
    assert patches.is_contiguous(memory_format=torch.channels_last)
    wanted = [x[1, c, 2 + row, 6 + column] for row in range(2) for column in range(2) for c in range(3)]
    assert patches[1, :, 1, 3].tolist() == [v.item() for v in wanted]
    assert torch.equal(images_from_patches(patches, 2), x)


def test_scaled_convolution_standardises_its_weights() -> None:
    layer = ScaledConv2d(6, 4, 3, padding=1)
    torch.nn.init.normal_(layer.weight, 0.7, 3.0)
    torch.nn.init.constant_(layer.gain, 1.5)
    x = torch.randn(1, 6, 9, 9, generator=torch.Generator().manual_seed(4))
    weights = layer.weight.detach()
    for channel in range(4):
        flat = weights[channel] - weights[channel].mean()
        kernel = 1.5 * flat / (flat.square().sum() + 1e-4).sqrt()
        wanted = torch.nn.functional.conv2d(x, kernel[None], layer.bias[channel : channel + 1], padding=1)
        torch.testing.assert_close(layer(x)[:, channel : channel + 1], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["one-pass", "nano", "edge"])
def test_own_networks_start_as_the_identity_and_the_maximum(name: str) -> None:
    """Before training nothing is removed, and what is fused is Eq. 16's target: a run starts from the rule.

    The light form takes the maximum with the infrared as it is shown beside the visible.
    """
    model = CledFusion(PRESETS[name]).eval()
    infrared, visible = pictures(2, (model.config.size_multiple,) * 2)
    infrared = infrared[:, :1].repeat(1, 3, 1, 1)
    with torch.no_grad():
        fused, a, b = model(infrared, visible)
    torch.testing.assert_close(a, infrared, atol=1e-5, rtol=0)
    torch.testing.assert_close(b, visible, atol=1e-5, rtol=0)
    shown = infrared[:, :1]
    if isinstance(model.fusion, LightFusion):
        with torch.no_grad():
            shown = model.fusion.scene(*(F.pixel_unshuffle(x, 4) for x in (shown, luma(visible)))).shown(shown)
    unclipped = visible + (torch.maximum(shown, luma(visible)) - luma(visible))
    torch.testing.assert_close(fused, unclipped.clamp(-1, 1), atol=1e-5, rtol=0)


def luma(x):
    return (x * LUMA).sum(1, keepdim=True)


def test_balance_is_exact_at_its_ends_whatever_the_weights() -> None:
    config = FusionConfig((8, 8, 8, 8), heads=(1, 1, 1, 1), windows=(4, 4, 4, 4), unshuffle=2, mix=True, detail=4)
    net = randomised(FusionNet(config))
    infrared, visible = (0.4 * x for x in pictures(2, (32, 32)))
    infrared = infrared[:, :1].repeat(1, 3, 1, 1)
    none = torch.zeros_like(visible)

    def fuse(balance: float):
        with torch.no_grad():
            return net(infrared, none, visible, none, {"balance": torch.tensor([balance])})

    torch.testing.assert_close(fuse(0.0), visible, atol=1e-6, rtol=0)
    torch.testing.assert_close(luma(fuse(1.0)), infrared[:, :1], atol=1e-5, rtol=0)
    assert (fuse(0.5) - torch.maximum(infrared, visible)).abs().max() > 0.01
    for head in (net.head.more_infrared, net.head.less_visible, net.head.correction):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    for balance in (0.25, 0.75):
        wanted = balanced_target(infrared[:, :1], luma(visible), torch.tensor([[balance]]))
        torch.testing.assert_close(luma(fuse(balance)), wanted, atol=1e-5, rtol=0)


def test_two_patch_sizes_are_refused() -> None:
    with pytest.raises(OptionError, match="patches of 2 pixels, the fusion net of 4; they must be the same"):
        ModelConfig("odd", TINY.unet, FusionConfig((8, 8, 16, 16), unshuffle=4))


SMALL_LINEAGE = replace(
    PRESETS["T"],
    unet=replace(PRESETS["T"].unet, widths=(16, 16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1)),
    fusion=replace(TINY.fusion, blocks=(0, 0, 0, 1), decoder_blocks=(0, 0, 0, 0), unshuffle=1, mix=False),
)


@pytest.mark.parametrize(("config", "steps"), [(TINY, 1), (TINY, 2), (TINY, 3), (SMALL_LINEAGE, 2)])
def test_one_graph_form_computes_what_the_two_networks_do(config: ModelConfig, steps: int) -> None:
    model = randomised(CledFusion(config))
    generator = torch.Generator().manual_seed(5)
    grey = torch.randint(0, 256, (1, 64, 96, 1), generator=generator, dtype=torch.uint8)
    rgb = torch.randint(0, 256, (1, 64, 96, 3), generator=generator, dtype=torch.uint8)
    controls = {"strength": torch.tensor([0.8, 0.6]), "balance": torch.tensor([0.4])}
    with torch.no_grad():
        seen = FusedLoop(model, steps)(grey, rgb, controls)
        infrared, visible = (x.permute(0, 3, 1, 2) / 127.5 - 1 for x in (grey.expand(-1, -1, -1, 3), rgb))
        fused, a, b = model(infrared, visible, controls, steps)
    wanted = fused, a.mean(1, keepdim=True), b
    for one, other in zip(seen, wanted, strict=True):
        bytes_ = ((other + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
        assert one.dtype == torch.uint8
        difference = (one.float() - bytes_).abs()
        assert difference.max() <= 1
        assert difference.mean() < 0.002


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
        assert make_unet(PRESETS[name]).eval()(x, x_in, torch.tensor([500.0])).shape == (1, 3, *size)


@pytest.mark.parametrize("merges", ["concat", "channel", "spatial"])
def test_fusion_keeps_shape_and_range(merges) -> None:
    config = FusionConfig((8, 8, 16, 16), heads=(1, 2, 2, 2), windows=(4, 4, 4, 4), merges=(merges,) * 4)
    assert config.size_multiple == 8
    a, r, b, q = pictures(4, (32, 64))
    fused = randomised(FusionNet(config))(a, r, b, q)
    assert fused.shape == a.shape
    assert fused.abs().max() <= 1


def test_window_attention_matches_a_slow_reference() -> None:
    """Every query against the keys of its overlapping window, one window and one head at a time."""
    width, heads, window = 8, 2, 4
    layer = randomised(WindowSelfAttention(width, heads, window))
    x = torch.randn(1, width, 7, 10, generator=torch.Generator().manual_seed(2))  # the last windows are not whole
    q, k, v = (to(x.permute(0, 2, 3, 1))[0] for to in (layer.to_q, layer.to_k, layer.to_v))
    wanted = torch.zeros(7, 10, width)
    reach, margin, head_width = 6, 1, width // heads
    for top in range(0, 8, window):
        for left in range(0, 12, window):
            for head, i in product(range(heads), range(window * window)):
                iy, ix = divmod(i, window)
                if top + iy < 7 and left + ix < 10:
                    part = slice(head * head_width, (head + 1) * head_width)
                    scores, values = [], []
                    for j in range(reach * reach):
                        jy, jx = divmod(j, reach)
                        y, z = min(max(top - margin + jy, 0), 6), min(max(left - margin + jx, 0), 9)
                        key = k[y, z, part]
                        values.append(v[y, z, part])
                        offset = (jy - iy + window - 1) * (window + reach - 1) + jx - ix + window - 1
                        bias = layer.position[head, offset]
                        scores.append(q[top + iy, left + ix, part] @ key * head_width**-0.5 + bias)
                    weights = torch.stack(scores).softmax(0)
                    wanted[top + iy, left + ix, part] = (weights[:, None] * torch.stack(values)).sum(0)
    wanted = layer.to_out(wanted).permute(2, 0, 1)[None]
    torch.testing.assert_close(layer(x), wanted, atol=1e-5, rtol=1e-5)


def test_strength_zero_is_the_input_bit_for_bit_and_one_the_clean_estimate() -> None:
    model = randomised(CledFusion(TINY))
    infrared, visible = pictures(2)
    with torch.no_grad():
        residuals = model.restore(infrared, visible, 2)
        assert residuals[0].abs().max() > 0.01
        _, a0, b0 = model(infrared, visible, {"strength": torch.zeros(2)}, 2)
        _, a1, b1 = model(infrared, visible, {"strength": torch.ones(2)}, 2)
    assert torch.equal(a0, infrared)
    assert torch.equal(b0, visible)
    assert torch.equal(a1, infrared - residuals[0])
    assert torch.equal(b1, visible - residuals[1])
    assert max(a1.abs().max(), b1.abs().max()) <= 1 + 1e-6


def test_strength_acts_per_modality_and_in_proportion() -> None:
    x, r = (0.3 * image for image in pictures(2))  # nothing is cut at the ends of the range
    moved = [(remove(x, r, torch.tensor(s)) - x).abs().mean() for s in (0.25, 0.5, 1.0)]
    assert moved[1] / moved[0] == pytest.approx(2, rel=1e-3)
    assert moved[2] / moved[0] == pytest.approx(4, rel=1e-3)
    model = randomised(CledFusion(TINY))
    infrared, visible = pictures(2)
    with torch.no_grad():
        _, _, one = model(infrared, visible, {"strength": torch.tensor([0.2, 0.7])}, 1)
        _, _, other = model(infrared, visible, {"strength": torch.tensor([0.9, 0.7])}, 1)
    assert torch.equal(one, other)


def test_controls_reach_the_fused_picture() -> None:
    model = randomised(CledFusion(TINY))
    infrared, visible = pictures(2)

    def fuse(strength: list[float], balance: float):
        with torch.no_grad():
            controls = {"strength": torch.tensor(strength), "balance": torch.tensor([balance])}
            return model(infrared, visible, controls, 1)[0]

    base = fuse([1, 1], 0.5)
    for other in (fuse([0, 1], 0.5), fuse([1, 0], 0.5), fuse([1, 1], 0.0), fuse([1, 1], 1.0)):
        assert (other - base).abs().max() > 1e-4


def test_controls_that_are_not_given_are_neutral_and_unknown_ones_refused() -> None:
    model = randomised(CledFusion(TINY))
    infrared, visible = pictures(2)
    given = {"strength": torch.ones(2), "balance": torch.tensor([0.5])}
    with torch.no_grad():
        assert torch.equal(model(infrared, visible, steps=1)[0], model(infrared, visible, given, 1)[0])
        with pytest.raises(KeyError, match="controls are blance, needed some of strength, balance"):
            model(infrared, visible, {"blance": torch.ones(1)}, 1)


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
