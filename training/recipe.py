"""What a training run is: a TOML file read into frozen models; unknown keys are refused."""

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cled_edge.errors import DataError
from cled_edge.network.presets import ModelConfig, preset

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReferenceRecipe(_Strict):
    """A folder of real degraded pictures and the folder of their references, paired by stem."""

    degraded: str
    reference: str
    modality: Literal["infrared", "visible"]


class DataRecipe(_Strict):
    """Which folders under --data, and how they are degraded.

    clean_share, mixed_share: shares of items with no and with two degradations; the rest has one.
    reference_share: share of stage-1 items from real degraded pictures.
    min_target_luma: a visible picture of a lower mean, in [0, 1], is no restoration target.
    """

    pairs: tuple[str, ...]
    references: tuple[ReferenceRecipe, ...] = ()
    clean_share: float = Field(0.12, ge=0, le=1)
    mixed_share: float = Field(0.25, ge=0, le=1)
    reference_share: float = Field(0.1, ge=0, le=1)
    min_target_luma: float = Field(0.22, ge=0, le=1)


class StageRecipe(_Strict):
    """Optimisation of one stage: Adam with warm-up and cosine decay, gradient clipping, averaged weights."""

    iterations: int = Field(gt=0)
    batch: int = Field(gt=0)
    crop: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    warmup: int = 200
    clip_norm: float = 1.0
    ema_decay: float = 0.999


class RestoreRecipe(StageRecipe):
    """Stage 1. Differs from the lineage's t ~ U{0..T-1}, which a `random_share` of 1 gives.

    weighting: of pictures in Eq. 15, see `residual_loss`.
    random_share: batches at random t, with the states of Eq. 12, half of them noisy.
    start_share: of the other batches, those at the start of the loop, which a one-step run visits alone. The rest are
        at a later step of a loop of 2 to `max_steps`, in a state that the network's own steps have led to: so a second
        call learns to mend the first instead of reading the true picture off the state.
    held_out_crops: crops per kind of degradation that validation restores.
    """

    weighting: Literal["pixel", "share"] = "pixel"
    random_share: float = Field(0.05, ge=0, le=1)
    start_share: float = Field(0.6, ge=0, le=1)
    max_steps: int = Field(3, ge=2, le=10)
    held_out_crops: int = Field(12, ge=1)


class FuseRecipe(StageRecipe):
    """Stage 2: weights of Eq. 19, and how often the controls are drawn at random."""

    weight_intensity: float = 8.0
    weight_gradient: float = 10.0
    weight_color: float = 12.0
    full_strength_share: float = Field(0.4, ge=0, le=1)
    balanced_share: float = Field(0.5, ge=0, le=1)
    steps: int = Field(1, ge=1, le=10)


class Recipe(_Strict):
    """A whole two-stage run. unet, fusion, default_steps: what differs from the preset, by field."""

    preset: str
    seed: int = 0
    default_steps: int | None = Field(None, ge=1, le=10)
    unet: dict[str, int | bool | str | tuple[int | str, ...]] = {}
    fusion: dict[str, int | float | bool | str | tuple[int | str, ...]] = {}
    data: DataRecipe
    restore: RestoreRecipe
    fuse: FuseRecipe


def model_of(recipe: Recipe) -> ModelConfig:
    """Return the preset with the recipe's changes; DataError names a field that its configuration does not have."""
    config = preset(recipe.preset)
    changed = {}
    for name in ("unet", "fusion"):
        values = getattr(recipe, name)
        unknown = values.keys() - {field.name for field in fields(getattr(config, name))}
        if unknown:
            raise DataError(f"recipe: [{name}] has no field {sorted(unknown)[0]!r}; see cled_edge/network/presets.py")
        changed[name] = replace(getattr(config, name), **values)
    return replace(config, **changed, default_steps=recipe.default_steps or config.default_steps)


def read_recipe(path: Path) -> Recipe:
    """Return the recipe of a TOML file; a missing file, bad TOML or an unknown key is a one-line DataError."""
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: {where}: {first['msg']} ({error.error_count()} problems in all)") from error
