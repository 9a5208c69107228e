"""Export writes a bundle that agrees with its checkpoint, or none at all."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import numpy as np  # noqa: E402

from cled_edge import Bundle, Fuser  # noqa: E402
from cled_edge.errors import OutputError, ParityError  # noqa: E402
from cled_edge.network.presets import FusionConfig, ModelConfig, UNetConfig  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from export import parity  # noqa: E402
from export.parity import Pair, synthetic_pairs, verify_bundle  # noqa: E402
from export.to_onnx import export_bundle  # noqa: E402

TINY = ModelConfig(
    "tiny",
    UNetConfig("patch", (8, 8, 16), encoder_blocks=(0, 1, 1), decoder_blocks=(1, 1, 0), unshuffle=2),
    FusionConfig((8, 8, 16, 16), heads=(1, 2, 2, 2), windows=(4, 0, 4, 4), unshuffle=2, mix=True),
    default_steps=2,
)


@pytest.fixture(scope="module")
def model() -> CledFusion:
    made = CledFusion(TINY)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return made.eval()


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return synthetic_pairs(3)


@pytest.fixture(scope="module")
def bundle(model, pairs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("export") / "tiny"
    export_bundle(model, {"commit": "abc"}, out, pairs, "rendered night street")
    return out


def test_the_bundle_is_complete_verified_and_runs(bundle: Path, pairs) -> None:
    manifest = Bundle.open(bundle).manifest
    assert sorted(p.name for p in bundle.iterdir()) == [
        "fused_loop.onnx",
        "fusion.onnx",
        "manifest.json",
        "unet_step.onnx",
    ]
    assert manifest.graphs["fused_loop"].steps == 2
    assert manifest.name == "tiny"
    assert manifest.size_multiple == TINY.size_multiple
    assert manifest.verification.min_psnr_db >= 60
    assert manifest.verification.pairs == 3
    assert manifest.training == {"commit": "abc"}
    with Fuser.load(bundle) as fuser:
        assert fuser(pairs[0].infrared[:70, :90], pairs[0].visible[:70, :90]).picture.shape == (70, 90, 3)
    assert [p.name for p in bundle.parent.iterdir()] == ["tiny"]


def test_another_network_fails_the_parity_check(bundle: Path, pairs) -> None:
    torch.manual_seed(1)
    other = CledFusion(TINY).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05)
    with pytest.raises(ParityError, match=r"TOLERANCE: residual of pair 0, 480x640.* dB from eager, needed 60"):
        verify_bundle(bundle, other, pairs, "rendered")


@pytest.mark.parametrize(("value", "verdict"), [(float("nan"), "NONFINITE"), (0.5, "CONSTANT")])
def test_verdicts_are_told_apart(value: float, verdict: str) -> None:
    needed = np.linspace(-1, 1, 12, dtype=np.float32)
    with pytest.raises(ParityError, match=verdict):
        parity._judge("fused", np.full(12, value, np.float32), needed, 2.0, "here")


def test_nothing_is_written_when_verification_fails(model, pairs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(parity, "MIN_PSNR_DB", 500.0)
    out = tmp_path / "tiny"
    with pytest.raises(ParityError, match="not written"):
        export_bundle(model, {}, out, pairs[:1], "rendered")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_not_replaced(model, pairs, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is no bundle"):
        export_bundle(model, {}, tmp_path, pairs, "rendered")
    assert (tmp_path / "thesis.txt").exists()
