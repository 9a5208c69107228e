"""Stage 1 of the loop of light steps: it learns through the loop, each step scored, from the states that it meets."""

from copy import deepcopy
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cled_edge.network.blocks import patches_from_images
from cled_edge.network.experts import Context, ExpertUNet
from cled_edge.network.sampler import CledFusion
from cled_edge.schedule import Schedule, StepTable
from training.batches import RestorationBatch
from training.crops import monochrome
from training.draws import Draws
from training.losses import are_grey, gain_loss, kinds_loss, patch_pattern, relative_loss, residual_loss, weights_of
from training.recipe import RestoreRecipe
from training.stage import Losses

# A_t * 1000 below which a state may be better than the loop's own. With true states at any time, the later steps of
# short loops learnt to leave every state alone.
_LATE = 400.0
_CLEAN = 0.004  # mean absolute residual, over [-1, 1], below which an image has nothing to remove
_LONGEST = 10
_DARK, _UNCUT = 1e-3, 1.99  # over [0, 2]


class RolloutInputs(NamedTuple):
    """What the loss takes, float32: a batch, its images' weights, (N,), and the random numbers of its loop.

    plan: (4,), of the whole batch. better: (N, 4), of which images get another state.
    """

    degraded: Tensor
    clean: Tensor
    kinds: Tensor
    weights: Tensor
    plan: Tensor
    better: Tensor


class Estimates(NamedTuple):
    """The lights of the scored estimates, (N, 3 f^2, h, w) each, the share of each in the loss, and kinds' logits.

    told: what each was given: None where it looks at the input alone.
    """

    lights: list[Tensor]
    told: list[Tensor | None]
    shares: list[float]
    kinds: Tensor


class Rollout(nn.Module):
    """The loop as it is trained, of 1 to 10 steps.

    cold: 1 to 4 steps from the start, drawn by `step_shares`; each is scored, a later one more (`step_weight`).
    late: 1 or 2 steps late in a long loop, from a state that is better than the loop's own, as an earlier frame's is.
    long: 5 to 10 steps, of which the last two are scored.

    A step learns from the estimate that it is given, but does not change the step before: estimates are detached.
    """

    def __init__(self, unet: ExpertUNet, schedule: Schedule, recipe: RestoreRecipe) -> None:
        super().__init__()
        self.unet, self.schedule, self.recipe = unet, schedule, recipe
        self._context, self._step = unet.context, unet.step

    def compile(self, *_: object, **__: object) -> None:
        """Compile the context and the steps: the loops are of many lengths."""
        self._context = torch.compile(self.unet.context, dynamic=False)
        self._step = torch.compile(self.unet.step, dynamic=False)

    def forward(self, degraded: Tensor, clean: Tensor, plan: list[float], better: Tensor) -> Estimates:
        """Return what is scored; images (N, 3, H, W) in [-1, 1], plan and better as in RolloutInputs."""
        light, truth = (patches_from_images(x + 1, self.unet.config.unshuffle) for x in (degraded, clean))
        context = self._context(light)
        sort, length, begin, shift = plan
        late, long = self.recipe.late_share, self.recipe.long_share
        if sort < late:
            table = self.schedule.step_table(5 + int(length * (_LONGEST - 4)))
            late_steps = [k for k in range(table.steps) if table.time[k] < _LATE]
            first = late_steps[int(begin * len(late_steps))]
            told = self._told_after(int(shift * 3), context, self.schedule.step_table(3))
            told = _better(told, truth, better, 0.75, shift)
            return self._scored(told, context, table, range(first, min(table.steps, first + 1 + (shift > 0.5))))
        if sort < late + long:
            table = self.schedule.step_table(5 + int(length * (_LONGEST - 4)))
            told = self._told_after(table.steps - 2, context, table)
            told = _better(told, truth, better, 0.4, shift)
            return self._scored(told, context, table, range(table.steps - 2, table.steps))
        table = self.schedule.step_table(_chosen(length, self.recipe.step_shares))
        return self._scored(context.light, context, table, range(table.steps))

    @torch.no_grad()
    def _told_after(self, steps: int, context: Context, table: StepTable) -> Tensor:
        """Return what the state tells after so many steps from the start."""
        states = [context.light, *(told for _, told in islice(self.unet.estimates(context, table), steps))]
        return states[-1]

    def _scored(self, told: Tensor, context: Context, table: StepTable, steps: range) -> Estimates:
        lights, given = [], []
        for k in steps:
            time = float(table.time[k])
            given.append(told if self.unet.place(time) > 1 else None)
            lights.append(self._step(told, context, time))
            told = torch.lerp(lights[-1].detach(), told.detach(), float(table.kept[k]))
        shares = [self.recipe.step_weight ** (len(lights) - 1 - k) for k in range(len(lights))]
        return Estimates(lights, given, [share / sum(shares) for share in shares], context.kinds)


class RolloutTask:
    """The inputs and the loss of stage 1 for a loop of light steps.

    model: the network as it is before the stage, whose own results are the targets of what a batch holds.
    """

    def __init__(self, recipe: RestoreRecipe, model: CledFusion) -> None:
        self.recipe, self.kinds, self.side = recipe, model.config.kinds, model.config.unet.unshuffle
        self.before = deepcopy(model).requires_grad_(False)

    def inputs(self, batch: RestorationBatch, draws: Draws) -> RolloutInputs:
        """Add the images' weights and the loop's random numbers to a batch; what is held gets its target."""
        clean = self._targets(batch)
        removed = (batch.degraded - clean).abs().mean(dim=(1, 2, 3))
        of_infrared = self.recipe.clean_weight_infrared or self.recipe.clean_weight
        of_clean = torch.where(are_grey(clean), of_infrared, self.recipe.clean_weight)
        of_kinds = weights_of(batch.kinds, self.kinds, self.recipe.kind_weights)
        weights = torch.where(removed < _CLEAN, of_clean, of_kinds)
        plan, better = torch.tensor(draws.shared(4)), draws.uniform(4).to(removed.device)
        return RolloutInputs(batch.degraded, clean, batch.kinds, weights, plan, better)

    def _targets(self, batch: RestorationBatch) -> Tensor:
        """Return the target of each image: its clean one, or of what is held the result of the network before."""
        held = batch.held > 0
        if not held.any():
            return batch.clean
        before = self.before.to(batch.degraded.device)
        shown, clean = batch.clean[held], batch.clean.clone()
        made = shown - before.sampler(shown, before.config.default_steps).float()
        is_grey = (batch.held[held] == 2)[:, None, None, None]
        clean[held] = torch.where(is_grey, _in_grey(made, batch.degraded[held]), made)
        return clean

    def loss(self, network: nn.Module, inputs: RolloutInputs) -> Losses:
        """Return Eq. 15 of each step, and what the recipe adds to it."""
        estimates: Estimates = network(inputs.degraded, inputs.clean, inputs.plan.tolist(), inputs.better)
        light, truth = (patches_from_images(x + 1, self.side) for x in (inputs.degraded, inputs.clean))
        weighting = self.recipe.weighting
        square = self.recipe.square_share
        steps = [residual_loss(light - x, light - truth, weighting, inputs.weights, square) for x in estimates.lights]
        loss = torch.stack([share * step for share, step in zip(estimates.shares, steps, strict=True)]).sum()
        named = kinds_loss(estimates.kinds, inputs.kinds)
        pattern = patch_pattern(estimates.lights[-1] - truth, self.side)
        given = zip(estimates.shares, estimates.lights, estimates.told, strict=True)
        gains = [share * gain_loss(clean, told, truth) for share, clean, told in given if told is not None]
        gain = torch.stack(gains).sum() if gains else loss.new_zeros(())
        parts = {"residual": steps[-1], "kinds": named, "pattern": pattern, "gain": gain}
        loss = loss + self.recipe.weight_kinds * named + self.recipe.weight_pattern * pattern
        if self.recipe.weight_relative:
            parts["relative"] = relative_loss(estimates.lights[-1], truth)
            loss = loss + self.recipe.weight_relative * parts["relative"]
        return loss + self.recipe.weight_gain * gain, {name: part.detach() for name, part in parts.items()}


def _chosen(number: float, shares: tuple[float, ...]) -> int:
    """Return 1 for a number of [0, 1) that lies in the first share, 2 for the second, and so on."""
    total, edge = sum(shares), 0.0
    for index, share in enumerate(shares, 1):
        edge += share / total
        if number < edge:
            return index
    return len(shares)


def _better(told: Tensor, truth: Tensor, numbers: Tensor, share: float, shift: float) -> Tensor:
    """Replace a share of the states: by the true one, by one with less error, by that of a scene that has moved since.

    numbers: (N, 4) of U(0, 1).
    """
    which, is_true, left, has_moved = (x.reshape(-1, 1, 1, 1) for x in numbers.unbind(1))
    left = torch.where(which < share, torch.where(is_true < 0.5, 0.0, left), 1.0)
    moved = truth.roll((1 - 2 * (shift < 0.5), 1), (2, 3))  # by a patch, to one side or the other
    found = truth + left * (told - truth)
    return torch.where((which < share) & (has_moved < 0.15), moved, found).detach()


def _in_grey(clean: Tensor, like: Tensor) -> Tensor:
    """Return images (N, 3, H, W) in [-1, 1] as grey as `like`, which are of a monochrome camera.

    Those are their luma times a gain for each channel, see cled_edge/monochrome.py, where nothing is cut.
    """
    light = like + 1
    seen = light * (light.amax(1, keepdim=True) < _UNCUT)
    gains = (seen.mean((2, 3), keepdim=True) + _DARK) / (monochrome(seen).mean((2, 3), keepdim=True) + _DARK)
    return (gains * monochrome(clean + 1)).clamp_max(2) - 1
