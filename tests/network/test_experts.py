"""The loop of light steps: its states are those of the equations, and a better state is a better estimate."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402

from cled_edge.bundle.manifest import GraphPrecision  # noqa: E402
from cled_edge.errors import OptionError  # noqa: E402
from cled_edge.network.blocks import patches_from_images, sinusoid  # noqa: E402
from cled_edge.network.presets import PRESETS, UNetConfig  # noqa: E402
from cled_edge.network.sampler import CledFusion, FusedLoop  # noqa: E402
from cled_edge.network.unet import SINUSOIDS, ResidualUNet  # noqa: E402
from cled_edge.schedule import Schedule  # noqa: E402
from cled_edge.size import Size  # noqa: E402
from export.graphs import GraphSet, graphs_of  # noqa: E402
from export.tracing import write_graph  # noqa: E402
from tests.fakes.networks import TINY, pictures, randomised  # noqa: E402

EXPERTS = replace(
    TINY,
    unet=UNetConfig("experts", (8, 8, 16), (0, 1, 1), (1, 1, 0), unshuffle=2, inner=(8, 12)),
    schedule="rddm09-noiseless",
)
SCHEDULE = Schedule.named(EXPERTS.schedule)


@pytest.fixture(scope="module")
def model() -> CledFusion:
    return randomised(CledFusion(EXPERTS))


@pytest.mark.parametrize("name", ["rddm09", "rddm09-noiseless"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10])
def test_what_a_step_keeps_of_the_residual_is_what_its_update_does(steps: int, name: str) -> None:
    rng = np.random.default_rng(steps)
    table = Schedule.named(name).step_table(steps)
    x_in, told = rng.normal(size=(2, 5))
    for index, row in enumerate(table.coef):
        t, after = table.t[index], table.t[index + 1] if index + 1 < steps else None
        a, d = SCHEDULE.residual_cum[t], SCHEDULE.shared_cum[t]
        a_next, d_next = (SCHEDULE.residual_cum[after], SCHEDULE.shared_cum[after]) if after is not None else (0, 0)
        x_t = (1 - d) * x_in - (1 - a) * told
        residual = rng.normal(size=5)
        x_next = row @ np.stack([x_t, x_in - residual, residual, x_in])
        kept = table.kept[index]
        told = ((1 - d_next) * x_in - x_next) / (1 - a_next)
        np.testing.assert_allclose(
            told, kept * ((1 - d) * x_in - x_t) / max(1 - a, 1e-12) + (1 - kept) * residual, atol=1e-9
        )


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10])
def test_one_graph_is_the_trajectory_of_the_equations(model: CledFusion, steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    infrared, visible = (
        torch.randint(0, 256, (1, 32, 64, channels), generator=generator, dtype=torch.uint8) for channels in (1, 3)
    )
    images = [x.permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1) / 127.5 - 1 for x in (infrared, visible)]
    with torch.no_grad():
        *_, (_, residual) = model.sampler.trajectory(images[1], steps)
        _, _, in_one_graph = FusedLoop(model, steps)(infrared, visible)
        torch.testing.assert_close(model.sampler(images[1], steps), residual, atol=1e-3, rtol=0)
    visible_restored = images[1] - residual
    wanted = ((visible_restored.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1)
    assert (in_one_graph.float() - wanted).abs().max() < 0.51
    assert (visible_restored - images[1]).abs().mean() > 0.01


def test_each_time_has_its_own_part_of_the_network(model: CledFusion) -> None:
    """Each part's weights change the estimates of its own interval of time and no other."""
    x_in, x_t = pictures(2, (32, 32))
    times = 1000.0, 937.5, 750.0, 437.5, 190.0
    assert list(SCHEDULE.step_table(4).time[1:]) == pytest.approx(times[1:4], abs=1)

    def estimates(changed: CledFusion) -> list[torch.Tensor]:
        with torch.no_grad():
            return [changed.unet(x_t, x_in, torch.tensor([time], dtype=torch.float32)) for time in times]

    before = estimates(model)
    own = {"coarse_offset": [0], "offset": [1, 2], "experts.0.offset": [3], "experts.1.offset": [4]}
    for part, places in own.items():
        other = randomised(CledFusion(EXPERTS))
        with torch.no_grad():
            other.unet.get_submodule(part).bias += 0.1
        after = estimates(other)
        changed = [k for k, (a, b) in enumerate(zip(before, after, strict=True)) if not torch.equal(a, b)]
        assert changed == places, part


@pytest.mark.parametrize("time", [1000.0, 937.5, 750.0])
def test_the_first_two_estimates_do_not_look_at_the_state(model: CledFusion, time: float) -> None:
    x_in, x_t, other = pictures(3, (32, 32))
    with torch.no_grad():
        assert torch.equal(model.unet(x_t, x_in, torch.tensor([time])), model.unet(other, x_in, torch.tensor([time])))


def test_the_second_estimate_is_that_of_a_one_pass_network_of_the_same_weights() -> None:
    unet = randomised(CledFusion(EXPERTS)).unet
    alone = ResidualUNet(replace(EXPERTS.unet, form="patch", inner=()), 0.1, len(EXPERTS.kinds))
    own = unet.state_dict()
    alone.load_state_dict({name: own.get(name, value) for name, value in alone.state_dict().items()})
    (x_in,) = pictures(1, (32, 32))
    with torch.no_grad():
        for parameter in (*unet.rows.parameters(), *alone.stem_state.parameters()):
            parameter.zero_()
        unet.begin.copy_(alone.time_mlp(sinusoid(torch.tensor([1000.0]), SINUSOIDS))[0])
        wanted = (x_in - alone(0.1 * x_in, x_in, torch.tensor([1000.0]))).clamp(-1, 1)
        torch.testing.assert_close(x_in - unet(x_in, x_in, torch.tensor([750.0])), wanted, atol=1e-5, rtol=0)


def test_experts_that_find_nothing_leave_what_the_state_tells() -> None:
    """With heads at 0, as before training, a true state gives the true residual, whatever the time."""
    unet = randomised(CledFusion(EXPERTS)).unet
    for cell in unet.experts:
        for parameter in (*cell.gain.parameters(), *cell.offset.parameters()):
            torch.nn.init.zeros_(parameter)
    x_in, clean = (0.9 * x for x in pictures(2, (32, 32)))
    residual = x_in - clean
    for t in (100, 200, 400):
        a, d = SCHEDULE.residual_cum[t], SCHEDULE.shared_cum[t]
        with torch.no_grad():
            found = unet(clean + a * residual - d * x_in, x_in, torch.tensor([a * 1000], dtype=torch.float32))
        torch.testing.assert_close(found, residual, atol=1e-4, rtol=0)


def test_what_rows_are_too_bright_by_is_taken_off_before_anything_else() -> None:
    unet = randomised(CledFusion(EXPERTS)).unet
    (light,) = (patches_from_images(x + 1, 2) for x in pictures(1, (32, 32)))
    with torch.no_grad():
        context = unet.context(light)
        offsets = unet.rows(light)
        for parameter in (*unet.rows.tell.parameters(),):
            parameter.zero_()
        without = unet.context(light - offsets)
    assert offsets.abs().max() > 1e-3
    for found, wanted in zip(context, without, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("size", [None, (32, 64)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_step_exports_with_its_experts_chosen_by_the_time(
    model: CledFusion, precision: GraphPrecision, size: Size | None, tmp_path: Path
) -> None:
    sizes = (size,) if size else ()
    graphs = graphs_of(model, GraphSet((precision,), sizes=sizes))
    graph = next(g for g in graphs if (g.role, g.precision, g.size) == ("unet_step", precision, size))
    write_graph(graph, 8, tmp_path / "step.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx", providers=["CPUExecutionProvider"])
    x_in, x_t = (torch.cat([x, x.flip(3)]) for x in pictures(2, (32, 64)))
    table = SCHEDULE.step_table(4)
    for time, coef in zip(table.time, table.coef, strict=True):
        row = torch.tensor([time], dtype=torch.float32), torch.tensor(coef, dtype=torch.float32)
        with torch.no_grad():
            wanted = model.sampler.step(x_t, x_in, *row)[1]
        feed = zip(("x_t", "x_in", "t", "coef"), (x_t, x_in, *row), strict=True)
        found = session.run(["residual"], {name: value.numpy() for name, value in feed})[0]
        assert np.abs(found - wanted.numpy()).max() < (1e-4 if precision == "fp32" else 0.05)


def test_the_warm_loop_is_one_step_from_what_was_told_also_in_onnx_runtime(model: CledFusion, tmp_path: Path) -> None:
    graph = next(g for g in graphs_of(model, GraphSet(steps=(2,), warm=True)) if g.name == "fused_loop-warm")
    write_graph(graph, EXPERTS.size_multiple, tmp_path / "warm.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "warm.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {"strength": np.ones(2, np.float32), "balance": np.full(1, 0.5, np.float32)}
    channels = {"infrared": 1, "visible": 3, "told": 4, "told_share": 2}
    feed |= {name: rng.integers(0, 256, (1, 64, 128, count), np.uint8) for name, count in channels.items()}

    def image(name: str, place: slice) -> torch.Tensor:
        return torch.from_numpy(feed[name][..., place]).permute(0, 3, 1, 2).float()

    x_in, told = (image(name, slice(-3, None)) / 127.5 - 1 for name in ("visible", "told"))
    with torch.no_grad():
        wanted = (x_in - model.sampler.warm(x_in, told, image("told_share", slice(1, 2)) / 255)).clamp(-1, 1)
        cold = x_in - model.sampler(x_in, 3)
    restored = session.run(["visible_restored"], feed)[0].astype(np.float32)
    assert np.abs(restored - ((wanted + 1) * 127.5).permute(0, 2, 3, 1).numpy()).max() < 0.51
    assert (wanted - cold).abs().mean() > 0.01


def test_a_network_without_experts_has_no_warm_loop() -> None:
    with pytest.raises(OptionError, match="is of the form patch; needed one of experts"):
        list(graphs_of(CledFusion(TINY), GraphSet(warm=True)))


def test_untrained_experts_remove_nothing() -> None:
    config = replace(
        PRESETS["one-pass"],
        unet=replace(PRESETS["one-pass"].unet, form="experts", inner=(24,)),
    )
    model = CledFusion(config).eval()
    (x_in,) = pictures(1, (32, 64))
    with torch.no_grad():
        residual = model.sampler(x_in, 3)
    torch.testing.assert_close(residual, torch.zeros_like(x_in), atol=1e-6, rtol=0)
