"""The few-step loop as torch modules: reference for every runtime, and the step graph that export writes."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from cled_edge.network.fusion import FusionNet, remove
from cled_edge.network.presets import ModelConfig
from cled_edge.network.unet import ResidualUNet
from cled_edge.schedule import Schedule

RESIDUAL_CLAMP = 2.0  # pictures span [-1, 1]; the lineage clamps at 1 and cuts the residual of dark pictures


class ResidualStep(nn.Module):
    """One reverse step (Eq. 6 or 14, by its coefficients): one call of the network and the next state."""

    def __init__(self, unet: ResidualUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x_t: Tensor, x_in: Tensor, t: Tensor, coef: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x_prev, residual), (N, 3, H, W) each.

        t is (1,), A_t * 1000; coef is (4,), a row of `StepTable.coef`. The clean estimate is clamped to [-1, 1] and
        the residual is what it then differs by, so that x_in - residual is always a picture.
        """
        predicted = self.unet(x_t, x_in, t).clamp(-RESIDUAL_CLAMP, RESIDUAL_CLAMP)
        clean = (x_in - predicted).clamp(-1, 1)
        residual = x_in - clean
        x_prev = coef[0] * x_t + coef[1] * clean + coef[2] * residual + coef[3] * x_in
        return x_prev, residual


class Sampler(nn.Module):
    """The few-step loop over a batch of degraded pictures."""

    def __init__(self, unet: ResidualUNet, schedule: Schedule) -> None:
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
        *_, (_, residual) = self.trajectory(x_in, steps, noise)
        return residual


class CledFusion(nn.Module):
    """Both networks and the loop: two pictures in, one out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.sampler = Sampler(ResidualUNet(config.unet), Schedule.named(config.schedule))
        self.fusion = FusionNet(config.fusion)

    @property
    def unet(self) -> ResidualUNet:
        """The residual network."""
        return self.sampler.step.unet

    def restore(self, infrared: Tensor, visible: Tensor, steps: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the residuals of both, from one batch of twice the size."""
        both = self.sampler(torch.cat([infrared, visible]), steps or self.config.default_steps)
        first, second = both.chunk(2)
        return first, second

    def forward(
        self, infrared: Tensor, visible: Tensor, strength: Tensor, balance: Tensor, steps: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (fused, restored infrared, restored visible), (N, 3, H, W) in [-1, 1], controls as in FusionNet."""
        infrared_residual, visible_residual = self.restore(infrared, visible, steps)
        fused = self.fusion(infrared, infrared_residual, visible, visible_residual, strength, balance)
        s = strength.reshape(-1, 2, 1, 1, 1)
        return fused, remove(infrared, infrared_residual, s[:, 0]), remove(visible, visible_residual, s[:, 1])


def _tensor(values: np.ndarray | np.float64, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)
