"""What both stages of a run have in common: where it runs, at what precision, what it reads, where it writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from training.image_cache import ImageCache
from training.recipe import Recipe, StageRecipe, model_of
from training.stage import Stage


@dataclass(frozen=True)
class Run:
    """A run of a recipe.

    data: the folder below which the recipe's data sets lie. out: the folder of the run.
    precision: `fp32` or `bf16`. workers: processes that prepare batches.
    strict: an image that cannot be decoded is an error. compiled: the networks are compiled first.
    """

    recipe: Recipe
    data: Path
    out: Path
    accelerator: Accelerator
    images: ImageCache
    precision: str = "fp32"
    workers: int = 0
    strict: bool = False
    compiled: bool = False

    def stage(self, name: str, stage: StageRecipe) -> Stage:
        """Return the loop of a stage, which an earlier run continues only on the same model and data."""
        data = self.recipe.data.model_dump(mode="json", exclude={"keep_gib"})
        beside: dict[str, Any] = {"model": model_of(self.recipe).as_dict(), "data": data}
        if self.recipe.fuse.one_stage:
            beside["weighting"] = self.recipe.restore.weighting
        return Stage(name, stage, self.recipe.seed, self.out, self.accelerator, self.precision, self.workers, beside)
