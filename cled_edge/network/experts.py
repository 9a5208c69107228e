"""Our loop of light steps: a context once a frame, and a small correction of the residual per step (Eq. 10 to 15).

    A_t > .999   R_1 is what a coarse look at x_in says: A_T = 1, the state holds nothing of the clean image
    A_t > .7     R_2 is what the whole network says of x_in
    A_t < .7     1 + x_in - R_k = light exp(2 e g) + e o,   light = 1 + x_in - r,   e = sqrt(A_t)

r is the residual that the state tells of. By Eq. 12 without noise x_t = x_0 + A_t R - D_t x_in, so

    (1 - D_t) x_in - x_t = (1 - A_t) r.

The first two look at x_in alone: where so little of the clean image is in the state, what it tells is no better than
what they know. They share all of the network but its finest block, so that one step costs less than two. From the third
on a step corrects what the state tells. The gain g and the offset o are found by an expert: two 3x3 convolutions over
what the context knows and the state shows. So a better state is a better start of the step, a state of an earlier frame
is a start like any other, and where there is nothing to mend the residual stays as it is. Such a step has no norm, no
mean and no change of size; what has to look at the whole image is in the context.

Eq. 12 then gives the next state, by schedule `rddm09-noiseless` from R_k alone. In terms of r it is r' = w r + (1 - w)
R_k with w of `StepTable.kept`, 0 there: the unrolled loop carries the light from step to step, and no rounding is
divided by 1 - A_t.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cled_edge.network.blocks import images_from_patches, patches_from_images, sinusoid
from cled_edge.network.presets import UNetConfig
from cled_edge.network.row_offsets import RowOffsets
from cled_edge.network.unet import (
    EMBEDDING,
    SINUSOIDS,
    PatchUNet,
    ResidualUNet,
    brightening,
    small_mlp,
)
from cled_edge.schedule import TIME_SCALE, Schedule, StepTable

# Of A_t * 1000. Above the first the coarse look speaks, above the second the whole network; below each further one
# begins an expert, and the last has the rest.
_BOUNDS = (999.0, 700.0, 300.0)


class Context(NamedTuple):
    """What the steps of a frame share.

    light: patches of x_in + 1, less what its rows are too bright by.
    coarse: features before the finest block, (N, widths[0], h, w). embedding: (N, 64). kinds: (N, K), a logit per kind
    of degradation. fine: features after the finest block; whole: the light of the clean estimate that they give, (N, 3
    f^2, h, w). A graph of one step needs neither, and has neither.
    """

    light: Tensor
    coarse: Tensor
    embedding: Tensor
    kinds: Tensor
    fine: Tensor
    whole: Tensor


class ExpertUNet(PatchUNet):
    """R = unet(x_t, x_in, time), as of ResidualUNet, by a context and one light step; time is (1,).

    `context` and `step` are the same for a loop that works out the context once. The names of what it shares with
    ResidualUNet are the same: the weights of a one-pass network give the second estimate as they are.
    """

    residual_cum: Tensor
    shared_cum: Tensor

    def __init__(self, config: UNetConfig, schedule: Schedule, kinds: int) -> None:
        super().__init__(config, kinds)
        width, channels = config.widths[0], 3 * config.unshuffle**2
        self.bounds = _BOUNDS[: 1 + len(config.inner)]
        self.begin = nn.Parameter(torch.zeros(EMBEDDING))
        self.rows = RowOffsets(config.unshuffle)
        self.coarse_gain, self.coarse_offset = (nn.Conv2d(width, channels, 1) for _ in range(2))
        self.coarse_global_gain, self.coarse_global_offset = (nn.Linear(EMBEDDING, 3) for _ in range(2))
        self.experts = nn.ModuleList(Expert(width, inner, channels) for inner in config.inner)
        self.time = TimeTable(config.inner)
        heads = (self.coarse_gain, self.coarse_offset, self.coarse_global_gain, self.coarse_global_offset)
        for layer in heads:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        tables = {"residual_cum": schedule.residual_cum, "shared_cum": schedule.shared_cum}
        for name, values in tables.items():
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32), persistent=False)

    @torch.no_grad()
    def begin_as(self, one_pass: ResidualUNet) -> None:
        """Take over what a one-pass network of the same sizes has: its estimate is then the second one of the loop."""
        known = {name: weight for name, weight in one_pass.state_dict().items() if name in self.state_dict()}
        self.load_state_dict({**self.state_dict(), **known})
        self.begin.copy_(one_pass.time_mlp(sinusoid(torch.tensor([TIME_SCALE]), SINUSOIDS))[0])

    def refinement(self) -> list[nn.Parameter]:
        """Return the parameters that the second estimate does not depend on: of the coarse look, experts, and kinds."""
        heads = self.coarse_gain, self.coarse_offset, self.coarse_global_gain, self.coarse_global_offset
        return [parameter for part in (*heads, self.experts, self.time, self.kinds) for parameter in part.parameters()]

    def forward(self, x_t: Tensor, x_in: Tensor, time: Tensor) -> Tensor:
        """Return the predicted residual, (N, 3, H, W), of a state at one time, (1,), A_t * 1000."""
        return self.judge(x_t, x_in, time)[0]

    def judge(self, x_t: Tensor, x_in: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted residual, (N, 3, H, W), and a logit per kind of degradation, (N, kinds)."""
        factor = self.config.unshuffle
        state, light = (patches_from_images(x, factor) for x in (x_t, x_in + 1))
        context = self.context(light)
        told = self._told(state, light, time)
        refined = [self.refined(told, context, time, index) for index in range(len(self.experts))]
        estimates = torch.stack([self.guessed(context), context.whole, *refined])
        # `index_select`: an index in brackets becomes the number of the example where a graph of one size is traced.
        clean = estimates.index_select(0, self._place(time))[0]
        return images_from_patches(light - clean, factor), context.kinds

    def context(self, light: Tensor) -> Context:
        """Return what the steps need of the degraded input; light: patches of x_in + 1, (N, 3 f^2, h, w)."""
        light = light - self.rows(light)
        exposure = self.exposure(light)
        stem = self.stem(light, exposure)
        deepest, skips, embedding = self.descend(stem, exposure + self.begin)
        coarse = self.rise(deepest, skips, embedding, finest=1)
        fine = self.decoder[0](coarse, embedding)
        whole = self.cleaned(fine, embedding, light).clamp(0, 2)
        return Context(light, coarse, embedding, self.kinds(embedding), fine, whole)

    def unrolled(self, light: Tensor, table: StepTable, context: Context | None = None) -> Tensor:
        """Return the light of a whole loop's last clean estimate, from the start without noise.

        light: 1 + x_in. context: of it; None is worked out.
        """
        *_, (clean, _) = self.estimates(self.context(light) if context is None else context, table)
        return clean

    def estimates(self, context: Context, table: StepTable) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each step's light of the clean estimate, and what the next state then tells, from the start."""
        told = context.light
        for time, kept in zip(table.time, table.kept, strict=True):
            clean = self.step(told, context, float(time))
            told = clean + float(kept) * (told - clean) if kept else clean
            yield clean, told

    def step(self, told: Tensor, context: Context, time: float) -> Tensor:
        """Return the light of the new clean estimate, 1 + x_in - R_k, patches in [0, 2].

        told: 1 + x_in - r, what the state says is clean. time: A_t * 1000.
        """
        place = self.place(time)
        if place == 0:
            return self.guessed(context)
        if place == 1:
            return context.whole
        return self.refined(told, context, told.new_tensor([time]), place - 2)

    def warm(self, told: Tensor, share: Tensor, context: Context, time: float) -> Tensor:
        """Return the light of the clean estimate after one step from what an earlier frame told.

        told: the light of its estimate, patches in [0, 2]. share: how far it counts, patches in [0, 1]; the rest is
        what the whole network says of this frame. time: one that an expert has, or what is told has no part in it.
        """
        return self.step(context.whole + share * (told - context.whole), context, time)

    def place(self, time: float) -> int:
        """Return what gives the estimate at a time: 0 the coarse look, 1 the whole network, 2 and on the experts."""
        return sum(time <= bound for bound in self.bounds)

    def guessed(self, context: Context) -> Tensor:
        """Return the light of the clean estimate that the coarse features give."""
        heads = self.coarse_gain, self.coarse_offset, self.coarse_global_gain, self.coarse_global_offset
        return self.cleaned(context.coarse, context.embedding, context.light, heads).clamp(0, 2)

    def refined(self, told: Tensor, context: Context, time: Tensor, index: int) -> Tensor:
        """Return the light of the clean estimate after one expert's correction of what the state tells."""
        error = (time / TIME_SCALE).sqrt().reshape(-1, 1, 1, 1)
        gain, offset = self.experts[index](told, context, self.time(time, index))
        return (told * brightening(error * gain) + error * offset).clamp(0, 2)

    def _told(self, state: Tensor, light: Tensor, time: Tensor) -> Tensor:
        """Return 1 + x_in - r of a state, patches in [0, 2]; the input's own where the state tells nothing."""
        share = time / TIME_SCALE
        left = 1 - share
        shared = self.shared_cum.index_select(0, (self.residual_cum - share).abs().argmin(0, keepdim=True))
        residual = ((1 - shared) * (light - 1) - state) / left.clamp_min(1e-6)
        return torch.where(left < 1e-6, light, light - residual).clamp(0, 2)

    def _place(self, time: Tensor) -> Tensor:
        return (time <= time.new_tensor(self.bounds)).sum(0, keepdim=True)


class Expert(nn.Module):
    """One step's correction: found = silu((look(features) + state(told)) (1 + scale) + shift), and two heads of it.

    The gain is one per patch and colour: exposure, veils and contrast are smooth. The offset is each pixel's own. The
    heads read what this step found, and nothing that an earlier one has corrected already.
    """

    spread: Tensor

    def __init__(self, width: int, inner: int, channels: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(width, inner, 3, padding=1)
        self.state = nn.Conv2d(channels, inner, 1, bias=False)
        self.scale = nn.Linear(EMBEDDING, inner)
        self.shift = nn.Linear(EMBEDDING, inner)
        self.gain = nn.Conv2d(inner, 3, 3, padding=1)
        self.offset = nn.Conv2d(inner, channels, 3, padding=1)
        spread = torch.eye(3).repeat(channels // 3, 1)[:, :, None, None]
        self.register_buffer("spread", spread, persistent=False)
        for layer in (self.scale, self.shift, self.gain, self.offset):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, told: Tensor, context: Context, time: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the gain's number and the offset, (N, 3 f^2, h, w) each, FP32."""
        scale, shift = (to(context.embedding)[:, :, None, None] for to in (self.scale, self.shift))
        look = self.look(context.fine) + self.state(told.to(self.state.weight.dtype))
        found = F.silu(look * (1 + scale + time[0]).to(look.dtype) + (shift + time[1]).to(look.dtype))
        # Spread over a patch by a convolution: a product of another rank would cost OpenVINO copies of the image.
        gain = F.conv2d(self.gain(found).float(), self.spread)
        return gain, self.offset(found).float()


class TimeTable(nn.Module):
    """What a step's time adds to an expert's scale and shift: constants once the schedule is chosen.

    inner: channels of each expert.
    """

    def __init__(self, inner: tuple[int, ...]) -> None:
        super().__init__()
        self.mlp = small_mlp(SINUSOIDS)
        self.scales, self.shifts = (nn.ModuleList(nn.Linear(EMBEDDING, n) for n in inner) for _ in range(2))
        for parameter in (*self.scales.parameters(), *self.shifts.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, time: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return what is added to the expert of this index, (1, inner, 1, 1) each, at a time (1,)."""
        x = F.silu(self.mlp(sinusoid(time, SINUSOIDS)))
        scale, shift = (to[index](x)[:, :, None, None] for to in (self.scales, self.shifts))
        return scale, shift
