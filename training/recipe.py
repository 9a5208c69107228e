"""What a training run is: a TOML file read into frozen models; unknown keys are refused."""

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from cled_edge.data.datasets import DataSet
from cled_edge.errors import DataError
from cled_edge.files import Reader
from cled_edge.json_text import MAX_JSON_BYTES, first_problem
from cled_edge.network.presets import KINDS, ModelConfig, preset
from cled_edge.schedule import ScheduleName
from training.degradations import DEGRADATIONS, MODALITIES, Modality
from training.fidelity import NARROWEST_PX

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReferenceRecipe(_Strict):
    """A folder of real degraded images and the folder of their references, paired by stem."""

    degraded: str
    reference: str
    modality: Literal["infrared", "visible"]


class DataRecipe(_Strict):
    """Which images below the folder of all data, and how they are degraded.

    pairs: folders with `infrared/` and `visible/` images of equal stems. sets: the same in other layouts.
    lit_share: of visible stage-1 items, those of nights that are brightened, as the control `light` does.
    modalities: of the images of stage 1, in turn; one alone is a network of its own, as the paper does not have it.
    grey_share, black_hot_share, border_share: of stage-1 items, degraded image and target alike: visible ones of a
        monochrome camera, infrared ones that are dark where it is hot, and any with a black border.
    grey_is_tinted: give those of a monochrome camera the tint of cled_edge/monochrome.py, as a model that needs it has.
    keep_gib: decoded images kept in memory; what does not fit is decoded again at each use.
    kinds_infrared, kinds_visible: degradations that are simulated; none named: those of `DEGRADATIONS` that are in
        `KINDS`, the paper's and its neighbours'. One named several times is drawn so much more often.
    untold: kinds among them that the model has no name for, so that its head stays as it is. It learns that such an
        image has none of the kinds that it does name.
    held: kinds of degradation, alone or together, of which stage 1 shall change nothing: the target is what the network
        made of such an image before. With them, real and brightened images are held; clean ones stay their own target.
        Of an image of a monochrome camera the target is the grey of what the network made of it in colour.
    clean_share, mixed_share: shares of items with no and with two degradations; the rest has one.
    cycle_kinds: in stage 1 kinds take turns instead, one an item: the paper's mixed batch.
    reference_share: share of stage-1 items from real degraded images.
    min_target_luma: a visible image of a lower mean, in [0, 1], is a night image.
    night_share: of visible stage-1 items, those of night images: clean as they are, and given no other exposure.
    """

    pairs: tuple[str, ...] = ()
    sets: tuple[DataSet, ...] = ()
    references: tuple[ReferenceRecipe, ...] = ()
    kinds_infrared: tuple[str, ...] = ()
    kinds_visible: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    cycle_kinds: bool = False
    clean_share: float = Field(0.12, ge=0, le=1)
    mixed_share: float = Field(0.25, ge=0, le=1)
    reference_share: float = Field(0.1, ge=0, le=1)
    min_target_luma: float = Field(0.22, ge=0, le=1)
    night_share: float = Field(0.15, ge=0, le=1)
    modalities: tuple[Modality, ...] = Field(MODALITIES, min_length=1)
    grey_share: float = Field(0.0, ge=0, le=1)
    grey_is_tinted: bool = False
    lit_share: float = Field(0.0, ge=0, le=1)
    black_hot_share: float = Field(0.0, ge=0, le=1)
    border_share: float = Field(0.0, ge=0, le=1)
    keep_gib: float = Field(4, ge=0)

    @model_validator(mode="after")
    def _names_what_there_is(self) -> "DataRecipe":
        if not self.pairs and not self.sets:
            raise ValueError("no images; name images in pairs or [[data.sets]]")
        for modality in MODALITIES:
            unknown = set(self.kinds_of(modality)) - DEGRADATIONS[modality].keys()
            if unknown:
                known = ", ".join(DEGRADATIONS[modality])
                raise ValueError(f"kinds_{modality} has no {sorted(unknown)[0]!r}; known: {known}")
        drawn = {kind for modality in MODALITIES for kind in self.kinds_of(modality)}
        wrong = sorted(set(self.untold) - (drawn - set(KINDS)))
        if wrong:
            raise ValueError(f"untold has {wrong[0]!r}; needed a kind that is simulated and not one of KINDS")
        if set(self.held) - drawn:
            raise ValueError(f"held has {sorted(set(self.held) - drawn)[0]!r}; needed a kind that is simulated")
        return self

    @property
    def all_sets(self) -> tuple[DataSet, ...]:
        """The data sets of `pairs` and `sets`, in this order."""
        return (*(DataSet(root=folder) for folder in self.pairs), *self.sets)

    def kinds_of(self, modality: Modality) -> tuple[str, ...]:
        """Return the names of the degradations that are simulated."""
        named = self.kinds_infrared if modality == "infrared" else self.kinds_visible
        return named or tuple(kind for kind in DEGRADATIONS[modality] if kind in KINDS)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of degradation that a model of these data tells apart: `KINDS`, then others that are simulated."""
        simulated = (*self.kinds_of("infrared"), *self.kinds_of("visible"))
        return tuple(dict.fromkeys((*KINDS, *(kind for kind in simulated if kind not in self.untold))))

    def is_bright(self, mean: float) -> bool:
        """Return whether a visible image of that mean, 0 to 255, is light enough to be a target."""
        return mean >= 255 * self.min_target_luma


class StageRecipe(_Strict):
    """Optimisation of one stage: warm-up and cosine decay (or none), gradient clipping, averaged weights.

    optimizer: the paper's Adam; or `muon`, which gives the update of a matrix or a dense convolution equal strength in
        all directions (Newton-Schulz orthogonalisation) at `matrix_learning_rate`, and Adam for the rest.
    adam_for: parts of names of parameters that Adam updates though they are matrices: with equal strength in all
        directions a head that has to stay near zero is thrown about.
    """

    iterations: int = Field(gt=0)
    batch: int = Field(gt=0)
    crop: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    optimizer: Literal["adam", "muon"] = "adam"
    matrix_learning_rate: float = Field(0.02, gt=0)
    adam_for: tuple[str, ...] = ()
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 200
    decay: Literal["cosine", "none"] = "cosine"
    clip_norm: float = 1.0
    ema_decay: float = 0.999


class RestoreRecipe(StageRecipe):
    """Stage 1. Differs from the lineage's t ~ U{0..T-1}, which a `random_share` of 1 gives.

    weighting: of images in Eq. 15, see `residual_loss`.
    random_share: batches at random t, with the states of Eq. 12. silent_share: of their images, those without noise.
    start_share: of the other batches, those at the start of the loop, which a one-step run visits alone. The rest are
        at a later step of a loop of 2 to `max_steps`, in a state that the network's own steps have led to: so a second
        call learns to mend the first instead of reading the true image off the state.
    step_shares, late_share, long_share, step_weight: of the loops that a loop of light steps is trained through, see
        training/rollout.py, instead of the shares above.
    clean_weight: of images that have nothing to remove, in such a loop; clean_weight_infrared: of infrared ones, if
        other. Much of it for visible ones costs rain, which at its lightest looks like none.
    square_share: of the root of the mean square in each image's error, see `residual_loss`.
    learns: `refinement` keeps what a one-pass network has as it is, and with it the second estimate: the coarse look
        and the experts learn alone.
    weight_gain: of the decibels that an expert's step gains over the state that it is given, see `gain_loss`.
    held_out_crops: crops per kind of degradation that validation restores.
    kind_weights: of images that have a kind of degradation, 1 if not named; of several kinds the largest counts. What
        touches few pixels, as rain does, weighs little by its error.
    weight_kinds: of telling which degradations an image has, see `kinds_loss`; the lineage's network does not tell.
    weight_pattern: of errors that repeat from patch to patch, see `pattern_loss`; the lineage's has no patches.
    weight_relative: of what a loop of light steps changes in an infrared image beside its gain and level, see
        `relative_loss`.
    """

    weighting: Literal["pixel", "share"] = "pixel"
    random_share: float = Field(0.05, ge=0, le=1)
    silent_share: float = Field(0.5, ge=0, le=1)
    start_share: float = Field(0.6, ge=0, le=1)
    max_steps: int = Field(3, ge=2, le=10)
    step_shares: tuple[float, float, float, float] = (0.08, 0.14, 0.48, 0.3)
    late_share: float = Field(0.12, ge=0, le=1)
    long_share: float = Field(0.04, ge=0, le=1)
    step_weight: float = Field(0.55, gt=0, le=1)
    clean_weight: float = Field(2.0, gt=0)
    clean_weight_infrared: float | None = Field(None, gt=0)
    learns: Literal["all", "refinement"] = "all"
    square_share: float = Field(0.0, ge=0, le=1)
    weight_gain: float = Field(0.0, ge=0)
    held_out_crops: int = Field(12, ge=1)
    kind_weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    weight_kinds: float = Field(0.0, ge=0)
    weight_pattern: float = Field(0.0, ge=0)
    weight_relative: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _check_kinds(self) -> "RestoreRecipe":
        known = {kind: None for kinds in DEGRADATIONS.values() for kind in kinds}
        unknown = set(self.kind_weights) - known.keys()
        if unknown:
            raise ValueError(f"kind_weights has {sorted(unknown)[0]!r}; known: {', '.join(known)}")
        return self


class FuseRecipe(StageRecipe):
    """Stage 2: weights of Eq. 19 (0 leaves a term out, as in Table 4), and how often the controls are drawn at random.

    weight_edges, weight_information: of the measures Q^AB/F and VIF, which Eq. 19 does not have, see `fusion_losses`.
    salience: how far hot things stand out where the maximum of Eq. 16 loses them, see `salient_maximum`; 0 is Eq. 16.
    weight_hot: of the intensity once more, where salience raises it: people are few pixels of an image.
    target: what the result is compared with: the clean images, or the inputs, the letter of Eq. 16 to 18.
    one_stage: train both networks at once from the start (Table 4); weight_residual is then that of Eq. 15.
    steps: of restoration, while the fusion network learns.
    fresh: begin with an untrained fusion network, and in one stage with both untrained, whatever `--init` brings.
    clean_share: of items without a degradation, if other than the data's.
    sets: of pairs, instead of all that the data name, with `held_out` of their own.
    """

    weight_intensity: float = Field(8.0, ge=0)
    weight_gradient: float = Field(10.0, ge=0)
    weight_color: float = Field(12.0, ge=0)
    weight_residual: float = Field(1.0, ge=0)
    weight_edges: float = Field(0.0, ge=0)
    weight_information: float = Field(0.0, ge=0)
    weight_hot: float = Field(0.0, ge=0)
    salience: float = Field(0.0, ge=0)
    full_strength_share: float = Field(0.4, ge=0, le=1)
    balanced_share: float = Field(0.5, ge=0, le=1)
    steps: int = Field(1, ge=1, le=10)
    clean_share: float | None = Field(None, ge=0, le=1)
    sets: tuple[DataSet, ...] = ()
    target: Literal["clean", "source"] = "clean"
    one_stage: bool = False
    fresh: bool = False

    @model_validator(mode="after")
    def _check_hot(self) -> "FuseRecipe":
        if self.weight_hot and not self.salience:
            raise ValueError("weight_hot weighs what salience raises, and salience is 0; give salience too")
        return self


class Recipe(_Strict):
    """A whole two-stage run. unet, fusion, schedule, default_steps: what differs from the preset, by field."""

    preset: str
    seed: int = 0
    schedule: ScheduleName | None = None
    default_steps: int | None = Field(None, ge=1, le=10)
    unet: dict[str, int | bool | str | tuple[int | str, ...]] = {}
    fusion: dict[str, int | float | bool | str | tuple[int | str, ...]] = {}
    data: DataRecipe
    restore: RestoreRecipe
    fuse: FuseRecipe


def fusion_data(recipe: Recipe) -> DataRecipe:
    """Return the data of stage 2: the recipe's, with what its `[fuse]` has of its own."""
    stage, own = recipe.fuse, recipe.data
    if stage.clean_share is not None:
        own = own.model_copy(update={"clean_share": stage.clean_share})
    if stage.sets:
        own = own.model_copy(update={"sets": stage.sets, "pairs": ()})
    return own


def check_crops(recipe: Recipe) -> None:
    """Raise DataError for a crop that the model's networks or a loss cannot take."""
    multiple = model_of(recipe).size_multiple
    for name, stage in (("restore", recipe.restore), ("fuse", recipe.fuse)):
        if stage.crop % multiple:
            raise DataError(f"recipe: {name}.crop is {stage.crop}, needed a multiple of {multiple}")
    if recipe.fuse.weight_information and recipe.fuse.crop < NARROWEST_PX:
        raise DataError(f"recipe: fuse.crop is {recipe.fuse.crop}, needed {NARROWEST_PX} for weight_information")


def model_of(recipe: Recipe) -> ModelConfig:
    """Return the preset with the recipe's changes and kinds; DataError names a field that there is not."""
    config = preset(recipe.preset)
    changed = {}
    for name in ("unet", "fusion"):
        values = getattr(recipe, name)
        unknown = values.keys() - {field.name for field in fields(getattr(config, name))}
        if unknown:
            raise DataError(f"recipe: [{name}] has no field {sorted(unknown)[0]!r}; see cled_edge/network/presets.py")
        changed[name] = replace(getattr(config, name), **values)
    chosen = {name: getattr(recipe, name) or getattr(config, name) for name in ("schedule", "default_steps")}
    return replace(config, **changed, **chosen, kinds=recipe.data.kinds)


_RECIPES = Reader(DataError, DataError, "give a recipe, such as training/recipes/nano.toml", follow_links=True)


def read_recipe(path: Path) -> Recipe:
    """Return the recipe of a TOML file; a missing file, bad TOML or an unknown key is a one-line DataError."""
    try:
        return Recipe.model_validate(tomllib.loads(_RECIPES.read(path, MAX_JSON_BYTES).decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path}: {error}") from error
    except ValidationError as error:
        raise DataError(f"{path}: {first_problem(error)} ({error.error_count()} problems in all)") from error
