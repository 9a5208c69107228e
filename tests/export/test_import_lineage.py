"""Import of the lineage's checkpoints, against a second writing of its UNet under its own names."""

import logging
import math
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from cled_edge.errors import CheckpointError, OutputError, one_line_errors  # noqa: E402
from cled_edge.network.checkpoint import load_checkpoint  # noqa: E402
from cled_edge.network.lineage import LineageUNet, StandardisedConv2d  # noqa: E402
from cled_edge.network.precision import with_plain_convolutions  # noqa: E402
from cled_edge.network.presets import PRESETS  # noqa: E402
from cled_edge.network.sampler import next_state  # noqa: E402
from cled_edge.schedule import Schedule  # noqa: E402
from export import import_lineage as program  # noqa: E402
from export.graphs import GraphSet, graphs_of  # noqa: E402
from export.import_lineage import import_unet  # noqa: E402
from export.tracing import write_graph  # noqa: E402


class Parts(nn.Module):
    """Modules under the given names; the functions below say what happens between them."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Gain(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))


def foreign_block(width_in: int, width: int, time: int) -> Parts:
    same = {} if width_in == width else {"res_conv": nn.Conv2d(width_in, width, 1)}
    return Parts(
        mlp=nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * width)),
        block1=Parts(proj=nn.Conv2d(width_in, width, 3), norm=nn.GroupNorm(8, width)),
        block2=Parts(proj=nn.Conv2d(width, width, 3), norm=nn.GroupNorm(8, width)),
        **same,
    )


def foreign_attention(width: int, linear: bool = True) -> Parts:
    out: nn.Module = nn.Conv2d(128, width, 1)
    if linear:
        out = nn.Sequential(out, Gain(width))
    inner = Parts(to_qkv=nn.Conv2d(width, 384, 1, bias=False), to_out=out)
    return Parts(fn=Parts(fn=inner, norm=Gain(width)))


class ForeignUNet(nn.Module):
    """DiffUIR's Unet as its reference describes it: own code, its names."""

    def __init__(self, dim: int, multiples: tuple[int, ...]) -> None:
        super().__init__()
        widths = [dim, *(dim * m for m in multiples)]
        time, deepest = 4 * dim, widths[-1]
        self.dim = dim
        self.init_conv = nn.Conv2d(6, dim, 7, padding=3)
        self.time_mlp = nn.Sequential(nn.Identity(), nn.Linear(dim, time), nn.GELU(), nn.Linear(time, time))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, (width, deeper) in enumerate(pairwise(widths)):
            blocks = [foreign_block(width, width, time) for _ in range(2)]
            last = level == len(multiples) - 1
            down = nn.Conv2d(width, deeper, 3, 1, 1) if last else nn.Conv2d(width, deeper, 4, 2, 1)
            self.downs.append(nn.ModuleList([*blocks, foreign_attention(width), down]))
        for level, (width, deeper) in reversed(list(enumerate(pairwise(widths)))):
            blocks = [foreign_block(deeper + width, deeper, time) for _ in range(2)]
            up = nn.Conv2d(deeper, width, 3, 1, 1)
            wider = up if level == 0 else nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), up)
            self.ups.append(nn.ModuleList([*blocks, foreign_attention(deeper), wider]))
        self.mid_block1, self.mid_block2 = (foreign_block(deepest, deepest, time) for _ in range(2))
        self.mid_attn = foreign_attention(deepest, linear=False)
        self.final_res_block = foreign_block(2 * dim, dim, time)
        self.final_conv = nn.Conv2d(dim, 3, 1)

    def forward(self, pictures, time):
        # Rounded as the reference rounds: an angle near 1000 is good to 6e-5 only.
        angles = time[:, None] * torch.exp(torch.arange(self.dim // 2) * (-math.log(10000) / (self.dim // 2 - 1)))
        t = self.time_mlp(torch.cat([torch.sin(angles), torch.cos(angles)], dim=1))
        first = x = self.init_conv(pictures)
        kept = []
        for one, two, attention, down in self.downs:
            x = run_block(one, x, t)
            kept.append(x)
            x = run_attention(attention, run_block(two, x, t))
            kept.append(x)
            x = down(x)
        x = run_block(self.mid_block1, x, t)
        x = run_block(self.mid_block2, run_attention(self.mid_attn, x), t)
        for one, two, attention, up in self.ups:
            x = run_block(one, torch.cat([x, kept.pop()], 1), t)
            x = run_block(two, torch.cat([x, kept.pop()], 1), t)
            x = up(run_attention(attention, x))
        return self.final_conv(run_block(self.final_res_block, torch.cat([x, first], 1), t))


def standard(x, dims):
    variance, mean = torch.var_mean(x, dim=dims, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def run_block(block, x, t):
    def convolve(part, y):
        return part.norm(F.conv2d(y, standard(part.proj.weight, (1, 2, 3)), part.proj.bias, padding=1))

    scale, shift = block.mlp(t)[..., None, None].chunk(2, dim=1)
    h = F.silu(convolve(block.block1, x) * (1 + scale) + shift)
    h = F.silu(convolve(block.block2, h))
    return h + (block.res_conv(x) if hasattr(block, "res_conv") else x)


def run_attention(outer, x):
    inner, (n, _, height, width) = outer.fn.fn, x.shape
    qkv = inner.to_qkv(standard(x, 1) * outer.fn.norm.g)
    q, k, v = (part.reshape(n, 4, 32, height * width) for part in qkv.chunk(3, dim=1))
    if isinstance(inner.to_out, nn.Conv2d):  # softmax attention over all pairs of pixels
        weights = torch.einsum("nhdi,nhdj->nhij", q, k).div(32**0.5).softmax(-1)
        return x + inner.to_out(torch.einsum("nhij,nhdj->nhdi", weights, v).reshape(n, 128, height, width))
    context = torch.einsum("nhdp,nhep->nhde", k.softmax(-1), v / (height * width))
    out = torch.einsum("nhde,nhdp->nhep", context, q.softmax(-2) / 32**0.5).reshape(n, 128, height, width)
    return x + standard(inner.to_out[0](out), 1) * inner.to_out[1].g


SIZES = {"T": (32, (1, 1, 1, 1)), "S": (32, (1, 2, 2, 4)), "B": (64, (1, 2, 2, 4)), "L": (64, (1, 2, 4, 8))}


def seeded(name: str) -> ForeignUNet:
    """Return a foreign UNet with a value of its own in every tensor: ones and zeros would hide a swapped name."""
    net = ForeignUNet(*SIZES[name])
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if key.endswith(".g") or ".norm.weight" in key:
                parameter.copy_(1 + 0.2 * noise)
            elif ".proj.weight" in key:
                parameter.copy_(0.02 * noise)  # the 1e-5 of the standardisation shows
            elif ".proj.bias" in key:
                parameter.copy_(5 * noise)  # beside the sum of 9 C standardised weights
            elif "to_out.0.weight" in key:
                parameter.copy_(20 * noise)  # v / (H W) is tiny: else only the bias is left of linear attention
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1 * noise)
    return net.eval()


def pictures(size: tuple[int, int]):
    generator = torch.Generator().manual_seed(8)
    return [torch.rand(2, 3, *size, generator=generator) * 2 - 1 for _ in range(2)]


@pytest.fixture(scope="module")
def foreign() -> ForeignUNet:
    return seeded("T")


def loaded(path: Path, name: str) -> LineageUNet:
    net = LineageUNet(PRESETS[name].unet)
    net.load_state_dict(import_unet(path).weights)
    return net.eval()


def assert_same(net: LineageUNet, foreign: ForeignUNet, size: tuple[int, int]) -> None:
    x_t, x_in = pictures(size)
    time = torch.tensor([993.647, 433.621])
    with torch.no_grad():
        wanted = foreign(torch.cat([x_t, x_in], 1), time)
        seen = net(x_t, x_in, time)
    assert wanted.std() > 0.1
    torch.testing.assert_close(seen, wanted, atol=1e-5, rtol=1e-5)


def test_every_tensor_of_the_foreign_network_shows_in_its_picture(foreign) -> None:
    """Else the comparison below could not fail: another draw of any tensor moves a pixel by far more than 1e-5."""
    generator = torch.Generator().manual_seed(9)
    x_t, x_in = pictures((32, 48))
    out = foreign(torch.cat([x_t, x_in], 1), torch.tensor([993.647, 433.621]))
    names, parameters = zip(*foreign.named_parameters(), strict=True)
    gradients = torch.autograd.grad((out * torch.randn(out.shape, generator=generator)).sum(), parameters)
    for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
        pixel_change = gradient.norm() * parameter.std() / out.numel() ** 0.5
        assert pixel_change > 1e-3, name


@pytest.mark.parametrize("size", [(32, 48), (64, 16)])
def test_imported_t_computes_what_the_foreign_network_does(foreign, size, tmp_path: Path) -> None:
    save_file(foreign.state_dict(), tmp_path / "plain.safetensors")
    assert_same(loaded(tmp_path / "plain.safetensors", "T"), foreign, size)


def test_imported_s_computes_what_the_foreign_network_does(tmp_path: Path) -> None:
    foreign = seeded("S")
    torch.save(foreign.state_dict(), tmp_path / "s.pth")
    for size in ((32, 32), (16, 48)):
        assert_same(loaded(tmp_path / "s.pth", "S"), foreign, size)


@pytest.mark.parametrize("name", ["B", "L"])
def test_larger_layouts_have_every_name_and_shape(name: str) -> None:
    with torch.device("meta"):
        foreign = ForeignUNet(*SIZES[name])
    assert {key: tensor.shape for key, tensor in foreign.state_dict().items()} == program._shapes(PRESETS[name])


def prefixed(prefix: str, weights):
    return {f"{prefix}{key}": value for key, value in weights.items()}


def buffers(name: str = "diffuir"):
    schedule = Schedule.named(name)
    fields = {"alphas_cumsum": schedule.residual_cum, "delta_cumsum": schedule.shared_cum, "betas": schedule.noise_std}
    return {key: torch.tensor(values, dtype=torch.float32) for key, values in fields.items()}


def trainer_file(plain, average):
    """Return what DiffUIR's Trainer saves: ema_pytorch keeps both networks, and Adam tensors of its own."""
    model = {**prefixed("model.unet0.", plain), **prefixed("model.", buffers())}
    ema = {**prefixed("ema_model.model.unet0.", average), **prefixed("online_model.", model)}
    return {
        "step": 300000,
        "model": {**prefixed("model.unet0.", plain), **buffers()},
        "opt0": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 8e-5, "params": [0]}]},
        "ema": {"initted": torch.tensor([True]), "step": torch.tensor([1]), **ema},
        "scaler": None,
    }


WRAPPINGS: dict[str, tuple[Callable, str, bool]] = {
    "plain.pt": (lambda plain, average: average, "", False),
    "unet0.pth": (lambda plain, average: prefixed("unet0.", average), "unet0.", False),
    "parallel.pt": (lambda plain, average: {"state_dict": prefixed("module.", average)}, "state_dict.module.", False),
    "trainer.pt": (trainer_file, "ema.ema_model.model.unet0.", True),
    "ema.pt": (lambda plain, average: {"model": plain, "ema": average}, "ema.", True),
    "ema_model.pt": (
        lambda plain, average: {"ema": prefixed("module.ema_model.", average), "step": 3},
        "ema.module.ema_model.",
        True,
    ),
    "flat.safetensors": (
        lambda plain, average: {**prefixed("model.unet0.", plain), **prefixed("ema_model.model.unet0.", average)},
        "ema_model.model.unet0.",
        True,
    ),
}


@pytest.mark.parametrize("file", WRAPPINGS)
def test_wrappings_are_taken_off_and_the_average_is_preferred(foreign, file: str, tmp_path: Path) -> None:
    wrap, prefix, averaged = WRAPPINGS[file]
    average = foreign.state_dict()
    plain = {key: value + 1 for key, value in average.items()}
    (save_file if file.endswith(".safetensors") else torch.save)(wrap(plain, average), tmp_path / file)
    unet = import_unet(tmp_path / file)
    assert (unet.prefix, unet.averaged, unet.config.name) == (prefix, averaged, "T")
    assert_same(loaded(tmp_path / file, "T"), foreign, (16, 16))


def test_half_precision_becomes_fp32(foreign, tmp_path: Path) -> None:
    torch.save({key: value.half() for key, value in foreign.state_dict().items()}, tmp_path / "half.pt")
    weights = import_unet(tmp_path / "half.pt").weights
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert torch.equal(weights["stem.bias"], foreign.init_conv.bias.half().float())


@pytest.mark.parametrize("name", ["T", "S"])
def test_folded_convolutions_are_plain_and_compute_the_same(name: str, tmp_path: Path) -> None:
    foreign = seeded(name)
    torch.save(foreign.state_dict(), tmp_path / "it.pt")
    net = loaded(tmp_path / "it.pt", name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    plain = with_plain_convolutions(net)
    assert any(isinstance(module, StandardisedConv2d) for module in net.modules())
    assert not any(isinstance(module, StandardisedConv2d) for module in plain.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not torch.equal(plain.state_dict()["middle_in.conv_in.weight"], before["middle_in.conv_in.weight"])
    assert_same(plain, foreign, (32, 32))
    assert_same(with_plain_convolutions(plain), foreign, (16, 16))


def test_exported_step_has_plain_weights_and_computes_what_the_foreign_network_does(foreign, tmp_path: Path) -> None:
    torch.save(foreign.state_dict(), tmp_path / "it.pt")
    step, _ = graphs_of(import_unet(tmp_path / "it.pt").model(seed=0), GraphSet())
    write_graph(step, 8, tmp_path / step.file)
    graph = onnx.load(tmp_path / step.file).graph
    constants = {tensor.name for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 60
    assert all(node.input[1] in constants for node in convolutions)

    x_t, x_in = pictures((32, 48))
    time, coef = torch.tensor([894.487]), torch.tensor([1.0, 0.0, -0.5, 0.3])
    with torch.no_grad():
        wanted = next_state(x_t, x_in, foreign(torch.cat([x_t, x_in], 1), time), coef)
    inputs = {name: x.numpy() for name, x in zip(("x_t", "x_in", "t", "coef"), (x_t, x_in, time, coef), strict=True)}
    seen = onnxruntime.InferenceSession(tmp_path / step.file).run(["x_prev", "residual"], inputs)
    for one, other in zip(seen, wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), other, atol=1e-4, rtol=0)


def test_program_writes_a_checkpoint_that_says_what_is_untrained(foreign, tmp_path: Path, caplog) -> None:
    source, out = tmp_path / "model-300.pt", tmp_path / "new" / "model.safetensors"
    torch.save(trainer_file(foreign.state_dict(), foreign.state_dict()), source)
    with caplog.at_level(logging.INFO, "export"):
        program.main(source, out, preset=None, seed=3)
    assert "took the EMA weights, at 'ema.ema_model.model.unet0.'; preset T" in caplog.text
    assert "the fusion network is UNTRAINED (seed 3)" in caplog.text
    model, record = load_checkpoint(out)
    assert model.config == PRESETS["T"]
    assert (record["unet"], record["fusion"], record["fusion_seed"]) == ("imported", "untrained", 3)
    assert record["source"]["file"] == "model-300.pt"
    assert_same(model.unet, foreign, (16, 16))
    again, other = (import_unet(source).model(seed).fusion.state_dict() for seed in (3, 4))
    fusion = model.fusion.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in fusion.items())
    assert not all(torch.equal(value, other[key]) for key, value in fusion.items())
    with pytest.raises(OutputError, match="exists; choose another name"):
        program.main(source, out)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w')",)


def dump(content, path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps(content, protocol))


PICKLES: dict[str, Callable] = {
    "zip": torch.save,
    "zip of protocol 4": lambda content, path: torch.save(content, path, pickle_protocol=4),
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "bare": lambda content, path: dump(content, path, 2),
    "bare of protocol 5": lambda content, path: dump(content, path, 5),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_with_code_is_named_and_not_run(foreign, kind: str, tmp_path: Path, capsys) -> None:
    trace, path = tmp_path / "ran", tmp_path / "evil.pt"
    content = {} if "bare" in kind else {"model": foreign.state_dict()}
    PICKLES[kind]({**content, "extra": Payload(trace)}, path)
    with pytest.raises(SystemExit) as end, one_line_errors():
        program.main(path, tmp_path / "out.safetensors")
    assert end.value.code == 14
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "exec', which may run code; nothing of it was executed; " in said
    assert "save its tensors alone" in said
    assert not trace.exists()
    assert not (tmp_path / "out.safetensors").exists()
    if kind != "legacy":  # the payload does work where pickles are trusted
        torch.load(path, weights_only=False) if "zip" in kind else pickle.loads(path.read_bytes())  # noqa: S301
        assert trace.exists()


def test_a_bare_pickle_of_tensors_is_named_too(foreign, tmp_path: Path) -> None:
    """Python's own pickle puts torch's loader around each tensor, which trusts what it loads."""
    for protocol in (2, 5):
        dump(foreign.state_dict(), tmp_path / "bare.pt", protocol)
        assert_refused(tmp_path / "bare.pt", "wants 'torch.storage._load_from_bytes', which may run code")


def without(weights, name: str):
    return {key: value for key, value in weights.items() if key != name}


BAD_WEIGHTS: dict[str, tuple[Callable, str]] = {
    "empty": (lambda w: {}, "holds no UNet of the lineage: no name ends in 'init_conv.weight'"),
    "a list": (lambda w: list(w.values()), "holds no UNet of the lineage"),
    "nothing but its first name missing": (lambda w: without(w, "init_conv.weight"), "holds no UNet of the lineage"),
    "missing": (
        lambda w: prefixed("module.", without(w, "ups.1.2.fn.norm.g")),
        r"'module.ups.1.2.fn.norm.g' is missing, which preset T needs",
    ),
    "extra": (lambda w: {**w, "downs.0.4.weight": torch.ones(1)}, "'downs.0.4.weight' is unexpected, preset T has no"),
    "our name": (lambda w: {**w, "stem.bias": torch.ones(32)}, "'stem.bias' is unexpected"),
    "shape": (
        lambda w: {**w, "final_conv.weight": torch.ones(6, 32, 1, 1)},
        r"'final_conv.weight' has shape \(6, 32, 1, 1\), preset T needs \(3, 32, 1, 1\)",
    ),
    "not finite": (
        lambda w: {**w, "init_conv.bias": torch.full((32,), torch.nan)},
        "'init_conv.bias' .* not all finite",
    ),
    "integers": (lambda w: {**w, "init_conv.bias": torch.ones(32, dtype=torch.int8)}, r"\(torch.int8\) is not all"),
    "two networks": (
        lambda w: {**prefixed("unet0.", w), **prefixed("unet1.", w)},
        "holds 2 networks, 'unet0.' and 'unet1.'; save one alone",
    ),
    "schedule": (
        lambda w: {**prefixed("model.unet0.", w), **buffers("rddm09")},
        "'alphas_cumsum' is not that of the schedule 'diffuir'",
    ),
}


def assert_refused(path: Path, words: str, **options) -> None:
    with pytest.raises(CheckpointError, match=words) as refused:
        import_unet(path, **options)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)
    assert refused.value.exit_code == 14


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_bad_weights_are_refused_in_one_line(foreign, case: str, tmp_path: Path) -> None:
    change, words = BAD_WEIGHTS[case]
    torch.save(change(foreign.state_dict()), tmp_path / "bad.pt")
    assert_refused(tmp_path / "bad.pt", words)


def test_another_preset_than_the_shapes_is_refused(foreign, tmp_path: Path) -> None:
    torch.save(foreign.state_dict(), tmp_path / "t.pt")
    assert import_unet(tmp_path / "t.pt", "T").config.name == "T"
    assert_refused(tmp_path / "t.pt", "has the shapes of preset T, not of S; give --preset T", preset="S")


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
@pytest.mark.parametrize("legacy", [False, True])
def test_bad_files_are_refused_in_one_line(foreign, suffix: str, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / f"bad.{suffix}"
    assert_refused(path, "does not exist")
    if suffix == "safetensors":
        save_file(foreign.state_dict(), path)
    else:
        torch.save(foreign.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:5], b"", b"<html>Sign in to see this file</html>"):
        path.write_bytes(content)
        assert_refused(path, f"is truncated, damaged or no .{suffix} file")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 145044160\n")
    assert_refused(path, "is a Git LFS pointer, not the weights; fetch them with git lfs pull")


def test_other_suffixes_are_refused(foreign, tmp_path: Path) -> None:
    torch.save(foreign.state_dict(), tmp_path / "last.ckpt")
    assert_refused(tmp_path / "last.ckpt", "ends in '.ckpt'; needed .safetensors, .pt or .pth")
