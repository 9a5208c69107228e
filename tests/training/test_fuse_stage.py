"""Stage 2: its targets, and pairs of its own."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

from accelerate import Accelerator  # noqa: E402

from cled_edge.network.presets import PRESETS  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from training.fuse_stage import FusionInputs, fuse_stage, fusion_targets  # noqa: E402
from training.image_cache import ImageCache  # noqa: E402
from training.recipe import read_recipe  # noqa: E402
from training.run import Run  # noqa: E402


def test_fusion_targets_keep_the_degradation_that_strength_leaves() -> None:
    infrared, infrared_clean, visible, visible_clean = images = [torch.rand(2, 3, 8, 8) for _ in range(4)]

    def inputs(strength) -> FusionInputs:
        return FusionInputs(*images, strength, torch.full((2, 1), 0.5))

    none, full = (fusion_targets(inputs(torch.full((2, 2), s))) for s in (0.0, 1.0))
    assert torch.equal(none[0], infrared)
    assert torch.equal(none[1], visible)
    torch.testing.assert_close(full[0], infrared_clean)
    torch.testing.assert_close(full[1], visible_clean)
    half = fusion_targets(inputs(torch.tensor([[1.0, 0.5]])))
    torch.testing.assert_close(half[1], (visible + visible_clean) / 2)
    sources = fusion_targets(inputs(torch.ones(2, 2)), "source")
    assert all(torch.equal(a, b) for a, b in zip(sources, (infrared, visible), strict=True))


def test_fusion_may_learn_from_pairs_of_its_own(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    (data / "set").rename(data / "other")
    recipe_file.write_text(recipe_file.read_text() + '[[fuse.sets]]\nroot = "other"\n')
    run = Run(read_recipe(recipe_file), data, tmp_path, Accelerator(cpu=True), ImageCache(1))
    assert fuse_stage(CledFusion(PRESETS["one-pass"]), run) == 2
