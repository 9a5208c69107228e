"""Stage 2: the fusion network learns Eq. 16 to 19 on pairs; or both networks at once, the one-stage form of Table 4."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cled_edge.network.fusion import remove
from cled_edge.network.sampler import CledFusion
from cled_edge.network.unet import PatchUNet
from training.batches import FusionBatch
from training.draws import Draws
from training.losses import fusion_losses, residual_loss
from training.pairs import FusionBatches
from training.recipe import FuseRecipe, Recipe, fusion_data
from training.run import Run
from training.stage import Losses, Task
from training.validation import FusionValidation

WEIGHTED = "intensity", "gradient", "color", "edges", "information", "hot", "residual"  # parts that a recipe weighs


class FusionInputs(NamedTuple):
    """What the loss of stage 2 takes, float32.

    infrared, infrared_clean, visible, visible_clean: of the batch, (N, 3, S, S) in [-1, 1].
    strength: (N, 2) in [0, 1], infrared first. balance: (N, 1) in [0, 1].
    infrared_residual, visible_residual: what the frozen UNet removes, (N, 3, S, S); None in one stage, which learns it.
    """

    infrared: Tensor
    infrared_clean: Tensor
    visible: Tensor
    visible_clean: Tensor
    strength: Tensor
    balance: Tensor
    infrared_residual: Tensor | None = None
    visible_residual: Tensor | None = None


def fuse_stage(model: CledFusion, run: Run) -> int:
    """Train the fusion network of `model`, in one stage both networks, and return how many iterations it took."""
    recipe, stage = run.recipe, run.recipe.fuse
    if stage.fresh:
        _forget(model, both=stage.one_stage)
    data, rank = fusion_data(recipe), run.accelerator.process_index
    batches = FusionBatches(
        run.data, data, stage.batch, stage.crop, recipe.seed, strict=run.strict, images=run.images, rank=rank
    )
    validation = FusionValidation(run.data, data, run.images, stage.crop, run.strict)
    trained: nn.Module = Joint(model, stage.steps) if stage.one_stage else model.fusion
    model.unet.requires_grad_(stage.one_stage).to(run.accelerator.device)
    if isinstance(model.unet, PatchUNet):
        model.unet.kinds.requires_grad_(False)  # not asked here; processes would wait for its gradient
    if run.compiled:
        model.unet.compile()
        trained.compile()
    task = FusionTask(model, recipe)
    parts = Task(trained, batches, task.inputs, task.loss, lambda: validation(model), recordable=not stage.one_stage)
    return run.stage("fuse", stage).run(parts)


def _forget(model: CledFusion, both: bool) -> None:
    """Give a model an untrained fusion network, or both networks untrained."""
    untrained = CledFusion(model.config)
    model.fusion.load_state_dict(untrained.fusion.state_dict())
    if both:
        model.unet.load_state_dict(untrained.unet.state_dict())


class FusionTask:
    """The inputs and the loss of stage 2: strengths and balance are drawn at random."""

    def __init__(self, model: CledFusion, recipe: Recipe) -> None:
        self.model, self.recipe, self.weighting = model, recipe.fuse, recipe.restore.weighting
        self.weights = {name: getattr(recipe.fuse, f"weight_{name}") for name in WEIGHTED}

    def inputs(self, batch: FusionBatch, draws: Draws) -> FusionInputs:
        """Add strengths, balance and the residuals of the frozen UNet to a batch."""
        stage, device = self.recipe, batch.infrared.device
        strength = _sometimes(draws, draws.uniform(2), 1.0, stage.full_strength_share).to(device)
        balance = _sometimes(draws, draws.uniform(1), 0.5, stage.balanced_share).to(device)
        if stage.one_stage:
            return FusionInputs(*batch, strength, balance)
        return FusionInputs(*batch, strength, balance, *self.model.restore(batch.infrared, batch.visible, stage.steps))

    def loss(self, network: nn.Module, inputs: FusionInputs) -> Losses:
        """Return Eq. 19 with the recipe's weights; in one stage with Eq. 15."""
        infrared, visible, balance = inputs.infrared, inputs.visible, inputs.balance
        controls = {"strength": inputs.strength, "balance": balance}
        if self.recipe.one_stage:
            fused, *residuals = network(infrared, visible, controls)
        else:
            fused = network(infrared, inputs.infrared_residual, visible, inputs.visible_residual, controls)
        targets = fusion_targets(inputs, self.recipe.target)
        with torch.autocast(infrared.device.type, enabled=False):  # a gradient of 1/256 is what bf16 would round away
            images = _unit(fused.float()), _unit(targets[0]), _unit(targets[1])
            parts = fusion_losses(*images, balance, self.recipe.salience, _is_measured(self.recipe))
            if self.recipe.one_stage:
                true = torch.cat([infrared - inputs.infrared_clean, visible - inputs.visible_clean])
                parts["residual"] = residual_loss(torch.cat(residuals).float(), true, self.weighting)
        loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        return loss, {name: part.detach() for name, part in parts.items()}


class Joint(nn.Module):
    """Both networks as one, for training in one stage (the paper's Table 4)."""

    def __init__(self, model: CledFusion, steps: int) -> None:
        super().__init__()
        self.model, self.steps = model, steps

    def forward(self, infrared: Tensor, visible: Tensor, controls: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the fused image and the residuals of both modalities, (N, 3, H, W) each."""
        residuals = self.model.restore(infrared, visible, self.steps)
        return self.model.fusion(infrared, residuals[0], visible, residuals[1], controls), *residuals


def fusion_targets(inputs: FusionInputs, target: Literal["clean", "source"] = "clean") -> tuple[Tensor, Tensor]:
    """Return what each stream should contribute: the image less `strength` of its true residual.

    The true residual comes from the clean image. target: `source` is the letter of Eq. 16 to 18, which name the
    inputs themselves and so teach to degrade again.
    """
    infrared, visible = inputs.infrared, inputs.visible
    if target == "source":
        return infrared, visible
    s = inputs.strength.reshape(-1, 2, 1, 1, 1)
    return (
        remove(infrared, infrared - inputs.infrared_clean, s[:, 0]),
        remove(visible, visible - inputs.visible_clean, s[:, 1]),
    )


def _is_measured(recipe: FuseRecipe) -> bool:
    return bool(recipe.weight_edges or recipe.weight_information)


def _unit(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (x + 1) / 2


def _sometimes(draws: Draws, drawn: Tensor, fixed: float, share: float) -> Tensor:
    """Replace a share of the rows of `drawn` by the constant."""
    return torch.where(draws.uniform(1) >= share, drawn, torch.full_like(drawn, fixed))
