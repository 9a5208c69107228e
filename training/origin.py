"""The model that a run starts from: its own of before, another run's, or a fresh one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cled_edge.errors import CheckpointError
from cled_edge.network.checkpoint import load_checkpoint
from cled_edge.network.doubt import DoubtNet
from cled_edge.network.experts import ExpertUNet
from cled_edge.network.presets import ModelConfig
from cled_edge.network.sampler import CledFusion
from cled_edge.network.unet import PatchUNet, ResidualUNet
from training.recipe import Recipe, model_of


def starting_model(own: Path, recipe: Recipe, stage: str, init: Path | None) -> tuple[CledFusion, list[Any]]:
    """Return the run's `own` model so far, that of `init`, or a fresh one, and the records of what trained it before.

    A checkpoint may tell other kinds of degradation apart than the recipe does, see `with_kinds`. CheckpointError if it
    differs from the recipe's model in anything else, or if the stage needs one and there is none.
    """
    config = model_of(recipe)
    source = own if own.exists() or init is None else init
    if not source.exists() and source == own:
        if stage == "fuse":
            raise CheckpointError(f"{own} does not exist, and fusion needs a trained UNet; train stage restore first")
        if recipe.restore.learns == "refinement":
            raise CheckpointError(
                f"{own} does not exist, and restore.learns is refinement, of what is trained already; give a model to "
                "start from, such as training/weights/one-pass.safetensors"
            )
        return CledFusion(config), []
    model, record = load_checkpoint(source)
    if model.doubt is not None:  # of what a run changes, the doubts have to be fitted again
        model = with_doubt(model, None)
    model = _grown(model, config)
    if replace(model.config, kinds=config.kinds, name=config.name) != config:
        raise CheckpointError(
            f"{source} is not the model of the recipe, {recipe.preset!r} and its changes; "
            f"choose another {'folder to write to' if source == own else 'model to start from'}"
        )
    return with_kinds(model, config), [*record.pop("earlier", []), record]


def with_doubt(model: CledFusion, doubt: DoubtNet | None) -> CledFusion:
    """Return the model with this network of doubt instead of its own, or without any."""
    made = CledFusion(replace(model.config, doubt=None if doubt is None else doubt.config))
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("doubt.")}
    if doubt is not None:
        weights |= {f"doubt.{name}": value for name, value in doubt.state_dict().items()}
    made.load_state_dict(weights)
    return made.train(model.training)


def _grown(model: CledFusion, config: ModelConfig) -> CledFusion:
    """Return a loop of light steps that begins as a one-pass model of the same sizes; any other model as it is.

    A fusion net of another form begins untrained.
    """
    one_pass, wanted = model.unet, config.unet
    if not isinstance(one_pass, ResidualUNet) or wanted.form != "experts":
        return model
    made = CledFusion(replace(config, kinds=model.config.kinds))
    if replace(wanted, form="patch", inner=()) != model.config.unet or not isinstance(made.unet, ExpertUNet):
        return model
    made.unet.begin_as(one_pass)
    if model.config.fusion == config.fusion:
        made.fusion.load_state_dict(model.fusion.state_dict())
    return made


def with_kinds(model: CledFusion, config: ModelConfig) -> CledFusion:
    """Return a model that tells the kinds of `config` apart, with the weights of one that may tell others.

    What it knows of a kind that both name is kept; a kind that is new to it begins untrained.
    """
    if model.config.kinds == config.kinds:
        return model
    made = CledFusion(config)
    unchanged = {name: weights for name, weights in model.state_dict().items() if ".kinds." not in name}
    made.load_state_dict({**made.state_dict(), **unchanged})
    if isinstance(model.unet, PatchUNet) and isinstance(made.unet, PatchUNet):
        head, before = made.unet.kinds, model.unet.kinds
        with torch.no_grad():
            for place, kind in enumerate(config.kinds):
                if kind in model.config.kinds:
                    known = model.config.kinds.index(kind)
                    head.weight[place], head.bias[place] = before.weight[known], before.bias[known]
    return made.train(model.training)
