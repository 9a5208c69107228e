"""The few-step loop as torch modules: reference for every runtime, and the step graph that export writes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cled_edge.contract import CONTROL_TENSORS, MAPS, MAX_STEPS, STRENGTH_MAP, WARM_MAPS
from cled_edge.network.blocks import images_from_patches, patches_from_images
from cled_edge.network.doubt import DoubtNet
from cled_edge.network.experts import ExpertUNet
from cled_edge.network.fusion import FusionNet, all_controls, remove
from cled_edge.network.light_fusion import LightFusion
from cled_edge.network.lineage import LineageUNet
from cled_edge.network.presets import FusionConfig, ModelConfig
from cled_edge.network.unet import ResidualUNet
from cled_edge.schedule import Schedule

UNet = ResidualUNet | ExpertUNet | LineageUNet


class ResidualStep(nn.Module):
    """One reverse step (Eq. 6 or 14, by its coefficients): one call of the network and the next state."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x_t: Tensor, x_in: Tensor, t: Tensor, coef: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x_prev, residual), (N, 3, H, W) each.

        t is (1,), A_t * 1000; coef is (4,), a row of `StepTable.coef`. The clean estimate is clamped to [-1, 1] and
        the residual is what it then differs by, so that x_in - residual is always an image.
        """
        return next_state(x_t, x_in, self.unet(x_t, x_in, t), coef)


class TellingStep(nn.Module):
    """The same, of a network that tells kinds of degradation apart, with what it tells."""

    def __init__(self, unet: ResidualUNet | ExpertUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x_t: Tensor, x_in: Tensor, t: Tensor, coef: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (x_prev, residual, kinds), of which the last is a logit per image and kind, (N, kinds)."""
        predicted, kinds = self.unet.judge(x_t, x_in, t)
        return *next_state(x_t, x_in, predicted, coef), kinds


def next_state(x_t: Tensor, x_in: Tensor, predicted: Tensor, coef: Tensor) -> tuple[Tensor, Tensor]:
    """Return (x_prev, residual) for a predicted residual, elementwise: images or patches.

    The residual itself has no clamp: images span [-1, 1], so what lies beyond [-2, 2] is cut with the estimate. The
    lineage's, at 1, cuts the residual of dark images.
    """
    clean = (x_in - predicted).clamp(-1, 1)
    residual = x_in - clean
    return coef[0] * x_t + coef[1] * clean + coef[2] * residual + coef[3] * x_in, residual


def make_unet(config: ModelConfig) -> UNet:
    """Return the residual network of the form that the configuration names."""
    if config.unet.form == "lineage":
        return LineageUNet(config.unet)
    schedule = Schedule.named(config.schedule)
    if config.unet.form == "experts":
        return ExpertUNet(config.unet, schedule, len(config.kinds))
    return ResidualUNet(config.unet, float(schedule.step_table(1).start_input), len(config.kinds))


def make_fusion(config: FusionConfig) -> FusionNet | LightFusion:
    """Return the fusion network of the form that the configuration names."""
    return LightFusion(config) if config.form == "light" else FusionNet(config)


class Sampler(nn.Module):
    """The few-step loop over a batch of degraded images."""

    def __init__(self, unet: UNet, schedule: Schedule) -> None:
        super().__init__()
        self.step = ResidualStep(unet)
        self.schedule = schedule

    def trajectory(self, x_in: Tensor, steps: int, noise: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (state, residual) after each of `steps` steps; `noise` is a standard normal or None for zero.

        Zero noise is the deterministic start x_T = (1 - D_T) x_in; Eq. 12 adds B_T times the noise.
        """
        table = self.schedule.step_table(steps)
        x = table.start_input * x_in
        if noise is not None:
            x = x + table.start_noise * noise
        for time, row in zip(table.time, table.coef, strict=True):
            x, residual = self.step(x, x_in, _tensor(time, x_in).reshape(1), _tensor(row, x_in))
            yield x, residual

    def forward(self, x_in: Tensor, steps: int, noise: Tensor | None = None) -> Tensor:
        """Return the last residual, (N, 3, H, W); the clean estimate is x_in minus it."""
        unet = self.step.unet
        if isinstance(unet, ExpertUNet) and noise is None:  # the same, with one context for all steps
            factor = unet.config.unshuffle
            clean = unet.unrolled(patches_from_images(x_in + 1, factor), self.schedule.step_table(steps))
            return x_in + 1 - images_from_patches(clean, factor)
        *_, (_, residual) = self.trajectory(x_in, steps, noise)
        return residual

    def warm(self, x_in: Tensor, told: Tensor, share: Tensor) -> Tensor:
        """Return the residual after one step from what an earlier frame told, (N, 3, H, W).

        told: its clean estimate, (N, 3, H, W) in [-1, 1]. share: how far it counts, (N, 1, H, W) in [0, 1].
        """
        unet = self.step.unet
        assert isinstance(unet, ExpertUNet)  # noqa: S101  no other form has such a step: `GraphSet` of one is refused
        factor = unet.config.unshuffle
        images = x_in + 1, told + 1, share.expand_as(x_in)
        light, before, counts = (patches_from_images(image, factor) for image in images)
        clean = unet.warm(before, counts, unet.context(light), warm_time(self.schedule))
        return x_in + 1 - images_from_patches(clean, factor)

    def kinds(self, x_in: Tensor, steps: int) -> Tensor | None:
        """Return what the last step tells of kinds, (N, kinds) logits; None of the lineage, which tells none."""
        unet = self.step.unet
        if isinstance(unet, LineageUNet):
            return None
        if isinstance(unet, ExpertUNet):  # by what the context knows, whatever the step
            return unet.context(patches_from_images(x_in + 1, unet.config.unshuffle)).kinds
        table = self.schedule.step_table(steps)
        states = [table.start_input * x_in, *(x for x, _ in self.trajectory(x_in, steps))]
        return unet.judge(states[steps - 1], x_in, _tensor(table.time[-1], x_in).reshape(1))[1]


def warm_time(schedule: Schedule) -> float:
    """Return the time of a step from an earlier frame's estimate: that of the last of the most steps.

    The state is then as near to clean as the network has learnt to correct.
    """
    return float(schedule.step_table(MAX_STEPS).time[-1])


class CledFusion(nn.Module):
    """Both networks and the loop: two images in, one out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.sampler = Sampler(make_unet(config), Schedule.named(config.schedule))
        self.fusion = make_fusion(config.fusion)
        self.doubt = DoubtNet(config.doubt) if config.doubt else None

    @property
    def unet(self) -> UNet:
        """The residual network."""
        return self.sampler.step.unet

    def restore(self, infrared: Tensor, visible: Tensor, steps: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the residuals of both, from one batch of twice the size."""
        both = self.sampler(torch.cat([infrared, visible]), steps or self.config.default_steps)
        first, second = both.chunk(2)
        return first, second

    def forward(
        self,
        infrared: Tensor,
        visible: Tensor,
        controls: Mapping[str, Tensor] | None = None,
        steps: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (fused, restored infrared, restored visible), (N, 3, H, W) in [-1, 1], controls as in FusionNet."""
        controls = all_controls(controls, infrared)
        infrared_residual, visible_residual = self.restore(infrared, visible, steps)
        fused = self.fusion(infrared, infrared_residual, visible, visible_residual, controls)
        s = controls["strength"].reshape(-1, 2, 1, 1, 1)
        return fused, remove(infrared, infrared_residual, s[:, 0]), remove(visible, visible_residual, s[:, 1])


class FusedLoop(nn.Module):
    """The whole of a frame as one graph: bytes in, prepare, the loop unrolled, fusion, bytes out.

    It computes what the step and fusion graphs do, but stays in patches from end to end, works out once what does not
    change over the loop, and leaves each step's time modulation to constant folding. The lineage has patches of one
    pixel, and nothing that stays the same.

    size: (height, width) of the frames, padded in here to the model's multiple; None takes multiples alone. tells: also
    return what the last step tells of kinds, which the lineage cannot.
    Bytes become floats before anything else and again at the very end: TensorRT allows UINT8 nowhere in between.
    """

    def __init__(
        self, model: CledFusion, steps: int, size: tuple[int, int] | None = None, *, tells: bool = False
    ) -> None:
        super().__init__()
        self.tells = tells
        self.unet, self.fusion = model.unet, model.fusion
        self.factor = model.config.unet.unshuffle
        self.size, multiple = size, model.config.size_multiple
        self.margin = tuple(-side % multiple for side in size) if size else (0, 0)  # below, right
        table = model.sampler.schedule.step_table(steps)
        self.start_input = float(table.start_input)
        self.register_buffer("time", torch.as_tensor(table.time, dtype=torch.float32), persistent=False)
        self.register_buffer("coef", torch.as_tensor(table.coef, dtype=torch.float32), persistent=False)
        self.table = table
        self.warm_time = warm_time(model.sampler.schedule)
        to_rgb = torch.eye(self.factor**2).repeat_interleave(3, 1)
        self.register_buffer("to_rgb", to_rgb, persistent=False)
        self.register_buffer("to_grey", to_rgb[:, :, None, None] / 3, persistent=False)

    time: Tensor
    coef: Tensor
    to_rgb: Tensor
    to_grey: Tensor

    def forward(
        self, infrared: Tensor, visible: Tensor, controls: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Return (fused, restored infrared, restored visible), uint8 (1, H, W, 3), (1, H, W, 1) and (1, H, W, 3).

        If it tells kinds, their logits come last, (2, kinds), infrared first.
        infrared and visible are uint8 (1, H, W, 1) and (1, H, W, 3), RGB. controls: as in FusionNet, (length,) each,
        and maybe `strength_map`, uint8 (1, H, W, 2): the share of either strength that holds at a pixel, 255 is all. Or
        `told`, uint8 (1, H, W, 4), the clean estimate of the last frame, and `told_share`, uint8 (1, H, W, 2), how far
        it counts: then one step runs, from there.
        """
        given = dict(controls or {})
        strength_map = given.pop(STRENGTH_MAP.name, None)
        told, told_share = (given.pop(name, None) for name in WARM_MAPS)
        light = self._patches(infrared, visible, 127.5)
        x_in = light - 1
        if told is None or told_share is None:
            residual, kinds = self._residual(x_in, light)
        else:
            residual, kinds = self._warm_residual(light, told, told_share)
        if strength_map is not None:
            shares = strength_map.float().split(1, dim=3)
            residual = residual * self._patches(shares[0], shares[1], 255)
        turned = all_controls(given, x_in)
        restored = remove(x_in, residual, turned["strength"].reshape(2, 1, 1, 1))
        fused = self.fusion.patches(restored[:1], restored[1:], turned)
        # The three infrared channels estimate one image; their mean is the better estimate.
        grey = F.conv2d(restored[:1], self.to_grey)
        frames = self._frame(fused), self._frame(grey), self._frame(restored[1:])
        return (*frames, kinds) if self.tells else frames

    def _residual(self, x_in: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loop's last residual, (2, 3 f^2, h, w), and what its last step tells of kinds, (2, kinds).

        x_in and light, which is x_in + 1, are patches too. The lineage tells of 0 kinds.
        """
        if isinstance(self.unet, ExpertUNet):
            context = self.unet.context(light)
            return light - self.unet.unrolled(light, self.table, context), context.kinds
        x_t = start = self.start_input * x_in
        residual, kinds = x_in, x_in.new_zeros((2, 0))
        predict = self._predictor(self.unet, x_in, light, start)
        for time, coef in zip(self.time, self.coef, strict=True):
            predicted, kinds = predict(x_t, time.reshape(1))
            x_t, residual = next_state(x_t, x_in, predicted, coef)
        return residual, kinds

    def _warm_residual(self, light: Tensor, told: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same of one step from the last frame's estimate."""
        assert isinstance(self.unet, ExpertUNet)  # noqa: S101  see `Sampler.warm`
        infrared, visible = told.float().split((1, 3), dim=3)
        before = self._patches(infrared, visible, 127.5)
        shares = share.float().split(1, dim=3)
        counts = self._patches(shares[0], shares[1], 255)
        context = self.unet.context(light)
        return light - self.unet.warm(before, counts, context, self.warm_time), context.kinds

    @staticmethod
    def _predictor(
        unet: ResidualUNet | LineageUNet, x_in: Tensor, light: Tensor, start: Tensor
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return the network as a function of a state and its time; what does not change is computed here."""
        if isinstance(unet, LineageUNet):
            return lambda x_t, time: (unet(x_t, x_in, time), x_in.new_zeros((2, 0)))
        context = unet.context(light)
        return lambda x_t, time: unet.patches(None if x_t is start else unet.seen(x_t, start), light, time, context)

    def _patches(self, infrared: Tensor, visible: Tensor, one: float) -> Tensor:
        """Return the patches of both, (2, 3 f^2, h, w), over `one`."""
        # All before the channels' place changes: after it, OpenVINO would copy them again, 3 of 47 ms.
        return (torch.cat([self._cut(infrared), self._cut(visible)]) / one).permute(0, 3, 1, 2)

    def _cut(self, frame: Tensor) -> Tensor:
        """Return (1, h, w, 3 f^2) of (1, H, W, C), padded by reflection; of one channel there come to be three."""
        x, f, (below, right) = frame.float(), self.factor, self.margin
        if below or right:
            x = F.pad(x.permute(0, 3, 1, 2), (0, right, 0, below), mode="reflect").permute(0, 2, 3, 1)
        n, height, width, channels = x.shape
        x = x.reshape(n, height // f, f, width // f, f * channels).transpose(2, 3)
        x = x.reshape(n, height // f, width // f, f * f * channels)
        return x @ self.to_rgb if channels == 1 else x

    def _frame(self, patches: Tensor) -> Tensor:
        """Return the uint8 (1, H, W, C) of patches in [-1, 1], rounded, clamped, without the padding."""
        n, channels, height, width = patches.shape
        f = self.factor
        x = ((patches + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
        x = x.reshape(n, height, width, f, channels // f).transpose(2, 3)
        x = x.reshape(n, height * f, width * f, channels // f**2)
        if self.size:
            x = x[:, : self.size[0], : self.size[1]]
        return x.to(torch.uint8)


class InOrder(nn.Module):
    """A network as its graph runs it: tensors in the order of `names`, controls and maps among them."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, tuple(names)

    def forward(self, *tensors: Tensor) -> Any:
        """Return what the network makes of the tensors, given by their names and controls as one mapping."""
        named: dict[str, Any] = dict(zip(self.names, tensors, strict=True))
        controls = {name: named.pop(name) for name in (*CONTROL_TENSORS, *MAPS) if name in named}
        return self.network(**named, controls=controls) if controls else self.network(**named)


def _tensor(values: np.ndarray | np.float64, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)
