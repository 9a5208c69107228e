"""Small networks and images for the tests that compute with torch."""

import torch

from cled_edge.network.presets import FusionConfig, ModelConfig, UNetConfig

TINY = ModelConfig(
    "tiny",
    UNetConfig("patch", (8, 8, 16), encoder_blocks=(0, 1, 1), decoder_blocks=(1, 1, 0), unshuffle=2),
    FusionConfig((8, 8, 16, 16), heads=(1, 2, 2, 2), windows=(4, 0, 4, 4), unshuffle=2, mix=True, detail=8),
)
LUMA = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)


def randomised(module, seed: int = 0, *, kept: float = 0.0):
    """Give every parameter a value: several start at zero, where a wrong formula would not show.

    kept: the share of its own value that it keeps beside the random one.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(kept).add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


def pictures(count: int, size: tuple[int, int] = (64, 128), seed: int = 1):
    """Return so many images (1, 3, H, W) of U(-1, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, *size, generator=generator) * 2 - 1 for _ in range(count)]
