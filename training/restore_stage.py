"""Stage 1: the residual network learns Eq. 15 on single images of both modalities."""

from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cled_edge.errors import DataError
from cled_edge.network.experts import ExpertUNet
from cled_edge.network.lineage import LineageUNet
from cled_edge.network.sampler import CledFusion
from cled_edge.network.unet import ResidualUNet
from cled_edge.schedule import TRAIN_STEPS
from training.batches import RestorationBatch
from training.draws import Draws
from training.losses import kinds_loss, pattern_loss, residual_loss, weights_of
from training.pairs import RestorationBatches
from training.recipe import RestoreRecipe
from training.rollout import Rollout, RolloutTask
from training.run import Run
from training.stage import Losses, Task
from training.validation import Validation


class RestorationInputs(NamedTuple):
    """What the loss of stage 1 takes, float32.

    degraded, clean, kinds: of the batch, images (N, 3, S, S) in [-1, 1], kinds (N, K).
    state: x_t, (N, 3, S, S). time: A_t * 1000, (N,). weights: of each image, (N,).
    """

    degraded: Tensor
    clean: Tensor
    kinds: Tensor
    state: Tensor
    time: Tensor
    weights: Tensor


def restore_stage(model: CledFusion, run: Run) -> int:
    """Train the residual network of `model` and return how many iterations it took.

    DataError if the recipe asks the lineage's network for what it does not tell.
    """
    recipe, stage = run.recipe, run.recipe.restore
    if (stage.weight_kinds or stage.weight_pattern) and isinstance(model.unet, LineageUNet):
        raise DataError(
            "recipe: restore.weight_kinds and weight_pattern must be 0 for a lineage preset, whose network tells no "
            "kinds and has no patches"
        )
    if recipe.data.held and not isinstance(model.unet, ExpertUNet):
        raise DataError("recipe: data.held must be empty for a network without light steps, which learns every target")
    rank = run.accelerator.process_index
    batches = RestorationBatches(
        *(run.data, recipe.data, stage.batch, stage.crop, recipe.seed),
        strict=run.strict,
        images=run.images,
        rank=rank,
        holds=True,
    )
    validation = Validation(run.data, recipe.data, run.images, stage.held_out_crops, run.strict)
    if isinstance(model.unet, ExpertUNet):
        if stage.learns == "refinement":
            model.unet.requires_grad_(False)
            for parameter in model.unet.refinement():
                parameter.requires_grad_(True)
        rollout = Rollout(model.unet, model.sampler.schedule, stage)
        if run.compiled:
            rollout.compile()
        loop = RolloutTask(stage, model)
        parts = Task(rollout, batches, loop.inputs, loop.loss, lambda: validation(model), recordable=False)
        return run.stage("restore", stage).run(parts)
    task, trained = RestorationTask(model, stage), Judging(model.unet)
    if run.compiled:
        trained.compile()
    return run.stage("restore", stage).run(Task(trained, batches, task.inputs, task.loss, lambda: validation(model)))


class RestorationTask:
    """The inputs and the loss of stage 1."""

    def __init__(self, model: CledFusion, recipe: RestoreRecipe) -> None:
        self.config, self.recipe = model.config, recipe
        self.states = States(model, recipe)

    def inputs(self, batch: RestorationBatch, draws: Draws) -> RestorationInputs:
        """Add a state of the loop, its time and the images' weights to a batch."""
        state, time = self.states.draw(batch.degraded, batch.clean, draws)
        weights = weights_of(batch.kinds, self.config.kinds, self.recipe.kind_weights)
        return RestorationInputs(batch.degraded, batch.clean, batch.kinds, state, time, weights)

    def loss(self, network: nn.Module, inputs: RestorationInputs) -> Losses:
        """Return Eq. 15, and what the recipe adds to it if the network tells kinds."""
        predicted, logits = network(inputs.state, inputs.degraded, inputs.time)
        predicted, residual = predicted.float(), inputs.degraded - inputs.clean
        square = self.recipe.square_share
        loss = residual_loss(predicted, residual, self.recipe.weighting, inputs.weights, square)
        if logits is None:
            return loss, {}
        told = kinds_loss(logits, inputs.kinds)
        pattern = pattern_loss(predicted - residual, self.config.unet.unshuffle)
        parts = {"residual": loss.detach(), "kinds": told.detach(), "pattern": pattern.detach()}
        return loss + self.recipe.weight_kinds * told + self.recipe.weight_pattern * pattern, parts


class Judging(nn.Module):
    """The residual network as stage 1 trains it: it also tells which degradations it sees, if it is of the kind."""

    def __init__(self, unet: ResidualUNet | LineageUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x_t: Tensor, x_in: Tensor, time: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the residual, (N, 3, H, W), and the logits of kinds, (N, K), or None."""
        if isinstance(self.unet, ResidualUNet):
            return self.unet.judge(x_t, x_in, time)
        return self.unet(x_t, x_in, time), None


class States:
    """Draws the states x_t that the restoration network is trained on, a batch of one sort at a time."""

    def __init__(self, model: CledFusion, recipe: RestoreRecipe) -> None:
        self.model, self.recipe = model, recipe
        schedule = model.sampler.schedule
        columns = (schedule.residual_cum, schedule.noise_std, schedule.shared_cum)
        self.table = torch.tensor([list(c) for c in columns], dtype=torch.float32)

    def draw(self, x_in: Tensor, clean: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return (x_t, time), (N, 3, H, W) and (N,), time being A_t * 1000."""
        sort, begin, length, later = draws.shared(4)
        if sort < self.recipe.random_share:
            return self.random(x_in, clean, draws)
        steps = 2 + int(length * (self.recipe.max_steps - 1))
        step = 1 + int(later * (steps - 1))
        x_t, time = self.in_loop(x_in, steps, 0 if begin < self.recipe.start_share else step)
        return x_t, time.repeat(len(x_in))

    def in_loop(self, x_in: Tensor, steps: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the state before `step`, counted from 0, of a loop without start noise."""
        table = self.model.sampler.schedule.step_table(steps)
        x_t = table.start_input * x_in
        if step:
            with torch.no_grad():
                for state, _ in islice(self.model.sampler.trajectory(x_in, steps), step):
                    x_t = state.float()
        return x_t, torch.tensor([table.time[step]], dtype=torch.float32, device=x_in.device)

    def random(self, x_in: Tensor, clean: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return states of Eq. 12 at t ~ U{0..T-1}; a share of them without noise, as the deterministic start."""
        t = (draws.uniform() * TRAIN_STEPS).long()
        noisy = (draws.uniform(1, 1, 1) >= self.recipe.silent_share).float()
        noise = (draws.normal(*x_in.shape[1:]) * noisy).to(x_in.device)
        a, b, d = self.table[:, t].reshape(3, -1, 1, 1, 1).to(x_in.device)
        return clean + a * (x_in - clean) + b * noise - d * x_in, (self.table[0, t] * 1000).to(x_in.device)
