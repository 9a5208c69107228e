"""What validation says of networks whose answer is known."""

import shutil
from functools import partial
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from cled_edge.data.split import part_of  # noqa: E402
from cled_edge.errors import DataError  # noqa: E402
from cled_edge.network.presets import PRESETS  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from tests.fakes.training import flat_images  # noqa: E402
from training.image_cache import (  # noqa: E402
    ImageCache,
)
from training.recipe import read_recipe  # noqa: E402
from training.validation import FusionValidation, Validation  # noqa: E402


def test_validation_of_an_untrained_network_gains_nothing(data: Path, recipe_file: Path) -> None:
    flat_images(data, infrared=140, visible=140)
    model, recipe = CledFusion(PRESETS["one-pass"]).eval(), read_recipe(recipe_file).data
    result = Validation(data, recipe, ImageCache(1), count=1)(model).numbers
    assert result["visible_clean_input"] == result["visible_clean_1"] == 60
    assert result["infrared_stripes_input"] < 40
    for name in ("visible_gain_1", "infrared_gain_3"):
        assert abs(result[name]) < 0.1


def test_fusion_validation_knows_the_rule_that_an_untrained_network_is(data: Path, recipe_file: Path) -> None:
    flat_images(data, infrared=180, visible=90)
    model = CledFusion(PRESETS["one-pass"]).eval()
    result = FusionValidation(data, read_recipe(recipe_file).data, ImageCache(1), crop=128)(model)
    assert result.numbers["held_out_clean_intensity"] < 1e-6
    assert result.numbers["held_out_degraded_intensity"] > 1e-3
    assert [x.shape for x in result.samples["clean-0"]] == [(3, 128, 128)] * 4


def test_a_broken_held_out_image_is_refused_if_strict(data: Path, recipe_file: Path) -> None:
    held = next(path for path in sorted((data / "set/visible").iterdir()) if part_of(path.stem) == "choose")
    other = next(f"{k}.png" for k in range(100) if part_of(str(k)) == "choose")
    for modality in ("infrared", "visible"):
        shutil.copy(data / "set" / modality / held.name, data / "set" / modality / other)
    held.write_bytes(b"no picture")
    recipe = read_recipe(recipe_file).data
    for validation in (partial(Validation, count=1), partial(FusionValidation, crop=128)):
        validation(data, recipe, images=ImageCache(1))
        with pytest.raises(DataError, match=held.name):
            validation(data, recipe, images=ImageCache(1), strict=True)
