"""The light fusion net: exact ends, an infrared seen relative to its own scene, images that lack a part, its graph."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")
pytest.importorskip("onnxslim", reason="needs onnxslim: make test installs it")

import json  # noqa: E402

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from cled_edge.network.blocks import images_from_patches, patches_from_images  # noqa: E402
from cled_edge.network.light_fusion import LightFusion, SceneRange  # noqa: E402
from cled_edge.network.precision import at_precision  # noqa: E402
from cled_edge.network.presets import PRESETS, FusionConfig, UNetConfig, preset  # noqa: E402
from cled_edge.network.sampler import CledFusion, FusedLoop  # noqa: E402
from export import to_onnx  # noqa: E402
from export.graphs import GraphSet, graphs_of  # noqa: E402
from export.tracing import write_graph  # noqa: E402
from tests.fakes.networks import LUMA, randomised  # noqa: E402

SMALL = FusionConfig(
    (16, 16, 16, 16), blocks=(0, 1, 1, 0), expansion=2.0, unshuffle=2, mix=True, detail=8, form="light"
)
TINY = replace(
    preset("nano"),
    unet=UNetConfig("patch", (8, 8, 16), encoder_blocks=(0, 1, 1), decoder_blocks=(1, 1, 0), unshuffle=2),
    fusion=SMALL,
)
SIZE = (64, 96)
NODES = 120  # of the fusion graph after ONNX Runtime's extended optimisation
OPERATORS = Path(to_onnx.__file__).parent / "tensorrt_8_6_operators.json"


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return randomised(LightFusion(SMALL), kept=1.0)


def pair(seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    infrared, visible = (torch.rand(1, n, *SIZE, generator=generator) - 0.5 for n in (1, 3))
    return infrared.repeat(1, 3, 1, 1), visible


@torch.no_grad()
def fused(net, infrared, visible, balance: float = 0.5, valid=None):
    """Fuse images in the form that the loop runs, patches."""
    parts = [patches_from_images(x, 2) for x in (infrared, visible)]
    given = None if valid is None else torch.cat([patches_from_images(x, 2) for x in valid], dim=1)
    return images_from_patches(net.patches(*parts, {"balance": torch.tensor([balance])}, given), 2)


def luma(x):
    return (x * LUMA).sum(1, keepdim=True)


def test_the_balance_is_exact_at_its_ends_whatever_the_weights(net) -> None:
    infrared, visible = pair()
    assert torch.equal(fused(net, infrared, visible, 0), visible)
    torch.testing.assert_close(luma(fused(net, infrared, visible, 1)), infrared[:, :1], atol=1e-5, rtol=0)


def test_images_and_patches_are_fused_alike(net) -> None:
    infrared, visible = pair()
    none = torch.zeros_like(visible)
    for balance in (0.3, 0.5, 0.8):
        with torch.no_grad():
            whole = net(infrared, none, visible, none, {"balance": torch.tensor([balance])})
        torch.testing.assert_close(whole, fused(net, infrared, visible, balance).clamp(-1, 1), atol=1e-5, rtol=0)


def test_an_untrained_net_fuses_to_the_maximum_of_the_visible_and_the_infrared_as_it_is_shown() -> None:
    torch.manual_seed(0)
    net = LightFusion(SMALL).eval()
    infrared, visible = pair()
    with torch.no_grad():
        y, v = (cut(x) for x in (infrared[:, :1], luma(visible)))
        shown = images_from_patches(net.scene(y, v).shown(y), 2)
    wanted = torch.maximum(shown, luma(visible))
    torch.testing.assert_close(luma(fused(net, infrared, visible)), wanted, atol=1e-5, rtol=0)


def cut(x):
    return patches_from_images(x, 2)


@pytest.mark.parametrize(("gain", "level"), [(0.3, -0.6), (0.45, 0.2), (0.1, 0.0), (1.6, 0.1)])
def test_another_gain_and_level_of_the_infrared_fuse_alike(net, gain: float, level: float) -> None:
    infrared, visible = pair()
    there = fused(net, infrared, visible)
    assert (there - visible).abs().mean() > 0.05
    torch.testing.assert_close(fused(net, gain * infrared + level, visible), there, atol=2e-4, rtol=0)


def test_an_infrared_without_contrast_is_not_stretched_to_noise(net) -> None:
    _, visible = pair()
    grain = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(3)).repeat(1, 3, 1, 1) / 255
    scene = net.scene(*(cut(x) for x in (grain[:, :1], luma(visible))))
    assert scene.relative(cut(grain[:, :1])).std() < 0.2
    assert fused(net, torch.zeros_like(visible), visible).isfinite().all()


def test_the_range_of_a_scene_stays_within_what_an_image_can_show() -> None:
    scene = randomised(SceneRange(), seed=4, kept=1.0)
    with torch.no_grad():
        for parameter in scene.parameters():
            parameter.mul_(30)
        mean, spread = scene.range_of(torch.randn(3, 4, 8, 8) * 5, torch.rand(3, 4, 8, 8))
    assert mean.abs().max() <= 1
    assert (spread.min() >= 0.02) & (spread.max() <= 0.6)


def test_cameras_that_look_everywhere_change_no_bit(net) -> None:
    infrared, visible = pair()
    everywhere = torch.ones(1, 1, *SIZE)
    assert torch.equal(fused(net, infrared, visible, 0.5, (everywhere, everywhere)), fused(net, infrared, visible))


def test_where_one_camera_does_not_look_the_fused_image_is_the_others(net) -> None:
    infrared, visible = pair()
    everywhere, left = torch.ones(1, 1, *SIZE), torch.ones(1, 1, *SIZE)
    left[..., 40:] = 0
    without = fused(net, infrared, visible, 0.5, (left, everywhere))
    assert torch.equal(without[..., 40:], visible[..., 40:])
    assert (without - visible)[..., :40].abs().mean() > 0.05
    alone = luma(fused(net, infrared, visible, 1.0, (everywhere, left)))
    torch.testing.assert_close(alone, infrared[:, :1], atol=1e-5, rtol=0)


def test_what_an_infrared_camera_does_not_see_has_no_part_in_its_scene(net) -> None:
    infrared, visible = pair()
    everywhere, left = torch.ones(1, 1, *SIZE), torch.ones(1, 1, *SIZE)
    left[..., 40:] = 0
    black = infrared.clone()
    black[..., 40:] = -1
    one, other = (fused(net, x, visible, 0.5, (left, everywhere)) for x in (infrared, black))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_every_parameter_has_a_part(net) -> None:
    infrared, visible = pair()
    net.zero_grad()
    none = torch.zeros_like(visible)
    net(infrared, none, visible, none).square().sum().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    net.zero_grad()
    assert not idle


@pytest.mark.parametrize("steps", [1, 3])
def test_one_graph_form_computes_what_the_two_networks_do(steps: int) -> None:
    torch.manual_seed(0)
    model = randomised(CledFusion(TINY), kept=1.0)
    generator = torch.Generator().manual_seed(5)
    grey = torch.randint(0, 256, (1, 64, 96, 1), generator=generator, dtype=torch.uint8)
    rgb = torch.randint(0, 256, (1, 64, 96, 3), generator=generator, dtype=torch.uint8)
    controls = {"strength": torch.tensor([0.8, 0.6]), "balance": torch.tensor([0.4])}
    with torch.no_grad():
        seen = FusedLoop(model, steps)(grey, rgb, controls)[0]
        infrared, visible = (x.permute(0, 3, 1, 2) / 127.5 - 1 for x in (grey.expand(-1, -1, -1, 3), rgb))
        wanted = (model(infrared, visible, controls, steps)[0] + 1) * 127.5
    difference = (seen.float() - wanted.round().clamp(0, 255).permute(0, 2, 3, 1)).abs()
    assert difference.max() <= 1
    assert difference.mean() < 0.002


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_half_precision_stays_near_and_finite_on_extreme_images(kind: str) -> None:
    torch.manual_seed(0)
    model = randomised(CledFusion(TINY), kept=1.0)
    typed = at_precision(model, "fp16").fusion if kind == "fp16" else model.fusion
    infrared, visible = pair()
    infrared[..., :8, :8], visible[..., -8:] = 1, -1
    for a in (infrared, torch.full_like(infrared, -1), 0.02 * infrared - 0.9):
        none = torch.zeros_like(a)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
            seen = typed(a, none, visible, none).float()
        with torch.no_grad():
            wanted = model.fusion(a, none, visible, none)
        assert seen.isfinite().all()
        assert (seen - wanted).square().mean().sqrt() < (0.003 if kind == "fp16" else 0.06)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The preset's fusion graph of one size, FP32 and FP16, and of any size."""
    torch.manual_seed(0)
    model = randomised(CledFusion(PRESETS["nano"]), kept=1.0)
    folder, found = tmp_path_factory.mktemp("light"), {}
    for graph in graphs_of(model, GraphSet(("fp32", "fp16"), sizes=((96, 128),))):
        if graph.role == "fusion" and (graph.size or graph.precision == "fp32"):
            write_graph(graph, model.config.size_multiple, folder / graph.file)
            found[graph.name] = folder / graph.file
    return model.eval(), found


def test_its_graphs_have_operators_that_tensorrt_8_6_parses(graphs) -> None:
    listed = json.loads(OPERATORS.read_text())
    known = {*listed["8.4"], *listed["8.5"], *listed["8.6"]}
    for path in graphs[1].values():
        model = onnx.load(path)
        assert {node.op_type for node in model.graph.node} <= known
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]


def test_its_graph_has_few_nodes_and_hardly_any_that_only_turn_data_around(graphs, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(graphs[1]["fusion-96x128"], options, providers=["CPUExecutionProvider"])
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert sum(counts.values()) <= NODES
    assert sum(counts[kind] for kind in ("Transpose", "Reshape", "Slice", "Gather", "Split", "Squeeze")) <= 10


@pytest.mark.parametrize(("name", "size", "close"), [("fusion", (64, 160), 1e-4), ("fusion-96x128", (96, 128), 1e-4)])
def test_its_graph_computes_what_the_network_does(graphs, name: str, size: tuple[int, int], close: float) -> None:
    model, found = graphs
    generator = torch.Generator().manual_seed(2)
    images = [torch.rand(1, 3, *size, generator=generator) * scale - scale / 2 for scale in (1.8, 0.2, 1.8, 0.2)]
    controls = {"strength": torch.tensor([0.7, 1.0]), "balance": torch.tensor([0.6])}
    with torch.no_grad():
        wanted = model.fusion(*images, controls)
    names = ("infrared", "infrared_residual", "visible", "visible_residual")
    feeds = {n: x.numpy() for n, x in (dict(zip(names, images, strict=True)) | controls).items()}
    session = onnxruntime.InferenceSession(found[name], providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, feeds)[0], wanted.numpy(), atol=close)


def test_its_graph_in_fp16_is_near_the_network(graphs) -> None:
    model, found = graphs
    infrared, visible = pair()
    infrared, visible = (torch.nn.functional.interpolate(x, (96, 128)) for x in (infrared, visible))
    none = torch.zeros_like(visible)
    with torch.no_grad():
        wanted = model.fusion(infrared, none, visible, none).numpy()
    session = onnxruntime.InferenceSession(found["fusion-fp16-96x128"], providers=["CPUExecutionProvider"])
    zero = none.numpy()
    feeds = {"infrared": infrared.numpy(), "visible": visible.numpy(), "infrared_residual": zero}
    feeds |= {"visible_residual": zero, "strength": np.ones(2, np.float32), "balance": np.array([0.5], np.float32)}
    assert np.sqrt(np.square(session.run(None, feeds)[0] - wanted).mean()) < 0.004
