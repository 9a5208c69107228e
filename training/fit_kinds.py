"""Fit the head by which a network tells kinds of degradation apart, and calibrate it; nothing else of it changes.

    python -m training.fit_kinds training/weights/nano.safetensors --data DATA --out training/weights/nano.safetensors

While a network is trained, telling kinds is a small part of its loss, and its numbers are no probabilities. Here its
embeddings of the degraded images of `fit_evidence` are kept, the linear head on them is fitted anew on the train part,
and a scale and an offset for each kind and modality on the choose part (Platt, 1999). They go into the checkpoint's
record, and `export.to_onnx` writes them into the manifest. What it reaches on the report part is printed, beside what
the head did before. Restored images do not depend on the head, so they stay as they are, bit for bit.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cled_edge.data.split import Part
from cled_edge.errors import CheckpointError, one_line_errors
from cled_edge.evidence.judging import area_under_curve, calibration_error
from cled_edge.files import check_writable
from cled_edge.image import Uint8
from cled_edge.network.checkpoint import CALIBRATION, load_checkpoint, save_checkpoint
from cled_edge.network.sampler import CledFusion
from cled_edge.network.unet import PatchUNet
from cled_edge.tensors import network_batch
from training.degradations import DEGRADATIONS, MODALITIES, Modality
from training.fit_evidence import degraded_images, labels_of

DECAYS = (1e-5, 1e-4, 1e-3)
_LEAST = 8  # of positives and of negatives, to calibrate a kind by


class Seen(NamedTuple):
    """embeddings: (N, 64). labels: (N, K), 1 or 0, NaN where it is left open."""

    embeddings: Tensor
    labels: Tensor


@torch.no_grad()
def seen_of(model: CledFusion, data: Path, modality: Modality, part: Part, draws: int) -> Seen:
    """Return what the network sees in the degraded images of a part."""
    embeddings, labels = [], []
    latest: list[Tensor] = []
    handle = unet_of(model).kinds.register_forward_pre_hook(lambda _, inputs: latest.append(inputs[0]))
    try:
        for made in degraded_images(data, modality, part, draws):
            model.sampler.kinds(image_tensor(made.image, model.config.size_multiple), 1)
            embeddings.append(latest[-1].clone())  # of a network of one pass there is one for each evaluation
            latest.clear()
            drawn = labels_of(made.drawn, model.config.kinds, is_dark=made.is_dark, is_enlarged=made.is_enlarged)
            labels.append(drawn)
    finally:
        handle.remove()
    return Seen(torch.cat(embeddings), torch.tensor(labels))


def unet_of(model: CledFusion) -> PatchUNet:
    """Return its network; CheckpointError if that tells no kinds."""
    if not isinstance(model.unet, PatchUNet):
        raise CheckpointError(f"{model.config.name} is of the lineage, which tells no kinds; take another checkpoint")
    return model.unet


def image_tensor(image: Uint8, multiple: int) -> Tensor:
    """Return grey (H, W) or RGB (H, W, 3) as the network takes it, (1, 3, H', W')."""
    grey = image if image.ndim == 2 else np.ascontiguousarray(image[:, :, 0])
    rgb = image if image.ndim == 3 else np.zeros((*image.shape, 3), np.uint8)
    both = network_batch(grey, rgb, multiple)
    return torch.from_numpy(both[:1] if image.ndim == 2 else both[1:])


def fitted(seen: Seen, decay: float) -> tuple[Tensor, Tensor]:
    """Return weights (K, 64) and biases (K,) of the logistic regressions; a label that is left open has no part."""
    x, labels = seen.embeddings.double(), seen.labels.double()
    mean, scale = x.mean(0), x.std(0).clamp_min(1e-3)
    z, known = (x - mean) / scale, ~torch.isnan(labels)
    weights = torch.zeros(labels.shape[1], x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(labels.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = F.binary_cross_entropy_with_logits(z @ weights.T + bias, labels.nan_to_num(), reduction="none")
        loss = (losses * known).sum() / len(labels) + decay * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    plain = weights.detach() / scale
    return plain.float(), (bias.detach() - plain @ mean).float()


def loss_of(head: tuple[Tensor, Tensor], seen: Seen) -> float:
    """Return the mean logarithmic loss over all labels that are known."""
    odds = seen.embeddings @ head[0].T + head[1]
    losses = F.binary_cross_entropy_with_logits(odds, seen.labels.nan_to_num().float(), reduction="none")
    return float(losses[~torch.isnan(seen.labels)].mean())


def calibrated(log_odds: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[float, float]:
    """Return the scale and the offset of the probability that fit best; (1, 0) where there are too few to tell."""
    known = ~np.isnan(labels)
    x, y = torch.from_numpy(log_odds[known]), torch.from_numpy(labels[known])
    if min(y.sum(), len(y) - y.sum()) < _LEAST:
        return 1.0, 0.0
    values = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([values], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(values[0] * x + values[1], y)
        # Few images in which a kind is told without fault would drive the scale up for ever.
        loss = loss + 1e-3 * (values[0] - 1).square()
        loss.backward()
        return loss

    optimizer.step(closure)
    scale, offset = values.detach().tolist()
    return round(scale, 4), round(offset, 4)


def main(
    checkpoint: Annotated[Path, typer.Argument(help="model.safetensors of a training run")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="the shared data, with pairs/ in it")],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="where the checkpoint goes; may be the same")],
    draws: Annotated[int, typer.Option(min=1, help="degraded versions of each image")] = 4,
) -> None:
    """Fit the head, print what is reached, and write."""
    with one_line_errors():
        check_writable(out)
        model, record = load_checkpoint(checkpoint)
        unet = unet_of(model)
        before = unet.kinds.weight.detach().clone(), unet.kinds.bias.detach().clone()
        parts: dict[tuple[str, Part], Seen] = {
            (modality, part): seen_of(model, data, modality, part, draws)
            for modality in MODALITIES
            for part in ("train", "choose", "report")
        }
        train, choose = (_joined([parts[modality, part] for modality in MODALITIES]) for part in ("train", "choose"))
        head = min((fitted(train, decay) for decay in DECAYS), key=lambda each: loss_of(each, choose))
        calibration = {m: _calibration(model, m, head, parts[m, "choose"]) for m in MODALITIES}
        for modality in MODALITIES:
            _tell(model, modality, parts[modality, "report"], before, head, calibration[modality])
        save_checkpoint(with_head(model, head), {**record, CALIBRATION: calibration}, out)
        print(f"wrote {out}")


def with_head(model: CledFusion, head: tuple[Tensor, Tensor]) -> CledFusion:
    """Return the model with another head."""
    unet = unet_of(model)
    with torch.no_grad():
        unet.kinds.weight.copy_(head[0])
        unet.kinds.bias.copy_(head[1])
    return model


def _joined(parts: list[Seen]) -> Seen:
    return Seen(torch.cat([part.embeddings for part in parts]), torch.cat([part.labels for part in parts]))


def _log_odds(head: tuple[Tensor, Tensor], seen: Seen) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = (seen.embeddings @ head[0].T + head[1]).double().numpy()
    return odds


def _calibration(model: CledFusion, modality: Modality, head: tuple[Tensor, Tensor], seen: Seen) -> dict[str, Any]:
    """Return scale and offset of each kind that the modality may have."""
    odds, labels = _log_odds(head, seen), seen.labels.double().numpy()
    return {
        kind: calibrated(odds[:, place], labels[:, place])
        for place, kind in enumerate(model.config.kinds)
        if kind in DEGRADATIONS[modality]
    }


def _tell(
    model: CledFusion,
    modality: str,
    seen: Seen,
    before: tuple[Tensor, Tensor],
    head: tuple[Tensor, Tensor],
    calibration: dict[str, tuple[float, float]],
) -> None:
    """Print, of each kind, how well it is told on the report part, before and after."""
    first, then, labels = _log_odds(before, seen), _log_odds(head, seen), seen.labels.double().numpy()
    for kind, (scale, offset) in calibration.items():
        place = model.config.kinds.index(kind)
        known = ~np.isnan(labels[:, place])
        there = labels[known, place] > 0
        chances = 1 / (1 + np.exp(-(scale * then[known, place] + offset)))
        print(
            f"{modality} {kind}: AUC {area_under_curve(then[known, place], there):.3f}, before "
            f"{area_under_curve(first[known, place], there):.3f}, calibration error "
            f"{calibration_error(chances, there):.3f}, {there.sum()} of {len(there)}"
        )


if __name__ == "__main__":
    typer.run(main)
