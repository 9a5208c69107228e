"""What the restoration network gains on held-out pictures: PSNR by kind of degradation and number of steps."""

from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from cled_edge.network.sampler import CledFusion
from training.degradations import KINDS, Modality, degrade
from training.pairs import find_pairs, is_bright, network_pictures, random_crop, read_kept, unit_pictures
from training.recipe import DataRecipe

CROP_PX = 192
STEPS = (1, 2, 3)
CLEAN = "clean"
CLEAN_PSNR_DB = 60.0  # an untouched picture would rule the mean


class Validation:
    """Crops of held-out pictures, `count` for each kind and clean, the same at each call."""

    def __init__(self, root: Path, recipe: DataRecipe, count: int = 12) -> None:
        pairs = find_pairs(root, recipe.pairs, held_out=True)
        rng, generator = np.random.default_rng(5), Generator().manual_seed(5)
        self.sets: dict[tuple[Modality, str], tuple[Tensor, Tensor]] = {}
        modalities: tuple[Modality, Modality] = ("infrared", "visible")
        for modality in modalities:
            pictures = [read_kept(getattr(pair, modality), modality) for pair in pairs]
            if modality == "visible":
                pictures = [p for p in pictures if is_bright(p, recipe)] or pictures
            for kind in (*KINDS[modality], CLEAN):
                crops = [random_crop([pictures[rng.integers(len(pictures))]], CROP_PX, rng)[0] for _ in range(count)]
                clean = unit_pictures(crops)
                names = () if kind == CLEAN else (kind,)
                degraded = degrade(clean, modality, [names] * count, generator)
                self.sets[modality, kind] = network_pictures(degraded), network_pictures(clean)

    @torch.no_grad()
    def __call__(self, model: CledFusion) -> dict[str, float]:
        """Return PSNR in dB: `visible_haze_input`, `visible_haze_1` and so on, and `visible_gain_1`, the mean gain."""
        result: dict[str, float] = {}
        gains: dict[str, list[float]] = {}
        for (modality, kind), (x_in, clean) in self.sets.items():
            before = psnr_db(x_in, clean)
            result[f"{modality}_{kind}_input"] = before
            for steps in STEPS:
                after = psnr_db(x_in - model.sampler(x_in, steps), clean)
                result[f"{modality}_{kind}_{steps}"] = after
                if kind != CLEAN:
                    gains.setdefault(f"{modality}_gain_{steps}", []).append(after - before)
        return result | {name: sum(values) / len(values) for name, values in gains.items()}


def psnr_db(x: Tensor, reference: Tensor) -> float:
    """Return the mean PSNR of pictures in [-1, 1], each at most 60 dB."""
    error = ((x - reference) / 2).square().mean(dim=(1, 2, 3))
    return (-10 * torch.log10(error)).clamp(max=CLEAN_PSNR_DB).mean().item()
