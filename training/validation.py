"""What a run is worth on held-out images: restoration by kind of degradation and number of steps, and fusion."""

from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Generator, Tensor

from cled_edge.data.datasets import find_pairs
from cled_edge.metrics.psnr import NETWORK_SPAN, psnr_db
from cled_edge.network.fusion import remove
from cled_edge.network.sampler import CledFusion
from training.crops import network_images, random_crop, unit_images
from training.degradations import MODALITIES, Modality, degrade, draw_kinds
from training.image_cache import ImageCache
from training.journal import Evaluation
from training.losses import fusion_losses
from training.pairs import readable_pairs
from training.recipe import DataRecipe

CROP_PX = 192
STEPS = (1, 2, 3)
CLEAN = "clean"
CLEAN_PSNR_DB = 60.0  # an untouched image would rule the mean
FUSION_PAIRS = 12
SHOWN = 4  # samples


class Validation:
    """Crops of held-out images, `count` for each kind and clean, the same at each call."""

    def __init__(
        self, root: Path, recipe: DataRecipe, images: ImageCache, count: int = 12, strict: bool = False
    ) -> None:
        pairs = readable_pairs(find_pairs(root, recipe.all_sets, "choose"), images, strict)
        rng, generator = np.random.default_rng(5), Generator().manual_seed(5)
        self.sets: dict[tuple[Modality, str], tuple[Tensor, Tensor]] = {}
        for modality in MODALITIES:
            held = [images(getattr(pair, f"{modality}_clean"), modality) for pair in pairs]
            if modality == "visible":
                held = [image for image in held if recipe.is_bright(float(image.mean()))] or held
            for kind in (*recipe.kinds_of(modality), CLEAN):
                crops = [random_crop([held[rng.integers(len(held))]], CROP_PX, rng)[0] for _ in range(count)]
                clean = unit_images(crops)
                names = () if kind == CLEAN else (kind,)
                degraded = degrade(clean, modality, [names] * count, generator)
                self.sets[modality, kind] = network_images(degraded), network_images(clean)

    @torch.no_grad()
    def __call__(self, model: CledFusion) -> Evaluation:
        """Return PSNR in dB: `visible_haze_input`, `visible_haze_1` and so on, and `visible_gain_1`, the mean gain."""
        result: dict[str, float] = {}
        gains: dict[str, list[float]] = {}
        samples: dict[str, list[Tensor]] = {}
        device = next(model.parameters()).device
        for (modality, kind), on_cpu in self.sets.items():
            x_in, clean = (x.to(device) for x in on_cpu)
            before = mean_psnr_db(x_in, clean)
            result[f"{modality}_{kind}_input"] = before
            for steps in STEPS:
                restored = x_in - model.sampler(x_in, steps)
                after = mean_psnr_db(restored, clean)
                result[f"{modality}_{kind}_{steps}"] = after
                if kind != CLEAN:
                    gains.setdefault(f"{modality}_gain_{steps}", []).append(after - before)
                if steps == model.config.default_steps:
                    samples[f"{modality}-{kind}"] = [x_in[0], restored[0], clean[0]]
        result |= {name: sum(values) / len(values) for name, values in gains.items()}
        return Evaluation(result, samples)


class FusionValidation:
    """Held-out pairs, clean and degraded, the same at each call."""

    def __init__(self, root: Path, recipe: DataRecipe, images: ImageCache, crop: int, strict: bool = False) -> None:
        pairs = readable_pairs(find_pairs(root, recipe.all_sets, "choose"), images, strict)
        rng, generator = np.random.default_rng(6), Generator().manual_seed(6)
        chosen = [pairs[index] for index in rng.permutation(len(pairs))[:FUSION_PAIRS]]
        crops = [
            random_crop([images(pair.infrared_clean, "infrared"), images(pair.visible_clean, "visible")], crop, rng)
            for pair in chosen
        ]
        self.clean: list[Tensor] = []
        self.degraded: list[Tensor] = []
        for modality, cut in zip(MODALITIES, zip(*crops, strict=True), strict=True):
            clean = unit_images(cut)
            kinds = [draw_kinds(recipe.kinds_of(modality), generator, clean=0.0, mixed=0.3) for _ in cut]
            self.clean.append(network_images(clean))
            self.degraded.append(network_images(degrade(clean, modality, kinds, generator)))

    @torch.no_grad()
    def __call__(self, model: CledFusion) -> Evaluation:
        """Return the losses of Eq. 16 to 18 at full strength and balance 0.5, towards the clean pair."""
        device = next(model.parameters()).device
        infrared, visible = (x.to(device) for x in self.clean)
        balance = torch.full((1,), 0.5, device=device)
        result: dict[str, float] = {}
        samples: dict[str, list[Tensor]] = {}
        for name, pair in (("clean", self.clean), ("degraded", self.degraded)):
            seen = [x.to(device) for x in pair]
            residuals = model.restore(seen[0], seen[1])
            fused = model.fusion(seen[0], residuals[0], seen[1], residuals[1], {"balance": balance})
            parts = fusion_losses((fused + 1) / 2, (infrared + 1) / 2, (visible + 1) / 2, balance)
            result |= {f"held_out_{name}_{part}": value.item() for part, value in parts.items()}
            restored = remove(seen[1], residuals[1], torch.ones(1, device=device))
            for index in range(min(SHOWN, len(fused))):
                samples[f"{name}-{index}"] = [seen[0][index], seen[1][index], restored[index], fused[index]]
        return Evaluation(result, samples)


def mean_psnr_db(seen: Tensor, reference: Tensor) -> float:
    """Return the mean PSNR in dB of images (N, 3, H, W) in [-1, 1], each at most 60."""
    pairs = zip(seen.cpu().numpy(), reference.cpu().numpy(), strict=True)
    return fmean(min(CLEAN_PSNR_DB, psnr_db(one, other, NETWORK_SPAN)) for one, other in pairs)
