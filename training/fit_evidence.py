"""Fit how likely each kind of degradation is by an image's measures, and write the coefficients that the robot reads.

    python -m training.fit_evidence --data DATA --out cled_edge/evidence/likelihood.json

Images of the train part are degraded by the simulators of `degradations.py`, one kind, two or none; a logistic
regression of each kind against the rest is fitted on their measures and the squares of these. Its regularisation and a
last temperature are chosen on the choose part. What it reaches on the report part is printed.

A quarter of the images is degraded small and then enlarged, as many cameras do: a pattern is then wider than a pixel.

Three simulated kinds, `low_contrast`, `another_agc` and `hot_target`, are one kind of evidence: the scene is pressed
into few levels. Where a simulator adds noise of its own, as stripes and low light do, whether there is noise is left
open, and so is low light for a visible image that is dark by itself.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch.nn import functional as F

from cled_edge.data.datasets import DataSet, pairs_of_set
from cled_edge.data.split import Part, part_of
from cled_edge.errors import one_line_errors
from cled_edge.evidence.likelihood import KINDS, MODEL_SIGNS, Model, write_models
from cled_edge.evidence.signs import numbers_of, signs_of
from cled_edge.files import check_writable
from cled_edge.image import Uint8, read_image
from training.degradations import DEGRADATIONS, MODALITIES, Modality, degrade, draw_kinds

SETS = ("pairs/msrs", "pairs/roadscene", "pairs/m3fd", "pairs/llvip")
PRESSED = {"another_agc": "low_contrast", "hot_target": "low_contrast"}
OWN_NOISE = {"stripes", "low_light"}  # simulators that add noise of their own
DARK_BELOW = 60.0  # mean luma of a visible image that may be called low light as it is
LONGEST_PX = 640
CROP_PX = 288, 352
CLEAN, MIXED = 0.2, 0.3  # shares of the draws
ENLARGED, ENLARGED_MOST = 0.25, 1.5  # share of the images, and by how much more than 1
DECAYS = (1e-5, 1e-4, 3e-4, 1e-3)
_LEAST_SCALE = 1e-3  # of what never varies, as the saturation of infrared


class Degraded(NamedTuple):
    """An image, grey (H, W) or RGB (H, W, 3), by what was drawn for it, see `labels_of`."""

    image: Uint8
    drawn: tuple[str, ...]
    is_dark: bool
    is_enlarged: bool


class Samples(NamedTuple):
    """numbers: (N, F). labels: (N, K), 1 or 0, NaN where it is left open."""

    numbers: NDArray[np.float64]
    labels: NDArray[np.float64]


def base_images(data: Path, modality: Modality, part: Part) -> Iterator[tuple[str, Uint8]]:
    """Yield the names and the images of one part of all sets."""
    for folder in SETS:
        for pair in pairs_of_set(data, DataSet(root=folder)):
            if part_of(pair.unit) == part:
                path = pair.infrared if modality == "infrared" else pair.visible
                image = read_image(path, color=modality == "visible")
                scale = LONGEST_PX / max(image.shape[:2])
                if scale < 1:
                    image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
                yield f"{folder}/{pair.unit}", image


def samples_of(data: Path, modality: Modality, part: Part, draws: int) -> Samples:
    """Return the measures and labels of `draws` degraded versions of each image of a part; the same at each call."""
    numbers, labels = [], []
    for made in degraded_images(data, modality, part, draws):
        numbers.append(numbers_of(signs_of(made.image), MODEL_SIGNS))
        labels.append(labels_of(made.drawn, KINDS[modality], is_dark=made.is_dark, is_enlarged=made.is_enlarged))
    return Samples(np.array(numbers), np.array(labels))


def degraded_images(data: Path, modality: Modality, part: Part, draws: int) -> Iterator[Degraded]:
    """Yield `draws` degraded versions of each image of a part; the same ones at each call."""
    names = [*DEGRADATIONS[modality]]
    for name, whole in base_images(data, modality, part):
        for draw in range(draws):
            generator = torch.Generator().manual_seed(zlib.crc32(f"{modality}/{name}/{draw}".encode()))
            image = cropped(whole, generator)
            clean = torch.from_numpy(image.reshape(*image.shape[:2], -1)).permute(2, 0, 1)[None].float() / 255
            is_dark = modality == "visible" and float(signs_of(image)["mean"]) < DARK_BELOW
            drawn = draw_kinds(names, generator, CLEAN, MIXED)
            factor = enlargement(generator)
            small = clean if factor == 1 else F.interpolate(clean, scale_factor=1 / factor, mode="area")
            made = degrade(small, modality, [drawn], generator)[0].mul(255).round().byte().permute(1, 2, 0).numpy()
            if factor > 1:
                made = np.asarray(cv2.resize(made, image.shape[1::-1], interpolation=cv2.INTER_LINEAR))
            yield Degraded(made.reshape(image.shape), drawn, is_dark, factor > 1)


def cropped(image: Uint8, generator: torch.Generator) -> Uint8:
    """Return a random part of an image, of at most `CROP_PX`: it costs a third of a whole one."""
    sides = [min(most, side) for most, side in zip(CROP_PX, image.shape, strict=False)]
    shares = torch.rand(2, generator=generator).tolist()
    y, x = (int(share * (side - own + 1)) for share, side, own in zip(shares, image.shape, sides, strict=False))
    return np.ascontiguousarray(image[y : y + sides[0], x : x + sides[1]])


def enlargement(generator: torch.Generator) -> float:
    """Draw by what an image is enlarged: 1 for most."""
    chosen, factor = torch.rand(2, generator=generator).tolist()
    return 1 + ENLARGED_MOST * factor if chosen < ENLARGED else 1.0


def labels_of(
    drawn: tuple[str, ...], kinds: tuple[str, ...], *, is_dark: bool, is_enlarged: bool = False
) -> list[float]:
    """Return 1 for each kind that is there, 0 for each that is not, NaN for what is left open."""
    there = {*drawn, *(PRESSED.get(name, name) for name in drawn)}
    left_open = ({"noise"} if OWN_NOISE & there else set()) | ({"low_light"} if is_dark else set())
    left_open |= {"blur", "jpeg", "dead_pixels"} if is_enlarged else set()
    if is_enlarged:  # blocks and dead pixels are no longer what their measures look for
        there -= {"jpeg", "dead_pixels"}
    return [1.0 if kind in there else float("nan") if kind in left_open else 0.0 for kind in kinds]


def fitted(samples: Samples, kinds: tuple[str, ...], decay: float) -> Model:
    """Return the logistic regressions of all kinds, each on the samples that say whether it is there."""
    mean, scale = samples.numbers.mean(axis=0), samples.numbers.std(axis=0).clip(_LEAST_SCALE)
    model = Model(kinds, mean, scale, np.zeros((len(kinds), 2 * len(mean))), np.zeros(len(kinds)))
    terms = torch.from_numpy(model.terms(samples.numbers))
    labels = torch.from_numpy(samples.labels)
    known = ~torch.isnan(labels)
    weights = torch.zeros(terms.shape[1], len(kinds), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(kinds), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        losses = F.binary_cross_entropy_with_logits(terms @ weights + bias, labels.nan_to_num(), reduction="none")
        loss = (losses * known).sum() / len(labels) + decay * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return model._replace(weights=weights.detach().numpy().T, bias=bias.detach().numpy())


def loss_of(model: Model, samples: Samples) -> float:
    """Return the mean logarithmic loss over all labels that are known."""
    odds = torch.from_numpy(model.log_odds(samples.numbers))
    known = ~np.isnan(samples.labels)
    losses = F.binary_cross_entropy_with_logits(odds, torch.from_numpy(np.nan_to_num(samples.labels)), reduction="none")
    return float(losses.numpy()[known].mean())


def tempered(model: Model, samples: Samples) -> Model:
    """Return the model with its odds scaled kind by kind, by what fits the samples best (Guo et al., 2017)."""
    weights, bias = model.weights.copy(), model.bias.copy()
    for index in range(len(model.kinds)):
        only = Samples(samples.numbers, samples.labels[:, index : index + 1])
        one = model._replace(kinds=model.kinds[index : index + 1])

        def at(factor: float, index: int = index, one: Model = one, only: Samples = only) -> float:
            scaled = one._replace(
                weights=model.weights[index : index + 1] * factor, bias=model.bias[index : index + 1] * factor
            )
            return loss_of(scaled, only)

        factor = min(np.linspace(0.4, 1.3, 19), key=at)
        weights[index] *= factor
        bias[index] *= factor
    return model._replace(weights=weights, bias=bias)


def main(
    data: Annotated[Path, typer.Option(metavar="DIR", help="the shared data, with pairs/ in it")],
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="where the coefficients go")],
    draws: Annotated[int, typer.Option(min=1, help="degraded versions of each image")] = 12,
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help="keep the measures there")] = None,
) -> None:
    """Fit, print what is reached, and write."""
    with one_line_errors():
        check_writable(out)
        models: dict[str, Model] = {}
        for modality in MODALITIES:
            parts = {part: _cached(cache, data, modality, part, draws) for part in ("train", "choose", "report")}
            tried = [fitted(parts["train"], KINDS[modality], decay) for decay in DECAYS]
            chosen = min(tried, key=lambda model: loss_of(model, parts["choose"]))
            models[modality] = tempered(chosen, parts["choose"])
            _tell(modality, models[modality], parts["report"])
        write_models(out, models)
        print(f"wrote {out}")


def _cached(cache: Path | None, data: Path, modality: Modality, part: Part, draws: int) -> Samples:
    path = cache and cache / f"{modality}-{part}-{draws}.npz"
    if path and path.exists():
        with np.load(path) as kept:
            return Samples(kept["numbers"], kept["labels"])
    samples = samples_of(data, modality, part, draws)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, numbers=samples.numbers, labels=samples.labels)
    return samples


def _tell(modality: str, model: Model, samples: Samples) -> None:
    """Print the area under the curve of each kind against the rest on the report part."""
    from cled_edge.evidence.judging import area_under_curve, calibration_error  # noqa: PLC0415

    probabilities = model.probabilities(samples.numbers)
    for index, kind in enumerate(model.kinds):
        known = ~np.isnan(samples.labels[:, index])
        labels, told = samples.labels[known, index] > 0, probabilities[known, index]
        print(
            f"{modality} {kind}: AUC {area_under_curve(told, labels):.3f}, calibration error "
            f"{calibration_error(told, labels):.3f}, {labels.sum()} of {len(labels)}"
        )


if __name__ == "__main__":
    typer.run(main)
